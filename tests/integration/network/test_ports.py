"""Published ports: from the host, from another machine, from other containers; what is not published stays shut."""

from __future__ import annotations

import pytest
from tests.integration.network.conftest import HOST, HOST6, Island
from tests.support.network import ask, silent


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
