"""Archives as others write them, sound and unsound."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tests.integration.images.conftest import (
    NewStore,
    Store,
    config_of,
    digest,
    docker_archive,
    oci_layout,
    small_layer,
    tar_of,
)

from boxship.errors import BoxshipError, Invalid, Unavailable
from boxship.syscalls import mount as m

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "bzip2": bz2.compress,
    "xz": lzma.compress,
}  # fmt: skip
A, B = small_layer("a"), small_layer("b")
EMPTY: tuple[list[str], list[str], list[str]] = ([], [], [])


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_the_whole_archive_may_be_compressed(store: Store, compression: str) -> None:
    archive = COMPRESSIONS[compression](tar_of(docker_archive(A, B)))
    for step in (1, 5, 1 << 20):
        assert await store.load(archive, step) == ["Loaded image: box:1"]
    assert [store.layer(layer) for layer in store.images.get("box:1").layers] == [A, B]


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_layers_may_be_compressed_and_are_kept_exactly(new_store: NewStore, compression: str, odd_layer: bytes) -> None:
    store, other = new_store(), new_store()
    stored = COMPRESSIONS[compression](odd_layer)

    assert await store.load(tar_of(docker_archive(odd_layer, A, stored=(stored, A)))) == ["Loaded image: box:1"]

    assert store.layer(digest(odd_layer)) == odd_layer
    await other.load(await store.save("box:1"))
    assert other.layer(digest(odd_layer)) == odd_layer


async def test_an_old_archive_links_a_layer_that_stands_in_it_once(store: Store) -> None:
    files = docker_archive(A, B)
    first = f"{digest(A)[7:]}/layer.tar"
    [entry] = json.loads(files["manifest.json"])
    config = config_of(A, B, A)
    files["other.json"] = config
    files["again/layer.tar"] = (tarfile.SYMTYPE, f"../{first}")
    files["manifest.json"] = json.dumps(
        [entry, {"Config": "./other.json", "RepoTags": None, "Layers": [*entry["Layers"], "again/layer.tar"]}]
    ).encode()

    assert await store.load(tar_of(files)) == ["Loaded image: box:1", f"Loaded image ID: {digest(config)}"]
    assert store.images.get(digest(config)).layers == (digest(A), digest(B), digest(A))


async def test_documents_may_stand_before_the_layers(store: Store) -> None:
    files = docker_archive(A)
    assert await store.load(tar_of(dict(reversed(files.items())))) == ["Loaded image: box:1"]


async def test_a_tag_moves_to_the_image_loaded_last(store: Store) -> None:
    await store.load(tar_of(docker_archive(A)))
    await store.load(tar_of(docker_archive(B)))
    assert store.images.get("box:1").layers == (digest(B),)
    assert len(store.images.all()) == 2


async def test_an_oci_layout_by_its_own_names(store: Store) -> None:
    blob = gzip.compress(A)
    named = oci_layout(config_of(A), blob, annotations={"org.opencontainers.image.ref.name": "example.com/box:3"})
    bare = oci_layout(config_of(A, created="2024-01-01T00:00:00Z"), blob, annotations={"org.opencontainers.image.ref.name": "v3"})

    assert await store.load(tar_of(named)) == ["Loaded image: example.com/box:3"]
    [line] = await store.load(tar_of(bare))
    assert line.startswith("Loaded image ID: sha256:")


async def test_an_index_gives_this_platforms_image_and_no_attestation(store: Store) -> None:
    ours, theirs = gzip.compress(A), gzip.compress(B)
    mine = oci_layout(config_of(A), ours)
    foreign = oci_layout(config_of(B, architecture="s390x"), theirs)
    [descriptor] = json.loads(mine["index.json"])["manifests"]
    [other] = json.loads(foreign["index.json"])["manifests"]
    attestation = {**other, "platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [
        {**other, "platform": {"os": "linux", "architecture": "s390x"}},
        {**descriptor, "platform": {"os": "linux", "architecture": "amd64"}}, attestation,
    ]}).encode()  # fmt: skip
    top = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(index), "size": len(index)}
    files = {**foreign, **mine, f"blobs/sha256/{digest(index)[7:]}": index}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top, attestation]}).encode()

    if os.uname().machine == "x86_64":
        assert await store.load(tar_of(files)) == [f"Loaded image ID: {digest(config_of(A))}"]
        assert store.held()[0] == [digest(A)[7:]]
        assert digest(theirs) not in store.held()[1]


async def test_a_layer_that_is_here_already_is_not_read_again(store: Store) -> None:
    layout = oci_layout(config_of(A), A, media_type="application/vnd.oci.image.layer.v1.tar")
    await store.load(tar_of(layout))
    layout[f"blobs/sha256/{digest(A)[7:]}"] = B  # whatever stands there: the layer named is here, verified

    assert await store.load(tar_of(layout)) == [f"Loaded image ID: {digest(config_of(A))}"]
    assert store.layer(digest(A)) == A


def broken() -> dict[str, tuple[bytes, str]]:
    whole = docker_archive(A, B)
    layout = oci_layout(config_of(A), gzip.compress(A))
    first = f"{digest(A)[7:]}/layer.tar"
    [entry] = json.loads(whole["manifest.json"])
    [manifest] = json.loads(layout["index.json"])["manifests"]
    manifest_path = f"blobs/sha256/{manifest['digest'][7:]}"

    def without(files: dict[str, bytes], name: str) -> bytes:
        return tar_of({key: value for key, value in files.items() if key != name})

    def manifest_json(document: object) -> bytes:
        return tar_of({**whole, "manifest.json": json.dumps(document).encode()})

    return {
        "nothing": (b"", "is no tar of images"),
        "garbage": (b"\x01no tar at all" * 100, "is no tar of images"),
        "an empty tar": (bytes(10240), "neither a manifest.json nor an index.json"),
        "no image": (tar_of({"file": b"text"}), "neither a manifest.json nor an index.json"),
        "cut in a layer": (tar_of(whole)[:3000], "cut short|unexpected end of data"),
        "cut in a compressed stream": (gzip.compress(tar_of(whole))[:-50], "cut short"),
        "a broken compressed stream": (gzip.compress(tar_of(whole))[:60] + b"\xff" * 99, "broken gzip stream|cut short"),
        "a missing layer": (without(whole, first), "names the layer .* but does not hold it"),
        "a missing configuration": (without(whole, entry["Config"]), "but does not hold it"),
        "a layer too few": (manifest_json([{**entry, "Layers": entry["Layers"][:1]}]), "layers length mismatch"),
        "layers exchanged": (manifest_json([{**entry, "Layers": entry["Layers"][::-1]}]), "invalid diffID"),
        "a layer that is no tar": (tar_of({**whole, first: b"\x1f\x8b" + b"junk" * 200}), "broken gzip stream"),
        "a layer with a broken header": (tar_of({**whole, first: A[:140] + b"9" + A[141:]}), "does not hold it|no sound tar"),
        "a broken configuration": (tar_of({**whole, entry["Config"]: b"{"}), "malformed|invalid"),
        "a manifest of another kind": (manifest_json({"Config": "x"}), "manifest.json is malformed"),
        "a manifest that is no JSON": (tar_of({**whole, "manifest.json": b"["}), "manifest.json is malformed"),
        "a manifest of numbers": (manifest_json([{**entry, "Layers": [1]}]), "manifest.json is malformed"),
        "an impossible tag": (manifest_json([{**entry, "RepoTags": ["team/CASE"]}]), "must be lowercase"),
        "a tag with a digest": (manifest_json([{**entry, "RepoTags": [f"box@{digest(A)}"]}]), "invalid tag"),
        "a forged blob": (tar_of({**layout, manifest_path: b'{"schemaVersion":2}'}), "digest mismatch"),
        "a forged layer": (
            tar_of({**layout, f"blobs/sha256/{digest(gzip.compress(A))[7:]}": gzip.compress(B)}), "digest mismatch",
        ),
        "an index of nothing": (tar_of({"index.json": b'{"schemaVersion":2,"manifests":[]}'}), "names no image"),
        "links in a circle": (
            tar_of({**whole, first: (tarfile.SYMTYPE, "layer.tar")}), "names the layer .* but does not hold it",
        ),
        "a second image unsound": (manifest_json([entry, {**entry, "Config": "missing"}]), "does not hold it"),
    }  # fmt: skip


@pytest.mark.parametrize("case", broken())
async def test_an_unsound_archive_is_refused_and_leaves_nothing(store: Store, case: str) -> None:
    archive, message = broken()[case]
    with pytest.raises(Invalid, match=message):
        await store.load(archive)
    assert store.held() == EMPTY
    assert store.images.all() == []


async def test_what_an_unsound_archive_shares_with_an_image_stays(store: Store) -> None:
    await store.load(tar_of(docker_archive(A)))
    archive, _ = broken()["a second image unsound"]
    with pytest.raises(Invalid):
        await store.load(archive)
    assert store.held()[0] == [digest(A)[7:]]
    assert store.layer(digest(A)) == A


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
async def test_a_full_disk_leaves_nothing(new_store: NewStore, tmp_path: Path, compressed: bool) -> None:
    root = tmp_path / "small"
    root.mkdir()
    m.mount("tmpfs", str(root), "tmpfs", 0, "size=3m")
    try:
        store = new_store(root)
        fits, large = small_layer("fits"), tar_of({"big": os.urandom(6 << 20)})
        stored = (fits, gzip.compress(large, 1) if compressed else large)
        with pytest.raises(Unavailable, match="no space left on device"):
            await store.load(tar_of(docker_archive(fits, large, stored=stored)))
        assert store.held() == EMPTY
        assert await store.load(tar_of(docker_archive(A))) == ["Loaded image: box:1"]
    finally:
        m.unmount(str(root), m.MNT_DETACH)


async def test_more_documents_than_any_image_has(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxship.images.archive._DOCUMENTS_LIMIT", 1000)
    with pytest.raises(BoxshipError, match="of documents"):
        await store.load(tar_of({f"{number}.json": b"x" * 100 for number in range(20)}))
