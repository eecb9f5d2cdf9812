"""A container's interfaces: put into its namespace and taken out again. Everything here is for the workshop's thread."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from boxship.network import links
from boxship.network.model import Endpoint
from boxship.network.namespaces import Workshop, set_sysctl
from boxship.syscalls.netlink import Message


def gateway_endpoint(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint by which a container gets out, and to which its published ports lead; None where all are internal."""
    return max((endpoint for endpoint in endpoints if endpoint.gateway), key=lambda e: e.priority, default=None)


def plug(workshop: Workshop, namespace: int, endpoint: Endpoint, bridge: int, mtu: int, *, isolated: bool) -> None:
    """Make an endpoint's interface, from the bridge of this index into the namespace; raises `OSError`."""
    outside = f"veth{endpoint.id[:8]}"
    workshop.route.request(
        [
            links.make_pair(outside, bridge, mtu, endpoint.interface, endpoint.mac, namespace),
            links.set_port(outside, isolated=isolated),
        ]
    )

    def address() -> None:
        if endpoint.ipv6:
            set_sysctl(f"ipv6/conf/{endpoint.interface}/disable_ipv6", "0")
        index = socket.if_nametoindex(endpoint.interface)
        addresses = [ipaddress.ip_interface(text) for text in (endpoint.ipv4, endpoint.ipv6) if text]
        _request([links.set_up(index), *(links.add_address(index, address) for address in addresses)])

    workshop.inside(namespace, address)


def unplug(workshop: Workshop, namespace: int, endpoint: Endpoint) -> None:
    """Take an endpoint's interface away; one that is gone is no error. Raises `OSError`."""

    def remove() -> None:
        try:
            index = socket.if_nametoindex(endpoint.interface)
        except OSError:
            return
        _request([links.delete_link(index)])

    workshop.inside(namespace, remove)


def route(workshop: Workshop, namespace: int, endpoints: Iterable[Endpoint]) -> None:
    """Lead the default routes by way of the endpoint that has them; raises `OSError`."""
    endpoints = list(endpoints)
    out = gateway_endpoint(endpoints)
    out6 = max((endpoint for endpoint in endpoints if endpoint.gateway6), key=lambda e: e.priority, default=None)

    def lead() -> None:
        messages = [
            links.add_default_route(socket.if_nametoindex(endpoint.interface), ipaddress.ip_address(gateway))
            for endpoint, gateway in ((out, out and out.gateway), (out6, out6 and out6.gateway6))
            if endpoint is not None and gateway
        ]
        if messages:
            _request(messages)

    workshop.inside(namespace, lead)


def _request(messages: Iterable[Message]) -> None:
    inside = links.open_route()
    try:
        inside.request(messages)
    finally:
        inside.close()
