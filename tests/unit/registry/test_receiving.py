"""Uploads, piece by piece."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from boxship.content.store import ContentStore
from boxship.errors import Unavailable
from boxship.oci.digest import Digest
from boxship.registry import receiving as module
from boxship.registry.faults import DigestInvalid, TooManyRequests, UploadUnknown
from boxship.registry.receiving import EXPIRY_SECONDS, OutOfOrder, Receiving


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiving(tmp_path: Path, clock: Clock) -> Iterator[Receiving]:
    made = Receiving(ContentStore(tmp_path), clock)
    yield made
    made.close()
    assert list((tmp_path / "ingest").iterdir()) == []


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_pieces_make_a_blob(receiving: Receiving, tmp_path: Path) -> None:
    upload = receiving.open("box")
    await receiving.append(upload, stream(b"one", b"two"))
    assert receiving.get("box", upload.id).offset == 6
    await receiving.append(upload, stream(b"three"), 6)
    await receiving.finish(upload, Digest.of(b"onetwothree"))
    assert ContentStore(tmp_path).read(Digest.of(b"onetwothree")) == b"onetwothree"
    with pytest.raises(UploadUnknown):
        receiving.get("box", upload.id)


async def test_any_algorithm_will_do(receiving: Receiving, tmp_path: Path) -> None:
    upload = receiving.open("box")
    await receiving.append(upload, stream(b"data"))
    digest = Digest.from_hex(hashlib.sha512(b"data").hexdigest(), "sha512")
    await receiving.finish(upload, digest)
    assert digest in ContentStore(tmp_path)


async def test_a_wrong_digest_ends_the_upload(receiving: Receiving, tmp_path: Path) -> None:
    upload = receiving.open("box")
    await receiving.append(upload, stream(b"data"))
    with pytest.raises(DigestInvalid):
        await receiving.finish(upload, Digest.of(b"other"))
    with pytest.raises(UploadUnknown):
        await receiving.append(upload, stream(b"more"))
    assert list(ContentStore(tmp_path).walk()) == []


@pytest.mark.parametrize("start", [0, 3, 5])
async def test_a_piece_must_follow_the_one_before(receiving: Receiving, start: int) -> None:
    upload = receiving.open("box")
    await receiving.append(upload, stream(b"data"), 0)
    with pytest.raises(OutOfOrder) as caught:
        await receiving.append(upload, stream(b"more"), start)
    assert caught.value.upload.offset == 4


async def test_what_has_come_of_a_broken_piece_is_kept(receiving: Receiving) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (3 << 20)
        yield b"y" * 7
        raise ConnectionResetError

    upload = receiving.open("box")
    with pytest.raises(ConnectionResetError):
        await receiving.append(upload, broken())
    assert receiving.get("box", upload.id).offset == (3 << 20) + 7


async def test_two_writers_take_turns(receiving: Receiving) -> None:
    upload = receiving.open("box")
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a" * (2 << 20)
        await gate.wait()
        yield b"a"

    first = asyncio.create_task(receiving.append(upload, slow(), 0))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(receiving.append(upload, stream(b"b"), 0))
    await asyncio.sleep(0.01)
    gate.set()
    await first
    with pytest.raises(OutOfOrder):
        await second
    assert upload.offset == (2 << 20) + 1


async def test_whoever_waits_for_an_upload_that_ends_is_told(receiving: Receiving) -> None:
    upload = receiving.open("box")
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await gate.wait()

    first = asyncio.create_task(receiving.append(upload, slow()))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(receiving.cancel(upload)), asyncio.create_task(receiving.finish(upload, Digest.of(b"a")))]
    await asyncio.sleep(0.01)
    gate.set()
    await first
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), UploadUnknown]


async def test_an_upload_is_of_its_repository(receiving: Receiving) -> None:
    upload = receiving.open("box")
    with pytest.raises(UploadUnknown):
        receiving.get("other", upload.id)


async def test_old_uploads_expire(receiving: Receiving, clock: Clock, tmp_path: Path) -> None:
    old, used = receiving.open("box"), receiving.open("box")
    clock.now += EXPIRY_SECONDS - 1
    await receiving.append(used, stream(b"x"))
    clock.now += 2
    receiving.open("box")
    assert receiving.get("box", used.id) is used
    with pytest.raises(UploadUnknown):
        receiving.get("box", old.id)
    assert len(list((tmp_path / "ingest").iterdir())) == 2


async def test_there_is_an_end_to_open_uploads(receiving: Receiving, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    for _ in range(3):
        receiving.open("box")
    with pytest.raises(TooManyRequests):
        receiving.open("box")
    clock.now += EXPIRY_SECONDS + 1
    receiving.open("box")


async def test_a_full_disk_keeps_nothing(receiving: Receiving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = receiving.open("box")

    def write(_: bytes) -> None:
        raise Unavailable("writing a blob: no space left on device")

    monkeypatch.setattr(upload.ingest, "write", write)
    with pytest.raises(Unavailable):
        await receiving.append(upload, stream(b"x"))
    assert list((tmp_path / "ingest").iterdir()) == []
