"""Addresses of a network: given out in turn, so that one just released is not the next to be used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from boxship.errors import Conflict, Invalid
from boxship.network.model import Pool

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


class AddressPool:
    """The addresses of one subnet. Raises `Invalid` for a pool that contradicts itself."""

    def __init__(self, pool: Pool) -> None:
        self.subnet: Subnet = parse_subnet(pool.subnet)
        self._range: Subnet = parse_subnet(pool.ip_range) if pool.ip_range else self.subnet
        if self._range.version != self.subnet.version or not self._range.subnet_of(self.subnet):  # type: ignore[arg-type]
            raise Invalid(f"invalid ip range {pool.ip_range}: it does not lie in subnet {pool.subnet}")
        if pool.gateway:
            self.gateway = parse_address(pool.gateway)
            if self.gateway not in self.subnet:
                raise Invalid(f"invalid gateway {pool.gateway}: it does not lie in subnet {pool.subnet}")
        else:
            self.gateway = self.subnet[1] if self.subnet.num_addresses > 1 else self.subnet[0]
        self._taken: set[Address] = {self.gateway}
        for text in pool.auxiliary.values():
            address = parse_address(text)
            if address not in self.subnet:
                raise Invalid(f"invalid auxiliary address {text}: it does not lie in subnet {pool.subnet}")
            self._taken.add(address)
        self._first = int(self._range.network_address)
        self._last = int(self._range.broadcast_address)
        if self._range == self.subnet and self.subnet.num_addresses > 2:
            self._first += 1
            self._last -= 1 if self.subnet.version == 4 else 0
        if self.subnet.version == 4 and self.subnet.num_addresses > 2:
            # a range may reach to either end of its subnet
            self._taken |= {self.subnet.network_address, self.subnet.broadcast_address}
        self._next = self._first

    def take(self, requested: str = "") -> Address:
        """The next free address, or the one requested; raises `Conflict` in Docker's words, `Invalid`."""
        if requested:
            address = parse_address(requested)
            if address not in self.subnet:
                raise Invalid(f"invalid address {requested}: It does not belong to any of this network's subnets")
            if address in self._taken:
                raise Conflict("Address already in use")
            self._taken.add(address)
            return address
        size = self._last - self._first + 1
        for step in range(min(size, len(self._taken) + 1)):
            number = self._first + (self._next - self._first + step) % size
            candidate = self.subnet[0] + (number - int(self.subnet[0]))
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._next = number + 1
                return candidate
        raise Conflict("no available IPv4 addresses on this network's address pools: " + str(self.subnet))

    def counts(self) -> tuple[int, int]:
        """How many addresses are in use or reserved, and how many of the range are free; each at most 2^64 - 1."""
        first, last = self._range.network_address, self._range.broadcast_address
        bounds = (
            {self.subnet.network_address, self.subnet.broadcast_address}
            if self.subnet.version == 4
            else {self.subnet.network_address}
        )
        taken = self._taken | bounds
        inside = sum(1 for address in taken if int(first) <= int(address) <= int(last))
        most = (1 << 64) - 1
        return min(len(taken), most), min(self._range.num_addresses - inside, most)

    def claim(self, address: str) -> None:
        """Note an address that is in use from before a restart."""
        self._taken.add(parse_address(address))

    def release(self, address: str) -> None:
        parsed = parse_address(address)
        if parsed != self.gateway:
            self._taken.discard(parsed)


def parse_subnet(text: str) -> Subnet:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"invalid subnet {text!r}", hint="expected an address and a prefix, as in 10.1.0.0/24") from None


def parse_address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise Invalid(f"invalid IP address {text!r}") from None


def mac_of(address: Address) -> str:
    """The hardware address that Docker derives from an IPv4 address: 02:42 and its four bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])


DEFAULT_POOLS = (
    *(f"172.{second}.0.0/16" for second in range(17, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)


def split_pools(pools: list[tuple[str, int]]) -> list[Subnet]:
    """The subnets of `--default-address-pool base=…,size=…` in turn; Docker's own where there is none."""
    if not pools:
        return [ip_network(text) for text in DEFAULT_POOLS]
    found: list[Subnet] = []
    for base, size in pools:
        parsed = parse_subnet(base)
        if size < parsed.prefixlen or size > parsed.max_prefixlen:
            raise Invalid(f"invalid default address pool: size {size} does not fit base {base}")
        subnets: Iterator[Subnet] = parsed.subnets(new_prefix=size)
        found += itertools.islice(subnets, 4096)
    return found
