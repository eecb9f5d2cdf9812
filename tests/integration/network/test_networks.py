"""Networks made, listed, inspected, removed, and what containers get on them."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.integration.network.conftest import HOST, HOST6, OTHER, OTHER6, Island
from tests.support.network import Answering, ask, look_up, silent

OLD_DOCKER = "/usr/bin/docker"


def _inspect(island: Island, name: str) -> dict[str, Any]:
    (found,) = json.loads(island.engine.out("network", "inspect", name))
    assert isinstance(found, dict)
    return found


def test_a_network_as_it_was_asked_for(island: Island) -> None:
    identity = island.engine.out(
        "network", "create", "--subnet", "10.9.0.0/16", "--ip-range", "10.9.5.0/24", "--gateway", "10.9.0.254",
        "--aux-address", "printer=10.9.5.0", "--label", "tier=back", "-o", "com.docker.network.driver.mtu=1400",
        "-o", "com.docker.network.bridge.name=back0", "net",
    )  # fmt: skip
    found = _inspect(island, "net")
    assert found["Id"] == identity
    assert (found["Driver"], found["Scope"], found["Internal"], found["Labels"]) == ("bridge", "local", False, {"tier": "back"})
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.9.0.0/16", "IPRange": "10.9.5.0/24", "Gateway": "10.9.0.254", "AuxiliaryAddresses": {"printer": "10.9.5.0"}}
    ]
    with island.container("one", "--network", "net", "--mac-address", "02:42:0a:09:ff:01") as one:
        assert "10.9.0.254/16" in island.host.run("ip", "address", "show", "dev", "back0")
        own = one.run("ip", "address", "show", "dev", "eth0")
        assert "mtu 1400" in own
        assert "02:42:0a:09:ff:01" in own
        assert island.address("one", "net") == "10.9.5.1"
        assert island.address("one", "net", "MacAddress") == "02:42:0a:09:ff:01"
        assert one.run("ip", "route", "show", "default").split()[2] == "10.9.0.254"
        (entry,) = _inspect(island, identity[:8])["Containers"].values()
        assert entry["Name"] == "one"
        assert entry["IPv4Address"] == "10.9.5.1/16"
    island.engine.docker("rm", "-f", "one")
    assert island.engine.out("network", "rm", "net") == "net"
    assert "back0" not in island.host.run("ip", "link")


def test_addresses_are_freed_but_not_at_once_given_again(island: Island) -> None:
    island.engine.docker("network", "create", "--subnet", "10.9.0.0/29", "net")
    given = []
    for _ in range(2):
        island.container("one", "--network", "net").close()
        given.append(island.address("one", "net"))
        island.engine.docker("rm", "-f", "one")
    assert given == ["10.9.0.2", "10.9.0.3"]
    for number in range(5):
        island.container(f"c{number}", "--network", "net").close()
    full = island.engine.docker("run", "--network", "net", "busybox", "true", check=False)
    assert full.returncode == 125
    assert "no available IPv4 addresses on this network's address pools" in full.stderr
    island.engine.docker("rm", "-f", "c3")
    island.engine.docker("run", "--rm", "--network", "net", "busybox", "true")


def test_addresses_of_ones_own(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net")
    island.container("one", "--network", "net", "--ip", "10.9.0.50", "--ip6", "fd00:9::50").close()
    assert (island.address("one", "net"), island.address("one", "net", "GlobalIPv6Address")) == ("10.9.0.50", "fd00:9::50")
    for options, error in (
        (("--ip", "10.9.0.50"), "Address already in use"),
        (("--ip", "10.9.0.1"), "Address already in use"),
        (("--ip6", "fd00:9::50"), "Address already in use"),
        (("--ip", "10.8.0.1"), "It does not belong to any of this network's subnets"),
    ):
        refused = docker("run", "--rm", "--network", "net", *options, "busybox", "true", check=False)
        assert refused.returncode == 125
        assert error in refused.stderr
    refused = docker("run", "--rm", "--ip", "172.17.0.99", "busybox", "true", check=False)
    assert "user specified IP address is supported on user defined networks only" in refused.stderr
    docker("restart", "-t", "0", "one")
    assert island.address("one", "net") == "10.9.0.50"


@pytest.mark.parametrize("subnet", ["", "fd00:9::/64"])
def test_ipv6(island: Island, subnet: str) -> None:
    docker = island.engine.docker
    docker("network", "create", "--ipv6", *(("--subnet", subnet) if subnet else ()), "net")
    docker("network", "create", "--ipv6", "apart")
    config = _inspect(island, "net")["IPAM"]["Config"]
    assert [ip_network(pool["Subnet"]).version for pool in config] == [4, 6]
    with (
        island.answering("web", 80, "--network", "net", "-p", "8080:80") as web,
        island.container("near", "--network", "net") as near,
        island.container("far", "--network", "apart") as far,
        Answering(island.other, 7000),
    ):
        address = island.address("web", "net", "GlobalIPv6Address")
        assert ip_address(address) in ip_network(config[1]["Subnet"])
        assert ask(near, address, 80) == f"web {island.address('near', 'net', 'GlobalIPv6Address')}"
        assert ask(island.host, address, 80) == f"web {island.address('web', 'net', 'IPv6Gateway')}"
        assert silent(far, address, 80)
        assert ask(web, OTHER6, 7000) == f"here {HOST6}"
        assert ask(island.other, HOST6, 8080) == f"web {OTHER6}"
        assert ask(far, HOST6, 8080).startswith("web ")
        assert ask(web, HOST6, 8080).startswith("web ")
        assert ask(island.host, "::1", 8080).startswith("web ")
        island.other.run("ip", "route", "add", f"{address}/128", "via", HOST6)
        assert silent(island.other, address, 80)
        island.other.run("ip", "route", "del", f"{address}/128")


def test_a_container_on_several_networks(island: Island) -> None:
    for name in ("first", "second"):
        island.engine.docker("network", "create", name)
    options = ("--network", "name=first,alias=one", "--network", "name=second,alias=two,gw-priority=1", "-p", "8080:80")
    with (
        island.answering("web", 80, *options) as web,
        island.container("near", "--network", "first") as near,
        island.container("far", "--network", "second") as far,
    ):
        first, second = island.address("web", "first"), island.address("web", "second")
        assert web.run("ip", "route", "show", "default").split()[2] == island.address("web", "second", "Gateway")
        assert ask(near, first, 80) == f"web {island.address('near', 'first')}"
        assert ask(far, second, 80) == f"web {island.address('far', 'second')}"
        assert silent(near, second, 80)
        assert (look_up(near, "web"), look_up(near, "one")) == ([first], [first])
        assert (look_up(far, "web"), look_up(far, "two")) == ([second], [second])
        assert look_up(web, "near") == [island.address("near", "first")]
        assert ask(island.other, HOST, 8080) == f"web {OTHER}"


def test_a_network_that_keeps_its_addresses(island: Island) -> None:
    option = "com.docker.network.bridge.enable_ip_masquerade=false"
    island.engine.docker("network", "create", "--subnet", "10.9.0.0/24", "-o", option, "plain")
    with island.answering("web", 80, "--network", "plain", "-p", "8080:80") as web, Answering(island.other, 7000):
        address = island.address("web", "plain")
        island.other.run("ip", "route", "add", "10.9.0.0/24", "via", HOST)
        try:
            assert ask(web, OTHER, 7000) == f"here {address}"
            assert ask(island.other, HOST, 8080) == f"web {OTHER}"
            assert silent(island.other, address, 80)
        finally:
            island.other.run("ip", "route", "delete", "10.9.0.0/24")


def test_a_network_whose_ports_are_published_on_one_address(island: Island) -> None:
    option = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"
    island.engine.docker("network", "create", "-o", option, "near")
    with island.answering("web", 80, "--network", "near", "-p", "8080:80"):
        assert island.engine.out("port", "web") == "80/tcp -> 127.0.0.1:8080"
        assert ask(island.host, "127.0.0.1", 8080).startswith("web ")
        assert silent(island.other, HOST, 8080)


def test_listed_by_filters(island: Island) -> None:
    docker, out = island.engine.docker, island.engine.out
    one = out("network", "create", "--label", "tier=back", "one-net")
    docker("network", "create", "--label", "tier=front", "--label", "new", "two-net")
    island.container("user", "--network", "two-net").close()

    def listed(*filters: str) -> list[str]:
        options = [part for text in filters for part in ("--filter", text)]
        return sorted(out("network", "ls", "--format", "{{.Name}}", *options).split())

    assert listed() == ["bridge", "host", "none", "one-net", "two-net"]
    assert listed("name=net") == ["one-net", "two-net"]
    assert listed("label=tier") == ["one-net", "two-net"]
    assert listed("label=tier=back") == ["one-net"]
    assert listed("label=tier", "label=new") == ["two-net"]
    assert listed("driver=null") == ["none"]
    assert listed("driver=host", "driver=null") == ["host", "none"]
    assert listed("type=custom") == ["one-net", "two-net"]
    assert listed("type=builtin") == ["bridge", "host", "none"]
    assert listed("dangling=true") == ["one-net"]
    assert listed(f"id={one[:10]}") == ["one-net"]
    assert listed("scope=local", "name=^one") == ["one-net"]
    assert out("network", "ls", "-q", "--no-trunc", "--filter", "name=one-net") == one
    refused = docker("network", "ls", "--filter", "colour=red", check=False)
    assert "invalid filter 'colour'" in refused.stderr
    refused = docker("network", "ls", "--filter", "type=odd", check=False)
    assert "invalid filter: 'type'='odd'" in refused.stderr


def test_pruned(island: Island) -> None:
    docker, out = island.engine.docker, island.engine.out
    for name, label in (("kept", "keep"), ("gone", "temp"), ("used", "temp"), ("waiting", "temp")):
        docker("network", "create", "--label", label, name)
    island.container("user", "--network", "used").close()
    docker("create", "--network", "waiting", "busybox")
    assert out("network", "prune", "-f", "--filter", "label=temp").splitlines() == ["Deleted Networks:", "gone"]
    assert out("network", "prune", "-f", "--filter", "until=24h") == ""
    assert out("network", "prune", "-f", "--filter", "label!=keep") == ""
    assert out("network", "prune", "-f").splitlines() == ["Deleted Networks:", "kept"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("create", "net"), "network with name net already exists"),
        (("create", "bridge"), "operation is not permitted on predefined bridge network"),
        (("create", "--driver", "overlay2", "x"), 'plugin "overlay2" not found'),
        (("create", "--driver", "host", "x"), 'only one instance of "host" network is allowed'),
        (("create", "--subnet", "10.9.3.0/24", "x"), "Pool overlaps with other one on this address space"),
        (("create", "--ipam-driver", "weird", "x"), 'plugin "weird" not found'),
        (("create", "--ipam-opt", "a=b", "x"), "IPAM option 'a' is not supported"),
        (("create", "-o", "colour=red", "x"), "network option 'colour' is not supported"),
        (("create", "-o", "com.docker.network.driver.mtu=big", "x"), "'big' is no number"),
        (("create", "-o", "com.docker.network.bridge.enable_icc=perhaps", "x"), "neither true nor false"),
        (("create", "-o", "com.docker.network.bridge.name=link0", "x"), "the host has an interface of that name"),
        (("create", "-o", "com.docker.network.bridge.name=much-too-long-a-name", "x"), "cannot name an interface"),
        (("create", "--ingress", "x"), "Ingress is not supported"),
        (("create", "--config-only", "x"), "ConfigOnly is not supported"),
        (("rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("rm", "nonesuch"), "network nonesuch not found"),
        (("inspect", "nonesuch"), "network nonesuch not found"),
        (("connect", "nonesuch", "user"), "network nonesuch not found"),
        (("connect", "net", "nobody"), "No such container: nobody"),
    ],
)
def test_what_is_refused(island: Island, arguments: tuple[str, ...], error: str) -> None:
    island.engine.docker("network", "create", "--subnet", "10.9.0.0/16", "net")
    refused = island.engine.docker("network", *arguments, check=False)
    assert refused.returncode == 1
    assert error in refused.stderr
    assert sorted(island.engine.out("network", "ls", "--format", "{{.Name}}").split()) == ["bridge", "host", "net", "none"]
    assert "link0" in island.host.run("ip", "link")


def test_a_network_in_use_is_not_removed(island: Island) -> None:
    island.engine.docker("network", "create", "net")
    island.container("user", "--network", "net").close()
    identity = island.engine.inspect("user")["Id"][:12]
    refused = island.engine.docker("network", "rm", "net", check=False)
    assert refused.returncode == 1
    assert f'network net has active endpoints (name:"user" id:"{identity}")' in refused.stderr


def test_a_bridge_that_somebody_took_away(island: Island) -> None:
    docker = island.engine.docker
    docker("network", "create", "-o", "com.docker.network.bridge.name=lost0", "net")
    island.host.run("ip", "link", "delete", "lost0")
    refused = docker("run", "--rm", "--network", "net", "busybox", "true", check=False)
    assert "cannot make the container's network" in refused.stderr
    docker("network", "rm", "net")


def test_networks_without_an_interface_of_their_own(island: Island) -> None:
    out = island.engine.out
    links = "for link in /sys/class/net/*; do echo ${link##*/}; done"
    assert out("run", "--rm", "--network", "none", "busybox", "sh", "-c", links).split() == ["lo"]
    assert "link0" in out("run", "--rm", "--network", "host", "busybox", "sh", "-c", links).split()
    with island.answering("web", 80):
        where = "cat /proc/net/tcp6; hostname; grep -c . /etc/hosts"
        found = out("run", "--rm", "--network", "container:web", "busybox", "sh", "-c", where)
        assert ":0050 " in found
        assert island.engine.inspect("web")["Config"]["Hostname"] in found


def test_events(island: Island) -> None:
    docker, out = island.engine.docker, island.engine.out
    docker("network", "create", "watched")
    docker("run", "--rm", "--name", "one", "--network", "watched", "busybox", "true")
    docker("network", "rm", "watched")
    # the command cuts an `--until` that is relative to whole seconds
    until = f"{time.time():.6f}"
    found = out("events", "--since", "1m", "--until", until, "--filter", "network=watched", "--format", "{{.Action}}")
    assert found.split() == ["create", "connect", "disconnect", "destroy"]


def test_statuses(island: Island) -> None:
    api = island.engine.api
    island.engine.docker("network", "create", "--subnet", "10.9.0.0/16", "net")
    island.container("user", "--network", "net").close()
    overlapping = {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.9.1.0/24"}]}}
    for method, path, body, status in (
        ("POST", "/networks/create", {"Name": "net"}, 409),
        ("POST", "/networks/create", {"Name": "host"}, 403),
        ("POST", "/networks/create", {"Name": "bad/name"}, 400),
        ("POST", "/networks/create", {"Name": "x", "Driver": "nonesuch"}, 404),
        ("POST", "/networks/create", overlapping, 403),
        ("POST", "/networks/create", {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.10.0.0/33"}]}}, 400),
        ("DELETE", "/networks/net", None, 403),
        ("DELETE", "/networks/none", None, 403),
        ("DELETE", "/networks/nonesuch", None, 404),
        ("POST", "/networks/net/connect", {"Container": "user"}, 403),
        ("POST", "/networks/net/disconnect", {"Container": "nobody"}, 404),
    ):
        assert api(method, path, body)[0] == status, (method, path, body)


@pytest.mark.skipif(not Path(OLD_DOCKER).exists(), reason="no older docker command is installed beside")
def test_an_older_docker_command(island: Island) -> None:
    def old(*arguments: str) -> str:
        return island.engine.out(*arguments, docker=OLD_DOCKER)

    old("network", "create", "--subnet", "10.9.0.0/24", "--label", "tier=back", "net")
    old("run", "-d", "--name", "web", "--network", "net", "--ip", "10.9.0.9", "-p", "8080:80", "busybox", "sleep", "1000")
    old("network", "connect", "bridge", "web")
    assert old("network", "ls", "-q", "--filter", "label=tier") != ""
    assert old("port", "web").splitlines()[0] == "80/tcp -> 0.0.0.0:8080"
    assert old("inspect", "-f", "{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{end}}", "web").split() == [
        "bridge",
        "net",
    ]
    assert old("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "net") == "web 10.9.0.9/24"
    old("network", "disconnect", "bridge", "web")
    old("rm", "-f", "web")
    assert old("network", "prune", "-f").splitlines() == ["Deleted Networks:", "net"]
