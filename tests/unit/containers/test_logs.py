"""Logs read back while they are written and rotated, step by step."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from boxship.containers.logs import opened, read
from boxship.containers.model import LogLine, LogQuery
from boxship.runtime.keeper.logs import LogWriter
from boxship.runtime.protocol import Log


class Writer:
    """Numbers its lines; `per_file` of them fill a file."""

    def __init__(self, path: Path, *, files: int, per_file: int = 3) -> None:
        probe = LogWriter(Log(f"{path}.probe"))
        probe.write("stdout", b"0000\n")
        probe.finish()
        self._log = LogWriter(Log(str(path), os.path.getsize(f"{path}.probe") * per_file, files))
        self.number = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self._log.write("stdout", b"%04d\n" % self.number)
            self.number += 1


async def numbers(lines: AsyncIterator[LogLine], count: int) -> list[int]:
    return [int((await anext(lines)).text) for _ in range(count)]


def test_following_through_rotations(tmp_path: Path) -> None:
    async def follow() -> None:
        writer = Writer(tmp_path / "log", files=4)
        writer.write(2)
        lines = read(str(tmp_path / "log"), LogQuery(follow=True), lambda: False)
        assert await numbers(lines, 2) == [0, 1]
        for count in (1, 2, 7, 1, 5, 8):  # up to two rotations and a half between two looks
            first = writer.number
            writer.write(count)
            assert await numbers(lines, count) == list(range(first, first + count))
        # too many: the file that is held open is read to its end, then what is left, in order
        writer.write(30)
        assert await numbers(lines, 1) == [26]
        assert await numbers(lines, 11) == list(range(45, 56))

    asyncio.run(asyncio.wait_for(follow(), 30))


def test_following_a_log_of_one_file(tmp_path: Path) -> None:
    async def follow() -> None:
        writer = Writer(tmp_path / "log", files=1)
        writer.write(3)
        lines = read(str(tmp_path / "log"), LogQuery(follow=True), lambda: False)
        assert await numbers(lines, 3) == [0, 1, 2]
        writer.write(1)
        assert await numbers(lines, 1) == [3]

    asyncio.run(asyncio.wait_for(follow(), 30))


def test_an_entry_that_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    entry = [json.dumps({"log": f"{n}\n", "stream": "stdout", "time": "2026-01-01T00:00:00.0Z"}) + "\n" for n in range(2)]
    path.write_text(entry[0] + entry[1][:10])

    async def follow() -> None:
        lines = read(str(path), LogQuery(follow=True), lambda: False)
        assert await numbers(lines, 1) == [0]
        with path.open("a") as file:
            file.write(entry[1][10:])
        assert await numbers(lines, 1) == [1]

    asyncio.run(asyncio.wait_for(follow(), 30))


def test_a_file_missing_within_a_rotation_hides_none_behind_it(tmp_path: Path) -> None:
    for name in ("log", "log.2"):
        (tmp_path / name).write_text(name)
    with ExitStack() as stack:
        assert [file.read() for file in opened(str(tmp_path / "log"), stack)] == [b"log.2", b"log"]
    (tmp_path / "log").unlink()
    with ExitStack() as stack:
        assert [file.read() for file in opened(str(tmp_path / "log"), stack)] == []
    (tmp_path / "log.2").rename(tmp_path / "log.1")
    with ExitStack() as stack:
        assert [file.read() for file in opened(str(tmp_path / "log"), stack)] == [b"log.2"]
