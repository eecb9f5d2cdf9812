"""What can be asked of a bridge network and of an endpoint by options, under Docker's names."""

from __future__ import annotations

import itertools
import re

from boxship.errors import Invalid, Unsupported
from boxship.network.addresses import parse_address
from boxship.network.model import EndpointRequest, Network

NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
"""Whether containers reach one another (inter-container communication)."""

MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_IP = "com.docker.network.bridge.host_binding_ipv4"
MTU = "com.docker.network.driver.mtu"
PREFIX = "com.docker.network.container_iface_prefix"
IPV4, IPV6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"
INTERFACE = "com.docker.network.endpoint.ifname"
"""An endpoint's own option: what its interface is called."""

TRUE, FALSE = ("true", "1"), ("false", "0")
_SWITCHES = (ICC, MASQUERADE, IPV4, IPV6)
_ALL = frozenset({NAME, HOST_IP, MTU, PREFIX, *_SWITCHES})
_DEFAULT_MTU = "1500"
_LINK_NAME = re.compile(r"(?!lo$)[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")


def check(options: dict[str, str]) -> None:
    """Raises `Invalid` and `Unsupported` for options that a network cannot have; their names are in the message."""
    for option, value in options.items():
        if option not in _ALL:
            raise Unsupported(f"network option {option!r} is not supported by the bridge driver")
        if option in _SWITCHES and value.lower() not in (*TRUE, *FALSE):
            raise Invalid(f"invalid value for network option {option!r}: {value!r} is neither true nor false")
        if option in (NAME, PREFIX) and not _LINK_NAME.fullmatch(value):
            raise Invalid(f"invalid value for network option {option!r}: {value!r} cannot name an interface")
    size = options.get(MTU, _DEFAULT_MTU)
    if not size.isdecimal() or not 68 <= int(size) <= 65535:
        raise Invalid(f"invalid value for network option {MTU!r}: {size!r} is no number from 68 to 65535")
    if options.get(IPV4, "true").lower() in FALSE:
        raise Unsupported("networks without IPv4 are not supported")
    if options.get(HOST_IP):
        parse_address(options[HOST_IP])


def enabled(network: Network, option: str) -> bool:
    """Whether a switch is on, as all are unless they are turned off."""
    return network.options.get(option, "true").lower() not in FALSE


def mtu(network: Network) -> int:
    """In bytes."""
    return int(network.options.get(MTU, _DEFAULT_MTU))


def of_default(bridge: str) -> dict[str, str]:
    """What `docker network inspect bridge` shows."""
    return {
        "com.docker.network.bridge.default_bridge": "true", ICC: "true", MASQUERADE: "true", NAME: bridge, MTU: _DEFAULT_MTU,
    }  # fmt: skip


def interface_name(network: Network, request: EndpointRequest, taken: set[str]) -> str:
    """What a container's interface is called, beside those it has; raises `Invalid`."""
    asked = request.driver_options.get(INTERFACE, "")
    if asked:
        if asked in taken or not _LINK_NAME.fullmatch(asked):
            raise Invalid(f"invalid interface name {asked!r}", hint="up to 15 characters, each interface its own")
        return asked
    prefix = network.options.get(PREFIX) or "eth"
    return next(f"{prefix}{number}" for number in itertools.count() if f"{prefix}{number}" not in taken)
