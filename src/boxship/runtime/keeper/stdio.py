"""A process's stdio: from its pipes or its terminal to the log and to whoever is attached."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable

from boxship.runtime.keeper.logs import LogWriter
from boxship.runtime.keeper.loop import HANGUP, READ, WRITE, Loop

_CHUNK = 1 << 16
_BEHIND = 1 << 20
"""How many bytes a reader may be behind before the process has to wait for it."""

_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}


class Attachment:
    """One attached reader and writer: a stream socket whose other end the daemon has."""

    def __init__(self, stdio: Stdio, *, stdin: bool, stdout: bool, stderr: bool, raw: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        ours.setblocking(False)
        self.theirs: socket.socket | None = theirs
        self._stdio = stdio
        self._socket = ours
        self._streams = {name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted}
        self._raw = raw
        self._stdin = stdin
        self._reading = True
        self._pending = bytearray()
        self._ending = False
        self._rewatch()

    @property
    def behind(self) -> bool:
        return len(self._pending) > _BEHIND

    def _rewatch(self) -> None:
        reading = self._reading and not self._stdio.stdin_full
        events = (READ if reading else 0) | (WRITE if self._pending else 0)
        self._stdio.loop.watch(self._socket.fileno(), self._ready, events)

    def resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._rewatch()

    def offer(self, stream: str, data: bytes) -> None:
        """Send output, as much as goes now; the rest waits."""
        if stream not in self._streams or self._socket.fileno() < 0:
            return
        frame = data if self._raw else struct.pack(">BxxxI", _STREAM_NUMBERS[stream], len(data)) + data
        if not self._pending:
            with contextlib.suppress(BlockingIOError):
                try:
                    sent = self._socket.send(frame)
                except (BrokenPipeError, ConnectionResetError):
                    self.close()
                    return
                frame = frame[sent:]
        if frame:
            self._pending += frame
            self._rewatch()

    def end(self) -> None:
        """No more output comes: close once what is pending has been read."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._stdio.loop.forget(self._socket.fileno())
        self._socket.close()
        self._stdio.detach(self)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._pending:
            try:
                del self._pending[: self._socket.send(self._pending)]
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._stdio.reader_caught_up()
            if not self._pending and self._ending:
                self.close()
                return
            self._rewatch()
        if events & ~WRITE:
            self._read(hung_up=bool(events & HANGUP))

    def _read(self, *, hung_up: bool) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            if self._stdin:
                self._stdio.feed(data)
                self._rewatch()
            return
        # the daemon has shut its writing side down, or closed the socket altogether
        self._reading = False
        if self._stdin:
            self._stdio.input_ended()
        if hung_up or not self._streams:
            self.close()
        else:
            self._rewatch()


