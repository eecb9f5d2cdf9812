"""A container's log: Docker's json-file format, bounded by rotation."""

from __future__ import annotations

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
        text = "".join(entries).encode("utf-8", "replace")
        if self._log.max_size and self._size + len(text) > self._log.max_size and self._size:
            self._rotate()
        self._size += len(text)
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:
            return  # a full disk must not stop the container: its output is lost to the log alone

    def _rotate(self) -> None:
        path, kept = self._log.path, self._log.max_files
        if kept <= 1:
            os.ftruncate(self._descriptor, 0)
        else:
            for number in range(kept - 1, 0, -1):
                older = f"{path}.{number - 1}" if number > 1 else path
                try:
                    os.replace(older, f"{path}.{number}")
                except FileNotFoundError:
                    continue
            os.close(self._descriptor)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0


def _entry(line: bytes, end: str, tail: str) -> str:
    return f'{{"log":{encode_basestring(line.decode("utf-8", "replace") + end)}{tail}'


def timestamp() -> str:
    """Now, as RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
