"""What is saved comes back bit for bit, with either driver."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
import threading

import pytest
import zstandard
from tests.integration.images.conftest import NewStore, Store, config_of, digest, oci_layout, small_layer, tar_of

from boxship.errors import NotFound
from boxship.images.save import save
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference


def make(store: Store, *layers: bytes, tags: tuple[str, ...] = ("box:1",)) -> str:
    for layer in layers:
        with store.images.snapshotter.writer() as writer:
            writer.write(layer)
            writer.commit()
    return store.images.create(config_of(*layers), tags=[Reference.parse(tag) for tag in tags]).id


def files_of(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            if file is not None:
                found[entry.name] = file.read()
    return found


async def test_a_layer_of_everything_comes_back_bit_for_bit(new_store: NewStore, odd_layer: bytes) -> None:
    first, second = new_store(), new_store()
    image_id = make(first, odd_layer, small_layer("above"))
    archive = await first.save("box:1")

    assert await second.load(archive) == ["Loaded image: box:1"]

    image = second.images.get("box:1")
    assert image.id == image_id
    assert image.raw == first.images.get("box:1").raw
    assert second.layer(digest(odd_layer)) == odd_layer
    assert await second.save("box:1") == archive


async def test_the_archive_is_both_a_docker_archive_and_an_oci_layout(store: Store) -> None:
    image_id = make(store, small_layer("a"), small_layer("b"), tags=("box:1", "example.com/team/box:2"))

    files = files_of(await store.save("box:1", "example.com/team/box:2"))

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["box:1", "example.com/team/box:2"]
    assert digest(files[entry["Config"]]) == image_id
    assert [digest(files[path]) for path in entry["Layers"]] == [digest(small_layer("a")), digest(small_layer("b"))]
    named = json.loads(files["index.json"])["manifests"]
    assert [each["annotations"]["io.containerd.image.name"] for each in named] == [
        "docker.io/library/box:1", "example.com/team/box:2",
    ]  # fmt: skip
    manifest = json.loads(files[f"blobs/{named[0]['digest'].replace(':', '/')}"])
    assert manifest["config"]["digest"] == image_id
    assert all(digest(data) == f"sha256:{name.rpartition('/')[2]}" for name, data in files.items() if name.startswith("blobs/"))


async def test_several_images_share_their_layers_in_one_archive(new_store: NewStore) -> None:
    first, second = new_store(), new_store()
    common = small_layer("common")
    make(first, common, small_layer("a"), tags=("box:a",))
    untagged = make(first, common, small_layer("b"), tags=())

    archive = await first.save("box:a", untagged)
    names = list(files_of(archive))

    assert len(names) == len(set(names))
    assert await second.load(archive) == ["Loaded image: box:a", f"Loaded image ID: {untagged}"]
    assert second.images.get(untagged).tags == ()


async def test_a_repository_stands_for_all_its_tags(store: Store) -> None:
    make(store, small_layer("a"), tags=("box:1",))
    make(store, small_layer("b"), tags=("box:2", "other:1"))

    entries = json.loads(files_of(await store.save("box"))["manifest.json"])

    assert [entry["RepoTags"] for entry in entries] == [["box:1"], ["box:2"]]


async def test_an_id_brings_no_tag_along(store: Store) -> None:
    image_id = make(store, small_layer("a"))

    for name in (image_id, image_id.removeprefix("sha256:")[:12]):
        [entry] = json.loads(files_of(await store.save(name))["manifest.json"])
        assert entry["RepoTags"] is None


async def test_a_name_that_is_not_here_is_told_before_anything_is_sent(store: Store) -> None:
    make(store, small_layer("a"))
    with pytest.raises(NotFound, match="No such image: nothing:latest"):
        save(store.images, ["box:1", "nothing"])
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        save(store.images, ["box:1"], Platform.parse("linux/s390x"))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
async def test_compressed_blobs_and_their_manifest_go_out_as_they_came(new_store: NewStore, compress, odd_layer: bytes) -> None:  # type: ignore[no-untyped-def]
    first, second = new_store(), new_store()
    blob = compress(odd_layer)
    kind = "gzip" if compress is gzip.compress else "zstd"
    layout = oci_layout(
        config_of(odd_layer), blob, annotations={"io.containerd.image.name": "docker.io/library/box:1"},
        media_type=f"application/vnd.oci.image.layer.v1.tar+{kind}",
    )  # fmt: skip
    assert await first.load(tar_of(layout)) == ["Loaded image: box:1"]

    archive = await first.save("box:1")

    for name, data in layout.items():
        if name.startswith("blobs/"):
            assert files_of(archive)[name] == data
    assert await second.load(archive) == ["Loaded image: box:1"]
    assert second.layer(digest(odd_layer)) == odd_layer
    before, after = first.images.get("box:1").manifest, second.images.get("box:1").manifest
    assert before is not None and after is not None
    assert after.digest == before.digest


async def test_an_image_removed_while_it_is_saved_goes_out_whole(new_store: NewStore) -> None:
    first, second = new_store(), new_store()
    make(first, small_layer("a"), small_layer("b"))
    stream = save(first.images, ["box:1"])
    parts = [await anext(stream)]

    first.images.remove("box:1")
    parts += [part async for part in stream]

    assert await second.load(b"".join(parts)) == ["Loaded image: box:1"]


async def test_the_same_archive_loaded_twice_at_once(new_store: NewStore, odd_layer: bytes) -> None:
    store = new_store()
    blob = gzip.compress(odd_layer)
    archive = tar_of(oci_layout(config_of(odd_layer), blob, annotations={"io.containerd.image.name": "docker.io/library/box:1"}))

    assert await asyncio.gather(*(store.load(archive, step) for step in (1000, 7000, 100_000))) == [["Loaded image: box:1"]] * 3

    assert store.layer(digest(odd_layer)) == odd_layer
    assert store.held()[2] == []
    assert not [thread for thread in threading.enumerate() if thread.name == "archive"]


async def test_the_sizes_of_layers_are_told_as_they_pass(store: Store) -> None:
    layer = tar_of({"big": bytes(20 << 20)})
    make(store, layer)
    archive = await store.save("box:1")
    store.images.remove("box:1")

    await store.load(archive)
    await asyncio.sleep(0)

    details = [message["progressDetail"] for message in store.messages]
    assert all(message["status"] == "Loading layer" for message in store.messages)
    assert {message["id"] for message in store.messages} == {digest(layer)[7:19]}
    assert details[-1] == {"current": len(layer), "total": len(layer)}
    assert 1 < len(details) < 10
