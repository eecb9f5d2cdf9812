"""Containers connected and disconnected, running or not."""

from __future__ import annotations

import pytest
from tests.integration.network.conftest import HOST, OTHER, Island
from tests.support.network import Answering, Namespace, ask, look_up, silent


def _file(island: Island, name: str, path: str) -> list[str]:
    return island.engine.out("exec", name, "cat", path).splitlines()


def _routes(namespace: Namespace) -> list[str]:
    return [line.split()[4] for line in namespace.run("ip", "route", "show", "default").splitlines()]


def test_connected_while_it_runs(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "net")
    island.container("web", "--network", "net").close()
    with island.container("asking") as asking:
        assert f"nameserver {OTHER}" in _file(island, "asking", "/etc/resolv.conf")
        docker("network", "connect", "--alias", "asker", "net", "asking")
        own = island.address("asking", "net")
        assert "nameserver 127.0.0.11" in _file(island, "asking", "/etc/resolv.conf")
        hostname = island.engine.inspect("asking")["Config"]["Hostname"]
        assert f"{own}\t{hostname}" in _file(island, "asking", "/etc/hosts")
        assert look_up(asking, "web") == [island.address("web", "net")]
        assert look_up(asking, "asker") == [own]
        assert _routes(asking) == ["eth0"]
        again = docker("network", "connect", "net", "asking", check=False)
        assert "endpoint with name asking already exists in network net" in again.stderr
        docker("network", "disconnect", "net", "asking")
        assert not any(line.startswith(f"{own}\t") for line in _file(island, "asking", "/etc/hosts"))
        assert "eth1" not in asking.run("ip", "link")
        gone = docker("network", "disconnect", "net", "asking", check=False)
        assert "is not connected to network net" in gone.stderr
        assert list(island.engine.inspect("asking")["NetworkSettings"]["Networks"]) == ["bridge"]


def test_published_ports_follow_to_the_network_that_is_left(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "net")
    with island.answering("web", 80, "-p", "8080:80") as web:
        docker("network", "connect", "net", "web")
        assert ask(island.host, HOST, 8080) == f"web {HOST}"
        docker("network", "disconnect", "bridge", "web")
        assert _routes(web) == ["eth1"]
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"
        assert ask(island.host, "127.0.0.1", 8080).startswith("web ")
        assert island.engine.out("port", "web", "80").splitlines() == ["0.0.0.0:8080", "[::]:8080"]
        docker("network", "disconnect", "net", "web")
        assert silent(island.other, HOST, 8080)
        assert island.engine.out("port", "web") == ""
        docker("network", "connect", "net", "web")
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"


def test_a_port_that_somebody_else_took_meanwhile(island: Island) -> None:
    docker = island.engine.docker
    with island.answering("web", 80, "-p", "8080:80") as web:
        docker("network", "disconnect", "bridge", "web")
        with Answering(island.host, 8080):
            refused = docker("network", "connect", "bridge", "web", check=False)
        assert "address already in use" in refused.stderr
        assert island.engine.inspect("web")["NetworkSettings"]["Networks"] == {}
        assert "eth0" not in web.run("ip", "link")
        docker("network", "connect", "bridge", "web")
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"


def test_the_network_that_leads_out_is_a_matter_of_priority(island: Island) -> None:
    island.engine.docker("network", "create", "net")
    with island.container("asking") as asking:
        status, _ = island.engine.api(
            "POST", "/networks/net/connect", {"Container": "asking", "EndpointConfig": {"GwPriority": 10}}
        )
        assert status == 200
        assert _routes(asking) == ["eth1"]


def test_connected_before_it_starts(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "--subnet", "10.9.0.0/24", "net")
    docker("create", "--name", "later", "busybox", "sleep", "1000")
    docker("network", "connect", "--ip", "10.9.0.77", "net", "later")
    docker("start", "later")
    assert island.address("later", "net") == "10.9.0.77"
    docker("network", "disconnect", "bridge", "later")
    docker("restart", "-t", "0", "later")
    assert list(island.engine.inspect("later")["NetworkSettings"]["Networks"]) == ["net"]
    assert island.address("later", "net") == "10.9.0.77"


@pytest.mark.parametrize(
    ("mode", "network", "error"),
    [
        ("none", "net", "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
        ("host", "net", "container cannot be disconnected from host network or connected to host network"),
        ("bridge", "host", "container cannot be disconnected from host network or connected to host network"),
        ("bridge", "none", "one of the networks in private (none) mode"),
        ("container:other", "net", "container sharing network namespace with another container"),
    ],
)
def test_what_cannot_be_connected(island: Island, mode: str, network: str, error: str) -> None:
    island.engine.docker("network", "create", "net")
    island.engine.docker("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    island.engine.docker("run", "-d", "--name", "one", "--network", mode, "busybox", "sleep", "1000")
    refused = island.engine.docker("network", "connect", network, "one", check=False)
    assert refused.returncode == 1
    assert error in refused.stderr


@pytest.mark.parametrize(
    ("config", "status", "error"),
    [
        ({"IPAMConfig": {"IPv4Address": "10.9.1.1"}}, 400, "It does not belong to any of this network's subnets"),
        ({"IPAMConfig": {"IPv4Address": "10.9.0.300"}}, 400, "invalid IPv4 address"),
        ({"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}, 400, "LinkLocalIPs is not supported"),
        ({"MacAddress": "02:42"}, 400, "invalid MAC address"),
        ({"DriverOpts": {"com.example.speed": "1"}}, 400, "'com.example.speed' is not supported"),
        ({"DriverOpts": {"com.docker.network.endpoint.ifname": "eth0"}}, 400, "invalid interface name 'eth0'"),
    ],
)
def test_what_an_endpoint_cannot_have(island: Island, config: object, status: int, error: str) -> None:
    island.engine.docker("network", "create", "--subnet", "10.9.0.0/24", "net")
    island.container("one").close()
    answer = island.engine.api("POST", "/networks/net/connect", {"Container": "one", "EndpointConfig": config})
    assert answer[0] == status, answer
    assert error in answer[1]["message"]
    assert list(island.engine.inspect("one")["NetworkSettings"]["Networks"]) == ["bridge"]


def test_interface_names(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "net")
    links = "for link in /sys/class/net/*; do echo ${link##*/}; done"
    assert island.engine.out("run", "--rm", "--network", "net", "busybox", "sh", "-c", links).split() == ["lan0", "lo"]
    option = "driver-opt=com.docker.network.endpoint.ifname=wan9"
    assert island.engine.out("run", "--rm", "--network", f"name=net,{option}", "busybox", "sh", "-c", links).split() == [
        "lo",
        "wan9",
    ]
