"""Images go to a registry as they came, or as Docker would send them."""

from __future__ import annotations

import json

import pytest
from tests.integration.registry.conftest import Home, NewHome, Ours, needs_peer
from tests.integration.registry.pictures import Putter, digest, large_layer, picture, tar_of

from boxship.errors import Conflict, Denied, NotFound, Unavailable
from boxship.http.message import Handler, Request, Response, json_response
from boxship.oci import media_types

LAYERS = (tar_of(a=b"a" * 5000), tar_of(b=b"b" * 70_000))


def host(peer: Putter) -> str:
    return peer.http.base_url.netloc.decode()


@needs_peer
@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_what_was_pulled_goes_back_bit_for_bit(peer: Putter, home: Home, docker: bool, compression: str) -> None:
    image = picture(*LAYERS, compression=compression, docker=docker)
    name = f"back/{compression}{int(docker)}"
    await peer.image(name, "1", image)
    found = await home.pull(f"{host(peer)}/{name}:1")
    home.tag(found, f"{host(peer)}/{name}-copy:2")

    await home.push(f"{host(peer)}/{name}-copy:2")

    answer = await peer.http.get(f"/v2/{name}-copy/manifests/2", headers={"Accept": image.media_type})
    assert answer.content == image.manifest
    for data in (*image.blobs, image.config):
        assert (await peer.http.get(f"/v2/{name}-copy/blobs/{digest(data)}")).content == data


@needs_peer
async def test_what_was_made_here_comes_back_the_same(peer: Putter, new_home: NewHome) -> None:
    home, other = new_home(), new_home()
    name = f"{host(peer)}/made:1"
    image = home.make(*LAYERS, tag=name, config={"Healthcheck": {"Test": ["CMD", "true"]}})
    await home.push(name)

    answer = await peer.http.get("/v2/made/manifests/1", headers={"Accept": media_types.DOCKER_MANIFEST})
    manifest = answer.json()
    assert answer.headers["Content-Type"] == manifest["mediaType"] == media_types.DOCKER_MANIFEST
    assert manifest["config"] == {"mediaType": media_types.DOCKER_CONFIG, "digest": image.id, "size": len(image.raw)}
    assert {layer["mediaType"] for layer in manifest["layers"]} == {media_types.DOCKER_LAYER_GZIP}

    found = await other.pull(name)
    assert (found.id, found.raw) == (image.id, image.raw)
    assert [other.layer(layer) for layer in found.layers] == list(LAYERS)
    (shown,) = home.images.get(name).digests
    assert shown.digest == digest(answer.content)


@needs_peer
async def test_the_same_image_is_pushed_as_the_same_manifest(peer: Putter, new_home: NewHome) -> None:
    digests = set()
    for _ in range(2):
        home = new_home()
        home.make(*LAYERS, tag=f"{host(peer)}/same:1")
        await home.push(f"{host(peer)}/same:1")
        digests.add(str(home.images.get(f"{host(peer)}/same:1").digests[0].digest))
    assert len(digests) == 1


async def test_what_is_told(ours: Ours, home: Home) -> None:
    name = f"{ours.host}/told"
    image = home.make(*LAYERS, tag=f"{name}:1")
    shorts = [layer[7:19] for layer in image.layers]

    await home.push(f"{name}:1")

    assert home.messages[0] == {"status": f"The push refers to repository [{name}]"}
    for short in shorts:
        assert home.statuses(short) == ["Preparing", "Pushing", "Pushed"]
    raw = (await ours.putter.http.get("/v2/told/manifests/1")).content
    assert home.messages[-2:] == [
        {"status": f"1: digest: {digest(raw)} size: {len(raw)}"},
        {"progressDetail": {}, "aux": {"Tag": "1", "Digest": digest(raw), "Size": len(raw)}},
    ]

    ours.asked.clear()
    home.tag(image, f"{name}:2")
    await home.push(f"{name}:2")

    for short in shorts:
        assert home.statuses(short) == ["Preparing", "Layer already exists"]
    assert [method for method, _, _ in ours.asked if method not in ("HEAD", "GET")] == ["PUT"]


@needs_peer
async def test_layers_are_mounted_from_where_they_are_known_to_be(peer: Putter, home: Home) -> None:
    await peer.image("source/known", "1", picture(*LAYERS))
    found = await home.pull(f"{host(peer)}/source/known:1")
    home.tag(found, f"{host(peer)}/mounted:1")
    await home.push(f"{host(peer)}/mounted:1")
    for layer in found.layers:
        assert home.statuses(layer[7:19]) == ["Preparing", "Mounted from source/known"]


