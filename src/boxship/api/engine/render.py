"""Domain objects as the Engine API shows them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec

from boxship.api.engine.filters import rfc3339
from boxship.build.cache import CacheEntry
from boxship.containers.model import Container, ExecSession, Health
from boxship.containers.service import Containers
from boxship.errors import Invalid
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.network.model import Endpoint, Network, PublishedPort, SandboxRecord
from boxship.network.service import Networks
from boxship.volumes.service import Volume, Volumes

Document = dict[str, Any]


# --- containers ---


def status_text(container: Container, health: Health | None) -> str:
    """`Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`, as `docker ps` shows it."""
    state = container.state
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {_ago(state.finished_at)} ago"
    if state.running:
        detail = ""
        if state.status == "paused":
            detail = " (Paused)"
        elif health is not None:
            detail = " (health: starting)" if health.status == "starting" else f" ({health.status})"
        return f"Up {_ago(state.started_at)}{detail}"
    if state.dead:
        return "Dead"
    return f"Exited ({state.exit_code}) {_ago(state.finished_at)} ago" if state.started_at else "Created"


def _ago(nanoseconds: int) -> str:
    seconds = max(0, int(time.time() - nanoseconds / 1e9))
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    minutes, hours = seconds // 60, round(seconds / 3600)
    for limit, text in (
        (seconds < 60, f"{seconds} seconds"), (minutes == 1, "About a minute"), (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"), (hours < 48, f"{hours} hours"), (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"), (hours < 24 * 730, f"{hours // 24 // 30} months"),
    ):  # fmt: skip
        if limit:
            return text
    return f"{hours // 24 // 365} years"


def ports_map(container: Container, record: SandboxRecord | None) -> dict[str, list[dict[str, str]] | None]:
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(container.config.exposed_ports or {})
    for port in container.host.port_bindings or {}:
        found.setdefault(port if "/" in port else f"{port}/tcp", None)
    for published in record.ports if record else []:
        key = f"{published.container_port}/{published.protocol}"
        entry = {"HostIp": published.host_ip, "HostPort": str(published.host_port)}
        found[key] = [*(found.get(key) or []), entry]
    return found


def _ports_list(container: Container, ports: list[PublishedPort]) -> list[Document]:
    found: list[Document] = []
    published = {(port.container_port, port.protocol) for port in ports}
    for text in container.config.exposed_ports or {}:
        number, _, protocol = text.partition("/")
        if number.isdecimal() and (int(number), protocol or "tcp") not in published:
            found.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    for port in ports:
        found.append({"IP": port.host_ip, "PrivatePort": port.container_port, "PublicPort": port.host_port,
                      "Type": port.protocol})  # fmt: skip
    return found


def _address(text: str) -> tuple[str, int]:
    address, _, prefix = text.partition("/")
    return address, int(prefix or 0)


def endpoint(container: Container, network: Network | None, name: str, live: Endpoint | None) -> Document:
    """`EndpointSettings`."""
    asked = container.endpoints.get(name)
    ipv4, prefix4 = _address(live.ipv4 if live else "")
    ipv6, prefix6 = _address(live.ipv6 if live else "")
    return {
        "IPAMConfig": msgspec.to_builtins(asked.ipam_config) if asked and asked.ipam_config else None,
        "Links": (asked.links if asked else None),
        "Aliases": (asked.aliases if asked else None),
        "MacAddress": live.mac if live else "",
        "DriverOpts": asked.driver_opts if asked else None,
        "GwPriority": asked.gw_priority if asked else 0,
        "NetworkID": network.id if network else "",
        "EndpointID": live.id if live else "",
        "Gateway": live.gateway if live else "",
        "IPAddress": ipv4,
        "IPPrefixLen": prefix4,
        "IPv6Gateway": live.gateway6 if live else "",
        "GlobalIPv6Address": ipv6,
        "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": (live.dns_names or None) if live else None,
    }


def _endpoints(container: Container, networks: Networks, record: SandboxRecord | None) -> dict[str, Document]:
    live = {e.network: e for e in record.endpoints} if record else {}
    known = {network.name: network for network in networks.all()}
    names = dict.fromkeys([*container.endpoints, *live])
    mode = container.host.network_mode
    if mode in ("host", "none"):
        names = dict.fromkeys([mode])
    return {name: endpoint(container, known.get(name), name, live.get(name)) for name in names}


def mount_points(container: Container) -> list[Document]:
    found = []
    for point in container.mounts:
        entry: Document = {"Type": point.kind}
        if point.name:
            entry["Name"] = point.name
        entry |= {"Source": point.source, "Destination": point.destination}
        if point.driver:
            entry["Driver"] = point.driver
        entry |= {"Mode": point.mode, "RW": point.read_write, "Propagation": point.propagation}
        found.append(entry)
    return found


def summary(containers: Containers, networks: Networks, container: Container, size: tuple[int, int] | None) -> Document:
    """An entry of `ContainerList`."""
    record = networks.sandbox(container.id)
    command = " ".join([container.path, *container.args])
    found: Document = {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": _shown_image(containers, container),
        "ImageID": container.image,
        "Command": command,
        "Created": container.created // 1_000_000_000,
        "Ports": _ports_list(container, record.ports if record else []),
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": status_text(container, containers.health(container.id)),
        "HostConfig": {"NetworkMode": container.host.network_mode},
        "NetworkSettings": {"Networks": _endpoints(container, networks, record)},
        "Mounts": mount_points(container),
    }
    checked = containers.health(container.id)
    found["Health"] = {"Status": checked.status if checked else "none", "FailingStreak": checked.failing_streak if checked else 0}
    if container.host.annotations:
        found["HostConfig"]["Annotations"] = container.host.annotations
    if size is not None:
        found["SizeRw"], found["SizeRootFs"] = size
    return found


def _shown_image(containers: Containers, container: Container) -> str:
    """The name it was made from, or the image's id once that name means another image."""
    image = containers.images.find(container.image_name)
    return container.image_name if image is not None and image.id == container.image else container.image


