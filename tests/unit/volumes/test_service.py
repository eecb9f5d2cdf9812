"""What the volumes hold, and that nothing slow about one holds up the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from boxship.errors import Conflict, Invalid
from boxship.events.bus import Events
from boxship.state.database import Database
from boxship.volumes import local
from boxship.volumes.service import Volumes

NFS = {"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
def volumes(tmp_path: Path, database: Database) -> Volumes:
    return Volumes(tmp_path / "volumes", database, Events())


class Server:
    """Stands in for mounting: what is mounted, and a server that answers only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted: list[Path] = []
        self.answers = threading.Event()
        self.asked = threading.Event()
        monkeypatch.setattr(local, "attach", self._attach)
        monkeypatch.setattr(local, "detach", lambda path: self.mounted.remove(path) if path in self.mounted else None)

    def _attach(self, options: Mapping[str, str], path: Path) -> None:
        self.asked.set()
        assert self.answers.wait(30)
        if path not in self.mounted:
            self.mounted.append(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(monkeypatch)
    yield server
    server.answers.set()


async def test_a_slow_server_holds_up_nobody_else(volumes: Volumes, server: Server) -> None:
    volumes.create("slow", options=NFS)
    volumes.create("quick")
    waiting = asyncio.create_task(volumes.mount("slow", "one"))
    await asyncio.to_thread(server.asked.wait, 30)
    assert await volumes.mount("quick", "two") == volumes.path("quick")
    assert not waiting.done()
    server.answers.set()
    assert await waiting == volumes.path("slow")


async def test_a_volume_being_mounted_is_in_use(volumes: Volumes, server: Server) -> None:
    volumes.create("slow", options=NFS)
    waiting = asyncio.create_task(volumes.mount("slow", "one"))
    await asyncio.to_thread(server.asked.wait, 30)
    with pytest.raises(Conflict, match=r"remove slow: volume is in use - \[one\]"):
        await volumes.remove("slow")
    server.answers.set()
    await waiting


async def test_the_mount_goes_with_the_last_holder(volumes: Volumes, server: Server) -> None:
    server.answers.set()
    volumes.create("store", options=NFS)
    volumes.hold("store", "from before")
    await asyncio.gather(volumes.mount("store", "one"), volumes.mount("store", "one:copy"))
    for holder in ("one", "one:copy", "stranger"):
        volumes.release("store", holder)
    assert server.mounted == [volumes.path("store")]
    volumes.release("store", "from before")
    assert server.mounted == []


async def test_volumes_outlive_the_service(tmp_path: Path, volumes: Volumes, database: Database) -> None:
    made = volumes.create("store", labels={"a": "1"}, options=NFS)
    await database.committed()
    again = Database(tmp_path / "state.db")
    try:
        assert Volumes(tmp_path / "volumes", again, Events()).get("store") == made
    finally:
        again.close()


async def test_files_of_a_removal_cut_short_go_at_the_next_start(tmp_path: Path, volumes: Volumes, database: Database) -> None:
    left = tmp_path / "volumes/.removed-1/_data/deep"
    left.mkdir(parents=True)
    volumes.create("store")
    Volumes(tmp_path / "volumes", database, Events())
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["store"]


def test_removing_never_follows_a_mount_that_is_left(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "detach", lambda path: None)
    volumes.create("store", options=NFS)
    (volumes.path("store") / "precious").touch()
    asyncio.run(volumes.remove("store"))
    assert (volumes.path("store") / "precious").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "device": "/srv", "o": "bind,ro"},
        {"type": "none", "device": "/srv", "o": "rbind,nosuid,noexec,nodev,relatime,rslave"},
        {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,sync"},
        {"type": "tmpfs", "device": "tmpfs"},
        {},
    ],
)
def test_options_that_are_taken(options: dict[str, str]) -> None:
    local.check(options)


@pytest.mark.parametrize("o", ["bind,size=1m", "bind,nodiratime", "rbind,dirsync", "bind,lazytime"])
def test_what_a_bind_cannot_have_is_named(o: str) -> None:
    with pytest.raises(Invalid, match=f'option "{o.partition(",")[2]}" does not apply to a bind'):
        local.check({"type": "none", "device": "/srv", "o": o})


@pytest.mark.parametrize("name", ["plain", "with space", "back\\slash"])
def test_what_is_mounted_is_told_by_its_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    assert not local.is_mounted(path)
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
    try:
        local.attach(options, path)
        local.attach(options, path)
        assert local.is_mounted(path)
        assert local.is_mounted(tmp_path / "link" / name)
        assert not local.is_mounted(tmp_path)
    finally:
        local.detach(path)
    assert not local.is_mounted(path)
