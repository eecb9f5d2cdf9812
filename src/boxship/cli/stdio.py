"""This terminal joined to a process in a container."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boxship.http.client import Connection

_CHUNK = 1 << 16
_HEADER = 8
_FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT,
)  # fmt: skip


def terminal_size() -> tuple[int, int]:
    """Columns and rows; 80 and 24 where no stream of ours is a terminal."""
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(descriptor)
            if found.columns and found.lines:
                return found.columns, found.lines
    return 80, 24


@contextmanager
def raw_terminal(enabled: bool) -> Iterator[None]:
    """Hand every key on as it is pressed, where stdin is a terminal."""
    if not enabled or not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)  # what was typed ahead is not lost
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def on_resize(act: Callable[[int, int], None], *, enabled: bool) -> Iterator[None]:
    """Call `act` with the terminal's size now and whenever it changes."""
    if not enabled:
        yield
        return

    def changed(*_: object) -> None:
        with contextlib.suppress(Exception):  # the process may have ended
            act(*terminal_size())

    before = signal.signal(signal.SIGWINCH, changed)
    changed()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def forwarded_signals(send: Callable[[str], None], *, enabled: bool) -> Iterator[None]:
    """Pass the signals that we get on to the process."""
    if not enabled:
        yield
        return

    def handler(number: int, _: object) -> None:
        with contextlib.suppress(Exception):  # it may not have begun yet, or have ended
            send(signal.Signals(number).name)

    before = {number: signal.signal(number, handler) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class DetachKeys:
    """Whether the keys that detach were typed. The engine acts on them; here they tell a detached process from an ended one."""

    def __init__(self, keys: str = "") -> None:
        """The keys as options give them; the engine refuses those that cannot be read."""
        names = (keys or "ctrl-p,ctrl-q").split(",")
        self._sequence = b"".join(bytes([ord(name[-1].upper()) & 31]) if name[:-1] == "ctrl-" else name.encode() for name in names)
        self._last = b""
        self.typed = False

    def see(self, data: bytes) -> None:
        self._last += data
        self.typed = self.typed or self._sequence in self._last
        self._last = self._last[-len(self._sequence) :]


def relay(connection: Connection, early: bytes, *, stdin: bool, framed: bool, keys: DetachKeys | None = None) -> None:
    """Carry our stdin to the process and its output to us, until its output ends."""
    if stdin:
        threading.Thread(target=_send, args=(connection, keys or DetachKeys()), name="stdin", daemon=True).start()

    def parts() -> Iterator[bytes]:
        yield early
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(_CHUNK):
                yield data

    (write_frames if framed else write_raw)(parts())


def _send(connection: Connection, keys: DetachKeys) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _CHUNK):
            keys.see(data)
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def write_frames(parts: Iterator[bytes]) -> None:
    """Print framed output as it comes: what is stderr's on stderr (Engine API, "Stream format")."""
    pending = bytearray()
    for part in parts:
        pending += part
        position = 0
        while len(pending) - position >= _HEADER:
            end = position + _HEADER + int.from_bytes(pending[position + 4 : position + _HEADER], "big")
            if len(pending) < end:
                break
            _write(2 if pending[position] == 2 else 1, bytes(pending[position + _HEADER : end]))
            position = end
        del pending[:position]


def write_raw(parts: Iterator[bytes]) -> None:
    """Print a terminal's output as it comes."""
    for part in parts:
        _write(1, part)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody else has made our terminal non-blocking
            select.select([], [descriptor], [])
