"""A container's log: Docker's json-file format, bounded by rotation."""

from __future__ import annotations

import contextlib
import os
import time
from json.encoder import encode_basestring

from boxship.runtime.protocol import Log

LINE_LIMIT = 16 * 1024
"""The longest entry, in bytes: a longer line becomes several, of which only the last ends in a newline."""


class LogWriter:
    """Appends entries to `<path>`; full files become `<path>.1`, `.2`, …, the oldest is dropped."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._descriptor = os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        self._torn = False
        self._partial: dict[str, bytes] = {}
        attributes = ",".join(f"{encode_basestring(k)}:{encode_basestring(v)}" for k, v in (log.attributes or {}).items())
        self._attributes = f',"attrs":{{{attributes}}}' if attributes else ""

    def write(self, stream: str, data: bytes) -> None:
        """Log what a process wrote to `stream` (stdout or stderr); an unfinished line waits for its end."""
        lines = (self._partial.pop(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        while len(rest) >= LINE_LIMIT:
            lines.append(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
            self._emit(stream, lines, unfinished=True)
            lines = []
        if rest:
            self._partial[stream] = rest
        self._emit(stream, lines)

    def finish(self) -> None:
        """Log what was left without an end of line, and close."""
        for stream, rest in self._partial.items():
            self._emit(stream, [rest], unfinished=True)
        self._partial.clear()
        os.close(self._descriptor)

    def _emit(self, stream: str, lines: list[bytes], *, unfinished: bool = False) -> None:
        if not lines:
            return
        tail = f',"stream":"{stream}"{self._attributes},"time":"{timestamp()}"}}\n'
        entries = []
        for index, line in enumerate(lines):
            end = "" if unfinished and index == len(lines) - 1 else "\n"
            while len(line) > LINE_LIMIT:
                entries.append(_entry(line[:LINE_LIMIT], "", tail))
                line = line[LINE_LIMIT:]  # noqa: PLW2901
            entries.append(_entry(line, end, tail))
        limit = self._log.max_size
        if not limit or self._size + sum(map(len, entries)) <= limit:
            self._append(b"".join(entries))
            return
        start = pending = 0
        for index, entry in enumerate(entries):
            if self._size + pending + len(entry) > limit and self._size + pending:
                self._append(b"".join(entries[start:index]))
                self._rotate()
                start, pending = index, 0
            pending += len(entry)
        self._append(b"".join(entries[start:]))

    def _append(self, text: bytes) -> None:
        if self._torn and text:
            text = b"\n" + text  # behind an entry that a full disk cut off
        try:
            while text:
                written = os.write(self._descriptor, text)
                self._size += written
                text = text[written:]
                self._torn = bool(text)
        except OSError:
            return  # a full disk must not stop the container: its output is lost to the log alone

    def _rotate(self) -> None:
        """Begin a new file; where that fails, the old one goes on: the container must not suffer from it."""
        path, kept = self._log.path, self._log.max_files
        fresh = -1
        try:
            if kept <= 1:
                os.ftruncate(self._descriptor, 0)
            else:
                fresh = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                for number in range(kept - 1, 0, -1):
                    older = f"{path}.{number - 1}" if number > 1 else path
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(older, f"{path}.{number}")
                os.replace(f"{path}.new", path)
                self._descriptor, fresh = fresh, self._descriptor
        except OSError:
            return
        finally:
            if fresh >= 0:
                os.close(fresh)
        self._size, self._torn = 0, False


def _entry(line: bytes, end: str, tail: str) -> bytes:
    return f'{{"log":{encode_basestring(line.decode("utf-8", "replace") + end)}{tail}'.encode("utf-8", "replace")


def timestamp() -> str:
    """Now, as RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
