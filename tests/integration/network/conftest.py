"""A host of our own, a network namespace with a daemon in it, and another machine on its link, its name server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.engine import Engine, running_engine
from tests.support.network import Answering, Namespace

HOST, OTHER = "198.51.100.1", "198.51.100.2"
HOST6, OTHER6 = "2001:db8:1::1", "2001:db8:1::2"


@dataclass
class Island:
    """The host, the other machine, which is the host's way out, and the host's daemon."""

    host: Namespace
    other: Namespace
    engine: Engine

    def container(self, name: str, *options: str) -> Namespace:
        """Start a container that only waits: its network namespace."""
        self.engine.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "1000")
        return Namespace.of(self.engine.inspect(name)["State"]["Pid"])

    @contextlib.contextmanager
    def answering(self, name: str, port: int, *options: str) -> Iterator[Namespace]:
        """A container that tells on a port who asks."""
        namespace = self.container(name, *options)
        with Answering(namespace, port, name):
            yield namespace
        namespace.close()

    def address(self, name: str, network: str = "bridge", key: str = "IPAddress") -> str:
        return str(self.engine.inspect(name)["NetworkSettings"]["Networks"][network][key])


@contextlib.contextmanager
def new_island(directory: Path, *flags: str, prepare: Callable[[Namespace], None] = lambda _: None) -> Iterator[Island]:
    """A host, `prepare`d before its daemon starts; the kernel takes it away with the last who holds it."""
    host, other = Namespace.new(), Namespace.new()
    try:
        host.run("ip", "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", other.path)
        for namespace, addresses in ((host, (HOST, HOST6)), (other, (OTHER, OTHER6))):
            for address in addresses:
                prefix, extra = ("64", ["nodad"]) if ":" in address else ("24", [])
                namespace.run("ip", "address", "add", f"{address}/{prefix}", "dev", "link0", *extra)
            namespace.run("ip", "link", "set", "link0", "up")
        host.run("ip", "route", "add", "default", "via", OTHER)
        host.run("ip", "route", "add", "default", "via", OTHER6)
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        prepare(host)
        directory.mkdir(parents=True, exist_ok=True)
        resolv_conf = directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {OTHER}\nsearch example.test\n")
        own = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv_conf))
        with running_engine(directory, *flags, wrapper=(*host.wrapper, *own)) as engine:
            yield Island(host, other, engine)
    finally:
        host.close()
        other.close()


@pytest.fixture(scope="session")
def shared_island(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    with new_island(tmp_path_factory.mktemp("island")) as island:
        yield island


@pytest.fixture
def island(shared_island: Island) -> Iterator[Island]:
    """The host that all tests share; containers, networks and volumes of a test go after it."""
    yield shared_island
    shared_island.engine.clean()
