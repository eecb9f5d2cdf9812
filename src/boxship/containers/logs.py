"""Reading a container's log back: json-file entries, across rotated files, from the end where only that is wanted."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime

from boxship.containers.model import LogLine, LogQuery

_CHUNK = 1 << 16
_POLL_SECONDS = 0.05


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


def files(path: str) -> list[str]:
    """The log's files, oldest first."""
    found = [path] if os.path.exists(path) else []
    number = 1
    while os.path.exists(f"{path}.{number}"):
        found.insert(0, f"{path}.{number}")
        number += 1
    return found


def backwards(path: str) -> Iterator[bytes]:
    """The lines of a file, last first."""
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
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


def _tail(paths: list[str], query: LogQuery) -> list[LogLine]:
    found: deque[LogLine] = deque()
    for path in reversed(paths):
        for raw in backwards(path):
            if query.tail is not None and len(found) >= query.tail:
                return list(found)
            line = parse(raw)
            if line is not None and _wanted(line, query) and not _after(line, query):
                found.appendleft(line)
    return list(found)


async def read(path: str, query: LogQuery, ended: Callable[[], bool]) -> AsyncIterator[LogLine]:
    """The entries that a query wants; with `follow`, what is added until `ended()`."""
    position = os.path.getsize(path) if os.path.exists(path) else 0
    inode = os.stat(path).st_ino if position else 0
    if query.tail is not None:
        if query.tail > 0:
            for line in await asyncio.to_thread(_tail, files(path), query):
                yield line
    else:
        for part in files(path):
            current = os.stat(part).st_ino == inode
            with open(part, "rb") as file:
                left = position if current else -1
                for raw in file:
                    if current:
                        left -= len(raw)
                        if left < 0:
                            break
                    entry = parse(raw)
                    if entry is not None and _after(entry, query):
                        return
                    if entry is not None and _wanted(entry, query):
                        yield entry
    if query.follow:
        async for line in _follow(path, position, inode, query, ended):
            yield line


async def _follow(path: str, position: int, inode: int, query: LogQuery, ended: Callable[[], bool]) -> AsyncIterator[LogLine]:
    rest = b""
    while True:
        last = ended()
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return
        if inode and status.st_ino != inode and os.path.exists(f"{path}.1"):
            data = _from(f"{path}.1", position)
            position, inode = 0, status.st_ino
        else:
            inode = status.st_ino
            if status.st_size < position:
                position = 0
            data = _from(path, position) if status.st_size > position else b""
            position += len(data)
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


def _from(path: str, position: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(position)
        return file.read(1 << 22)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1e9)
