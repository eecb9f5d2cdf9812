"""The kernel's memory of flows (conntrack), where what it remembers is over (libnetfilter_conntrack's messages)."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Final

from boxship.syscalls.netlink import NETLINK_NETFILTER, Message, Netlink, attribute, attributes, nested

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_BY_SOURCE: Final = 1
_ANY: Final = 0


def forget(address: str) -> None:
    """Forget the flows that were led to an address, so that whoever goes on sending is led anew; raises `OSError`.

    A stream ends with its peer; datagrams would go to where the container was, for as long as they come.
    """
    parsed = ip_address(address)
    head = struct.pack(">BBH", socket.AF_INET if parsed.version == 4 else socket.AF_INET6, 0, 0)
    source = 1 if parsed.version == 4 else 3
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        # kernels before 5.8 know no filter, and tell of every flow
        wanted = nested(_REPLY, nested(1, attribute(source, parsed.packed)))
        flags = nested(_FILTER, attribute(1, struct.pack("=I", _ANY)), attribute(2, struct.pack("=I", _BY_SOURCE)))
        for _, body in netlink.dump(Message(_GET, 0, head + wanted + flags)):
            found = attributes(body[4:])
            if attributes(attributes(found[_REPLY])[1]).get(source) == parsed.packed:
                try:
                    netlink.request([Message(_DELETE, 0, head + nested(_ORIGINAL, found[_ORIGINAL]))])
                except FileNotFoundError:
                    continue  # it has ended by itself
    finally:
        netlink.close()
