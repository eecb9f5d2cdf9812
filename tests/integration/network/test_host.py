"""The host beside its networks: rules of its own, a second daemon, a daemon that is killed, and what is left at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.network.conftest import HOST, OTHER, Island, new_island
from tests.support.engine import running_engine
from tests.support.network import Answering, NameServer, Namespace, ask, look_up, silent

OWN_RULES = """
table inet office {
	chain in {
		type filter hook input priority filter; policy accept;
		tcp dport 7009 drop
	}

	chain through {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
	}
}
"""


def _own_table(host: Namespace) -> str:
    return host.run("nft", "list", "table", "inet", "office")


def test_beside_a_firewall_of_the_host(tmp_path: Path) -> None:
    def prepare(host: Namespace) -> None:
        host.run("nft", "-f", "-", input=OWN_RULES)

    with new_island(tmp_path / "island", prepare=prepare) as island:
        before = _own_table(island.host)
        with island.answering("web", 80, "-p", "8080:80") as web, Answering(island.other, 7000), Answering(island.host, 7009):
            # what the host's rules let through passes, what they drop does not
            assert ask(island.host, "127.0.0.1", 8080).startswith("web ")
            assert ask(island.other, HOST, 8080) == f"web {OTHER}"
            assert silent(web, OTHER, 7000)
            assert silent(island.other, HOST, 7009)
        island.engine.clean()
        assert _own_table(island.host) == before
        island.engine.stop()
        assert island.host.run("nft", "list", "tables").split() == ["table", "inet", "office"]
        island.engine.start()
        assert _own_table(island.host) == before


def test_two_daemons_side_by_side(island: Island, tmp_path: Path) -> None:
    wrapper = island.engine.wrapper
    with running_engine(tmp_path / "second", wrapper=wrapper) as second:
        for engine in (island.engine, second):
            engine.docker("network", "create", "net")
        subnets = [
            engine.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name)
            for engine in (island.engine, second)
            for name in ("bridge", "net")
        ]
        assert len(set(subnets)) == 4
        theirs = Island(island.host, island.other, second)
        with island.answering("web", 80, "-p", "8080:80"), theirs.answering("web", 80, "-p", "8081:80") as web:
            assert ask(island.other, HOST, 8080) == f"web {OTHER}"
            assert ask(island.other, HOST, 8081) == f"web {OTHER}"
            # daemons are apart as networks are
            assert silent(web, island.address("web"), 80)
            taken = second.docker("run", "-d", "-p", "8080:80", "busybox", "true", check=False)
            assert "address already in use" in taken.stderr
    with island.answering("after", 80, "-p", "8081:80"):
        assert ask(island.other, HOST, 8081) == f"after {OTHER}"


@pytest.fixture
def own_island(tmp_path: Path) -> Iterator[Island]:
    """A host whose daemon a test may end."""
    with new_island(tmp_path / "island") as island:
        yield island


def test_a_daemon_that_was_killed_takes_up_where_it_was(own_island: Island) -> None:
    island = own_island
    docker = island.engine.docker
    docker("network", "create", "net")
    docker("network", "create", "--internal", "inner")
    options = ("--network", "net", "-p", "8080:80", "-p", "127.0.0.1:8081:80/udp")
    with (
        island.answering("web", 80, *options) as web,
        island.container("asking", "--network", "net") as asking,
        island.container("shut", "--network", "inner") as shut,
        NameServer(island.other, {"example.org": "203.0.113.7"}, OTHER),
    ):
        address = island.address("web", "net")
        island.engine.kill()
        # what the kernel carries goes on without the daemon
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"
        assert silent(shut, address, 80)
        island.engine.start()
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"
        assert ask(island.host, "::1", 8080).startswith("web ")
        assert ask(island.host, "127.0.0.1", 8081, "udp").startswith("web ")
        assert ask(web, HOST, 8080).startswith("web ")
        assert look_up(asking, "web") == [address]
        assert look_up(asking, "example.org") == ["203.0.113.7"]
        assert look_up(shut, "example.org") == "SERVFAIL"
        assert silent(shut, HOST, 8080)
        # its address is not given again
        docker("run", "--rm", "--network", "net", "busybox", "true")
        refused = docker("run", "-d", "--name", "late", "-p", "8080:80", "busybox", "true", check=False)
        assert "port is already allocated" in refused.stderr
        docker("network", "disconnect", "net", "asking")
        docker("rm", "-f", "web")
        assert silent(island.other, HOST, 8080)


def test_nothing_is_left_when_the_daemon_ends(own_island: Island) -> None:
    island = own_island
    assert island.host.run("sysctl", "-n", "net.ipv6.conf.link0.accept_ra").strip() == "1"
    island.engine.docker("network", "create", "--ipv6", "net")
    # a host that forwards takes no routes from its router with less
    assert island.host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "1"
    assert island.host.run("sysctl", "-n", "net.ipv6.conf.link0.accept_ra").strip() == "2"
    island.engine.docker("run", "-d", "--stop-signal", "KILL", "--network", "net", "-p", "8080:80", "busybox", "sleep", "1000")
    island.engine.stop()
    links = [line.split(": ")[1] for line in island.host.run("ip", "-o", "link").splitlines()]
    assert [name.partition("@")[0] for name in links] == ["lo", "link0"]
    assert island.host.run("nft", "list", "ruleset") == ""
    # and all of it is there again with the next
    island.engine.start()
    assert island.engine.out("network", "ls", "-q", "--filter", "name=net")
    island.engine.docker("run", "--rm", "--network", "net", "busybox", "true")


def test_where_networks_take_their_subnets_from(tmp_path: Path) -> None:
    flags = ("--bip", "10.77.0.1/24", "--default-address-pool", "base=10.80.0.0/23,size=24")
    with new_island(tmp_path / "island", *flags) as island:

        def create(name: str) -> str:
            island.engine.docker("network", "create", name)
            return island.engine.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name)

        assert island.engine.out("run", "--rm", "busybox", "ip", "-4", "route").splitlines()[0].startswith("default via 10.77.0.1 ")
        assert [create("one"), create("two")] == ["10.80.0.0/24", "10.80.1.0/24"]
        full = island.engine.docker("network", "create", "three", check=False)
        assert "all predefined address pools have been fully subnetted" in full.stderr
        island.engine.docker("network", "rm", "one")
        # a route of the host's is somebody's network too
        island.host.run("ip", "route", "add", "10.80.0.128/25", "via", OTHER)
        full = island.engine.docker("network", "create", "three", check=False)
        assert "all predefined address pools have been fully subnetted" in full.stderr
