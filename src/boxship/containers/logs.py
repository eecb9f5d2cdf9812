"""Reading a container's log back: json-file entries, across rotated files, from the end where only that is wanted."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import BinaryIO

from boxship.containers.model import LogLine, LogQuery

_CHUNK = 1 << 16
_READ = 1 << 22
_POLL_SECONDS = 0.05
_GAP = 2
"""How many files in succession are missing behind the oldest: within a rotation one is missing for a moment."""


def parse(line: bytes) -> LogLine | None:
    """One entry; None for a damaged one, which a crash may have left."""
    try:
        entry = json.loads(line)
        return LogLine(entry["stream"], entry["time"], entry["log"], entry.get("attrs") or {})
    except (ValueError, KeyError, TypeError):
        return None


def nanoseconds(text: str) -> int:
    """An RFC 3339 time as nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int((fraction + "0" * 9)[:9])


def opened(path: str, stack: ExitStack) -> list[BinaryIO]:
    """The log's files, oldest first, as they are at one moment: closed with `stack`.

    They are opened newest first: a rotation meanwhile makes one of them come twice, never one be missed.
    """
    found: list[BinaryIO] = []
    seen: set[int] = set()
    missing = 0
    for number in itertools.count():
        file = _open(path, number)
        missing = missing + 1 if file is None else 0
        if missing == _GAP:
            break
        if file is None:
            continue
        stack.enter_context(file)
        inode = os.fstat(file.fileno()).st_ino
        if inode not in seen:
            seen.add(inode)
            found.append(file)
    return found[::-1]


def _open(path: str, number: int) -> BinaryIO | None:
    """The log's file after `number` rotations."""
    try:
        return open(f"{path}.{number}" if number else path, "rb")
    except FileNotFoundError:
        return None


def backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines of a file's first `end` bytes, last first."""
    position = end
    rest = b""
    while position:
        step = min(_CHUNK, position)
        position -= step
        file.seek(position)
        lines = (file.read(step) + rest).split(b"\n")
        rest = lines[0]
        for line in reversed(lines[1:]):
            if line:
                yield line
    if rest:
        yield rest


def _whole(file: BinaryIO) -> int:
    """Where the last whole entry of a file ends: the next one may be half written."""
    end = os.fstat(file.fileno()).st_size
    while end:
        step = min(_CHUNK, end)
        found = os.pread(file.fileno(), step, end - step).rfind(b"\n")
        if found >= 0:
            return end - step + found + 1
        end -= step
    return 0


def _wanted(line: LogLine, query: LogQuery) -> bool:
    if (line.stream == "stdout" and not query.stdout) or (line.stream == "stderr" and not query.stderr):
        return False
    return not query.since or nanoseconds(line.time) >= query.since


def _after(line: LogLine, query: LogQuery) -> bool:
    return bool(query.until) and nanoseconds(line.time) > query.until


def _tail(parts: list[tuple[BinaryIO, int]], query: LogQuery) -> list[LogLine]:
    found: deque[LogLine] = deque()
    for file, end in reversed(parts):
        for raw in backwards(file, end):
            if query.tail is not None and len(found) >= query.tail:
                return list(found)
            line = parse(raw)
            if line is not None and _wanted(line, query) and not _after(line, query):
                found.appendleft(line)
    return list(found)


async def read(path: str, query: LogQuery, ended: Callable[[], bool]) -> AsyncIterator[LogLine]:
    """The entries that a query wants; with `follow`, what is added until `ended()`."""
    with ExitStack() as stack:
        parts = [(file, _whole(file)) for file in opened(path, stack)]
        if not parts:
            return
        if query.tail is None:
            for file, size in parts:
                left = size
                for raw in file:
                    left -= len(raw)
                    if left < 0:
                        break
                    entry = parse(raw)
                    if entry is not None and _after(entry, query):
                        return
                    if entry is not None and _wanted(entry, query):
                        yield entry
        elif query.tail > 0:
            for line in await asyncio.to_thread(_tail, parts, query):
                yield line
        if query.follow:
            async for line in _follow(_Follower(path, *parts[-1], stack), query, ended):
                yield line


class _Follower:
    """Reads what is added to a log, through rotations: a file is left once it has been read to its end and has a successor."""

    def __init__(self, path: str, file: BinaryIO, position: int, stack: ExitStack) -> None:
        self._path = path
        self._file = file
        self._position = position
        self._next: BinaryIO | None = None
        self._stack = stack

    def read(self) -> bytes:
        """What has been added; nothing where nothing was."""
        while True:
            if os.fstat(self._file.fileno()).st_size < self._position:
                self._position = 0  # a log of one file begins again from its start
            data = os.pread(self._file.fileno(), _READ, self._position)
            self._position += len(data)
            if data:
                return data
            if self._next is not None:
                # nothing more has come to the old one since its successor was seen
                self._file.close()
                self._file, self._next, self._position = self._next, None, 0
                continue
            self._next = self._successor()
            if self._next is None:
                return b""
            self._stack.enter_context(self._next)

    def _successor(self) -> BinaryIO | None:
        """The file that came after the one that is read; None while that is the newest."""
        own = os.fstat(self._file.fileno()).st_ino
        with ExitStack() as others:
            found = opened(self._path, others)
            inodes = [os.fstat(file.fileno()).st_ino for file in found]
            # where it has gone, with so many rotations, the oldest there is comes next
            place = inodes.index(own) + 1 if own in inodes else 0
            return os.fdopen(os.dup(found[place].fileno()), "rb") if place < len(found) else None


async def _follow(follower: _Follower, query: LogQuery, ended: Callable[[], bool]) -> AsyncIterator[LogLine]:
    rest = b""
    while True:
        last = ended()
        data = follower.read()
        *lines, rest = (rest + data).split(b"\n")
        for raw in lines:
            line = parse(raw)
            if line is not None and _after(line, query):
                return
            if line is not None and _wanted(line, query):
                yield line
        if query.until and query.until < _now():
            return
        if not data:
            if last:
                return
            await asyncio.sleep(_POLL_SECONDS)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1e9)
