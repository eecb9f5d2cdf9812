"""Registries that speak TLS, with authorities and client certificates of `certs.d`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.registry.conftest import Authority, Home, NewHome, needs_peer, start_peer
from tests.integration.registry.pictures import tar_of

from boxship.errors import Unavailable
from boxship.registry import registries as module
from boxship.registry.registries import Registries

pytestmark = needs_peer

LAYER = tar_of(a=b"a" * 5000)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    tls: dict[str, Any] = {"certificate": str(authority.certificate), "key": str(authority.key)}
    with start_peer(tmp_path_factory.mktemp("sealed"), http={"tls": tls}) as host:
        yield host


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    tls: dict[str, Any] = {"certificate": str(authority.certificate), "key": str(authority.key), "clientcas": [str(authority.ca)]}
    with start_peer(tmp_path_factory.mktemp("mutual"), http={"tls": tls}) as host:
        yield host


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries on loopback are verified as if they were elsewhere."""

    async def secure(self: Registries, host: str) -> bool:
        return False

    monkeypatch.setattr(module.Registries, "_is_insecure", secure)


def certificates(root: Path, host: str, **files: Path) -> Path:
    (root / host).mkdir(parents=True)
    for name, file in files.items():
        shutil.copy(file, root / host / name.replace("_", "."))
    return root


async def test_an_authority_of_certs_d_is_trusted(
    strict: None, sealed: str, authority: Authority, new_home: NewHome, tmp_path: Path
) -> None:
    root = certificates(tmp_path / "certs.d", sealed, ca_crt=authority.ca)
    home, other = new_home(certificates=[tmp_path / "none", root]), new_home(certificates=[root])
    image = home.make(LAYER, tag=f"{sealed}/box:1")
    await home.push(f"{sealed}/box:1")
    assert (await other.pull(f"{sealed}/box:1")).id == image.id


async def test_an_unknown_authority_is_not(strict: None, sealed: str, home: Home) -> None:
    with pytest.raises(Unavailable) as caught:
        await home.pull(f"{sealed}/box:1")
    assert caught.value.message.startswith(f'Get "https://{sealed}/v2/": tls: failed to verify certificate: ')


async def test_the_authority_of_another_host_is_not(
    strict: None, sealed: str, authority: Authority, new_home: NewHome, tmp_path: Path
) -> None:
    home = new_home(certificates=[certificates(tmp_path / "certs.d", "127.0.0.1:1", ca_crt=authority.ca)])
    with pytest.raises(Unavailable, match="failed to verify certificate"):
        await home.pull(f"{sealed}/box:1")


async def test_an_insecure_registry_may_speak_tls_that_nobody_vouches_for(sealed: str, new_home: NewHome) -> None:
    home, other = new_home(), new_home()
    image = home.make(LAYER, tag=f"{sealed}/box:2")
    await home.push(f"{sealed}/box:2")
    assert (await other.pull(f"{sealed}/box:2")).id == image.id


async def test_a_client_certificate_is_shown(
    strict: None, mutual: str, authority: Authority, new_home: NewHome, tmp_path: Path
) -> None:
    directory = authority.directory
    root = certificates(
        tmp_path / "certs.d",
        mutual,
        ca_crt=authority.ca,
        client_cert=directory / "client.crt",
        client_key=directory / "client.key",
    )
    home = new_home(certificates=[root])
    home.make(LAYER, tag=f"{mutual}/box:1")
    await home.push(f"{mutual}/box:1")

    without = new_home(certificates=[certificates(tmp_path / "certs.d2", mutual, ca_crt=authority.ca)])
    with pytest.raises(Unavailable, match=r"tls: .*certificate"):
        await without.pull(f"{mutual}/box:1")


async def test_a_registry_without_tls_is_not_spoken_to_in_the_clear_unasked(strict: None, _peer: str, home: Home) -> None:
    with pytest.raises(Unavailable, match=rf'^Get "https://{_peer}/v2/": '):
        await home.pull(f"{_peer}/box:1")
