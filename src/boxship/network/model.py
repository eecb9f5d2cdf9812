"""What the network service keeps and hands out."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


class Pool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subnet of a network, in CIDR notation, with its gateway and the range to give out from."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class Network(msgspec.Struct, frozen=True, omit_defaults=True):
    """A network; `created` in nanoseconds since 1970."""

    id: str
    name: str
    driver: str
    created: int
    bridge: str = ""
    pools: list[Pool] = []
    internal: bool = False
    ipv6: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a container stands on a network; addresses with their prefix length."""

    id: str
    network_id: str
    network: str
    mac: str = ""
    ipv4: str = ""
    ipv6: str = ""
    gateway: str = ""
    gateway6: str = ""
    aliases: list[str] = []
    dns_names: list[str] = []
    links: list[str] = []
    interface: str = ""
    requested_ipv4: str = ""
    requested_ipv6: str = ""
    priority: int = 0
    driver_options: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What a container asks of a network."""

    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    driver_options: dict[str, str] = field(default_factory=dict)
    priority: int = 0


class PortRequest(msgspec.Struct, frozen=True):
    """A port to publish; the host's port lies in the range, 0 lets the engine choose."""

    container_port: int
    protocol: str
    host_ip: str = ""
    first: int = 0
    last: int = 0


class PublishedPort(msgspec.Struct, frozen=True):
    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class SandboxRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A running container's networking, as it is journalled: enough to take it up again after a restart."""

    container: str
    name: str
    endpoints: list[Endpoint] = []
    ports: list[PublishedPort] = []
    dns_ports: list[int] = []
    resolvers: list[str] = []


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container that is about to start."""

    container: str
    name: str
    hostname: str
    networks: dict[str, EndpointRequest]
    ports: tuple[PortRequest, ...] = ()
    resolvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A namespace ready to be joined. The descriptor is the receiver's to close."""

    namespace: int
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PublishedPort, ...]
    embedded_dns: bool