async def test_an_upload_begun_in_place_of_a_mount_is_used(ours: Ours, home: Home) -> None:
    image = home.make(LAYERS[0], tag=f"{ours.host}/first:1")
    for name in ("first", "second"):
        home.tag(image, f"{ours.host}/{name}:1")
        await home.push(f"{ours.host}/{name}:1")
    for name in ("first", "second"):  # they lose it, and the image's digests still say that they have it
        repository = ours.repositories.get(name)
        for manifest in list(repository.manifests):
            ours.repositories.remove_manifest(name, manifest)
        for blob in list(repository.blobs):
            ours.repositories.remove_blob(name, blob)
    ours.asked.clear()
    home.tag(image, f"{ours.host}/third:1")
    await home.push(f"{ours.host}/third:1")
    assert ours.count("POST", "/third/blobs/uploads/") == 3  # two mounts tried, and the configuration
    assert ours.count("DELETE", "/third/blobs/uploads/") == 1
    assert home.statuses(image.layers[0][7:19])[-1] == "Pushed"


async def test_every_tag(ours: Ours, home: Home) -> None:
    images = {tag: home.make(tar_of(tag=tag.encode()), tag=f"{ours.host}/every:{tag}") for tag in ("1", "2")}
    home.make(LAYERS[0], tag=f"{ours.host}/other:3")
    await home.push(f"{ours.host}/every")
    assert (await ours.putter.http.get("/v2/every/tags/list")).json()["tags"] == ["1", "2"]
    assert ours.repositories.names() == ["every"]
    for tag, image in images.items():
        assert (await ours.putter.http.get(f"/v2/every/manifests/{tag}")).json()["config"]["digest"] == image.id


async def test_a_layer_that_an_image_has_twice_is_sent_once(ours: Ours, home: Home) -> None:
    home.make(LAYERS[0], LAYERS[1], LAYERS[0], tag=f"{ours.host}/double:1")
    await home.push(f"{ours.host}/double:1")
    assert ours.count("PUT", "/blobs/uploads/") == 3
    assert len((await ours.putter.http.get("/v2/double/manifests/1")).json()["layers"]) == 3


async def test_what_cannot_be_pushed(ours: Ours, home: Home) -> None:
    image = home.make(LAYERS[0], tag=f"{ours.host}/box:1")
    with pytest.raises(NotFound) as caught:
        await home.push(f"{ours.host}/box:2")
    assert caught.value.message == f"An image does not exist locally with the tag: {ours.host}/box"
    with pytest.raises(Conflict, match="cannot push a digest reference"):
        await home.push(f"{ours.host}/box@{image.id}")
    assert ours.asked == []


async def test_layers_that_came_in_another_form(ours: Ours, new_home: NewHome) -> None:
    """A layer is kept in the form in which it came first; where the registry has the other, its manifest stays."""
    home, other = new_home(), new_home()
    first = picture(*LAYERS, compression="gzip")
    second = picture(*LAYERS, compression="zstd", config_extra={"author": "another"})
    await ours.putter.image("box", "gzip", first)
    await ours.putter.image("box", "zstd", second)
    await home.pull(f"{ours.host}/box:gzip")
    found = await home.pull(f"{ours.host}/box:zstd")

    home.tag(found, f"{ours.host}/box:2")
    await home.push(f"{ours.host}/box:2")
    assert (await ours.putter.http.get("/v2/box/manifests/2")).content == second.manifest

    home.tag(found, f"{ours.host}/elsewhere:1")
    await home.push(f"{ours.host}/elsewhere:1")
    manifest = json.loads((await ours.putter.http.get("/v2/elsewhere/manifests/1")).content)
    assert manifest["config"]["digest"] == second.id
    assert [layer["digest"] for layer in manifest["layers"]] == [digest(blob) for blob in first.blobs]
    again = await other.pull(f"{ours.host}/elsewhere:1")
    assert [other.layer(layer) for layer in again.layers] == list(LAYERS)


async def test_a_large_layer_tells_how_far_it_is(ours: Ours, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxship.registry.upload._REPORT_SECONDS", 0.0)
    image = home.make(large_layer(4 << 20), tag=f"{ours.host}/large:1")
    await home.push(f"{ours.host}/large:1")
    sent = [m["progressDetail"] for m in home.messages if m.get("status") == "Pushing"]
    assert len(sent) >= 4
    assert sent == sorted(sent, key=lambda detail: detail["current"])  # type: ignore[index]
    assert image.layers[0][7:19] in {m.get("id") for m in home.messages}


async def test_a_registry_that_refuses(ours: Ours, home: Home) -> None:
    async def refuse(request: Request, handle: Handler) -> Response | None:
        if request.method == "POST":
            return json_response({"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}, 403)
        return None

    ours.answering = refuse
    home.make(LAYERS[0], tag=f"{ours.host}/box:1")
    with pytest.raises(Denied) as caught:
        await home.push(f"{ours.host}/box:1")
    assert caught.value.message == "denied: requested access to the resource is denied"


async def test_nothing_listens(home: Home) -> None:
    home.make(LAYERS[0], tag="127.0.0.1:9/box:1")
    with pytest.raises(Unavailable) as caught:
        await home.push("127.0.0.1:9/box:1")
    assert caught.value.message == 'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused'
