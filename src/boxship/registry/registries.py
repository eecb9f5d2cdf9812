"""Which registries there are, how each is reached, and how many layers travel at once."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from boxship import __version__
from boxship.errors import BoxshipError, Invalid, Unavailable
from boxship.registry.model import Credentials
from boxship.registry.session import Session

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
_HUB_ADDRESSES = ("", "docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_LOCAL = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask: a host, whether it is a mirror, and the schemes to try."""

    host: str
    schemes: tuple[str, ...]
    verified: bool
    mirror: bool = False


class Registries:
    """The client's configuration, its connections, and its limits."""

    def __init__(
        self, *, mirrors: Sequence[str] = (), insecure: Sequence[str] = (),
        certificates: Sequence[Path] = (Path("/etc/docker/certs.d"), Path("/etc/boxship/certs.d")),
        max_downloads: int = 3, max_uploads: int = 5,
    ) -> None:  # fmt: skip
        self._certificates = certificates
        self._clients: dict[tuple[str, bool], httpx.AsyncClient] = {}
        self._schemes: dict[str, str] = {}
        self.downloads = asyncio.Semaphore(max_downloads)
        self.uploads = asyncio.Semaphore(max_uploads)
        self.layer_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By digest: two pulls of one layer download it once."""
        self.configure(mirrors=mirrors, insecure=insecure)

    def configure(self, *, mirrors: Sequence[str], insecure: Sequence[str]) -> None:
        """Take over mirrors (URLs) and insecure registries (hosts, networks); raises `Invalid`."""
        for mirror in mirrors:
            if not mirror.startswith(("http://", "https://")):
                raise Invalid(f"invalid mirror {mirror!r}", hint="a mirror is a URL such as https://mirror.example")
        self._mirrors = [mirror.rstrip("/") for mirror in mirrors]
        self._insecure_hosts = {entry for entry in insecure if "/" not in entry}
        self._insecure_networks = [*_LOCAL]
        for entry in insecure:
            if "/" in entry:
                try:
                    self._insecure_networks.append(ipaddress.ip_network(entry))
                except ValueError as error:
                    raise Invalid(f"invalid insecure registry {entry!r}: {error}") from error

    def endpoints(self, registry: str) -> list[Endpoint]:
        """Where to ask for a registry's repositories, in order: Docker Hub's mirrors come before it."""
        if registry == HUB:
            mirrors = []
            for url in self._mirrors:
                scheme, _, host = url.partition("://")
                mirrors.append(Endpoint(host, (scheme,), not self._is_insecure(host), mirror=True))
            return [*mirrors, Endpoint(_HUB_HOST, ("https",), verified=True)]
        if self._is_insecure(registry):
            return [Endpoint(registry, ("https", "http"), verified=False)]
        return [Endpoint(registry, ("https",), verified=True)]

    def _is_insecure(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.strip("[]")
        if host in self._insecure_hosts or name in self._insecure_hosts or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self._insecure_networks)

    async def session(self, endpoint: Endpoint, credentials: Credentials | None) -> Session:
        """A session with an endpoint that answers; raises `Unavailable`, `Denied`."""
        known = self._schemes.get(endpoint.host)
        failure: BoxshipError | None = None
        for scheme in (known,) if known else endpoint.schemes:
            session = Session(self._client(endpoint), f"{scheme}://{endpoint.host}", credentials)
            try:
                await session.greet()
            except Unavailable as error:
                # that of the first scheme is told only where the second says nothing better
                failure = error
                self._schemes.pop(endpoint.host, None)
                continue
            self._schemes[endpoint.host] = scheme
            return session
        assert failure is not None
        raise failure

    def _client(self, endpoint: Endpoint) -> httpx.AsyncClient:
        key = (endpoint.host, endpoint.verified)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = httpx.AsyncClient(
                verify=self._tls(endpoint),
                follow_redirects=True,
                timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=15),
                headers={"User-Agent": f"boxship/{__version__}"},
            )
        return client

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext:
        """TLS with the host's own authorities and client certificates, as Docker's certs.d lays them out."""
        context = ssl.create_default_context()
        if not endpoint.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for root in self._certificates:
            directory = root / endpoint.host
            if not directory.is_dir():
                continue
            for file in sorted(directory.iterdir()):
                try:
                    if file.suffix == ".crt":
                        context.load_verify_locations(file)
                    elif file.suffix == ".cert":
                        context.load_cert_chain(file, file.with_suffix(".key"))
                except (OSError, ssl.SSLError) as error:
                    raise Invalid(f"cannot use {file}: {error}") from error
        return context

    async def login(self, credentials: Credentials) -> str:
        """Check credentials with their server; an identity token where it gives one. Raises `Denied`, `Unavailable`."""
        address = credentials.server_address
        if address in _HUB_ADDRESSES:
            endpoint = Endpoint(_HUB_HOST, ("https",), verified=True)
        else:
            host = address.partition("://")[2] or address
            endpoint = self.endpoints(host.partition("/")[0])[-1]
        session = await self.session(endpoint, credentials)
        return await session.check_login()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()
