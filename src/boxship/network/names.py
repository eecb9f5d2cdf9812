"""What a container's name server answers: the names on the networks that it stands on."""

from __future__ import annotations

import ipaddress

from boxship.network.addresses import parse_address, parse_subnet
from boxship.network.links import Address
from boxship.network.model import Network, SandboxRecord
from boxship.state.database import Collection


class Names:
    """The names of the running containers of one engine."""

    def __init__(self, networks: Collection[Network], sandboxes: Collection[SandboxRecord]) -> None:
        self._networks = networks
        self._sandboxes = sandboxes

    def look_up(self, container: str, name: str) -> list[Address] | None:
        """The addresses that a name has for a container; None for a name that is none of its networks'."""
        asking = self._sandboxes.get(container)
        if asking is None:
            return None
        mine = {endpoint.network_id: endpoint for endpoint in asking.endpoints if endpoint.network != "bridge"}
        found: list[Address] = []
        for record in self._sandboxes.all.values():
            for endpoint in record.endpoints:
                own = mine.get(endpoint.network_id)
                if own is None:
                    continue
                linked = [link.partition(":") for link in own.links]
                alias = any((to or link).lower() == name and link in (record.name, record.container) for link, _, to in linked)
                plain = {known.lower() for known in endpoint.dns_names}
                if alias or name in plain or name in {f"{known}.{endpoint.network}".lower() for known in plain}:
                    found += [ipaddress.ip_address(bare(text)) for text in (endpoint.ipv4, endpoint.ipv6) if text]
        return found or None

    def reverse(self, container: str, address: Address) -> str | None:
        asking = self._sandboxes.get(container)
        mine = {endpoint.network_id for endpoint in asking.endpoints} if asking else set()
        for record in self._sandboxes.all.values():
            for endpoint in record.endpoints:
                if endpoint.network_id in mine and str(address) in (bare(endpoint.ipv4), bare(endpoint.ipv6)):
                    return f"{record.name}.{endpoint.network}"
        return None

    def upstreams(self, container: str, servers: list[str]) -> list[str]:
        """Who is asked for other names: nobody outside on behalf of a container that must not get out (CVE-2024-29018)."""
        record = self._sandboxes.get(container)
        networks = [self._networks.get(endpoint.network_id) for endpoint in record.endpoints] if record else []
        if any(network is not None and not network.internal for network in networks):
            return servers
        near = [parse_subnet(pool.subnet) for network in networks if network is not None for pool in network.pools]
        return [server for server in servers if any(parse_address(server) in subnet for subnet in near)]


def bare(text: str) -> str:
    """An address without its prefix length."""
    return text.partition("/")[0]
