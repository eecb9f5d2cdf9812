"""What networks keep from one another, and from the host."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from tests.integration.network.conftest import HOST, HOST6, OTHER, Island
from tests.support.engine import wait_until
from tests.support.network import SILENCE_SECONDS, Answering, Namespace, ask, silent

from boxship.network.firewall import Filtered, Firewall


def test_networks_reach_one_another_by_published_ports_only(island: Island) -> None:
    island.engine.docker("network", "create", "left")
    island.engine.docker("network", "create", "right")
    asking = island.container("asking", "--network", "left")
    with asking, island.answering("web", 80, "--network", "right", "-p", "8080:80"):
        address = island.address("web", "right")
        assert silent(asking, address, 80)
        assert silent(asking, address, 80, "udp")
        assert ask(asking, HOST, 8080).startswith("web ")
        with Answering(island.other, 7000, "other"):
            assert ask(asking, OTHER, 7000) == f"other {HOST}"


def test_an_internal_network_reaches_nothing_else(island: Island) -> None:
    island.engine.docker("network", "create", "--internal", "inner")
    with island.container("asking", "--network", "inner") as asking, Answering(island.other, 7000):
        assert not asking.run("ip", "route", "show", "default")
        gateway = ip_network(island.engine.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "inner"))[1]
        # whoever may set routes is not let out either
        asking.run("ip", "route", "add", "default", "via", str(gateway))
        with island.answering("web", 80, "-p", "8080:80"), island.answering("near", 80, "--network", "inner", "-p", "8081:80"):
            assert silent(asking, OTHER, 7000)
            assert silent(asking, island.address("web"), 80)
            assert silent(asking, HOST, 8080)
            assert silent(asking, str(gateway), 8080)
            assert ask(asking, island.address("near", "inner"), 80).startswith("near ")
            assert silent(island.other, HOST, 8081)


def test_an_internal_network_reaches_no_relay(island: Island) -> None:
    island.engine.docker("network", "create", "--internal", "--ipv6", "inner")
    # a container without IPv6: what comes over IPv6 is relayed
    with island.container("asking", "--network", "inner") as asking, island.answering("web", 80, "-p", "8080:80"):
        with Answering(island.host, 7003):
            gateway = island.engine.out("network", "inspect", "-f", "{{(index .IPAM.Config 1).Gateway}}", "inner")
            assert ask(asking, gateway, 7003).startswith("here ")
            assert silent(asking, gateway, 8080)
        assert ask(island.other, HOST6, 8080).startswith("web ")


def test_containers_apart_on_one_network(island: Island) -> None:
    island.engine.docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
    with island.container("asking", "--network", "apart") as asking, island.answering("web", 80, "--network", "apart"):
        web = island.address("web", "apart")
        assert ask(island.host, web, 80).startswith("web ")
        assert silent(asking, web, 80)
        # nor by way of the host, which routes
        gateway = island.address("web", "apart", "Gateway")
        asking.run("ip", "route", "add", f"{web}/32", "via", gateway)
        assert silent(asking, web, 80)
        with Answering(island.other, 7000):
            assert ask(asking, OTHER, 7000) == f"here {HOST}"


def test_no_container_speaks_as_the_hosts_loopback(island: Island) -> None:
    with island.container("asking") as asking:
        gateway = island.address("asking", key="Gateway")
        bridge = island.engine.out("network", "inspect", "-f", '{{index .Options "com.docker.network.bridge.name"}}', "bridge")
        # the kernel itself refuses such a source unless it is told not to
        island.host.run("sysctl", "-qw", f"net.ipv4.conf.{bridge}.accept_local=1")
        with island.host.socket(socket.SOCK_DGRAM, family=socket.AF_INET) as listening:
            listening.bind((gateway, 7001))
            listening.settimeout(SILENCE_SECONDS)
            _send_from(asking, island.address("asking"), gateway, 7001)
            assert listening.recv(100) == b"forged"
            _send_from(asking, "127.0.0.1", gateway, 7001)
            with pytest.raises(TimeoutError):
                listening.recv(100)


def test_no_container_reaches_the_hosts_loopback(island: Island) -> None:
    with island.container("asking") as asking, Answering(island.host, 7002):
        gateway = island.address("asking", key="Gateway")
        assert ask(asking, gateway, 7002).startswith("here ")
        asking.run("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
        asking.run("ip", "route", "add", "127.0.0.9/32", "via", gateway, "src", island.address("asking"))
        asking.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        assert silent(asking, "127.0.0.9", 7002)


def test_no_container_tells_the_host_where_to_route(island: Island) -> None:
    island.engine.docker("network", "create", "-o", "com.docker.network.bridge.name=rogue0", "net")
    island.host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
    with island.container("rogue", "--network", "net") as rogue:
        rogue.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
        assert not _advertised(island, rogue)
        # the advertisement is one that a host takes where nobody keeps it from that
        island.host.run("sysctl", "-qw", "net.ipv6.conf.rogue0.accept_ra=1")
        wait_until(lambda: _advertised(island, rogue), "the host takes the advertisement")
        island.host.run("ip", "-6", "route", "flush", "dev", "rogue0", "proto", "ra")


def _advertised(island: Island, rogue: Namespace) -> bool:
    """Advertise a router from a container, and tell whether the host takes it for one."""
    index = int(rogue.run("ip", "-o", "link", "show", "dev", "eth0").partition(":")[0])
    with rogue.socket(socket.SOCK_RAW, protocol=socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))
    time.sleep(SILENCE_SECONDS)
    return "rogue0" in island.host.run("ip", "-6", "route", "show", "default")


def _send_from(namespace: Namespace, source: str, destination: str, port: int) -> None:
    payload = b"forged"
    udp = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
    addresses = ip_address(source).packed + ip_address(destination).packed
    with namespace.socket(socket.SOCK_RAW, family=socket.AF_INET, protocol=socket.IPPROTO_RAW) as raw:
        raw.sendto(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses + udp, (destination, 0))


@pytest.fixture
def alone() -> Iterator[Namespace]:
    namespace = Namespace.new()
    yield namespace
    namespace.close()


def test_the_rules_are_laid_anew_as_a_whole_or_not_at_all(alone: Namespace) -> None:
    one, two = Filtered("br0", (ip_network("10.1.0.0/24"),)), Filtered("br1", (ip_network("10.2.0.0/24"),))
    with alone.entered():
        firewall = Firewall("rules")
    try:
        firewall.lay([one])
        before = alone.run("nft", "list", "ruleset")
        assert "10.1.0.0/24" in before
        with pytest.raises(OSError):
            firewall.lay([two, Filtered("a" * 17, ())])
        assert alone.run("nft", "list", "ruleset") == before
        firewall.lay([Filtered(f"br{number}", (ip_network(f"10.{number}.0.0/24"),)) for number in range(250)])
        assert alone.run("nft", "list", "set", "rules", "subnets").count("/24") == 250
        firewall.remove()
        assert alone.run("nft", "list", "ruleset") == ""
    finally:
        firewall.close()
