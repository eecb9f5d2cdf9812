"""A person at a terminal: a command on a real pty, typed at, read from, resized."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

from tests.support.engine import SECONDS


class Terminal:
    """A command whose stdin, stdout and stderr are one pty; ended with the context."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self._controller, terminal = os.openpty()
        self._size(rows, columns)
        self.seen = ""
        self._read_to = 0
        self.process = subprocess.Popen(
            arguments, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        os.close(terminal)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._controller)

    def _size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a terminal emulator does; the command gets its SIGWINCH."""
        self._size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def send(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def expect(self, text: str) -> None:
        """Read until `text` has come, behind what was expected before."""
        deadline = time.monotonic() + SECONDS
        while (found := self.seen.find(text, self._read_to)) < 0:
            assert self._read(deadline - time.monotonic()), f"{text!r} did not come, but {self.seen!r}"
        self._read_to = found + len(text)

    def wait(self) -> int:
        """Read until the command ends: its exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(SECONDS)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._controller], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._controller, 65536)
        except OSError:
            return False  # EIO: nobody has the other end
        self.seen += data.decode(errors="replace")
        return bool(data)
