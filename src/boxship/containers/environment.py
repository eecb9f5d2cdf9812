"""The files an engine makes for each container, and its merged configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from boxship.containers.config import ContainerConfig, HostConfig
from boxship.errors import Invalid
from boxship.images.model import Image
from boxship.network import resolvers
from boxship.network.dns import ADDRESS
from boxship.network.model import Endpoint
from boxship.network.resolvers import ResolverConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge(config: ContainerConfig, image: Image, identity: str, host: HostConfig) -> ContainerConfig:
    """A request's configuration completed from its image's (moby's rules); raises `Invalid` without a command."""
    base = image.config.config
    entrypoint, cmd = config.entrypoint, config.cmd
    if base is not None:
        if entrypoint is None:
            entrypoint = base.entrypoint
            cmd = cmd if cmd else base.cmd
    if entrypoint == [""]:
        entrypoint = []
    if not entrypoint and not cmd:
        raise Invalid("no command specified")
    environment: dict[str, str] = {}
    for item in [*((base.env if base else None) or []), *(config.env or [])]:
        environment[item.partition("=")[0]] = item
    if "PATH" not in environment:
        environment = {"PATH": DEFAULT_PATH, **environment}
    health = config.healthcheck
    if base is not None and base.healthcheck is not None:
        if health is None or not health.test:
            own = {
                name: getattr(health, name)
                for name in ("interval", "timeout", "start_period", "start_interval", "retries")
                if health is not None and getattr(health, name)
            }
            health = msgspec.structs.replace(base.healthcheck, **own)
    hostname = config.hostname
    if not hostname and host.uts_mode != "host":
        hostname = os.uname().nodename if host.network_mode == "host" else identity[:12]
    return msgspec.structs.replace(
        config,
        hostname=hostname,
        entrypoint=entrypoint or None,
        cmd=cmd,
        env=list(environment.values()),
        user=config.user or (base.user if base else ""),
        working_dir=config.working_dir or (base.working_dir if base else ""),
        labels={**((base.labels if base else None) or {}), **(config.labels or {})},
        exposed_ports={**((base.exposed_ports if base else None) or {}), **(config.exposed_ports or {})} or None,
        volumes=config.volumes,
        stop_signal=config.stop_signal or (base.stop_signal if base else ""),
        shell=config.shell or (base.shell if base else None),
        healthcheck=health,
    )


def process_environment(config: ContainerConfig) -> list[str]:
    """What the process finds in its environment: the configuration's, with HOSTNAME and TERM."""
    names = {item.partition("=")[0] for item in config.env or []}
    found = list(config.env or [])
    if "HOSTNAME" not in names and config.hostname:
        found.append(f"HOSTNAME={config.hostname}")
    if config.tty and "TERM" not in names:
        found.append("TERM=xterm")
    # a name without a value takes a variable away
    return [item for item in found if "=" in item]


def hosts_file(
    config: ContainerConfig, endpoints: tuple[Endpoint, ...], extra: list[str], linked: list[tuple[str, list[str]]]
) -> str:
    """/etc/hosts(5) as Docker makes it."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    for entry in extra:
        name, _, address = entry.partition(":") if "=" not in entry.split(":")[0] else entry.partition("=")
        lines.append(f"{address.strip('[]')}\t{name}")
    for address, names in linked:
        lines.append(f"{address}\t{' '.join(dict.fromkeys(names))}")
    lines += own_lines(config, endpoints)
    return "\n".join(lines) + "\n"


def own_lines(config: ContainerConfig, endpoints: Iterable[Endpoint]) -> list[str]:
    """The lines of /etc/hosts that lead from a container's own name to its addresses."""
    full = f"{config.hostname}.{config.domainname} {config.hostname}" if config.domainname else config.hostname
    return [f"{text.partition('/')[0]}\t{full}" for e in endpoints for text in (e.ipv4, e.ipv6) if text]


def resolv_conf(host: HostConfig, base: ResolverConfig, *, embedded: bool, host_network: bool) -> str:
    """/etc/resolv.conf(5): the host's, or what was asked for, behind the embedded name server where there is one."""
    servers = tuple(host.dns or ()) or base.servers
    search = tuple(part for part in host.dns_search if part != ".") if host.dns_search else base.search
    options = tuple(host.dns_options) if host.dns_options else base.options
    if embedded:
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
        return ResolverConfig((ADDRESS,), search, options).render()
    config = ResolverConfig(servers, search, options)
    return (config if host_network or host.dns else resolvers.reachable(config)).render()


def check_extra_hosts(entries: list[str]) -> None:
    """Raises `Invalid` for an entry that is no `name:address`."""
    for entry in entries:
        separator = "=" if "=" in entry.split(":")[0] else ":"
        name, found, address = entry.partition(separator)
        if not found or not name or not address:
            raise Invalid(f'bad format for add-host: "{entry}"')
        if address != "host-gateway":
            try:
                import ipaddress

                ipaddress.ip_address(address.strip("[]"))
            except ValueError:
                raise Invalid(f'invalid IP address in add-host: "{address}"') from None
