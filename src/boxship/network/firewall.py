"""The rules: one nftables table of our own for IPv4 and one for IPv6, laid once; networks and ports are set elements.

guard        prerouting, before everything: nothing from a network reaches the host's loopback or claims to come
             from one, and nothing from outside that is addressed to a container itself gets in
published    prerouting and output: a published port becomes the container's address and port
outgoing     postrouting: what leaves a network takes the host's address
between      forward: networks do not reach one another but by published ports, internal ones nothing at all
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from boxship.network.links import Subnet
from boxship.syscalls.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    Message,
    Netlink,
    attribute,
    nested,
    text,
)

_SUBSYSTEM: Final = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWELEMENT, _DELELEMENT = 0, 2, 3, 6, 9, 12, 14
_PREROUTING, _FORWARD, _OUTPUT, _POSTROUTING = 0, 2, 3, 4
_DROP, _ACCEPT = 0, 1
_VERDICT_REGISTER: Final = 0
_R0, _R1 = 8, 9  # the 32-bit registers
_IIFNAME, _OIFNAME, _L4PROTO = 6, 7, 16
_MAP, _INTERVAL = 8, 4
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}

Expression = bytes


def _be(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def _expression(name: str, *data: bytes) -> Expression:
    return nested(1, text(1, name), nested(2, *data))


def _meta(key: int, register: int = _R0) -> Expression:
    return _expression("meta", attribute(1, _be(register)), attribute(2, _be(key)))


def _payload(base: int, offset: int, length: int, register: int = _R0) -> Expression:
    return _expression(
        "payload",
        attribute(1, _be(register)),
        attribute(2, _be(base)),
        attribute(3, _be(offset)),
        attribute(4, _be(length)),
    )


def _compare(value: bytes, *, equal: bool = True) -> Expression:
    return _expression("cmp", attribute(1, _be(_R0)), attribute(2, _be(0 if equal else 1)), nested(3, attribute(1, value)))


def _in_set(name: str, *, inverted: bool = False) -> Expression:
    return _expression("lookup", text(1, name), attribute(2, _be(_R0)), attribute(5, _be(1 if inverted else 0)))


def _mapped(name: str) -> Expression:
    return _expression("lookup", text(1, name), attribute(2, _be(_R0)), attribute(3, _be(_R0)))


def _masked(mask: bytes) -> Expression:
    return _expression(
        "bitwise", attribute(1, _be(_R0)), attribute(2, _be(_R0)), attribute(3, _be(len(mask))),
        nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask)))),
    )  # fmt: skip


def _verdict(code: int) -> Expression:
    return _expression("immediate", attribute(1, _be(_VERDICT_REGISTER)), nested(2, nested(2, attribute(1, _be(code)))))


def _connection(key: int) -> Expression:
    return _expression("ct", attribute(1, _be(_R0)), attribute(2, _be(key)))


_STATE, _STATUS = 0, 2
_ESTABLISHED_RELATED: Final = struct.pack("=I", 2 | 4)
_DESTINATION_CHANGED: Final = struct.pack("=I", 1 << 5)
_TO_THIS_HOST: Final = [
    _expression("fib", attribute(1, _be(_R0)), attribute(2, _be(3)), attribute(3, _be(2))),
    _compare(struct.pack("=I", 2)),
]


def _protocol_and_port(register: int) -> list[Expression]:
    return [_meta(_L4PROTO, register), _payload(2, 2, 2, register + 1)]


_MASQUERADE: Final = _expression("masq")


class _Family:
    """What differs between IPv4 and IPv6."""

    def __init__(self, version: int) -> None:
        self.number = socket.AF_INET if version == 4 else socket.AF_INET6
        self.length = 4 if version == 4 else 16
        self.source = _payload(1, 12 if version == 4 else 8, self.length)
        self.destination = _payload(1, 16 if version == 4 else 24, self.length)
        self.loopback = ip_network("127.0.0.0/8" if version == 4 else "::1/128")
        self.kind = 7 if version == 4 else 8  # nft's number for the type, for whoever lists the rules
        # a register holds 16 bytes, or four of 4: the next free one behind an address
        self.after = _R0 + self.length // 4

    def is_loopback(self, address: Expression) -> list[Expression]:
        return [address, _masked(self.loopback.netmask.packed), _compare(self.loopback.network_address.packed)]


_FAMILIES: Final = (_Family(4), _Family(6))


@dataclass(frozen=True, slots=True)
class Filtered:
    """A network as the rules know it; without `open`, its containers reach one another by published ports only."""

    bridge: str
    subnets: tuple[Subnet, ...]
    internal: bool = False
    masquerade: bool = True
    open: bool = True


class Firewall:
    """The tables called `name`. Everything here is idempotent: laying them again replaces them whole."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._netlink = Netlink(NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    # --- the tables ---

    def lay(self, networks: Iterable[Filtered]) -> None:
        """Lay both tables anew, with these networks and no ports, in one transaction: there is no moment without
        isolation. Raises `OSError`."""
        networks = list(networks)
        messages: list[Message] = []
        for family in _FAMILIES:
            # the deletion needs something to delete
            table = self._message(_NEWTABLE, family, NLM_F_CREATE, text(1, self._name))
            messages += [table, self._message(_DELTABLE, family, 0, text(1, self._name)), *self._table(family)]
            for network in networks:
                messages += self._network(_NEWELEMENT, family, network)
        self._transaction(messages)

    def remove(self) -> None:
        """Take both tables away; absent ones are no error."""
        for family in _FAMILIES:
            try:
                self._transaction([self._message(_DELTABLE, family, 0, text(1, self._name))])
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def _table(self, family: _Family) -> list[Message]:
        length = family.length
        to = family.destination
        known_source = [family.source, _in_set("subnets")]
        from_bridge, to_bridge = [_meta(_IIFNAME), _in_set("bridges")], [_meta(_OIFNAME), _in_set("bridges")]
        not_from_bridge = [_meta(_IIFNAME), _in_set("bridges", inverted=True)]
        not_to_bridge = [_meta(_OIFNAME), _in_set("bridges", inverted=True)]
        changed = [_connection(_STATUS), _masked(_DESTINATION_CHANGED), _compare(bytes(4), equal=False)]
        established = [_connection(_STATE), _masked(_ESTABLISHED_RELATED), _compare(bytes(4), equal=False)]
        translate = _expression(
            "nat", attribute(1, _be(1)), attribute(2, _be(family.number)), attribute(3, _be(_R0)),
            attribute(5, _be(family.after)),
        )  # fmt: skip
        exact = [*_TO_THIS_HOST, to, *_protocol_and_port(family.after), _mapped("ports"), translate]
        anywhere = [*_TO_THIS_HOST, *_protocol_and_port(_R0), _mapped("ports-anywhere"), translate]
        reach = exact, anywhere
        return [
            self._message(_NEWTABLE, family, NLM_F_CREATE, text(1, self._name)),
            self._set(family, "bridges", 41, 16, 1),
            self._set(family, "internal", 41, 16, 2),
            self._set(family, "same", 41 << 6 | 41, 32, 3),
            self._set(family, "subnets", family.kind, length, 4, flags=_INTERVAL),
            self._set(family, "ports", (family.kind << 6 | 12) << 6 | 13, length + 8, 5, flags=_MAP, data=length + 4),
            self._set(family, "ports-anywhere", 12 << 6 | 13, 8, 6, flags=_MAP, data=length + 4),
            self._set(family, "relayed", 12 << 6 | 13, 8, 7),
            self._chain(family, "guard", "filter", _PREROUTING, -300),
            self._chain(family, "published", "nat", _PREROUTING, -100),
            self._chain(family, "published-here", "nat", _OUTPUT, -100),
            self._chain(family, "outgoing", "nat", _POSTROUTING, 100),
            self._chain(family, "between", "filter", _FORWARD, 0),
            self._rule(family, "guard", *from_bridge, *family.is_loopback(to), _verdict(_DROP)),
            self._rule(family, "guard", *from_bridge, *family.is_loopback(family.source), _verdict(_DROP)),
            self._rule(
                family, "guard", _meta(_IIFNAME), _in_set("internal"), *_TO_THIS_HOST, *_protocol_and_port(_R0),
                _in_set("relayed"), _verdict(_DROP),
            ),
            self._rule(
                family, "guard", *not_from_bridge, _compare(_interface("lo"), equal=False),
                to, _in_set("subnets"), _verdict(_DROP),
            ),
            # the kernel lets nothing leave for another address that comes from ::1; a relay has it
            *([self._rule(family, "published-here", *family.is_loopback(to), _verdict(_ACCEPT))] if family.length == 16 else []),
            *(self._rule(family, chain, *rule) for chain in ("published", "published-here") for rule in reach),
            self._rule(family, "outgoing", *to_bridge, *family.is_loopback(family.source), _MASQUERADE),
            self._rule(family, "outgoing", *not_to_bridge, *known_source, _MASQUERADE),
            self._rule(family, "outgoing", *to_bridge, *known_source, *changed, _MASQUERADE),
            self._rule(family, "between", *established, _verdict(_ACCEPT)),
            self._rule(family, "between", _meta(_IIFNAME), _meta(_OIFNAME, _R0 + 4), _in_set("same"), _verdict(_ACCEPT)),
            self._rule(family, "between", _meta(_IIFNAME), _in_set("internal"), _verdict(_DROP)),
            self._rule(family, "between", _meta(_OIFNAME), _in_set("internal"), _verdict(_DROP)),
            self._rule(family, "between", *changed, _verdict(_ACCEPT)),
            self._rule(family, "between", *from_bridge, *to_bridge, _verdict(_DROP)),
            self._rule(family, "between", *not_from_bridge, *to_bridge, _verdict(_DROP)),
        ]  # fmt: skip

    # --- networks and ports ---

    def add_network(self, network: Filtered) -> None:
        """Raises `OSError`."""
        self._transaction([message for family in _FAMILIES for message in self._network(_NEWELEMENT, family, network)])

    def remove_network(self, network: Filtered) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._transaction([message for family in _FAMILIES for message in self._network(_DELELEMENT, family, network)])

    def _network(self, operation: int, family: _Family, network: Filtered) -> list[Message]:
        name = _interface(network.bridge)
        messages = [self._elements(operation, family, "bridges", _element(name))]
        if network.open:
            messages.append(self._elements(operation, family, "same", _element(name + name)))
        if network.internal:
            messages.append(self._elements(operation, family, "internal", _element(name)))
        for subnet in network.subnets:
            if len(subnet.network_address.packed) == family.length and network.masquerade:
                end = (int(subnet.broadcast_address) + 1) % (1 << (8 * family.length))
                first = _element(subnet.network_address.packed)
                last = _element(end.to_bytes(family.length, "big"), flags=1)
                messages.append(self._elements(operation, family, "subnets", first, last))
        return messages

    def publish(self, protocol: str, host_ip: str, host_port: int, address: str, port: int) -> None:
        """One map element: from then on the port leads to the container. Raises `OSError`."""
        family, name, key = self._key(protocol, host_ip, host_port, address)
        value = ip_address(address).packed + struct.pack(">Hxx", port)
        self._transaction([self._elements(_NEWELEMENT, family, name, _element(key, value))])

    def withdraw(self, protocol: str, host_ip: str, host_port: int, address: str) -> None:
        family, name, key = self._key(protocol, host_ip, host_port, address)
        with contextlib.suppress(FileNotFoundError):
            self._transaction([self._elements(_DELELEMENT, family, name, _element(key))])

    def relay(self, protocol: str, host_port: int) -> None:
        """Keep internal networks from a port that a relay over IPv6 serves, as they are kept from the others; raises `OSError`."""
        self._transaction([self._elements(_NEWELEMENT, _FAMILIES[1], "relayed", _element(_port(protocol, host_port)))])

    def unrelay(self, protocol: str, host_port: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._transaction([self._elements(_DELELEMENT, _FAMILIES[1], "relayed", _element(_port(protocol, host_port)))])

    @staticmethod
    def _key(protocol: str, host_ip: str, host_port: int, address: str) -> tuple[_Family, str, bytes]:
        family = _FAMILIES[0 if ip_address(address).version == 4 else 1]
        port = _port(protocol, host_port)
        if not host_ip or ip_address(host_ip).is_unspecified:
            return family, "ports-anywhere", port
        return family, "ports", ip_address(host_ip).packed + port

    def redirect(self, family: _Family, ports: dict[str, int]) -> None:
        """Lay a table that sends 127.0.0.11:53 to ports of the same address, by protocol."""
        resolver = bytes([127, 0, 0, 11])
        rules = []
        for protocol, port in ports.items():
            target = [
                _expression("immediate", attribute(1, _be(_R0)), nested(2, attribute(1, resolver))),
                _expression("immediate", attribute(1, _be(_R1)), nested(2, attribute(1, struct.pack(">Hxx", port)))),
                _expression(
                    "nat", attribute(1, _be(1)), attribute(2, _be(family.number)), attribute(3, _be(_R0)),
                    attribute(5, _be(_R1)),
                ),
            ]  # fmt: skip
            matches = [
                family.destination, _compare(resolver), _meta(_L4PROTO), _compare(bytes([_PROTOCOLS[protocol]])),
                _payload(2, 2, 2), _compare(struct.pack(">H", 53)),
            ]  # fmt: skip
            rules.append(self._rule(family, "resolver", *matches, *target))
        table = self._message(_NEWTABLE, family, NLM_F_CREATE, text(1, self._name))
        self._transaction([table, self._chain(family, "resolver", "nat", _OUTPUT, -100), *rules])

    # --- messages ---

    def _message(self, kind: int, family: _Family, flags: int, body: bytes) -> Message:
        return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack(">BBH", family.number, 0, 0) + body)

    def _set(self, family: _Family, name: str, kind: int, length: int, number: int, *, flags: int = 0, data: int = 0) -> Message:
        body = text(1, self._name) + text(2, name) + attribute(3, _be(flags)) + attribute(4, _be(kind))
        body += attribute(5, _be(length)) + attribute(10, _be(number))
        if data:
            body += attribute(6, _be(family.kind << 6 | 13)) + attribute(7, _be(data))
        return self._message(_NEWSET, family, NLM_F_CREATE, body)

    def _chain(self, family: _Family, name: str, kind: str, hook: int, priority: int) -> Message:
        body = text(1, self._name) + text(3, name) + nested(4, attribute(1, _be(hook)), attribute(2, _be(priority)))
        return self._message(_NEWCHAIN, family, NLM_F_CREATE, body + attribute(5, _be(_ACCEPT)) + text(7, kind))

    def _rule(self, family: _Family, chain: str, *expressions: Expression) -> Message:
        append = 0x800
        body = text(1, self._name) + text(2, chain) + nested(4, *expressions)
        return self._message(_NEWRULE, family, NLM_F_CREATE | append, body)

    def _elements(self, operation: int, family: _Family, name: str, *elements: bytes) -> Message:
        body = text(1, self._name) + text(2, name) + nested(3, *elements)
        return self._message(operation, family, NLM_F_CREATE if operation == _NEWELEMENT else 0, body)

    def _transaction(self, messages: list[Message]) -> None:
        edge = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
        self._netlink.batch(Message(0x10, 0, edge), messages, Message(0x11, 0, edge))


def _port(protocol: str, number: int) -> bytes:
    return bytes([_PROTOCOLS[protocol], 0, 0, 0]) + struct.pack(">Hxx", number)


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _element(key: bytes, value: bytes | None = None, flags: int = 0) -> bytes:
    body = [nested(1, attribute(1, key))]
    if value is not None:
        body.append(nested(2, attribute(1, value)))
    if flags:
        body.append(attribute(3, _be(flags)))
    return nested(1, *body)


def redirect_resolver(datagram_port: int, stream_port: int) -> None:
    """In the calling thread's namespace: send what goes to 127.0.0.11:53 to these ports of it; raises `OSError`."""
    firewall = Firewall("boxship-names")
    family = _FAMILIES[0]
    try:
        firewall.redirect(family, {"udp": datagram_port, "tcp": stream_port})
    finally:
        firewall.close()
