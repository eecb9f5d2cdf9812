"""The engine itself: ping, version, info, events, disk usage."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import platform
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from boxship.api.engine import render, versions
from boxship.api.engine.filters import Filters, rfc3339, timestamp
from boxship.api.engine.services import EngineFacts, Services
from boxship.containers.log_options import LOG_DRIVERS
from boxship.errors import Invalid
from boxship.events.bus import Event
from boxship.http.message import Request, Response, json_response

Version = tuple[int, int]


async def ping(services: Services, request: Request, version: Version) -> Response:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "1", "Swarm": "inactive",
               "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}  # fmt: skip
    return Response(200, b"" if request.method == "HEAD" else b"OK", headers)


async def version_(services: Services, request: Request, version: Version) -> Response:
    from boxship.api.engine.app import API_VERSION, MIN_VERSION, text

    kernel, architecture = os.uname().release, _architecture()
    details = {
        "ApiVersion": text(API_VERSION), "Arch": architecture, "BuildTime": "", "Experimental": "false", "GitCommit": "",
        "GoVersion": "", "KernelVersion": kernel, "MinAPIVersion": text(MIN_VERSION), "Os": "linux",
    }  # fmt: skip
    return json_response(
        {
            "Platform": {"Name": "Boxship"},
            "Components": [{"Name": "Engine", "Version": services.version, "Details": details}],
            "Version": services.version,
            **{key: value for key, value in details.items() if key != "Experimental"},
            "PythonVersion": platform.python_version(),
        }
    )


def _architecture() -> str:
    from boxship.oci.platform import Platform

    return Platform.host().architecture


async def info(services: Services, request: Request, version: Version) -> Response:
    containers = services.containers.all()
    facts = services.facts
    states = [container.state.status for container in containers]
    cgroups = services.containers.cgroups
    document: dict[str, Any] = {
        "ID": facts.id,
        "Containers": len(containers),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(services.images.all()),
        "Driver": services.images.snapshotter.name,
        "DriverStatus": [["Chosen because", facts.driver_reason]],
        "DockerRootDir": facts.data_root,
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": sorted(LOG_DRIVERS)},
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "OomKillDisable": cgroups.version == 1,
        "Debug": facts.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": rfc3339(time.time_ns()),
        "LoggingDriver": facts.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(cgroups.version),
        "NEventsListener": 0,
        "KernelVersion": os.uname().release,
        "OperatingSystem": _operating_system(),
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(facts),
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": None,
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
        "Name": os.uname().nodename,
        "Labels": facts.labels,
        "ExperimentalBuild": False,
        "ServerVersion": services.version,
        "Runtimes": {"boxship": {"path": "boxship"}},
        "DefaultRuntime": "boxship",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
                  "RemoteManagers": None},
        "LiveRestoreEnabled": facts.live_restore,
        "Isolation": "",
        "InitBinary": "boxship",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "ProductLicense": "Apache-2.0",
        "Warnings": None,
        "CDISpecDirs": [],
        "FirewallBackend": {"Driver": "nftables"},
    }  # fmt: skip
    return json_response(versions.info(document, version))


def _registries(facts: EngineFacts) -> dict[str, Any]:
    """`RegistryServiceConfig`: the registries spoken to without verified TLS are ranges of addresses, or hosts."""
    ranges, hosts = ["::1/128", "127.0.0.0/8"], {}
    for entry in facts.insecure:
        try:
            ranges.append(str(ipaddress.ip_network(entry)))
        except ValueError:
            hosts[entry] = {"Name": entry, "Mirrors": [], "Secure": False, "Official": False}
    hub = {"Name": "docker.io", "Mirrors": facts.mirrors, "Secure": True, "Official": True}
    return {"InsecureRegistryCIDRs": ranges, "IndexConfigs": {"docker.io": hub, **hosts}, "Mirrors": facts.mirrors}


def _operating_system() -> str:
    for line in Path("/etc/os-release").read_text().splitlines() if Path("/etc/os-release").exists() else []:
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


_KINDS = ("builder", "config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume")
_FILTERS = (*_KINDS, "event", "label", "scope", "type", "id")


async def events(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, _FILTERS)
    since, until = timestamp(request.query.get("since")), timestamp(request.query.get("until"))
    if since and until and since > until:
        raise Invalid(f"`since` time ({request.query.get('since')}) cannot be after `until` time ({request.query.get('until')})")
    kind, start = _event_stream(request.headers.get("Accept"), version)

    async def body() -> AsyncIterator[bytes]:
        with services.events.subscribe() as subscription:
            if request.query.get("since"):
                for event in services.events.history():
                    if event.time_ns >= since and (not until or event.time_ns <= until) and _wanted(event, filters):
                        yield _line(event, version, start)
            while True:
                seconds = (until - time.time_ns()) / 1e9 if until else None
                if seconds is not None and seconds <= 0:
                    return
                try:
                    async with asyncio.timeout(seconds):
                        event = await subscription.next()
                except TimeoutError:
                    return
                if _wanted(event, filters):
                    yield _line(event, version, start)

    return Response(200, body(), {"Content-Type": kind})


def _wanted(event: Event, filters: Filters) -> bool:
    def any_of(name: str, test: Any) -> bool:
        values = filters.get(name)
        return not values or any(test(value) for value in values)

    def actor(value: str) -> bool:
        return event.actor.startswith(value) or event.attributes.get("name", "").startswith(value)

    # an image is in its own events and in those of its containers, with its tag or without
    image = event.attributes.get("name" if event.kind == "image" else "image", "")
    names = {name for text in (event.actor, image) for name in (text, _untagged(text))}

    return (
        any_of("type", lambda v: v == event.kind)
        and any_of("event", lambda v: event.action == v or event.action.startswith(v + ":"))
        and any_of("id", lambda v: event.actor.startswith(v))
        and any_of("scope", lambda v: v == "local")
        and filters.labels(event.attributes)
        and any_of("image", lambda v: v in names)
        and all(kind not in filters or (event.kind == kind and any_of(kind, actor)) for kind in _KINDS if kind != "image")
    )


def _untagged(name: str) -> str:
    """A reference without its tag or digest."""
    name = name.partition("@")[0]
    repository, colon, tag = name.rpartition(":")
    return repository if colon and "/" not in tag else name


def _line(event: Event, version: Version, start: bytes) -> bytes:
    document: dict[str, Any] = {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
    return start + json.dumps(versions.event(document, version)).encode() + b"\n"


def _event_stream(accept: str, version: Version) -> tuple[str, bytes]:
    """The content type of an event stream, and what stands before each event (RFC 7464)."""
    if version >= (1, 52):
        for kind, since in (("application/json-seq", 52), ("application/x-ndjson", 52), ("application/jsonl", 53)):
            if kind in accept and version >= (1, since):
                return kind, b"\x1e" if kind == "application/json-seq" else b""
    return "application/json", b""


async def disk_usage(services: Services, request: Request, version: Version) -> Response:
    wanted = request.query.all("type") if version >= (1, 42) else []
    for kind in wanted:
        if kind not in ("container", "image", "volume", "build-cache"):
            raise Invalid(f"unknown object type: {kind}")
    images, volumes = services.images, services.volumes
    document: dict[str, Any] = {}
    if not wanted or "image" in wanted:
        shared = images.shared_by()
        document["LayersSize"] = images.disk_usage()
        document["Images"] = [render.image_summary(images, image, shared, images.containers_of(image)) for image in images.all()]
    if not wanted or "container" in wanted:
        found = []
        for container in services.containers.all():
            own = await asyncio.to_thread(services.files.size, container)
            image = services.containers.image_of(container)
            found.append(
                render.summary(services.containers, services.networks, container, (own, own + (image.size if image else 0)))
            )
        document["Containers"] = found
    if not wanted or "volume" in wanted:
        document["Volumes"] = [await asyncio.to_thread(render.volume, volumes, volume, usage=True) for volume in volumes.all()]
    if not wanted or "build-cache" in wanted:
        document["BuildCache"] = [render.cache_entry(images, key, entry) for key, entry in services.builder.entries()]
    for entry in document.get("Images", []):
        del entry["VirtualSize"]
    return json_response(versions.disk_usage(document, version, verbose=request.query.flag("verbose")))


ENDPOINTS = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version_),
    ("GET", "/info", info),
    ("GET", "/events", events),
    ("GET", "/system/df", disk_usage),
)
