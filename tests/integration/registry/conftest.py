"""Registries on loopback, Debian's and our own, and hosts that pull from them and push to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.integration.registry.pictures import Putter

from boxship.api.registry.app import RegistryAPI
from boxship.content.store import ContentStore
from boxship.events.bus import Events
from boxship.http.message import Handler, Request, Response
from boxship.http.server import Server
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials
from boxship.registry.pull import pull
from boxship.registry.push import push
from boxship.registry.registries import Registries
from boxship.registry.repositories import Repositories
from boxship.snapshots.directories import DirectorySnapshotter
from boxship.state.database import Database

# --- hosts ---


@dataclass
class Home:
    """A host's stores, and what it was told."""

    root: Path
    images: Images
    registries: Registries
    messages: list[dict[str, object]] = field(default_factory=list)

    async def pull(self, name: str, platform: str | None = None, credentials: Credentials | None = None) -> Image:
        wanted = Platform.parse(platform) if platform else None
        self.messages.clear()
        return await pull(self.registries, self.images, Reference.parse(name), platform=wanted, credentials=credentials,
                          progress=self.messages.append)  # fmt: skip

    async def push(self, name: str, credentials: Credentials | None = None) -> None:
        self.messages.clear()
        await push(self.registries, self.images, Reference.parse(name), credentials=credentials, progress=self.messages.append)

    def tag(self, image: Image, name: str) -> None:
        self.images.tag(image, Reference.parse(name))

    def make(self, *tars: bytes, tag: str, **config: Any) -> Image:
        """An image as if built here."""
        layers = []
        for tar in tars:
            with self.images.snapshotter.writer() as writer:
                writer.write(tar)
                layers.append(str(writer.commit()))
        document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": layers}, **config}
        return self.images.create(json.dumps(document).encode(), tags=[Reference.parse(tag)])

    def layer(self, diff_id: str) -> bytes:
        with self.images.layer_tar(diff_id) as tar:
            return tar.read()

    def statuses(self, identity: str | None = None) -> list[str]:
        """What was told, without what repeats itself; of one layer, or of the whole."""
        found = [str(message["status"]) for message in self.messages if message.get("id") == identity and "status" in message]
        return [status for i, status in enumerate(found) if i == 0 or found[i - 1] != status]

    def held(self) -> tuple[set[str], set[str], int]:
        """Layers, blobs, and how many bytes are on their way."""
        layers = {path.name for path in (self.root / "snapshots" / "layers").iterdir()}
        partial = sum(path.stat().st_size for path in (self.root / "content" / "ingest").glob("*/data"))
        return layers, {digest for digest, _ in self.images.content.walk()}, partial


class NewHome(Protocol):
    def __call__(self, **registries: Any) -> Home: ...


@pytest.fixture
async def new_home(tmp_path: Path) -> AsyncIterator[NewHome]:
    homes: list[tuple[Home, Database]] = []

    def make(**options: Any) -> Home:
        root = tmp_path / f"home{len(homes)}"
        root.mkdir()
        database = Database(root / "state.db")
        snapshotter = DirectorySnapshotter(root / "snapshots", root / "mounts")
        images = Images(ContentStore(root / "content"), snapshotter, database, Events())
        home = Home(root, images, Registries(**{"retry_delay": 0.01, "certificates": (), **options}))
        homes.append((home, database))
        return home

    yield make
    for home, database in homes:
        await home.registries.close()
        database.close()


@pytest.fixture
def home(new_home: NewHome) -> Home:
    return new_home()


# --- Debian's registry ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


needs_peer = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")

StartPeer = Callable[..., contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def start_peer(directory: Path, **config: Any) -> Iterator[str]:
    """Debian's docker-registry: its host and port."""
    directory.mkdir(exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    document = {
        "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, **config.pop("http", {})}, **config,
    }  # fmt: skip
    (directory / "config.yml").write_text(json.dumps(document))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log)
    try:
        _await_port(host, process, directory / "log")
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    name, _, port = host.partition(":")
    for _ in range(200):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection((name, int(port)), 1).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def _peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_peer(tmp_path_factory.mktemp("peer")) as host:
        yield host


@pytest.fixture
async def peer(_peer: str) -> AsyncIterator[Putter]:
    """Debian's registry without further ado; each test has repositories of its own."""
    putter = Putter(f"http://{_peer}")
    yield putter
    await putter.http.aclose()


# --- our registry ---


@dataclass
class Ours:
    """Our registry, what it was asked, and how it was made to misbehave."""

    host: str
    putter: Putter
    repositories: Repositories
    api: RegistryAPI
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and the Range or Content-Range of each request."""
    answering: Callable[[Request, Handler], Any] | None = None
    """Answers in the registry's stead where it returns something."""

    async def handle(self, request: Request) -> Response:
        ranges = request.headers.get("Range") or request.headers.get("Content-Range")
        self.asked.append((request.method, request.path, ranges))
        if self.answering is not None:
            answer = await self.answering(request, self.api.handle)
            if answer is not None:
                assert isinstance(answer, Response)
                return answer
        return await self.api.handle(request)

    def count(self, method: str, part: str) -> int:
        return sum(1 for asked, path, _ in self.asked if asked == method and part in path)


NewOurs = Callable[[], Any]


@pytest.fixture
async def new_ours(tmp_path: Path) -> AsyncIterator[NewOurs]:
    opened: list[tuple[Ours, Server, Database]] = []

    async def make() -> Ours:
        root = tmp_path / f"ours{len(opened)}"
        root.mkdir()
        database = Database(root / "state.db")
        repositories = Repositories(ContentStore(root / "content"), database)
        ours = Ours("", Putter("http://unset"), repositories, RegistryAPI(repositories))
        server = Server(ours.handle)
        ours.host = f"127.0.0.1:{await server.serve_tcp('127.0.0.1', 0)}"
        await ours.putter.http.aclose()
        ours.putter = Putter(f"http://{ours.host}")
        opened.append((ours, server, database))
        return ours

    yield make
    for ours, server, database in opened:
        await ours.putter.http.aclose()
        await server.close()
        ours.api.close()
        database.close()


@pytest.fixture
async def ours(new_ours: NewOurs) -> Ours:
    made = await new_ours()
    assert isinstance(made, Ours)
    return made


# --- certificates ---


@dataclass(frozen=True)
class Authority:
    """A private authority, and a certificate of it for 127.0.0.1 and localhost."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.directory / "server.crt"

    @property
    def key(self) -> Path:
        return self.directory / "server.key"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("tls"))

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=made.directory, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority",
            "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", *[option for option in new_key if option not in ("-days", "2")], "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        (made.directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.localhost\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", "names")  # fmt: skip
    os.chmod(made.key, 0o600)
    return made