def health(found: Health) -> Document:
    return {
        "Status": found.status,
        "FailingStreak": found.failing_streak,
        "Log": [
            {"Start": rfc3339(probe.started_at), "End": rfc3339(probe.ended_at), "ExitCode": probe.exit_code,
             "Output": probe.output}
            for probe in found.probes
        ],
    }  # fmt: skip


def container(
    containers: Containers, networks: Networks, found: Container, execs: list[str], size: tuple[int, int] | None
) -> Document:
    """`ContainerInspect`."""
    state, record = found.state, networks.sandbox(found.id)
    checked = containers.health(found.id)
    directory = containers.directory(found.id)
    endpoints = _endpoints(found, networks, record)
    first = endpoints.get("bridge") or endpoint(found, None, "", None)
    root = containers.snapshotter.root(found.id)
    document: Document = {
        "Id": found.id,
        "Created": rfc3339(found.created),
        "Path": found.path,
        "Args": found.args,
        "State": {
            "Status": state.status,
            "Running": state.running or state.status == "restarting",
            "Paused": state.status == "paused",
            "Restarting": state.status == "restarting",
            "OOMKilled": state.oom_killed,
            "Dead": state.dead,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": rfc3339(state.started_at),
            "FinishedAt": rfc3339(state.finished_at),
        },
        "Image": found.image,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": containers.log_path(found),
        "Name": "/" + found.name,
        "RestartCount": found.restart_count,
        "Driver": containers.snapshotter.name,
        "Platform": found.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": msgspec.to_builtins(found.host),
        "GraphDriver": {
            "Name": containers.snapshotter.name,
            "Data": {"LowerDir": ":".join(root.lower), "UpperDir": root.upper, "WorkDir": root.work},
        },
        "Mounts": mount_points(found),
        "Config": {**msgspec.to_builtins(found.config), "Image": found.image_name},
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": found.id if record else "",
            "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
            "Ports": ports_map(found, record) if record else {},
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            **{key: first[key] for key in ("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen",
                                           "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress")},
            "Networks": endpoints,
        },
    }  # fmt: skip
    if checked is not None:
        document["State"]["Health"] = health(checked)
    for key in ("MaskedPaths", "ReadonlyPaths"):
        if document["HostConfig"][key] is None and not found.host.privileged:
            from boxship.containers.specification import MASKED, READ_ONLY

            document["HostConfig"][key] = MASKED if key == "MaskedPaths" else READ_ONLY
    if size is not None:
        document["SizeRw"], document["SizeRootFs"] = size
    return document


