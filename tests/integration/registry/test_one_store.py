"""An engine and a registry on one store: neither takes from the other what it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.integration.registry.conftest import Home
from tests.integration.registry.pictures import digest, tar_of

from boxship.api.registry.app import RegistryAPI
from boxship.http.server import Server
from boxship.registry.repositories import Repositories

LAYERS = (tar_of(a=b"a" * 5000), tar_of(b=b"b" * 70_000))


@dataclass
class Together:
    home: Home
    repositories: Repositories
    host: str


@pytest.fixture
async def together(home: Home) -> AsyncIterator[Together]:
    repositories = Repositories(home.images.content, home.images._database)
    home.images.protected = repositories.kept
    repositories.unused = lambda digests: home.images.collect([], list(digests))
    api = RegistryAPI(repositories)
    server = Server(api.handle)
    port = await server.serve_tcp("127.0.0.1", 0)
    yield Together(home, repositories, f"127.0.0.1:{port}")
    await server.close()
    api.close()


async def test_an_image_removed_here_can_be_pulled_back_from_here(together: Together) -> None:
    home, name = together.home, f"{together.host}/box:1"
    image = home.make(*LAYERS, tag=name)
    await home.push(name)
    home.images.remove(name)
    assert home.images.all() == []
    assert not any(home.images.snapshotter.has_layer(layer) for layer in image.layers)

    found = await home.pull(name)

    assert found.id == image.id
    assert [home.layer(layer) for layer in found.layers] == list(LAYERS)


async def test_what_the_registry_lets_go_stays_with_the_image(together: Together) -> None:
    home, name = together.home, f"{together.host}/box:1"
    image = home.make(*LAYERS, tag=name)
    await home.push(name)
    _remove_all(together.repositories)
    assert home.images.content.read(image.id) == image.raw
    for layer in image.layers:
        blob = home.images.known_blob(layer)
        assert blob is not None and blob.digest in home.images.content
    await home.push(name)


async def test_when_both_let_go_it_is_gone(together: Together) -> None:
    home, name = together.home, f"{together.host}/box:1"
    home.make(*LAYERS, tag=name)
    await home.push(name)
    _remove_all(together.repositories)
    home.images.remove(name)
    assert home.held() == (set(), set(), 0)

    home.make(*LAYERS, tag=name)
    await home.push(name)
    home.images.remove(name)
    assert digest(home.images.content.read(together.repositories.manifest("box", "1")[0])).startswith("sha256:")
    _remove_all(together.repositories)
    assert home.held() == (set(), set(), 0)


def _remove_all(repositories: Repositories) -> None:
    for name in repositories.names():
        repository = repositories.get(name)
        for manifest in list(repository.manifests):
            repositories.remove_manifest(name, manifest)
        for blob in list(repository.blobs):
            repositories.remove_blob(name, blob)
