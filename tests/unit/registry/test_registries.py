"""Which registry is reached how."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import Invalid, Unavailable
from boxship.registry import registries as module
from boxship.registry.model import Credentials
from boxship.registry.registries import Endpoint, Registries

HUB = Endpoint("registry-1.docker.io", ("https",), verified=True)


def secure(host: str) -> Endpoint:
    return Endpoint(host, ("https",), verified=True)


def insecure(host: str) -> Endpoint:
    return Endpoint(host, ("https", "http"), verified=False)


@pytest.mark.parametrize(
    ("registry", "endpoint"),
    [
        ("docker.io", HUB),
        ("registry.example", secure("registry.example")),
        ("registry.example:5000", secure("registry.example:5000")),
        ("127.0.0.1:5000", insecure("127.0.0.1:5000")),
        ("127.200.3.4", insecure("127.200.3.4")),
        ("[::1]:5000", insecure("[::1]:5000")),
        ("[::1]", insecure("[::1]")),
        ("[::2]:5000", secure("[::2]:5000")),
        ("localhost:5000", insecure("localhost:5000")),
        ("localhost", insecure("localhost")),
        ("registry.localhost:5000", insecure("registry.localhost:5000")),
        ("localhost.example", secure("localhost.example")),
        ("127.0.0.1.example:5000", secure("127.0.0.1.example:5000")),
        ("plain.example:80", insecure("plain.example:80")),
        ("plain.example:81", secure("plain.example:81")),
        ("any.example:1234", insecure("any.example:1234")),
        ("10.1.2.3:5000", insecure("10.1.2.3:5000")),
        ("11.1.2.3:5000", secure("11.1.2.3:5000")),
    ],
)
async def test_endpoints(registry: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: str) -> list[Any]:
        return []

    monkeypatch.setattr(module, "_addresses", nothing)
    registries = Registries(insecure=["plain.example:80", "Any.example", "10.0.0.1/8"])
    assert await registries.endpoints(registry) == [endpoint]


async def test_a_name_is_insecure_where_its_address_was_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"inside.example": "10.1.2.3", "outside.example": "11.1.2.3", "rebound.example": "127.0.0.1"}

    async def getaddrinfo(name: str, port: object) -> list[Any]:
        if name not in addresses:
            raise OSError("no such host")
        return [(0, 0, 0, "", (addresses[name], 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    registries = Registries(insecure=["10.0.0.0/8"])
    assert not (await registries.main_endpoint("inside.example:5000")).verified
    assert (await registries.main_endpoint("outside.example:5000")).verified
    assert (await registries.main_endpoint("unknown.example:5000")).verified
    # whoever can make a name point here must not get credentials in the clear
    assert (await registries.main_endpoint("rebound.example:5000")).verified


async def test_mirrors_stand_before_the_hub_alone() -> None:
    registries = Registries(mirrors=["https://mirror.example", "http://127.0.0.1:5000/"])
    assert await registries.endpoints("docker.io") == [
        Endpoint("mirror.example", ("https",), verified=True, mirror=True),
        Endpoint("127.0.0.1:5000", ("http",), verified=False, mirror=True),
        HUB,
    ]
    assert await registries.main_endpoint("docker.io") == HUB
    assert await registries.endpoints("registry.example") == [secure("registry.example")]


@pytest.mark.parametrize(
    "mirror", ["mirror.example", "ftp://mirror.example", "https://", "https://mirror.example/path", "https://mirror.example?q",
               "https://a:b@mirror.example", "https://[::1", "https://mirror.example#f"],
)  # fmt: skip
def test_what_is_no_mirror_is_refused(mirror: str) -> None:
    with pytest.raises(Invalid, match="invalid mirror"):
        Registries(mirrors=[mirror])


@pytest.mark.parametrize(
    ("entry", "text"),
    [("http://registry.example", "should not contain '://'"), ("10.0.0.0/33", "invalid insecure"), ("a/b", "invalid insecure")],
)
def test_what_is_no_insecure_registry_is_refused(entry: str, text: str) -> None:
    registries = Registries(mirrors=["https://mirror.example"])
    with pytest.raises(Invalid, match=text):
        registries.configure(mirrors=[], insecure=[entry])
    assert registries._mirrors == [("https", "mirror.example")]  # nothing of a refused configuration is taken over


async def test_a_registry_that_is_insecure_no_more_is_spoken_to_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Session:
        def __init__(self, client: object, base: str, *_: object, **__: object) -> None:
            self.base = base

        async def greet(self) -> None:
            tried.append(self.base)
            if self.base.startswith("https"):
                raise Unavailable("no TLS")

    monkeypatch.setattr(module, "Session", Session)
    registries = Registries(insecure=["registry.example"])
    for _ in range(2):
        await registries.session(await registries.main_endpoint("registry.example"), None)
    assert tried == ["https://registry.example", "http://registry.example", "http://registry.example"]
    registries.configure(mirrors=[], insecure=[])
    with pytest.raises(Unavailable):
        await registries.session(await registries.main_endpoint("registry.example"), None)
    assert tried[3:] == ["https://registry.example"]
    await registries.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("", "registry-1.docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v2/", "registry.example"),
    ],
)
async def test_a_login_goes_where_its_address_says(address: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Session:
        async def log_in(self) -> str:
            return "token"

    async def session(endpoint: Endpoint, credentials: Credentials) -> Session:
        asked.append(endpoint.host)
        return Session()

    registries = Registries()
    monkeypatch.setattr(registries, "session", session)
    assert await registries.login(Credentials("alice", "secret", server_address=address)) == "token"
    assert asked == [host]


async def test_one_lock_a_layer_and_none_without_one() -> None:
    registries = Registries()
    one, other = registries.layer_lock("sha256:1"), registries.layer_lock("sha256:2")
    assert registries.layer_lock("sha256:1") is one is not other
    del one, other
    assert len(registries._locks) == 0


async def test_a_changed_certificate_is_seen(tmp_path: Path) -> None:
    registries = Registries(certificates=[tmp_path])
    endpoint = secure("registry.example:5000")
    first = registries._client(endpoint)
    assert registries._client(endpoint) is first
    (tmp_path / "registry.example:5000").mkdir()
    (tmp_path / "registry.example:5000" / "ca.crt").write_text("nonsense")
    with pytest.raises(Invalid, match=r"cannot use .*ca\.crt"):
        registries._client(endpoint)
    (tmp_path / "registry.example:5000" / "ca.crt").unlink()
    (tmp_path / "registry.example:5000" / "client.cert").write_text("nonsense")
    with pytest.raises(Invalid, match=r"missing key client\.key for client certificate client\.cert \(authorities must"):
        registries._client(endpoint)
    (tmp_path / "registry.example:5000" / "client.cert").rename(tmp_path / "registry.example:5000" / "client.key")
    with pytest.raises(Invalid, match=r"missing client certificate client\.cert for key client\.key"):
        registries._client(endpoint)
    await registries.close()


async def test_a_proxy_that_cannot_be_used_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://proxy.example")
    registries = Registries()
    with pytest.raises(Exception, match="the proxy that the environment names cannot be used"):
        registries._client(secure("registry.example"))
    # and none stands between this host and itself
    registries._client(insecure("127.0.0.1:5000"))
    registries._client(insecure("[::1]:5000"))
    registries._client(insecure("localhost"))
    await registries.close()
