"""The host's resolvers, as containers get them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

FALLBACK = ("8.8.8.8", "8.8.4.4")


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    servers: tuple[str, ...]
    search: tuple[str, ...]
    options: tuple[str, ...]

    def render(self) -> str:
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "\n".join(lines) + "\n"


def read(path: Path) -> ResolverConfig:
    """The host's resolv.conf(5); an absent one has no servers."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        fields = line.split("#")[0].split()
        if len(fields) >= 2:
            if fields[0] == "nameserver":
                servers.append(fields[1])
            elif fields[0] in ("search", "domain"):
                search = fields[1:]
            elif fields[0] == "options":
                options += fields[1:]
    return ResolverConfig(tuple(servers), tuple(search), tuple(options))


def reachable(config: ResolverConfig) -> ResolverConfig:
    """Without the resolvers on the host's loopback, which a container cannot reach; public ones instead."""
    servers = tuple(server for server in config.servers if not _is_loopback(server))
    return ResolverConfig(servers or FALLBACK, config.search, config.options)


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
