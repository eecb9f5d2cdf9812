"""Published ports: from the host, from another machine, from other containers; what is not published stays shut."""

from __future__ import annotations

import socket

import pytest
from tests.integration.network.conftest import HOST, HOST6, OTHER, Island
from tests.support.network import SECONDS, Answering, ask, silent


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_on_every_address(island: Island, protocol: str) -> None:
    with island.answering("web", 80, "-p", f"8080:80/{protocol}"):
        gateway = island.engine.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        assert ask(island.host, "127.0.0.1", 8080, protocol) == f"web {gateway}"
        assert ask(island.host, HOST, 8080, protocol) == f"web {HOST}"
        assert ask(island.other, HOST, 8080, protocol) == "web 198.51.100.2"
        assert ask(island.host, "::1", 8080, protocol).startswith("web ")
        assert ask(island.other, HOST6, 8080, protocol).startswith("web ")


def test_a_port_on_localhost_is_not_for_other_machines(island: Island) -> None:
    with island.answering("web", 80, "-p", "127.0.0.1:8080:80"):
        assert ask(island.host, "127.0.0.1", 8080).startswith("web ")
        assert silent(island.other, HOST, 8080)


def test_an_unpublished_port_is_shut_to_a_machine_that_routes_at_the_subnet(island: Island) -> None:
    with island.answering("web", 80, "-p", "8080:80"):
        address = island.address("web")
        assert ask(island.host, address, 80).startswith("web ")
        island.other.run("ip", "route", "add", f"{address}/32", "via", HOST)
        try:
            assert silent(island.other, address, 80)
            assert ask(island.other, HOST, 8080).startswith("web ")
        finally:
            island.other.run("ip", "route", "del", f"{address}/32")


def test_another_container_reaches_a_port_through_the_host_but_not_across_networks(island: Island) -> None:
    island.engine.docker("network", "create", "apart")
    asking = island.container("asking", "--network", "apart")
    try:
        with island.answering("web", 80, "-p", "8080:80"):
            assert ask(asking, HOST, 8080).startswith("web ")
            assert silent(asking, island.address("web"), 80)
    finally:
        asking.close()


@pytest.mark.parametrize("filtered", [0, 1])
def test_a_container_reaches_its_own_port_through_the_host(island: Island, filtered: int) -> None:
    # whether the kernel shows bridged packets to the firewall, as br_netfilter has it
    island.host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={filtered}")
    with island.answering("web", 80, "-p", "8080:80") as web:
        assert ask(web, HOST, 8080).startswith("web ")


def test_a_port_taken_already(island: Island) -> None:
    island.container("first", "-p", "8080:80").close()
    refused = island.engine.docker("run", "-d", "-p", "8080:80", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in refused.stderr


def test_who_goes_on_sending_datagrams_is_led_to_the_next_container(island: Island) -> None:
    with island.other.socket(socket.SOCK_DGRAM, family=socket.AF_INET) as sending:
        sending.settimeout(SECONDS)
        sending.connect((HOST, 8080))
        for name in ("first", "second"):
            with island.answering(name, 80, "-p", "8080:80/udp"):
                sending.send(b"who")
                assert sending.recv(100).decode() == f"{name} {OTHER}"
            island.engine.docker("rm", "-f", name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-p", "127.0.0.1:8080:80"), ["80/tcp -> 127.0.0.1:8080"]),
        (("-p", "[::1]:8080:80"), ["80/tcp -> [::1]:8080"]),
        (("-p", "127.0.0.1:8080-8090:80"), ["80/tcp -> 127.0.0.1:8080"]),
        (("-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8080:80/udp"), ["80/tcp -> 127.0.0.1:8080", "80/udp -> 127.0.0.1:8080"]),
        (("-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8081:80"), ["80/tcp -> 127.0.0.1:8080", "80/tcp -> 127.0.0.1:8081"]),
    ],
)
def test_forms_of_publishing(island: Island, options: tuple[str, ...], expected: list[str]) -> None:
    with island.answering("web", 80, *options):
        assert sorted(island.engine.out("port", "web").splitlines()) == expected
        for line in expected:
            what, _, where = line.partition(" -> ")
            protocol, (address, _, port) = what.partition("/")[2], where.rpartition(":")
            assert ask(island.host, address.strip("[]"), int(port), protocol).startswith("web ")
            assert silent(island.other, HOST, int(port), protocol)
            assert silent(island.other, HOST6, int(port), protocol)


def test_a_range_of_ports_for_a_range(island: Island) -> None:
    with island.answering("web", 81, "-p", "8080-8081:80-81"):
        found = [f"{port}/tcp -> {address}:{host}" for port, host in ((80, 8080), (81, 8081)) for address in ("0.0.0.0", "[::]")]
        assert sorted(island.engine.out("port", "web").splitlines()) == found
        assert ask(island.other, HOST, 8081) == f"web {OTHER}"


def test_ports_that_the_engine_chooses(island: Island) -> None:
    with island.answering("some", 80, "-p", "80"), island.answering("all", 80, "-P", "--expose", "80", "--expose", "81/udp"):
        some, every = island.engine.out("port", "some", "80/tcp"), island.engine.out("port", "all").splitlines()
        port = int(some.splitlines()[0].rpartition(":")[2])
        assert 32768 <= port <= 60999
        assert ask(island.other, HOST, port) == f"some {OTHER}"
        assert [line.partition(" ")[0] for line in every] == ["80/tcp", "80/tcp", "81/udp", "81/udp"]
        port = int(every[0].rpartition(":")[2])
        assert ask(island.other, HOST, port) == f"all {OTHER}"


def test_a_range_goes_on_past_a_port_that_is_taken(island: Island) -> None:
    with Answering(island.host, 8080), island.answering("web", 80, "-p", "8080-8082:80"):
        assert island.engine.out("port", "web", "80").splitlines()[0] == "0.0.0.0:8081"
        assert ask(island.other, HOST, 8081) == f"web {OTHER}"


def test_a_port_that_a_program_of_the_host_holds(island: Island) -> None:
    with Answering(island.host, 8080):
        refused = island.engine.docker("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "failed to bind host port for 0.0.0.0:8080" in refused.stderr
    assert "address already in use" in refused.stderr
    # nothing is held by what failed
    island.engine.docker("start", "web")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("-p", "8080:80/sctp"), "publishing sctp ports is not supported"),
        (("-p", "192.0.2.99:8080:80"), "cannot assign requested address"),
    ],
)
def test_what_cannot_be_published(island: Island, options: tuple[str, ...], error: str) -> None:
    refused = island.engine.docker("run", "-d", *options, "busybox", "true", check=False)
    assert refused.returncode == 125
    assert error in refused.stderr


@pytest.mark.parametrize("binding", ["70000", "http", "80-", "90-80", "-1"])
def test_ports_that_are_none(island: Island, binding: str) -> None:
    body = {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": binding}]}}}
    status, created = island.engine.api("POST", "/containers/create", body)
    if status == 201:
        status, created = island.engine.api("POST", f"/containers/{created['Id']}/start")
    assert status == 400
    assert "invalid" in created["message"]


def test_ports_go_with_their_container(island: Island) -> None:
    with island.answering("web", 80, "-p", "8080:80", "-p", "8080:80/udp"):
        assert "8080" in island.host.run("nft", "list", "ruleset")
    island.engine.docker("stop", "-t", "0", "web")
    assert "8080" not in island.host.run("nft", "list", "ruleset")
    with Answering(island.host, 8080):
        assert ask(island.other, HOST, 8080) == f"here {OTHER}"