def exec_session(session: ExecSession) -> Document:
    """`ExecInspect`."""
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": {
            "tty": session.tty,
            "entrypoint": session.arguments[0],
            "arguments": session.arguments[1:],
            "privileged": session.privileged,
            "user": session.user,
        },
        "OpenStdin": session.stdin,
        "OpenStderr": session.stderr,
        "OpenStdout": session.stdout,
        "CanRemove": session.exit_code is not None,
        "ContainerID": session.container,
        "DetachKeys": session.detach_keys,
        "Pid": session.pid,
    }


# --- images ---


def image_summary(images: Images, image: Image, shared: Counter[str] | None, containers: int = -1) -> Document:
    """An entry of `ImageList`."""
    shared_size = -1
    if shared is not None:
        shared_size = sum(images.snapshotter.layer_size(layer) for layer in image.layers if shared[layer] > 1)
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": [reference.familiar for reference in image.tags],
        "RepoDigests": [reference.familiar for reference in image.digests],
        "Created": created_seconds(image.created),
        "Size": image.size,
        "SharedSize": shared_size,
        "VirtualSize": image.size,
        "Labels": (image.config.config.labels if image.config.config else None),
        "Containers": containers,
    }


def created_seconds(text: str) -> int:
    from boxship.api.engine.filters import timestamp

    try:
        return timestamp(text) // 1_000_000_000
    except Invalid:
        return 0


def image(images: Images, found: Image) -> Document:
    """`ImageInspect`."""
    config = found.config
    execution = msgspec.to_builtins(config.config) if config.config else {}
    history = config.history or []
    defaults: Document = {
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
        "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
        "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
    }  # fmt: skip
    return {
        "Id": found.id,
        "RepoTags": [reference.familiar for reference in found.tags],
        "RepoDigests": [reference.familiar for reference in found.digests],
        "Parent": found.parent,
        "Comment": history[-1].comment if history else "",
        "Created": found.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": {**defaults, **execution},
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": found.size,
        "VirtualSize": found.size,
        "GraphDriver": {"Name": images.snapshotter.name, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(found.layers)},
        "Metadata": {"LastTagTime": rfc3339(images.last_tagged(found))},
    }


# --- networks and volumes ---


def network(networks: Networks, found: Network, *, detailed: bool) -> Document:
    document: Document = {
        "Name": found.name,
        "Id": found.id,
        "Created": rfc3339(found.created),
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv4": True,
        "EnableIPv6": found.ipv6,
        "IPAM": {
            "Driver": found.ipam_driver,
            "Options": found.ipam_options or None,
            "Config": [
                {
                    key: value
                    for key, value in (("Subnet", pool.subnet), ("IPRange", pool.ip_range), ("Gateway", pool.gateway),
                                       ("AuxiliaryAddresses", pool.auxiliary))
                    if value
                }
                for pool in found.pools
            ],
        },
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": found.options,
        "Labels": found.labels,
    }  # fmt: skip
    if detailed:
        document["Containers"] = {
            record.container: {"Name": record.name, "EndpointID": e.id, "MacAddress": e.mac, "IPv4Address": e.ipv4,
                               "IPv6Address": e.ipv6}
            for record, e in networks.containers_of(found)
        }  # fmt: skip
        subnets = {
            str(pool.subnet): dict(zip(("IPsInUse", "DynamicIPsAvailable"), pool.counts(), strict=True))
            for pool in networks.pools_of(found)
        }
        document["Status"] = {"IPAM": {"Subnets": subnets}}
    return document


def volume(volumes: Volumes, found: Volume, *, usage: bool = False) -> Document:
    document: Document = {
        "CreatedAt": rfc3339(found.created)[:19] + "Z",
        "Driver": found.driver,
        "Labels": found.labels or None,
        "Mountpoint": str(volumes.path(found.name)),
        "Name": found.name,
        "Options": found.options or None,
        "Scope": "local",
    }
    if usage:
        document["UsageData"] = {"Size": volumes.size(found.name), "RefCount": len(volumes.users(found.name))}
    return document


def cache_entry(images: Images, key: str, entry: CacheEntry) -> Document:
    """`BuildCache`."""
    held = bool(entry.layer) and images.snapshotter.has_layer(entry.layer)
    return {
        "ID": key[:25],
        "Type": "regular",
        "Description": entry.description,
        "InUse": False,
        "Shared": images.shared_by()[entry.layer] > 0,
        "Size": images.snapshotter.layer_size(entry.layer) if held else 0,
        "CreatedAt": entry.created,
        "LastUsedAt": rfc3339(entry.last_used),
        "UsageCount": entry.uses,
    }
