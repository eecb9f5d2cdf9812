"""Registries that stall, cut, forget and lie; and pulls and pushes that get over it, or leave nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.integration.registry.conftest import Home, NewHome, Ours
from tests.integration.registry.pictures import Picture, digest, large_layer, picture, tar_of

from boxship.errors import BoxshipError, Invalid, Unavailable
from boxship.http.message import Handler, Request, Response, json_response
from boxship.images import unpack
from boxship.oci.descriptor import MANIFEST_LIMIT
from boxship.oci.reference import Reference
from boxship.registry.pull import pull_all
from boxship.registry.session import ATTEMPTS

Answering = Callable[[Request, Handler], Awaitable[Response | None]]

SMALL = tar_of(a=b"a" * 5000)
LARGE = large_layer()


def cut(data: bytes, start: int, length: int, *, chunk: int = 100_000) -> Response:
    """An answer that promises everything from `start` on and breaks off after `length` bytes."""

    async def part() -> AsyncIterator[bytes]:
        for position in range(start, start + length, chunk):
            yield data[position : min(position + chunk, start + length)]
        raise ConnectionResetError("cut")

    headers = {"Content-Length": str(len(data) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return Response(206 if start else 200, part(), headers)


def start_of(request: Request) -> int:
    return int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-") or 0)


async def put(ours: Ours, *tars: bytes, compression: str = "gzip") -> Picture:
    image = picture(*tars, compression=compression)
    await ours.putter.image("box", "1", image)
    ours.asked.clear()
    return image


# --- connections that break ---


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_a_download_that_breaks_goes_on_where_it_broke(ours: Ours, home: Home, compression: str) -> None:
    image = await put(ours, SMALL, LARGE, compression=compression)
    blob = image.blobs[1]
    times = 0

    async def answering(request: Request, handle: Handler) -> Response | None:
        nonlocal times
        if digest(blob) in request.path and times < 12:
            times += 1
            return cut(blob, start_of(request), 333_333)
        return None

    ours.answering = answering
    found = await home.pull(f"{ours.host}/box:1")

    assert home.layer(found.layers[1]) == LARGE
    starts = [int(ranges[6:-1]) for _, path, ranges in ours.asked if digest(blob) in path and ranges]
    assert starts == [333_333 * n for n in range(1, 13)]


async def test_a_pull_that_was_cancelled_goes_on(ours: Ours, home: Home) -> None:
    image = await put(ours, SMALL, LARGE)
    blob = image.blobs[1]
    stalled = asyncio.Event()

    async def answering(request: Request, handle: Handler) -> Response | None:
        if digest(blob) not in request.path:
            return None

        async def part() -> AsyncIterator[bytes]:
            yield blob[:2_000_000]
            stalled.set()
            await asyncio.Event().wait()

        return Response(200, part(), {"Content-Length": str(len(blob))})

    ours.answering = answering
    pulling = asyncio.create_task(home.pull(f"{ours.host}/box:1"))
    await stalled.wait()
    await asyncio.sleep(0.2)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling

    layers, blobs, partial = home.held()
    assert home.images.all() == []
    assert image.diff_ids[1][7:] not in layers and digest(blob) not in blobs
    assert not any(layer.startswith("new-") for layer in layers)
    assert 1_900_000 < partial <= 2_000_000

    ours.answering = None
    ours.asked.clear()
    assert (await home.pull(f"{ours.host}/box:1")).id == image.id
    (ranges,) = [ranges for _, path, ranges in ours.asked if digest(blob) in path]
    assert int(ranges[6:-1]) == partial
    assert home.held()[2] == 0


async def test_a_registry_without_ranges_is_asked_for_all_and_read_on(ours: Ours, home: Home) -> None:
    image = await put(ours, LARGE)
    blob = image.blobs[0]
    times = 0

    async def answering(request: Request, handle: Handler) -> Response | None:
        nonlocal times
        if digest(blob) not in request.path:
            return None
        times += 1
        return cut(blob, 0, 2_000_000) if times == 1 else Response(200, blob)

    ours.answering = answering
    assert home.layer((await home.pull(f"{ours.host}/box:1")).layers[0]) == LARGE
    assert times == 2


async def test_another_part_than_was_asked_for_is_refused(ours: Ours, home: Home) -> None:
    image = await put(ours, LARGE)
    blob = image.blobs[0]

    async def answering(request: Request, handle: Handler) -> Response | None:
        if digest(blob) not in request.path:
            return None
        if not start_of(request):
            return cut(blob, 0, 2_000_000)
        return Response(206, blob[5:], {"Content-Range": f"bytes 5-{len(blob) - 1}/{len(blob)}"})

    ours.answering = answering
    with pytest.raises(Unavailable, match="sent another part of it"):
        await home.pull(f"{ours.host}/box:1")


async def test_patience_with_a_download_that_gets_nowhere_ends(ours: Ours, home: Home) -> None:
    image = await put(ours, SMALL, LARGE)
    blob = image.blobs[1]

    async def answering(request: Request, handle: Handler) -> Response | None:
        return cut(blob, start_of(request), 0) if digest(blob) in request.path else None

    ours.answering = answering
    with pytest.raises(Unavailable) as caught:
        await home.pull(f"{ours.host}/box:1")
    assert digest(blob) in caught.value.message
    assert ours.count("GET", digest(blob)) == ATTEMPTS
    assert home.images.all() == []


async def test_a_busy_registry_is_left_alone_for_as_long_as_it_asks(ours: Ours, home: Home) -> None:
    image = await put(ours, SMALL)
    refusals: dict[str, int] = {}

    async def answering(request: Request, handle: Handler) -> Response | None:
        refusals[request.path] = refusals.get(request.path, 0) + 1
        if refusals[request.path] == 1:
            return Response(429, b"", {"Retry-After": "0.2"})
        if refusals[request.path] == 2:
            return json_response({"errors": [{"code": "UNKNOWN", "message": "try again"}]}, 502)
        return None

    ours.answering = answering
    before = asyncio.get_running_loop().time()
    assert (await home.pull(f"{ours.host}/box:1")).id == image.id
    assert asyncio.get_running_loop().time() - before > 0.6
    assert set(refusals.values()) == {3}


@pytest.mark.parametrize("trouble", ["reset", 503, 404])
async def test_an_upload_that_breaks_is_begun_again(ours: Ours, home: Home, trouble: str | int) -> None:
    image = home.make(LARGE, tag=f"{ours.host}/box:1")
    times = 0

    async def answering(request: Request, handle: Handler) -> Response | None:
        nonlocal times
        if request.method != "PUT" or "/blobs/" not in request.path or times == 3:
            return None
        times += 1
        if isinstance(trouble, int):
            return Response(trouble)
        async for _ in request.stream():
            raise ConnectionResetError("cut")
        return None

    ours.answering = answering
    await home.push(f"{ours.host}/box:1")
    ours.answering = None
    assert (await ours.putter.http.get("/v2/box/manifests/1")).json()["config"]["digest"] == image.id
    assert ours.count("POST", "/blobs/uploads/") == 5


async def test_patience_with_uploads_ends(ours: Ours, home: Home) -> None:
    home.make(SMALL, tag=f"{ours.host}/box:1")

    async def answering(request: Request, handle: Handler) -> Response | None:
        return Response(500) if request.method == "PUT" else None

    ours.answering = answering
    with pytest.raises(Unavailable, match="received unexpected HTTP status: 500 Internal Server Error"):
        await home.push(f"{ours.host}/box:1")
    assert ours.count("PUT", "/blobs/uploads/") == ATTEMPTS


# --- lies ---


def blob_of(image: Picture, replacement: Callable[[bytes], bytes]) -> Answering:
    async def answering(request: Request, handle: Handler) -> Response | None:
        blob = image.blobs[-1]
        return Response(200, replacement(blob)) if digest(blob) in request.path else None

    return answering


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "lie", [flipped, lambda data: data + b"more", lambda data: b"\0" * len(data), lambda data: hashlib.sha256(data).digest() * 99]
)
@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_a_layer_that_is_not_what_its_digest_says(
    ours: Ours, home: Home, lie: Callable[[bytes], bytes], compression: str
) -> None:
    image = await put(ours, SMALL, LARGE, compression=compression)
    ours.answering = blob_of(image, lie)
    with pytest.raises(BoxshipError):
        await home.pull(f"{ours.host}/box:1")
    assert home.images.all() == []
    layers, _, _ = home.held()
    assert image.diff_ids[1][7:] not in layers

    ours.answering = None
    assert home.layer((await home.pull(f"{ours.host}/box:1")).layers[1]) == LARGE


async def test_a_lie_leaves_nothing(ours: Ours, home: Home) -> None:
    image = await put(ours, SMALL, LARGE)
    ours.answering = blob_of(image, flipped)
    with pytest.raises(Invalid):
        await home.pull(f"{ours.host}/box:1")
    assert home.held() == (set(), set(), 0)


async def test_a_remainder_that_went_bad_on_disk_is_not_in_the_way(ours: Ours, home: Home) -> None:
    image = await put(ours, LARGE)
    blob = image.blobs[0]
    with home.images.content.ingest(digest(blob)) as ingest:
        ingest.write(flipped(blob)[: len(blob) - 1000])
    assert home.layer((await home.pull(f"{ours.host}/box:1")).layers[0]) == LARGE
    assert home.held()[2] == 0


async def test_a_remainder_that_is_whole_needs_no_download(ours: Ours, home: Home) -> None:
    image = await put(ours, LARGE)
    with home.images.content.ingest(digest(image.blobs[0])) as ingest:
        ingest.write(image.blobs[0])
    await home.pull(f"{ours.host}/box:1")
    assert ours.count("GET", digest(image.blobs[0])) == 0


async def test_a_layer_that_is_not_what_its_image_states(ours: Ours, home: Home) -> None:
    image = picture(SMALL, LARGE)
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"][1] = digest(b"something else")
    lying = picture(SMALL, LARGE, config_extra=config)
    await ours.putter.image("box", "1", lying)
    with pytest.raises(Invalid, match="layer is not what its image states: expected diff id"):
        await home.pull(f"{ours.host}/box:1")
    assert home.held() == (set(), set(), 0)


async def test_more_layers_than_the_configuration_has(ours: Ours, home: Home) -> None:
    image = picture(SMALL, LARGE)
    config = json.loads(image.config)
    del config["rootfs"]["diff_ids"][1]
    await ours.putter.image("box", "1", picture(SMALL, LARGE, config_extra=config))
    with pytest.raises(Invalid, match="the manifest has 2 layers, its configuration 1"):
        await home.pull(f"{ours.host}/box:1")


async def test_a_manifest_that_is_not_what_its_digest_says(ours: Ours, home: Home) -> None:
    image, other = picture(SMALL), picture(SMALL, config_extra={"author": "mallory"})

    async def answering(request: Request, handle: Handler) -> Response | None:
        return Response(200, other.manifest, {"Content-Type": other.media_type}) if "/manifests/" in request.path else None

    ours.answering = answering
    with pytest.raises(Invalid, match=f"manifest verification failed for digest {image.digest}"):
        await home.pull(f"{ours.host}/box@{image.digest}")


async def test_a_configuration_that_is_not_what_its_digest_says(ours: Ours, home: Home) -> None:
    image = await put(ours, SMALL)

    async def answering(request: Request, handle: Handler) -> Response | None:
        return Response(200, image.config.replace(b"amd64", b"arm64")) if image.id in request.path else None

    ours.answering = answering
    with pytest.raises(Invalid, match=f"verification failed for digest {image.id}"):
        await home.pull(f"{ours.host}/box:1")
    assert home.held() == (set(), set(), 0)


@pytest.mark.parametrize("what", ["manifests", "config"])
async def test_what_never_ends_is_cut(ours: Ours, home: Home, what: str) -> None:
    image = await put(ours, SMALL)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield b" " * (1 << 20)

    async def answering(request: Request, handle: Handler) -> Response | None:
        return Response(200, endless()) if (image.id if what == "config" else what) in request.path else None

    ours.answering = answering
    with pytest.raises(Invalid, match="more than the limit of 4194304 bytes"):
        await home.pull(f"{ours.host}/box:1")
    assert sent < 8 * MANIFEST_LIMIT


async def test_a_bomb_leaves_nothing(ours: Ours, home: Home) -> None:
    image, bomb = picture(SMALL, compression="zstd"), picture(bytes(200 << 20), compression="zstd")
    manifest: dict[str, Any] = json.loads(image.manifest)
    manifest["layers"] = json.loads(bomb.manifest)["layers"]
    for data in (*bomb.blobs, image.config):
        await ours.putter.blob("box", data)
    await ours.putter.manifest("box", "1", json.dumps(manifest).encode(), image.media_type)
    with pytest.raises(Invalid, match="layer is not what its image states"):
        await home.pull(f"{ours.host}/box:1")
    assert home.held() == (set(), set(), 0)


async def test_a_full_disk_leaves_nothing(ours: Ours, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    image = await put(ours, SMALL, LARGE)
    feed = unpack.Unpacker.feed

    def full(self: unpack.Unpacker, data: bytes) -> None:
        feed(self, data)
        if self.offset > 2_000_000:
            raise Unavailable("writing a layer: no space left on device")

    monkeypatch.setattr(unpack.Unpacker, "feed", full)
    with pytest.raises(Unavailable, match="no space left on device"):
        await home.pull(f"{ours.host}/box:1")
    assert home.held() == (set(), set(), 0)
    assert ours.count("GET", digest(image.blobs[1])) == 1


async def test_lists_that_go_round_in_circles(ours: Ours, home: Home) -> None:
    async def answering(request: Request, handle: Handler) -> Response | None:
        if "/tags/list" not in request.path:
            return None
        return Response(200, b'{"tags": ["a"]}', {"Link": '</v2/box/tags/list?n=1>; rel="next"'})

    ours.answering = answering
    with pytest.raises(Invalid, match="does not end"):
        await pull_all(home.registries, home.images, Reference.parse(f"{ours.host}/box"), platform=None, credentials=None,
                       progress=home.messages.append)  # fmt: skip


async def test_a_cancelled_push_leaves_nothing_open(ours: Ours, home: Home) -> None:
    home.make(LARGE, tag=f"{ours.host}/box:1")
    stalled = asyncio.Event()

    async def answering(request: Request, handle: Handler) -> Response | None:
        if request.method == "PUT":
            stalled.set()
            await asyncio.sleep(3)
        return None

    ours.answering = answering
    pushing = asyncio.create_task(home.push(f"{ours.host}/box:1"))
    await stalled.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing


async def test_one_of_two_pulls_of_a_layer_may_go(ours: Ours, new_home: NewHome) -> None:
    home = new_home()
    image = await put(ours, LARGE)
    await ours.putter.image("box", "2", picture(LARGE, config_extra={"author": "another"}))
    gate, begun = asyncio.Event(), asyncio.Event()
    blob = image.blobs[0]

    async def answering(request: Request, handle: Handler) -> Response | None:
        if digest(blob) not in request.path or start_of(request):
            return None

        async def part() -> AsyncIterator[bytes]:
            yield blob[:2_000_000]
            begun.set()
            await gate.wait()

        return Response(200, part(), {"Content-Length": str(len(blob))})

    ours.answering = answering
    first = asyncio.create_task(home.pull(f"{ours.host}/box:1"))
    await begun.wait()
    second = asyncio.create_task(home.pull(f"{ours.host}/box:2"))
    await asyncio.sleep(0.1)
    first.cancel()
    found = await second
    assert home.layer(found.layers[0]) == LARGE
    ranges = [ranges for _, path, ranges in ours.asked if digest(blob) in path]
    assert ranges[0] == ""
    assert int(ranges[1][6:-1]) > 0  # the second one goes on where the first one was