class Stdio:
    """The stdio of one process. Ends of pipes are owned here; the log is optional."""

    def __init__(self, loop: Loop, *, stdin_once: bool) -> None:
        self.loop = loop
        self.log: LogWriter | None = None
        self.terminal = -1
        self._outputs: dict[int, str] = {}
        self._paused: set[int] = set()
        self._stdin = -1
        self.stdin_once = stdin_once
        self._input = bytearray()
        self._input_ends = False
        self._attachments: list[Attachment] = []
        self.deserted: Callable[[], object] | None = None
        """Called when the last reader goes and has left no input, as long as the process has not started."""

    @property
    def stdin_full(self) -> bool:
        return len(self._input) > _BEHIND

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool, raw: bool) -> Attachment:
        attachment = Attachment(self, stdin=stdin, stdout=stdout, stderr=stderr, raw=raw)
        self._attachments.append(attachment)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        with contextlib.suppress(ValueError):
            self._attachments.remove(attachment)
        self.reader_caught_up()
        if not (self._attachments or self._input or self._input_ends) and self.deserted is not None:
            self.deserted()

    def connect(self, stdin: int, stdout: int, stderr: int) -> None:
        """Take the keeper's ends of the pipes; `stdin` is -1 where the process has none."""
        for descriptor, name in ((stdout, "stdout"), (stderr, "stderr")):
            self._add_output(descriptor, name)
        if stdin >= 0:
            os.set_blocking(stdin, False)
        self._stdin = stdin
        self._flush_input()

    def connect_terminal(self, terminal: int, *, stdin: bool) -> None:
        self.terminal = terminal
        self._add_output(terminal, "stdout")
        if stdin:
            self._stdin = terminal
            self._flush_input()

    def _add_output(self, descriptor: int, name: str) -> None:
        os.set_blocking(descriptor, False)
        self._outputs[descriptor] = name
        self._watch_output(descriptor)

    def _watch_output(self, descriptor: int) -> None:
        reading = 0 if descriptor in self._paused else READ
        writing = WRITE if descriptor == self._stdin and self._input else 0
        self.loop.watch(descriptor, lambda events: self._output_ready(descriptor, events), reading | writing)

    def _output_ready(self, descriptor: int, events: int) -> None:
        if events & WRITE and descriptor == self._stdin:
            self._flush_input()
        if events & ~WRITE and not self._read_output(descriptor):
            self._close_output(descriptor)

    def _read_output(self, descriptor: int) -> bool:
        """Pass one chunk on; False at the end of the stream."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last process has closed the terminal
        if not data:
            return False
        self._pass_on(descriptor, data)
        if any(attachment.behind for attachment in self._attachments):
            self._paused.add(descriptor)
            self._watch_output(descriptor)
        return True

    def reader_caught_up(self) -> None:
        if self._paused and not any(attachment.behind for attachment in self._attachments):
            for descriptor in list(self._paused):
                self._paused.discard(descriptor)
                if descriptor in self._outputs:
                    self._watch_output(descriptor)

    def _close_output(self, descriptor: int) -> None:
        self.loop.forget(descriptor)
        self._outputs.pop(descriptor, None)
        self._paused.discard(descriptor)
        if descriptor == self._stdin:
            self._stdin = -1
        if descriptor == self.terminal:
            self.terminal = -1
        os.close(descriptor)

    def feed(self, data: bytes) -> None:
        """Bytes for the process's stdin."""
        self._input += data
        self._flush_input()

    def input_ended(self) -> None:
        """An attached writer has ended; with a pipe opened once, so does the process's stdin."""
        if self.stdin_once and self.terminal < 0:
            self._input_ends = True
            self._flush_input()

    def _flush_input(self) -> None:
        if self._stdin < 0:
            return
        was_full = self.stdin_full
        if self._input:
            try:
                del self._input[: os.write(self._stdin, self._input)]
            except BlockingIOError:
                pass
            except OSError:
                self._input.clear()
                self._close_input()
                return
        if was_full and not self.stdin_full:
            for attachment in self._attachments:
                attachment.resume()
        if self._stdin == self.terminal:
            self._watch_output(self._stdin)
        elif self._input:
            self.loop.watch(self._stdin, lambda _: self._flush_input(), WRITE)
        else:
            self.loop.forget(self._stdin)
            if self._input_ends:
                self._close_input()

    def _close_input(self) -> None:
        if self._stdin >= 0 and self._stdin != self.terminal:
            self.loop.forget(self._stdin)
            os.close(self._stdin)
        self._stdin = -1

    def drain(self) -> None:
        """The process has ended: pass on what is left in the pipes, then let every reader go."""
        for descriptor in list(self._outputs):
            for _ in range(1024):
                try:
                    data = os.read(descriptor, _CHUNK)
                except OSError:
                    break
                if not data:
                    break
                self._pass_on(descriptor, data)
            self._close_output(descriptor)
        self._close_input()
        if self.log is not None:
            self.log.finish()
            self.log = None
        for attachment in list(self._attachments):
            attachment.end()

    def _pass_on(self, descriptor: int, data: bytes) -> None:
        name = self._outputs[descriptor]
        if self.log is not None:
            self.log.write(name, data)
        for attachment in list(self._attachments):
            attachment.offer(name, data)
