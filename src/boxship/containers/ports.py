"""Which of a container's ports are published where."""

from __future__ import annotations

from boxship.containers.model import Container
from boxship.errors import Invalid
from boxship.network.model import PortRequest


def port_requests(container: Container) -> list[PortRequest]:
    """What a container wants published; raises `Invalid` for what is no port."""
    found: list[PortRequest] = []
    bindings = container.host.port_bindings or {}
    for text, wanted in bindings.items():
        port, protocol = parse_port(text)
        for binding in wanted or []:
            first, _, last = binding.host_port.partition("-")
            if (first and not first.isdigit()) or (last and not last.isdigit()) or int(first or 0) > 65535:
                raise Invalid(f"invalid port specification: {binding.host_port!r}")
            found.append(PortRequest(port, protocol, binding.host_ip, int(first or 0), int(last or first or 0)))
    if container.host.publish_all_ports:
        for text in container.config.exposed_ports or {}:
            if text not in bindings:
                port, protocol = parse_port(text)
                found.append(PortRequest(port, protocol))
    return found


def parse_port(text: str) -> tuple[int, str]:
    """Read `80` or `80/udp`; raises `Invalid`."""
    number, _, protocol = text.partition("/")
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise Invalid(f"invalid port specification: {text!r}")
    return int(number), protocol.lower() or "tcp"
