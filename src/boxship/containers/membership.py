"""A container's networks, changed after it was made: what it asks of them, and its files where it runs."""

from __future__ import annotations

from pathlib import Path

from boxship.containers import environment, request
from boxship.containers.config import EndpointConfig
from boxship.containers.model import Container
from boxship.containers.ports import port_requests
from boxship.containers.service import Containers
from boxship.errors import Denied, Invalid
from boxship.network import resolvers
from boxship.network.model import Attachment, Endpoint, Network

_RESOLV_CONF = Path("/etc/resolv.conf")


async def connect(containers: Containers, container: Container, network: Network, config: EndpointConfig) -> None:
    """Raises `Invalid`, `Denied` where it is connected already, and what networks raise."""
    mode = container.host.network_mode
    if mode == "host" or network.driver == "host":
        raise Invalid("container cannot be disconnected from host network or connected to host network")
    if mode.startswith("container:"):
        raise Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
    if mode == "none" or network.driver == "null":
        raise Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
    request.check_endpoint(network, config)
    if network.name in container.endpoints:
        raise Denied(f"endpoint with name {container.name} already exists in network {network.name}")
    if container.state.running:
        embedded = _has_names(containers, container)
        attachment = Attachment(
            container.id, container.name, container.config.hostname, {network.id: request.endpoint_request(config)},
            tuple(port_requests(container)), tuple(container.host.dns or ()),
        )  # fmt: skip
        made = await containers.networks.connect(attachment, container.state.pid)
        directory = containers.directory(container.id)
        with (directory / "hosts").open("a") as hosts:
            hosts.writelines(f"{line}\n" for line in environment.own_lines(container.config, [made]))
        if not embedded and _has_names(containers, container):
            _turn_to_names(container, directory / "resolv.conf")
    endpoints = containers.get(container.id).endpoints
    containers.set_endpoints(container.id, {**endpoints, network.name: config})


async def disconnect(containers: Containers, container: Container, network: Network) -> None:
    """Raises `Invalid`, `Denied` where it is not connected, `Unavailable`."""
    if container.host.network_mode == "host" or network.driver == "host":
        raise Invalid("container cannot be disconnected from host network or connected to host network")
    if network.name not in container.endpoints:
        raise Denied(f"container {container.id} is not connected to network {network.name}")
    if container.state.running:
        gone = await containers.networks.disconnect(container.id, network, container.state.pid)
        _forget(container, gone, containers.directory(container.id) / "hosts")
    endpoints = containers.get(container.id).endpoints
    containers.set_endpoints(container.id, {name: config for name, config in endpoints.items() if name != network.name})


def _has_names(containers: Containers, container: Container) -> bool:
    record = containers.networks.sandbox(container.id)
    return record is not None and bool(record.dns_ports)


def _turn_to_names(container: Container, path: Path) -> None:
    """Name the embedded name server, unless somebody has written the file anew. In place: it is a mount's source."""
    base = resolvers.read(_RESOLV_CONF)
    if path.read_text() == environment.resolv_conf(container.host, base, embedded=False, host_network=False):
        path.write_text(environment.resolv_conf(container.host, base, embedded=True, host_network=False))


def _forget(container: Container, gone: Endpoint, path: Path) -> None:
    own = set(environment.own_lines(container.config, [gone]))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.rstrip("\n") not in own))
