"""`/containers`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import msgspec

from boxship.api.engine import progress, render, streams, versions
from boxship.api.engine.filters import Filters, rfc3339, timestamp
from boxship.api.engine.services import Services
from boxship.containers import processes
from boxship.containers.config import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy
from boxship.containers.model import Container, LogQuery, WaitResult
from boxship.containers.processes import Reading
from boxship.errors import BoxshipError, Conflict, Invalid, NotFound, Unsupported
from boxship.http.message import Hijacked, Request, Response, json_response
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference

Version = tuple[int, int]


class CreateBody(ContainerConfig, frozen=True, rename="pascal"):
    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


async def create(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(CreateBody)
    config = ContainerConfig(**{field: getattr(body, field) for field in ContainerConfig.__struct_fields__})
    if not config.image:
        raise Invalid("config cannot be empty in order to create a container")
    if config.mac_address and version >= (1, 52):
        raise Invalid("container-wide MAC address no longer supported; use endpoint-specific MAC address instead")
    host = body.host_config or HostConfig()
    if version < (1, 56):
        host = msgspec.structs.replace(host, umask=None)
    platform = Platform.parse(request.query.get("platform")) if request.query.get("platform") else None
    container = await services.containers.create(
        request.query.get("name"),
        config,
        host,
        body.networking_config or NetworkingConfig(),
        platform,
    )
    try:
        await services.database.committed()
    except BoxshipError:
        await services.containers.remove(container.id, volumes=True)
        raise
    warnings: list[str] = []
    return json_response({"Id": container.id, "Warnings": warnings}, 201)


_PORTS = r"\d+(-\d+)?(/(tcp|udp|sctp))?"
_KNOWN = (
    "ancestor", "annotation", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip


async def list_(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, _KNOWN)
    query = request.query
    limit = query.number("limit", -1) or -1
    everything = query.flag("all") or limit > 0 or any(name in filters for name in ("status", "exited"))
    found = [
        c
        for c in services.containers.all()
        if (everything or c.state.running or c.state.status == "restarting") and _matches(services, c, filters)
    ]
    if limit > 0:
        found = found[:limit]
    documents = []
    for container in found:
        size = await asyncio.to_thread(_size, services, container) if query.flag("size") else None
        documents.append(
            versions.container_summary(render.summary(services.containers, services.networks, container, size), version)
        )
    return json_response(documents)


def _size(services: Services, container: Container) -> tuple[int, int]:
    own = services.files.size(container)
    image = services.containers.image_of(container)
    return own, own + (image.size if image else 0)


def _matches(services: Services, container: Container, filters: Filters) -> bool:
    containers = services.containers
    state = container.state

    def any_of(name: str, test: Any) -> bool:
        values = filters.get(name)
        return not values or any(test(value) for value in values)

    for status in filters.get("status"):
        if status not in ("created", "restarting", "running", "removing", "paused", "exited", "dead"):
            raise Invalid(f"invalid filter 'status={status}'")
    for name, pattern in (("exited", r"-?\d+"), ("health", "none|starting|healthy|unhealthy"),
                          ("publish", _PORTS), ("expose", _PORTS)):  # fmt: skip
        for value in filters.get(name):
            if not re.fullmatch(pattern, value):
                raise Invalid(f"invalid filter '{name}={value}'")
    for value in filters.get("name"):
        try:
            re.compile(value)
        except re.error:
            raise Invalid(f"invalid filter 'name={value}'") from None
    health = containers.health(container.id)
    mounted = (
        {point.name for point in container.mounts}
        | {point.destination for point in container.mounts}
        | {point.source for point in container.mounts}
    )
    record = services.networks.sandbox(container.id)
    on = set(container.endpoints) | {container.host.network_mode} | ({e.network_id for e in record.endpoints} if record else set())
    published = {f"{p.host_port}/{p.protocol}" for p in record.ports} if record else set()
    exposed = set(container.config.exposed_ports or {})

    def ancestor(value: str) -> bool:
        wanted, image = services.images.find(value), containers.image_of(container)
        while wanted is not None and image is not None and image.id != wanted.id:
            image = services.images.find(image.parent) if image.parent else None
        return wanted is not None and image is not None

    def port(value: str, ports: set[str]) -> bool:
        number, _, protocol = value.partition("/")
        first, _, last = number.partition("-")
        return any(f"{n}/{protocol or 'tcp'}" in ports for n in range(int(first), int(last or first) + 1))

    tests = (
        any_of("id", lambda v: container.id.startswith(v)),
        any_of("name", lambda v: re.search(v.removeprefix("/") if not v.startswith("^/") else "^" + v[2:], container.name)),
        any_of("status", lambda v: v == state.status),
        any_of("exited", lambda v: state.status == "exited" and str(state.exit_code) == v),
        any_of("health", lambda v: v == (health.status if health else "none")),
        any_of("volume", lambda v: v in mounted),
        any_of("network", lambda v: v in on or any(known.startswith(v) for known in on if len(known) == 64)),
        any_of("ancestor", ancestor),
        any_of("publish", lambda v: port(v, published)),
        any_of("expose", lambda v: port(v, exposed)),
        any_of("before", lambda v: container.created < containers.get(v).created),
        any_of("since", lambda v: container.created > containers.get(v).created),
        not filters.flag("is-task", default=False),
        filters.labels(container.config.labels),
        filters.labels(container.host.annotations, name="annotation"),
    )  # fmt: skip
    return all(tests)


async def inspect(services: Services, request: Request, version: Version) -> Response:
    container = services.containers.get(request.parameters["id"])
    size = await asyncio.to_thread(_size, services, container) if request.query.flag("size") else None
    execs = services.execs.of(container.id)
    document = render.container(services.containers, services.networks, container, execs, size)
    return json_response(versions.container(document, version))


async def start(services: Services, request: Request, version: Version) -> Response:
    started = await services.containers.start(request.parameters["id"])
    return Response(204 if started else 304)


async def stop(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    stopped = await services.containers.stop(request.parameters["id"], signal_name=query.get("signal"), seconds=query.number("t"))
    return Response(204 if stopped else 304)


async def restart(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    await services.containers.restart(request.parameters["id"], signal_name=query.get("signal"), seconds=query.number("t"))
    return Response(204)


async def kill(services: Services, request: Request, version: Version) -> Response:
    await services.containers.kill(request.parameters["id"], request.query.get("signal"))
    return Response(204)


async def pause(services: Services, request: Request, version: Version) -> Response:
    await services.containers.pause(request.parameters["id"])
    return Response(204)


async def unpause(services: Services, request: Request, version: Version) -> Response:
    await services.containers.unpause(request.parameters["id"])
    return Response(204)


async def rename(services: Services, request: Request, version: Version) -> Response:
    services.containers.rename(request.parameters["id"], request.query.get("name"))
    await services.database.committed()
    return Response(204)


_UPDATABLE = frozenset(
    {"cpu_shares", "memory", "cgroup_parent", "blkio_weight", "cpu_period", "cpu_quota", "cpu_realtime_period",
     "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory_reservation", "memory_swap", "nano_cpus",
     "pids_limit", "restart_policy"}
)  # fmt: skip


async def update(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(HostConfig)
    for option in ("blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps", "blkio_device_read_iops",
                   "blkio_device_write_iops"):  # fmt: skip
        if getattr(body, option):
            raise Unsupported(f"updating {option} of a container is not supported")
    changes: dict[str, object] = {
        field: value
        for field in _UPDATABLE
        if (value := getattr(body, field)) and value != RestartPolicy() and field != "cgroup_parent"
    }
    await services.containers.update(request.parameters["id"], changes)
    await services.database.committed()
    return json_response({"Warnings": None})


async def remove(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    if query.flag("link"):
        raise Invalid("removing a link is not supported", hint="use networks and their names")
    await services.containers.remove(request.parameters["id"], force=query.flag("force"), volumes=query.flag("v"))
    await services.database.committed()
    return Response(204)


async def wait(services: Services, request: Request, version: Version) -> Response:
    future = services.containers.wait(request.parameters["id"], request.query.get("condition") or "not-running")

    async def body() -> AsyncIterator[bytes]:
        # the head goes out at once: the client starts the container only then
        result: WaitResult = await future
        document: dict[str, object] = {"StatusCode": result.code}
        if result.error:
            document["Error"] = {"Message": result.error}
        yield json.dumps(document).encode() + b"\n"

    return Response(200, body(), {"Content-Type": "application/json"})


async def logs(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    container = services.containers.get(request.parameters["id"])
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not stdout and not stderr:
        raise Invalid("Bad parameters: you must choose at least one stream")
    tail = query.get("tail") or "all"
    wanted = LogQuery(
        stdout, stderr, timestamp(query.get("since")), timestamp(query.get("until")),
        int(tail) if tail.isdecimal() else None, query.flag("follow"),
    )  # fmt: skip
    lines = services.containers.logs(container.id, wanted)
    tty = container.config.tty
    kind = streams.RAW if tty or version < (1, 42) else streams.MULTIPLEXED
    body = streams.log_stream(lines, tty=tty, timestamps=query.flag("timestamps"), details=query.flag("details"))
    return Response(200, body, {"Content-Type": kind})


async def attach(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    containers = services.containers
    container = containers.get(request.parameters["id"])
    streams.detach_sequence(query.get("detachKeys"))
    stdin = query.flag("stdin") and container.config.open_stdin
    tty = container.config.tty
    descriptor = None
    if query.flag("stream"):
        descriptor = await containers.attach(container, stdin=stdin, stdout=query.flag("stdout"), stderr=query.flag("stderr"))
    kind = streams.RAW if tty or version < (1, 42) else streams.MULTIPLEXED
    connection = await request.hijack(kind)
    if query.flag("logs"):
        past = LogQuery(query.flag("stdout"), query.flag("stderr"))
        async for data in streams.log_stream(containers.logs(container.id, past), tty=tty, timestamps=False, details=False):
            connection.write(data)
        await connection.drain()
    if descriptor is not None:
        detached = await streams.relay(connection, descriptor, stdin=stdin, tty=tty, detach_keys=query.get("detachKeys"))
        if detached:
            containers.publish("detach", container)
    return Hijacked()


async def attach_ws(services: Services, request: Request, version: Version) -> Response:
    raise Unsupported("attaching over a websocket is not supported", hint="POST to /containers/{id}/attach")


async def resize(services: Services, request: Request, version: Version) -> Response:
    width, height = request.query.number("w"), request.query.number("h")
    if width is None or height is None:
        raise Invalid("invalid resize: both w and h are needed")
    await services.containers.resize(request.parameters["id"], width, height)
    return Response(200)


async def top(services: Services, request: Request, version: Version) -> Response:
    titles, rows = processes.top(services.containers, request.parameters["id"], request.query.get("ps_args") or "-ef")
    return json_response({"Titles": titles, "Processes": rows})


async def stats(services: Services, request: Request, version: Version) -> Response:
    containers = services.containers
    container = containers.get(request.parameters["id"])
    stream = request.query.flag("stream", default=True)
    one_shot = request.query.flag("one-shot")

    def read(current: Container) -> Reading | None:
        return processes.read_stats(containers, current) if current.state.running else None

    if not stream:
        before = read(container)
        if before is not None and not one_shot:
            await asyncio.sleep(1)
            return json_response(_stats(container, read(container), before))
        return json_response(_stats(container, before, None))

    async def body() -> AsyncIterator[bytes]:
        before: Reading | None = None
        while True:
            try:
                current = containers.get(container.id)
            except NotFound:
                return
            now = read(current)
            yield json.dumps(_stats(current, now, before)).encode() + b"\n"
            before = now
            await asyncio.sleep(1)

    return Response(200, body(), {"Content-Type": "application/json"})


def _stats(container: Container, now: Reading | None, before: Reading | None) -> dict[str, Any]:
    def cpu(reading: Reading | None) -> dict[str, Any]:
        if reading is None:
            return {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
                    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}}  # fmt: skip
        group = reading.cgroup
        usage: dict[str, Any] = {
            "total_usage": group.cpu_total, "usage_in_kernelmode": group.cpu_system, "usage_in_usermode": group.cpu_user,
        }  # fmt: skip
        if group.cpu_per_core:
            usage["percpu_usage"] = list(group.cpu_per_core)
        return {
            "cpu_usage": usage,
            "system_cpu_usage": reading.system_cpu,
            "online_cpus": os.cpu_count(),
            "throttling_data": {"periods": group.periods, "throttled_periods": group.throttled_periods,
                                "throttled_time": group.throttled_time},
        }  # fmt: skip

    document: dict[str, Any] = {
        "id": container.id,
        "name": "/" + container.name,
        "read": rfc3339(now.time_ns if now else 0),
        "preread": rfc3339(before.time_ns if before else 0),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(now),
        "precpu_stats": cpu(before),
        "memory_stats": {},
        "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
    }
    if now is not None:
        group = now.cgroup
        total = _memory_total()
        document["memory_stats"] = {
            "usage": group.memory_usage, "max_usage": group.memory_max_usage, "failcnt": group.memory_failures,
            "stats": group.memory_details, "limit": min(group.memory_limit or total, total),
        }  # fmt: skip
        document["pids_stats"] = {"current": group.pids, "limit": group.pids_limit or 18446744073709551615}
        document["blkio_stats"] = {
            name: [{"major": a, "minor": b, "op": operation, "value": value} for a, b, operation, value in entries]
            for name, entries in (
                ("io_service_bytes_recursive", group.block_bytes),
                ("io_serviced_recursive", group.block_operations),
            )
        }
        names = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
        if now.networks:
            document["networks"] = {interface: dict(zip(names, values, strict=True)) for interface, values in now.networks.items()}
    return document


def _memory_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def changes(services: Services, request: Request, version: Version) -> Response:
    kinds = {"modified": 0, "added": 1, "deleted": 2}
    found = await asyncio.to_thread(services.files.changes, request.parameters["id"])
    return json_response([{"Path": change.path, "Kind": kinds[change.kind]} for change in found] or None)


async def export(services: Services, request: Request, version: Version) -> Response:
    return Response(200, services.files.export(request.parameters["id"]), {"Content-Type": "application/x-tar"})


def _path(request: Request) -> str:
    path = request.query.get("path")
    if not path:
        raise Invalid("invalid argument: path can't be empty")
    return path


def _stat_header(status: Any) -> dict[str, str]:
    document = asdict(status)
    text = json.dumps(
        {"name": document["name"], "size": document["size"], "mode": document["mode"], "mtime": document["mtime"],
         "linkTarget": document["link_target"]}
    )  # fmt: skip
    return {"X-Docker-Container-Path-Stat": base64.b64encode(text.encode()).decode()}


async def archive_stat(services: Services, request: Request, version: Version) -> Response:
    status = await services.files.stat(request.parameters["id"], _path(request))
    return Response(200, b"", _stat_header(status))


async def archive_get(services: Services, request: Request, version: Version) -> Response:
    status, body = await services.files.read(request.parameters["id"], _path(request))
    return Response(200, body, {"Content-Type": "application/x-tar", **_stat_header(status)})


async def archive_put(services: Services, request: Request, version: Version) -> Response:
    await services.files.write(
        request.parameters["id"], _path(request), request.stream(),
        keep_kinds=request.query.flag("noOverwriteDirNonDir"), to_user=request.query.flag("copyUIDGID"),
    )  # fmt: skip
    return Response(200)


async def commit(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    name = query.get("container")
    if not name:
        raise Invalid("container name can't be empty")
    config = await request.json(ContainerConfig, default=ContainerConfig())
    reference = None
    if query.get("repo"):
        reference = Reference.parse(query.get("repo") + (f":{query.get('tag')}" if query.get("tag") else ""))
        if reference.digest:
            raise Invalid("refusing to create a tag with a digest reference")
    image = await services.files.commit(
        name, reference=reference, message=query.get("comment"), author=query.get("author"), changes=_changes(query.all("changes")),
        pause=query.flag("pause", default=True), config=config if config != ContainerConfig() else None,
    )  # fmt: skip
    await services.database.committed()
    return json_response({"Id": image.id}, 201)


def _changes(values: list[str]) -> list[str]:
    return [line for value in values for line in value.splitlines() if line.strip()]


async def prune(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("label", "label!", "until"))
    until = filters.until()
    removed, freed = [], 0
    for container in services.containers.all():
        if container.state.running or container.state.status == "restarting" or container.created >= until:
            continue
        if not filters.labels(container.config.labels) or not filters.without_labels(container.config.labels):
            continue
        freed += await asyncio.to_thread(services.files.size, container)
        try:
            await services.containers.remove(container.id)
            removed.append(container.id)
        except (Conflict, NotFound):
            continue
    services.events.publish("container", "prune", "", reclaimed=str(freed))
    return progress.pruned(request, version, removed, {"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


ENDPOINTS = (
    ("POST", "/containers/create", create),
    ("GET", "/containers/json", list_),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/{id}/json", inspect),
    ("POST", "/containers/{id}/start", start),
    ("POST", "/containers/{id}/stop", stop),
    ("POST", "/containers/{id}/restart", restart),
    ("POST", "/containers/{id}/kill", kill),
    ("POST", "/containers/{id}/pause", pause),
    ("POST", "/containers/{id}/unpause", unpause),
    ("POST", "/containers/{id}/rename", rename),
    ("POST", "/containers/{id}/update", update),
    ("POST", "/containers/{id}/wait", wait),
    ("GET", "/containers/{id}/logs", logs),
    ("POST", "/containers/{id}/attach", attach),
    ("POST", "/containers/{id}/resize", resize),
    ("GET", "/containers/{id}/top", top),
    ("GET", "/containers/{id}/attach/ws", attach_ws),
    ("GET", "/containers/{id}/stats", stats),
    ("GET", "/containers/{id}/changes", changes),
    ("GET", "/containers/{id}/export", export),
    ("GET", "/containers/{id}/archive", archive_get),
    ("HEAD", "/containers/{id}/archive", archive_stat),
    ("PUT", "/containers/{id}/archive", archive_put),
    ("DELETE", "/containers/{id}", remove),
    ("POST", "/commit", commit),
)
