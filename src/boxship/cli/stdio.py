"""This terminal joined to a process in a container."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHUNK = 1 << 16
_HEADER = 8


def terminal_size() -> tuple[int, int]:
    """Columns and rows."""
    found = shutil.get_terminal_size((80, 24))
    return found.columns, found.lines


@contextmanager
def raw_terminal(enabled: bool) -> Iterator[None]:
    """Hand every key on as it is pressed."""
    if not enabled:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def on_resize(act: Callable[[int, int], None]) -> Iterator[None]:
    """Call `act` with the terminal's size now and whenever it changes."""

    def changed(*_: object) -> None:
        with contextlib.suppress(Exception):
            act(*terminal_size())

    before = signal.signal(signal.SIGWINCH, changed)
    changed()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def relay(connection: socket.socket, early: bytes, *, stdin: bool, framed: bool) -> None:
    """Carry our stdin to the process and its output to us, until its output ends."""
    if stdin:
        threading.Thread(target=_send, args=(connection,), name="stdin", daemon=True).start()
    pending = bytearray(early)
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    while True:
        if framed:
            _write_frames(pending)
        elif pending:
            _write(1, bytes(pending))
            pending.clear()
        selector.select()
        try:
            data = connection.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            return
        pending += data


def _send(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _write_frames(pending: bytearray) -> None:
    while len(pending) >= _HEADER:
        length = int.from_bytes(pending[4:_HEADER], "big")
        if len(pending) < _HEADER + length:
            return
        _write(2 if pending[0] == 2 else 1, bytes(pending[_HEADER : _HEADER + length]))
        del pending[: _HEADER + length]


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_frames(parts: Iterator[bytes]) -> None:
    """Print framed output as it comes."""
    pending = bytearray()
    for part in parts:
        pending += part
        _write_frames(pending)


def write_raw(parts: Iterator[bytes]) -> None:
    for part in parts:
        _write(1, part)


@contextmanager
def forwarded_signals(send: Callable[[str], None], *, enabled: bool) -> Iterator[None]:
    """Pass the signals that we get on to the process."""
    if not enabled:
        yield
        return
    before = {}

    def handler(number: int, _: object) -> None:
        with contextlib.suppress(Exception):
            send(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
