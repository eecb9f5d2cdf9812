"""Docker Hub's images come from a mirror where it has them, and from the Hub where not."""

from __future__ import annotations

import pytest
from tests.integration.registry.conftest import Home, NewHome, NewOurs, Ours
from tests.integration.registry.pictures import digest, picture, tar_of

from boxship.errors import Denied, NotFound, Unavailable
from boxship.http.message import Handler, Request, Response
from boxship.registry import registries as module
from boxship.registry.model import Credentials
from boxship.registry.registries import Endpoint, Registries

IMAGE = picture(tar_of(a=b"a" * 5000))
OTHER = picture(tar_of(b=b"b"))


@pytest.fixture
async def hub(new_ours: NewOurs, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """Stands where Docker Hub does."""
    made: Ours = await new_ours()
    endpoints = Registries.endpoints

    async def redirected(self: Registries, registry: str) -> list[Endpoint]:
        found = await endpoints(self, registry)
        return [Endpoint(made.host, ("http",), verified=False) if each.host == "registry-1.docker.io" else each for each in found]

    monkeypatch.setattr(module.Registries, "endpoints", redirected)
    return made


@pytest.fixture
def mirrored(new_home: NewHome, ours: Ours) -> Home:
    return new_home(mirrors=["http://127.0.0.1:9", f"http://{ours.host}/"])


async def test_a_mirror_is_asked_first(mirrored: Home, ours: Ours, hub: Ours) -> None:
    await ours.putter.image("library/box", "latest", IMAGE)
    ours.asked.clear()
    found = await mirrored.pull("box", credentials=Credentials("alice", "secret"))
    assert [str(tag) for tag in found.tags] == ["docker.io/library/box:latest"]
    assert mirrored.messages[0] == {"status": "Pulling from library/box", "id": "latest"}
    assert mirrored.statuses()[-1] == "Status: Downloaded newer image for box:latest"
    assert hub.asked == []


async def test_what_a_mirror_does_not_have_comes_from_the_hub(mirrored: Home, ours: Ours, hub: Ours) -> None:
    await hub.putter.image("library/box", "latest", IMAGE)
    assert (await mirrored.pull("box")).id == IMAGE.id
    assert ours.count("GET", "/v2/library/box/manifests/latest") == 1


async def test_what_a_mirror_says_wrongly_comes_from_the_hub(mirrored: Home, ours: Ours, hub: Ours) -> None:
    for registry in (ours, hub):
        await registry.putter.image("library/box", "latest", IMAGE)

    async def lie(request: Request, handle: Handler) -> Response | None:
        return Response(200, IMAGE.blobs[0][::-1]) if digest(IMAGE.blobs[0]) in request.path else None

    ours.answering = lie
    assert (await mirrored.pull("box")).id == IMAGE.id
    assert hub.count("GET", digest(IMAGE.blobs[0])) == 1


async def test_no_credentials_go_to_a_mirror(mirrored: Home, ours: Ours, hub: Ours) -> None:
    seen: list[str] = []

    async def guard(request: Request, handle: Handler) -> Response | None:
        seen.append(request.headers.get("Authorization"))
        return Response(401, b"", {"WWW-Authenticate": 'Basic realm="mirror"'})

    ours.answering = guard
    await hub.putter.image("library/box", "latest", IMAGE)
    await mirrored.pull("box", credentials=Credentials("alice", "secret"))
    assert set(seen) == {""}


async def test_the_hubs_word_is_the_one_that_counts(mirrored: Home, ours: Ours, hub: Ours) -> None:
    with pytest.raises(NotFound) as caught:
        await mirrored.pull("box")
    assert caught.value.message.startswith("repository box not found: name unknown: ")
    await hub.putter.image("library/box", "2", IMAGE)
    with pytest.raises(NotFound) as caught:
        await mirrored.pull("box")
    assert caught.value.message == "manifest for box:latest not found: manifest unknown: manifest unknown to registry: latest"


async def test_pushes_pass_mirrors_by(mirrored: Home, ours: Ours, hub: Ours) -> None:
    mirrored.make(tar_of(a=b"a"), tag="box:1")
    await mirrored.push("box:1")
    assert hub.repositories.names() == ["library/box"]
    assert ours.asked == []


async def test_other_registries_have_no_mirrors(mirrored: Home, ours: Ours, new_ours: NewOurs) -> None:
    other: Ours = await new_ours()
    await ours.putter.image("library/box", "1", OTHER)
    await other.putter.image("library/box", "1", IMAGE)
    assert (await mirrored.pull(f"{other.host}/library/box:1")).id == IMAGE.id


async def test_a_private_image(hub: Ours, home: Home) -> None:
    async def guard(request: Request, handle: Handler) -> Response | None:
        return Response(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}')

    hub.answering = guard
    with pytest.raises(NotFound) as caught:
        await home.pull("alice/box")
    assert caught.value.message == (
        "pull access denied for alice/box, repository does not exist or may require 'docker login':"
        " unauthorized: authentication required"
    )
    home.make(tar_of(a=b"a"), tag="alice/box:1")
    with pytest.raises(Denied):
        await home.push("alice/box:1")


async def test_nothing_answers(new_home: NewHome) -> None:
    with pytest.raises(Unavailable, match=r"dial tcp 127\.0\.0\.1:9: connect: connection refused"):
        await new_home().pull("127.0.0.1:9/box")
