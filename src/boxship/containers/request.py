"""A request to make a container, completed and checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import msgspec

from boxship.containers import specification
from boxship.containers.config import ContainerConfig, EndpointConfig, HostConfig, NetworkingConfig
from boxship.containers.model import Container
from boxship.errors import Invalid, Unsupported
from boxship.network.bridge_options import INTERFACE
from boxship.network.model import EndpointRequest, Network
from boxship.network.service import Networks

Find = Callable[[str], Container]

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def completed(host: HostConfig, *, cgroup_version: int, default_log: str) -> HostConfig:
    """What was asked, with the engine's defaults where nothing was."""
    mode = host.network_mode
    return msgspec.structs.replace(
        host,
        network_mode="bridge" if mode in ("", "default") else mode,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("host" if cgroup_version == 1 or host.privileged else "private"),
        log_config=msgspec.structs.replace(host.log_config, type=host.log_config.type or default_log),
        runtime=host.runtime or "boxship",
        shm_size=host.shm_size or specification.DEFAULT_SHM_SIZE,
        restart_policy=msgspec.structs.replace(host.restart_policy, name=host.restart_policy.name or "no"),
        memory_swap=host.memory_swap or (2 * host.memory if host.memory else 0),
        masked_paths=None if host.masked_paths is None else host.masked_paths,
    )


def endpoints(
    host: HostConfig, networking: NetworkingConfig, config: ContainerConfig, networks: Networks, find: Find
) -> dict[str, EndpointConfig]:
    """What is asked of each network, by its name; raises `NotFound`, `Invalid`."""
    mode = host.network_mode
    wanted = {name: endpoint or EndpointConfig() for name, endpoint in (networking.endpoints_config or {}).items()}
    if mode in ("host", "none") or mode.startswith("container:"):
        if mode.startswith("container:"):
            find(mode[10:])
        if any(name != mode for name in wanted):
            raise Invalid(f"conflicting options: cannot attach both network mode {mode} and networks")
        return {}
    found: dict[str, EndpointConfig] = {}
    renamed = {"default": "bridge"}
    wanted = {renamed.get(name, name): endpoint for name, endpoint in wanted.items()}
    for name in dict.fromkeys([mode, *wanted]):
        network = networks.get(name)
        endpoint = wanted.get(name) or wanted.get(network.name) or EndpointConfig()
        if network.name == mode or name == mode:
            endpoint = msgspec.structs.replace(
                endpoint, mac_address=endpoint.mac_address or config.mac_address,
                links=[*(endpoint.links or []), *((host.links or []) if network.name != "bridge" else [])] or None,
            )  # fmt: skip
        check_endpoint(network, endpoint)
        found.setdefault(network.name, endpoint)
    return found


def check_endpoint(network: Network, endpoint: EndpointConfig) -> None:
    """Raises `Invalid` for what a network cannot give, `Unsupported`."""
    own = endpoint.ipam_config
    if network.name == "bridge" and own and (own.ipv4_address or own.ipv6_address):
        raise Invalid("user specified IP address is supported on user defined networks only")
    if network.name == "bridge" and endpoint.aliases:
        raise Invalid("network-scoped alias is supported only for containers in user defined networks")
    for version, address in ((4, own.ipv4_address), (6, own.ipv6_address)) if own else ():
        if address and not _is_address(address, version):
            raise Invalid(f"invalid endpoint settings: invalid IPv{version} address: {address}")
    if endpoint.mac_address and not _MAC.fullmatch(endpoint.mac_address):
        raise Invalid(f"invalid endpoint settings: invalid MAC address: {endpoint.mac_address}")
    if own and own.link_local_ips:
        raise Unsupported("option LinkLocalIPs is not supported")
    for option in endpoint.driver_opts or {}:
        if option != INTERFACE:
            raise Unsupported(f"endpoint option {option!r} is not supported by the bridge driver")


def endpoint_request(endpoint: EndpointConfig) -> EndpointRequest:
    """What is asked of a network, as networks take it."""
    own = endpoint.ipam_config
    return EndpointRequest(
        own.ipv4_address if own else "", own.ipv6_address if own else "", endpoint.mac_address.replace("-", ":"),
        tuple(endpoint.aliases or ()), tuple(endpoint.links or ()), dict(endpoint.driver_opts or {}), endpoint.gw_priority,
    )  # fmt: skip


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
