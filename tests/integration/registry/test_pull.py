"""Images come from a registry as they are there, told in Docker's words."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.integration.registry.conftest import Home, NewHome, needs_peer
from tests.integration.registry.pictures import Picture, Putter, described, digest, index_of, picture, tar_of

from boxship.errors import Invalid, NotFound
from boxship.oci import media_types
from boxship.oci.reference import Reference
from boxship.registry.distribution import inspect
from boxship.registry.pull import pull_all

pytestmark = needs_peer

LAYERS = (tar_of(a=b"a" * 5000), tar_of(b=b"b" * 70_000))


def host(peer: Putter) -> str:
    return peer.http.base_url.netloc.decode()


def short(blob: bytes) -> str:
    return digest(blob)[7:19]


@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_every_form_of_layer(peer: Putter, home: Home, docker: bool, compression: str) -> None:
    name = f"forms/{compression}{int(docker)}"
    image = picture(*LAYERS, compression=compression, docker=docker)
    await peer.image(name, "1", image)

    found = await home.pull(f"{host(peer)}/{name}:1")

    assert found.id == image.id
    assert [home.layer(layer) for layer in found.layers] == list(LAYERS)
    assert found.manifest is not None and found.manifest.digest == image.digest
    assert found.manifest.media_type == image.media_type
    assert home.images.content.read(image.digest) == image.manifest
    assert all(digest(blob) in home.images.content for blob in image.blobs)
    assert [str(name) for name in found.digests] == [f"{host(peer)}/{name}@{image.digest}"]


async def test_what_is_told(peer: Putter, home: Home) -> None:
    image = picture(*LAYERS)
    await peer.image("told", "1", image)
    name = f"{host(peer)}/told:1"

    await home.pull(name)

    assert home.messages[0] == {"status": "Pulling from told", "id": "1"}
    assert home.statuses() == [f"Digest: {image.digest}", f"Status: Downloaded newer image for {name}"]
    for blob in image.blobs:
        assert home.statuses(short(blob)) == [
            "Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete",
        ]  # fmt: skip
        downloading = [m for m in home.messages if m.get("id") == short(blob) and m["status"] == "Downloading"]
        assert downloading[-1]["progressDetail"] == {"current": len(blob), "total": len(blob)}

    await home.pull(name)

    assert home.statuses() == [f"Digest: {image.digest}", f"Status: Image is up to date for {name}"]
    assert {status for blob in image.blobs for status in home.statuses(short(blob))} == {"Already exists"}


async def test_by_digest(peer: Putter, home: Home) -> None:
    image = picture(*LAYERS)
    await peer.image("by-digest", "1", image)
    found = await home.pull(f"{host(peer)}/by-digest@{image.digest}")
    assert found.tags == ()
    assert home.images.get(f"{host(peer)}/by-digest@{image.digest}").id == image.id
    assert home.messages[0] == {"status": "Pulling from by-digest", "id": image.digest}


async def test_a_tag_that_moved(peer: Putter, home: Home) -> None:
    old, new = picture(LAYERS[0]), picture(*LAYERS)
    name = f"{host(peer)}/moved"
    await peer.image("moved", "latest", old)
    await home.pull(name)
    await peer.image("moved", "latest", new)
    await home.pull(name)
    assert home.images.get(name).id == new.id
    assert home.statuses(short(new.blobs[0])) == ["Already exists"]
    assert home.images.get(old.id).tags == ()


@pytest.mark.parametrize("docker", [True, False])
async def test_the_platform_is_chosen(peer: Putter, new_home: NewHome, docker: bool) -> None:
    children = [
        picture(tar_of(which=which.encode()), architecture=which, variant=variant, docker=docker)
        for which, variant in (("arm64", "v8"), ("amd64", ""), ("arm", "v6"), ("arm", "v7"))
    ]
    name = f"{host(peer)}/platforms{int(docker)}"
    top = await peer.index(f"platforms{int(docker)}", "1", *children, docker=docker)

    for platform, child in (("linux/amd64", 1), ("linux/arm64", 0), ("linux/arm/v7", 3), ("linux/arm/v6", 2)):
        home = new_home()
        found = await home.pull(f"{name}:1", platform)
        assert found.id == children[child].id
        assert [each.digest for each in found.digests] == [top]
        assert found.manifest is not None and found.manifest.digest == children[child].digest

    with pytest.raises(NotFound) as caught:
        await home.pull(f"{name}:1", "linux/s390x")
    assert caught.value.message == "no matching manifest for linux/s390x in the manifest list entries"


async def test_a_single_image_of_another_platform(peer: Putter, home: Home) -> None:
    await peer.image("single", "1", picture(LAYERS[0], architecture="s390x"))
    name = f"{host(peer)}/single:1"
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        await home.pull(name, "linux/amd64")
    assert home.held() == (set(), set(), 0)
    assert (await home.pull(name)).config.architecture == "s390x"


async def test_every_tag(peer: Putter, home: Home) -> None:
    images = {tag: picture(tar_of(tag=tag.encode())) for tag in ("1", "2", "latest")}
    for tag, image in images.items():
        await peer.image("every", tag, image)
    reference = Reference.parse(f"{host(peer)}/every")
    await pull_all(home.registries, home.images, reference, platform=None, credentials=None, progress=home.messages.append)
    assert {tag: home.images.get(f"{reference}:{tag}").id for tag in images} == {t: i.id for t, i in images.items()}


async def test_many_tags_come_in_pages(ours_of_many: tuple[str, int], home: Home) -> None:
    name, count = ours_of_many
    reference = Reference.parse(name)
    await pull_all(home.registries, home.images, reference, platform=None, credentials=None, progress=home.messages.append)
    (image,) = home.images.all()
    assert len(image.tags) == count


@pytest.fixture
async def ours_of_many(ours, monkeypatch) -> tuple[str, int]:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("boxship.api.registry.lists._PAGE", 7)
    image = picture(LAYERS[0])
    for tag in range(20):
        await ours.putter.image("many", f"t{tag}", image)
    return f"{ours.host}/many", 20


async def test_what_is_not_there(peer: Putter, home: Home) -> None:
    await peer.image("there", "1", picture(LAYERS[0]))
    for name in ("there:2", "nothere:1"):
        with pytest.raises(NotFound) as caught:
            await home.pull(f"{host(peer)}/{name}")
        assert caught.value.message == f"manifest for {host(peer)}/{name} not found: manifest unknown: manifest unknown"
    with pytest.raises(NotFound, match=r"repository .*/nothere not found: name unknown: repository name not known to registry"):
        await pull_all(home.registries, home.images, Reference.parse(f"{host(peer)}/nothere"), platform=None,
                       credentials=None, progress=home.messages.append)  # fmt: skip


async def test_one_image_pulled_twice_at_once_is_fetched_once(peer: Putter, home: Home) -> None:
    image = picture(*LAYERS)
    await peer.image("twice", "1", image)
    await peer.image("twice", "2", image)
    results = await asyncio.gather(*(home.pull(f"{host(peer)}/twice:{tag}") for tag in ("1", "2", "1")))
    assert {found.id for found in results} == {image.id}
    for blob in image.blobs:
        told = [m["status"] for m in home.messages if m.get("id") == short(blob)]
        assert told.count("Pull complete") == 1


async def test_a_layer_that_an_image_has_twice(peer: Putter, home: Home) -> None:
    image = picture(LAYERS[0], LAYERS[1], LAYERS[0])
    await peer.image("double", "1", image)
    found = await home.pull(f"{host(peer)}/double:1")
    assert list(found.layers) == list(image.diff_ids)


async def test_an_image_without_layers(peer: Putter, home: Home) -> None:
    image = picture()
    await peer.image("empty", "1", image)
    assert (await home.pull(f"{host(peer)}/empty:1")).layers == ()


def artifact() -> Picture:
    made = picture(LAYERS[0])
    manifest = json.loads(made.manifest)
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    return Picture(made.config, made.blobs, json.dumps(manifest).encode(), made.media_type, made.diff_ids)


async def test_what_is_no_image_is_refused(peer: Putter, home: Home) -> None:
    await peer.image("chart", "1", artifact())
    with pytest.raises(Invalid, match=r"is no image: its configuration is of type application/vnd\.cncf\.helm"):
        await home.pull(f"{host(peer)}/chart:1")
    made = picture(LAYERS[0])
    odd = json.loads(made.manifest)
    odd["layers"][0]["mediaType"] = "application/vnd.example.encrypted"
    await peer.image("odd", "1", Picture(made.config, made.blobs, json.dumps(odd).encode(), made.media_type, made.diff_ids))
    with pytest.raises(Invalid, match=r"is of type application/vnd\.example\.encrypted, which cannot be unpacked"):
        await home.pull(f"{host(peer)}/odd:1")
    assert home.held() == (set(), set(), 0)


async def test_an_index_inside_an_index_is_refused(peer: Putter, home: Home) -> None:
    child = picture(LAYERS[0])
    await peer.index("nested", "inner", child)
    inner = index_of(child)
    entry = described(inner, media_types.OCI_INDEX, platform={"architecture": "amd64", "os": "linux"})
    outer = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]}
    await peer.manifest("nested", "outer", json.dumps(outer).encode(), media_types.OCI_INDEX)
    with pytest.raises(Invalid, match="an index inside an index"):
        await home.pull(f"{host(peer)}/nested:outer", "linux/amd64")


async def test_inspecting_from_afar(peer: Putter, home: Home) -> None:
    children = [picture(LAYERS[0], architecture=which, variant=variant) for which, variant in (("amd64", ""), ("arm64", "v8"))]
    top = await peer.index("afar", "all", *children)
    await peer.image("afar", "one", children[0])

    found = await inspect(home.registries, Reference.parse(f"{host(peer)}/afar:all"), None)
    assert found == {
        "Descriptor": {"mediaType": media_types.OCI_INDEX, "digest": top, "size": len(index_of(*children))},
        "Platforms": [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux", "variant": "v8"}],
    }
    found = await inspect(home.registries, Reference.parse(f"{host(peer)}/afar:one"), None)
    assert found["Descriptor"]["digest"] == children[0].digest
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    with pytest.raises(NotFound):
        await inspect(home.registries, Reference.parse(f"{host(peer)}/afar:none"), None)
