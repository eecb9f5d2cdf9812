"""Which registries there are, how each is reached, and how many layers travel at once."""

from __future__ import annotations

import asyncio
import http.cookiejar
import ipaddress
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from boxship import __version__
from boxship.errors import Invalid, Unavailable, Unsupported
from boxship.registry import tls
from boxship.registry.model import Credentials
from boxship.registry.session import FIRST_DELAY, Session

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
_HUB_ADDRESSES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")
_CONNECT_SECONDS = 10.0
_RESOLVE_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
"""How long a registry may say nothing while an answer is due."""

_LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask: a host with its port, the schemes to try, and whether its certificate must be sound."""

    host: str
    schemes: tuple[str, ...]
    verified: bool
    mirror: bool = False


class Registries:
    """The client's configuration, its connections, and its limits."""

    def __init__(
        self, *, mirrors: Sequence[str] = (), insecure: Sequence[str] = (),
        certificates: Sequence[Path] = (Path("/etc/docker/certs.d"), Path("/etc/boxship/certs.d")),
        max_downloads: int = 3, max_uploads: int = 5, retry_delay: float = FIRST_DELAY,
    ) -> None:  # fmt: skip
        """`retry_delay` is how many seconds pass before a second attempt. Raises `Invalid`."""
        self._certificates = certificates
        self._retry_delay = retry_delay
        self._clients: dict[tuple[str, bool], tuple[tls.Signature, httpx.AsyncClient]] = {}
        self._retired: list[httpx.AsyncClient] = []
        self._schemes: dict[Endpoint, str] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.downloads = asyncio.Semaphore(max_downloads)
        self.uploads = asyncio.Semaphore(max_uploads)
        self.configure(mirrors=mirrors, insecure=insecure)

    def configure(self, *, mirrors: Sequence[str], insecure: Sequence[str]) -> None:
        """Take over mirrors (URLs) and insecure registries (hosts, networks); raises `Invalid`."""
        endpoints = [self._mirror(mirror) for mirror in mirrors]
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in insecure:
            if "://" in entry:
                raise Invalid(f"insecure registry {entry} should not contain '://'")
            if "/" in entry:
                try:
                    networks.append(ipaddress.ip_network(entry, strict=False))
                except ValueError as error:
                    raise Invalid(f"invalid insecure registry {entry!r}: {error}") from error
            else:
                hosts.add(entry.lower())
        self._mirrors, self._hosts, self._networks = endpoints, hosts, networks

    @staticmethod
    def _mirror(text: str) -> tuple[str, str]:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise Invalid(f"invalid mirror: {text!r} is not a valid URI: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise Invalid(f"invalid mirror: unsupported scheme {url.scheme!r} in {text!r}",
                          hint="a mirror is a URL such as https://mirror.example")  # fmt: skip
        if url.path not in ("", "/") or url.query or url.fragment or url.userinfo:
            raise Invalid(f"invalid mirror: path, query, fragment or credentials in the URI {text!r}")
        return url.scheme, url.netloc.decode()

    async def endpoints(self, registry: str) -> list[Endpoint]:
        """Where to ask for a registry's repositories, in order: Docker Hub's mirrors come before it."""
        if registry != HUB:
            return [await self._endpoint(registry, ("https", "http"))]
        mirrors = []
        for scheme, host in self._mirrors:
            endpoint = await self._endpoint(host, (scheme,))
            mirrors.append(Endpoint(host, (scheme,), endpoint.verified, mirror=True))
        return [*mirrors, Endpoint(_HUB_HOST, ("https",), verified=True)]

    async def main_endpoint(self, registry: str) -> Endpoint:
        """The registry itself, not a mirror."""
        return (await self.endpoints(registry))[-1]

    async def _endpoint(self, host: str, schemes: tuple[str, ...]) -> Endpoint:
        if await self._is_insecure(host):
            return Endpoint(host, schemes, verified=False)
        return Endpoint(host, schemes[:1], verified=True)

    async def _is_insecure(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if not name or host.endswith("]") or not port.isdecimal():
            name = host
        name = name.strip("[]").lower()
        if host.lower() in self._hosts or name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            # a name may be vouched for by the networks that were named, but not by loopback: whoever answers
            # for its addresses could have credentials sent in the clear
            return bool(self._networks) and _within(await _addresses(name), self._networks)
        return _within([address], [*_LOOPBACK, *self._networks])

    async def session(self, endpoint: Endpoint, credentials: Credentials | None) -> Session:
        """A session with an endpoint that answers; raises `Unavailable`, `Invalid`."""
        client = self._client(endpoint)
        known = self._schemes.get(endpoint)
        failure: Unavailable | None = None
        for scheme in (known,) if known else endpoint.schemes:
            session = Session(
                client, f"{scheme}://{endpoint.host}", credentials, verified=endpoint.verified, delay=self._retry_delay
            )
            try:
                await session.greet()
            except Unavailable as error:
                failure = error
                self._schemes.pop(endpoint, None)
                continue
            self._schemes[endpoint] = scheme
            return session
        if failure is None:
            raise Unavailable(f"no way to reach {endpoint.host} is known")
        raise failure

    def _client(self, endpoint: Endpoint) -> httpx.AsyncClient:
        key = (endpoint.host, endpoint.verified)
        signature = tls.signature(self._certificates, endpoint.host)
        known = self._clients.get(key)
        if known is not None:
            if known[0] == signature:
                return known[1]
            self._retired.append(known[1])  # something may still be on its way there
            self._schemes.pop(endpoint, None)  # what was spoken without these files says nothing
        client = self._new_client(endpoint)
        self._clients[key] = signature, client
        return client

    def _new_client(self, endpoint: Endpoint) -> httpx.AsyncClient:
        name = endpoint.host.rpartition(":")[0] or endpoint.host
        local = name == "localhost" or (name.strip("[]")[:4] in ("127.", "::1"))
        try:
            return httpx.AsyncClient(
                verify=tls.context(self._certificates, endpoint.host, verified=endpoint.verified),
                timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS, pool=None),
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=15),
                # blobs must come as they are; and no manifest is worth the risk of what it may expand to
                headers={"User-Agent": f"boxship/{__version__}", "Accept-Encoding": "identity"},
                # the sessions of several users share a client, and must share nothing else
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
                # a proxy of the environment is of no use on the way to this very host
                trust_env=not local,
            )
        except (ImportError, ValueError) as error:
            raise Unsupported(f"the proxy that the environment names cannot be used: {error}") from error

    def layer_lock(self, digest: str) -> asyncio.Lock:
        """Held while a layer is fetched: two pulls of one layer download it once."""
        lock = self._locks.get(digest)
        if lock is None:
            lock = self._locks[digest] = asyncio.Lock()
        return lock

    async def login(self, credentials: Credentials) -> str:
        """Check credentials with their server; an identity token where it gives one. Raises `Denied`, `Unavailable`."""
        address = credentials.server_address
        host = (address.partition("://")[2] or address).partition("/")[0]
        endpoint = await self.main_endpoint(HUB if host in _HUB_ADDRESSES else host)
        session = await self.session(endpoint, credentials)
        return await session.log_in()

    async def close(self) -> None:
        """Close every connection."""
        for client in (*self._retired, *(client for _, client in self._clients.values())):
            await client.aclose()
        self._clients.clear()
        self._retired.clear()


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _within(addresses: Sequence[Address], networks: Sequence[Network]) -> bool:
    return any(address in network for address in addresses for network in networks)


async def _addresses(name: str) -> list[Address]:
    """What a name resolves to; nothing where it does not."""
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
