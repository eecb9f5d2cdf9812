"""Bridges, veth pairs, addresses and routes (rtnetlink(7))."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from boxship.syscalls.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    text,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 17, 18, 20, 22, 24, 26
_UP: Final = 1
_ADDRESS, _NAME, _MTU, _LINK, _MASTER, _INFO, _NAMESPACE_FD = 1, 3, 4, 5, 10, 18, 28
_HAIRPIN, _ISOLATED = 4, 33
_NO_DAD: Final = 0x02


def _link(index: int = 0, *, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP if up else 0)


def make_bridge(name: str, mtu: int) -> Message:
    # disabling the bridge's own forwarding delay lets a port carry traffic at once
    data = nested(2, attribute(1, struct.pack("=I", 0)))
    body = _link(up=True) + text(_NAME, name) + attribute(_MTU, struct.pack("=I", mtu))
    return Message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + nested(_INFO, text(1, "bridge"), data))


def make_pair(name: str, bridge: int, mtu: int, peer: str, peer_mac: str, namespace: int) -> Message:
    """A veth pair: `name` on the bridge, `peer` in the namespace of the descriptor, up once it is set up."""
    size = attribute(_MTU, struct.pack("=I", mtu))
    peer_body = (
        _link()  # a peer cannot be up before its pair is complete
        + text(_NAME, peer)
        + size
        + attribute(_ADDRESS, bytes.fromhex(peer_mac.replace(":", "")))
        + attribute(_NAMESPACE_FD, struct.pack("=i", namespace))
    )
    info = nested(_INFO, text(1, "veth"), nested(2, attribute(1, peer_body)))
    body = _link(up=True) + text(_NAME, name) + size + attribute(_MASTER, struct.pack("=i", bridge)) + info
    return Message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def set_port(name: str, *, isolated: bool) -> Message:
    """Let a bridge's port speak to the bridge alone where it is `isolated`, and have what it sends to itself.

    Where the kernel filters bridged packets as routed ones (br_netfilter), one whose destination the firewall
    changed is bridged; so a container's packet to its own published port leaves where it came from.
    """
    flags = nested(5, attribute(_HAIRPIN, b"\1"), attribute(_ISOLATED, b"\1" if isolated else b"\0"))
    return Message(_NEWLINK, 0, _link() + text(_NAME, name) + nested(_INFO, text(4, "bridge"), flags))


def set_up(index: int) -> Message:
    return Message(_NEWLINK, 0, _link(index, up=True))


def delete_link(index: int) -> Message:
    return Message(_DELLINK, 0, _link(index))


def add_address(index: int, interface: Interface) -> Message:
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = _NO_DAD if interface.version == 6 else 0
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
    packed = interface.ip.packed
    body += attribute(1, packed) + attribute(2, packed)
    if interface.version == 4:
        body += attribute(4, interface.network.broadcast_address.packed)
    return Message(_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def add_default_route(index: int, gateway: Address) -> Message:
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    main, boot, universe, unicast = 254, 3, 0, 1
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, main, boot, universe, unicast, 0)
    body += attribute(5, gateway.packed) + attribute(4, struct.pack("=I", index))
    return Message(_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str


def list_links(netlink: Netlink) -> dict[str, Link]:
    """Every link of the namespace by name."""
    found = {}
    for _, body in netlink.dump(Message(_GETLINK, 0, _link())):
        index = struct.unpack_from("=i", body, 4)[0]
        name = attributes(body[16:]).get(_NAME, b"").rstrip(b"\0").decode()
        found[name] = Link(index, name)
    return found


def list_subnets(netlink: Netlink) -> list[tuple[int, Subnet]]:
    """The subnets that the host's addresses and routes occupy, with the link's index."""
    found: list[tuple[int, Subnet]] = []
    for _, body in netlink.dump(Message(_GETADDR, 0, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
        family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        address = attributes(body[8:]).get(1)
        if address and family in (socket.AF_INET, socket.AF_INET6):
            found.append((index, ipaddress.ip_network((address, prefix), strict=False)))
    for _, body in netlink.dump(Message(_GETROUTE, 0, struct.pack("=BBBBBBBBI", 0, 0, 0, 0, 0, 0, 0, 0, 0))):
        family, prefix = struct.unpack_from("=BB", body)
        attrs = attributes(body[12:])
        if 1 in attrs and prefix and family in (socket.AF_INET, socket.AF_INET6) and body[4] == 254:
            index = struct.unpack("=I", attrs[4])[0] if 4 in attrs else 0
            found.append((index, ipaddress.ip_network((attrs[1], prefix), strict=False)))
    return found


def open_route() -> Netlink:
    return Netlink(NETLINK_ROUTE)
