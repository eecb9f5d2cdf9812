"""Which of a container's ports are published where."""

from __future__ import annotations

from boxship.containers.model import Container
from boxship.errors import Invalid
from boxship.network.addresses import parse_address
from boxship.network.model import PortRequest


def port_requests(container: Container) -> list[PortRequest]:
    """What a container wants published; raises `Invalid` for what is no port."""
    found: list[PortRequest] = []
    bindings = container.host.port_bindings or {}
    for text, wanted in bindings.items():
        port, protocol = parse_port(text)
        for binding in wanted or []:
            first, last = _host_ports(binding.host_port)
            if binding.host_ip:
                parse_address(binding.host_ip)
            found.append(PortRequest(port, protocol, binding.host_ip, first, last))
    if container.host.publish_all_ports:
        for text in container.config.exposed_ports or {}:
            if text not in bindings:
                port, protocol = parse_port(text)
                found.append(PortRequest(port, protocol))
    return found


def _host_ports(text: str) -> tuple[int, int]:
    """Read a port of the host, or a range of them; 0 for whichever is free."""
    first, dash, last = text.partition("-")
    if not text:
        return 0, 0
    found = [int(number) if number.isdecimal() else -1 for number in (first, last if dash else first)]
    if not 0 <= found[0] <= found[1] <= 65535:
        raise Invalid(f"invalid port specification: {text!r}")
    return found[0], found[1]


def parse_port(text: str) -> tuple[int, str]:
    """Read `80` or `80/udp`; raises `Invalid`."""
    number, _, protocol = text.partition("/")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise Invalid(f"invalid port specification: {text!r}")
    return int(number), protocol.lower() or "tcp"
