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
        parts = [(file, os.fstat(file.fileno()).st_size) for file in opened(path, stack)]
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
            file, position = parts[-1]
            file.seek(position)
            async for line in _follow(path, file, query, ended, stack):
                yield line


async def _follow(
    path: str, file: BinaryIO, query: LogQuery, ended: Callable[[], bool], stack: ExitStack
) -> AsyncIterator[LogLine]:
    rest = b""
    while True:
        last = ended()
        data = file.read(_READ)
        if not data:
            status = os.fstat(file.fileno())
            if status.st_size < file.tell():  # a log of one file begins again from its start
                file.seek(0)
                data = file.read(_READ)
            elif (fresh := _replacement(path, status.st_ino)) is not None:
                data = file.read()  # what came before the files changed
                file.close()
                file = stack.enter_context(fresh)
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


def _replacement(path: str, inode: int) -> BinaryIO | None:
    """The log's newest file, where it is another one than that of `inode`."""
    try:
        return None if os.stat(path).st_ino == inode else open(path, "rb")
    except FileNotFoundError:
        return None


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1e9)
