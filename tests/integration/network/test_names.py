"""The embedded name server, as a container meets it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from tests.integration.network.conftest import OTHER, Island
from tests.support.network import NameServer, look_up

WORLD = {"example.org": "203.0.113.7", "printer.example.test": "203.0.113.8"}


@pytest.fixture
def world(island: Island) -> Iterator[NameServer]:
    """The name server of the host's resolv.conf."""
    with NameServer(island.other, WORLD, OTHER) as server:
        yield server


@pytest.fixture
def net(island: Island) -> str:
    return island.engine.out("network", "create", "net")


@pytest.mark.parametrize("stream", [False, True])
def test_names_of_the_network_and_names_beyond(island: Island, net: str, world: NameServer, stream: bool) -> None:
    island.container("web", "--network", "net", "--network-alias", "www", "--network-alias", "Shop").close()
    island.container("other").close()
    web = island.address("web", "net")
    identity = island.engine.inspect("web")["Id"]
    with island.container("asking", "--network", "net") as asking:
        for name in ("web", "WEB", "www", "shop", "web.net", "www.net", identity[:12], f"{identity[:12]}.net"):
            assert look_up(asking, name, stream=stream) == [web], name
        assert look_up(asking, "web", "AAAA", stream=stream) == []
        assert look_up(asking, ip_address(web).reverse_pointer, "PTR", stream=stream) == ["web.net."]
        assert world.asked == []
        assert look_up(asking, "example.org", stream=stream) == [WORLD["example.org"]]
        assert look_up(asking, "nowhere.example.org", stream=stream) == "NXDOMAIN"
        assert look_up(asking, "other", stream=stream) == "NXDOMAIN"
        assert world.asked == ["example.org", "nowhere.example.org", "other"]


def test_several_containers_answer_to_one_alias_until_they_go(island: Island, net: str, world: NameServer) -> None:
    addresses = []
    for name in ("one", "two"):
        island.container(name, "--network", "net", "--network-alias", "both").close()
        addresses.append(island.address(name, "net"))
    with island.container("asking", "--network", "net") as asking:
        assert look_up(asking, "both") == addresses
        island.engine.docker("rm", "-f", "one")
        assert look_up(asking, "both") == addresses[1:]
        assert look_up(asking, "one") == "NXDOMAIN"
        island.engine.docker("rename", "two", "three")
        assert look_up(asking, "three") == addresses[1:]
        assert look_up(asking, "two") == "NXDOMAIN"


def test_links(island: Island, net: str, world: NameServer) -> None:
    island.container("db", "--network", "net").close()
    with island.container("asking", "--network", "net", "--link", "db:store") as asking:
        assert look_up(asking, "store") == [island.address("db", "net")]
    island.container("old").close()
    island.engine.docker("run", "--rm", "--link", "old:ancient", "busybox", "grep", "-q", "ancient", "/etc/hosts")


def test_a_program_finds_names_and_search_domains(island: Island, net: str, world: NameServer) -> None:
    island.container("web", "--network", "net").close()
    run = ("run", "--rm", "--network", "net")
    assert island.address("web", "net") in island.engine.out(*run, "busybox", "nslookup", "web.")
    assert WORLD["printer.example.test"] in island.engine.out(*run, "busybox", "nslookup", "printer")
    found = island.engine.out(*run, "--dns-search", "a.test", "--dns-opt", "timeout:1", "busybox", "cat", "/etc/resolv.conf")
    assert found.splitlines() == ["nameserver 127.0.0.11", "search a.test", "options timeout:1 ndots:0"]
    plain = island.engine.out("run", "--rm", "busybox", "cat", "/etc/resolv.conf")
    assert plain.splitlines() == [f"nameserver {OTHER}", "search example.test"]


def test_another_name_server_of_ones_own(island: Island, net: str, world: NameServer) -> None:
    with island.container("names") as namespace, NameServer(namespace, {"inside.test": "192.0.2.1"}) as own:
        server = island.address("names")
        with island.container("asking", "--network", "net", "--dns", server) as asking:
            assert look_up(asking, "inside.test") == ["192.0.2.1"]
        assert own.asked == ["inside.test"]
    assert world.asked == []


def test_a_container_serves_port_53_itself(island: Island, net: str, world: NameServer) -> None:
    with island.container("names", "--network", "net") as namespace, NameServer(namespace, {"mine.test": "192.0.2.2"}):
        server = island.address("names", "net")
        with island.container("asking", "--network", "net") as asking:
            for stream in (False, True):
                assert look_up(asking, "mine.test", server=server, stream=stream) == ["192.0.2.2"]
                assert look_up(namespace, "mine.test", server="127.0.0.1", stream=stream) == ["192.0.2.2"]
                assert look_up(namespace, "asking", stream=stream) == [island.address("asking", "net")]


def test_an_internal_network_asks_nobody_outside(island: Island, world: NameServer) -> None:
    island.engine.docker("network", "create", "--internal", "inner")
    island.container("web", "--network", "inner").close()
    with island.container("asking", "--network", "inner") as asking:
        assert look_up(asking, "web") == [island.address("web", "inner")]
        for stream in (False, True):
            assert look_up(asking, "secret.example.org", stream=stream) == "SERVFAIL"
        assert world.asked == []
        island.engine.docker("network", "connect", "bridge", "asking")
        assert look_up(asking, "example.org") == [WORLD["example.org"]]


def test_who_may_listen_and_ping(island: Island) -> None:
    found = island.engine.out(
        "run", "--rm", "-u", "user", "busybox", "sh", "-c",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range;"
        "timeout 0.2 httpd -f -p 80; echo $?; ip -6 address show dev eth0",
    )  # fmt: skip
    assert found.split() == ["0", "0", "2147483647", "143"]
