"""The journal: what was told to be done is there after anything, and a group of changes is there whole or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from boxship.errors import Internal
from boxship.oci.digest import Digest
from boxship.state import database as module
from boxship.state.database import SCHEMA_VERSION, Database


class Thing(msgspec.Struct, frozen=True):
    name: str
    number: int = 0


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    database = Database(path)
    try:
        yield database
    finally:
        database.close()


def stored(path: Path) -> dict[str, Thing]:
    with opened(path) as database:
        return dict(database.collection("things", Thing).all)


async def test_what_was_put_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with opened(path) as database:
        things = database.collection("things", Thing)
        things.put("a", Thing("one", 1))
        things.put("b", Thing("two"))
        things.put("a", Thing("one", 3))
        things.delete("b")
        things.delete("absent")
        assert things.get("a") == Thing("one", 3)
        assert "b" not in things
        assert len(things) == 1
        await database.committed()
    assert stored(path) == {"a": Thing("one", 3)}


async def test_collections_do_not_mix(tmp_path: Path) -> None:
    with opened(tmp_path / "state.db") as database:
        database.collection("things", Thing).put("k", Thing("thing"))
        assert database.collection("others", Thing).get("k") is None
        await database.committed()
        assert database.collection("things", Thing).get("k") == Thing("thing")


async def test_digests_are_kept_as_strings(tmp_path: Path) -> None:
    with opened(tmp_path / "state.db") as database:
        database.collection("things", Thing).put("k", Thing(Digest.of(b"")))
    assert stored(tmp_path / "state.db")["k"].name == str(Digest.of(b""))


async def test_a_transaction_is_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    apply = module._apply

    def counted(connection: sqlite3.Connection, batch: list[tuple[str, str, bytes | None]]) -> None:
        batches.append(len(batch))
        apply(connection, batch)

    monkeypatch.setattr(module, "_apply", counted)
    with opened(tmp_path / "state.db") as database:
        things = database.collection("things", Thing)
        with database.transaction():
            things.put("a", Thing("a"))
            with database.transaction():
                things.put("b", Thing("b"))
            things.delete("a")
        with database.transaction():
            pass
        things.put("c", Thing("c"))
        await database.committed()
    assert batches == [3, 1]


async def test_a_batch_that_fails_is_written_whole_once_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    apply = module._apply

    def full(connection: sqlite3.Connection, batch: list[tuple[str, str, bytes | None]]) -> None:
        apply(connection, [*batch, ("things", None, b"")])  # type: ignore[list-item]

    with opened(path) as database:
        things = database.collection("things", Thing)
        things.put("kept", Thing("kept"))
        await database.committed()
        monkeypatch.setattr(module, "_apply", full)
        with database.transaction():
            things.put("one", Thing("first"))
            things.put("two", Thing("two"))
        with pytest.raises(Internal, match="could not be written"):
            await database.committed()
        things.put("one", Thing("second"))
        # and no one is told that all is well meanwhile
        with pytest.raises(Internal):
            await database.committed()
        with opened(path) as other:
            assert set(other.collection("things", Thing).all) == {"kept"}
        monkeypatch.setattr(module, "_apply", apply)
        await database.committed()
    assert {key: thing.name for key, thing in stored(path).items()} == {"kept": "kept", "one": "second", "two": "two"}


async def test_whoever_waits_waits_for_all_that_was_changed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    apply = module._apply

    def slow(connection: sqlite3.Connection, batch: list[tuple[str, str, bytes | None]]) -> None:
        gate.wait(5)
        apply(connection, batch)

    monkeypatch.setattr(module, "_apply", slow)
    with opened(tmp_path / "state.db") as database:
        things = database.collection("things", Thing)
        things.put("a", Thing("a"))
        first = asyncio.ensure_future(database.committed())
        await asyncio.sleep(0)
        second = asyncio.ensure_future(database.committed())
        done, _ = await asyncio.wait({first, second}, timeout=0.1)
        assert not done
        gate.set()
        await asyncio.wait_for(asyncio.gather(first, second), 5)


async def test_a_waiter_that_goes_away_does_not_end_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    apply = module._apply

    def slow(connection: sqlite3.Connection, batch: list[tuple[str, str, bytes | None]]) -> None:
        gate.wait(5)
        apply(connection, batch)

    monkeypatch.setattr(module, "_apply", slow)
    with opened(tmp_path / "state.db") as database:
        things = database.collection("things", Thing)
        things.put("a", Thing("a"))
        waiting = asyncio.ensure_future(database.committed())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
        gate.set()
        things.put("b", Thing("b"))
        await asyncio.wait_for(database.committed(), 5)
    assert set(stored(tmp_path / "state.db")) == {"a", "b"}


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(Internal, match="newer version"):
        Database(path)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(Internal, match=r"state\.db"):
        Database(path)


def test_a_damaged_entry_is_an_error_that_names_it(tmp_path: Path) -> None:
    with opened(tmp_path / "state.db") as database:
        database.record("things", "broken", b'{"name": 7}')
    with opened(tmp_path / "state.db") as database, pytest.raises(Internal, match="'broken' of things"):
        database.collection("things", Thing)


KILLED = """
import asyncio, sys
from pathlib import Path
import msgspec
from boxship.state.database import Database

class Thing(msgspec.Struct, frozen=True):
    name: str
    number: int = 0

async def main():
    database = Database(Path(sys.argv[1]))
    left, right = database.collection("things", Thing), database.collection("others", Thing)
    number = 0
    while True:
        number += 1
        with database.transaction():
            left.put("pair", Thing("left", number))
            right.put("pair", Thing("right", number))
        await database.committed()
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 7, 40, 150])
def test_killed_in_the_middle_every_change_told_is_there_and_pairs_are_whole(tmp_path: Path, after: int) -> None:
    path = tmp_path / "state.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    told = int(rest[-1]) if rest else told
    with opened(path) as database:
        left = database.collection("things", Thing).all["pair"]
        right = database.collection("others", Thing).all["pair"]
    assert left.number == right.number
    assert left.number >= told
