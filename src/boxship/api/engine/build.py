"""`/build`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from boxship.api.engine import progress
from boxship.api.engine.filters import Filters, timestamp
from boxship.api.engine.images import platform_of
from boxship.api.engine.services import Services
from boxship.build.cache import CacheEntry
from boxship.build.options import BuildOptions
from boxship.errors import Invalid, Unsupported
from boxship.http.message import Query, Request, Response, json_response

Version = tuple[int, int]


def _document(query: Query, name: str, kind: Any) -> Any:
    """A parameter that is a JSON document; raises `Invalid` for one of another type."""
    try:
        return msgspec.json.decode(query.get(name) or "null", type=kind | None)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Invalid(f"invalid {name}: {error}") from error


def options_of(request: Request) -> BuildOptions:
    """The query's parameters as options; raises `Invalid`, and `Unsupported` for those that BuildKit alone has.

    `rm` and `forcerm` make no difference, as with BuildKit: the containers of a build never stay.
    """
    query = request.query
    if query.get("version") == "2":
        raise Unsupported("building with BuildKit (version=2) is not supported", hint="build with DOCKER_BUILDKIT=0")
    if query.get("outputs"):
        raise Unsupported("build outputs are not supported")
    if query.get("securityopt") not in ("", "null", "[]"):
        raise Unsupported("--security-opt is not supported for builds")
    if query.get("isolation").lower() not in ("", "default"):
        raise Invalid(f'Unsupported isolation: "{query.get("isolation")}"')
    registries: dict[str, Any] = {}
    if request.headers.get("X-Registry-Config"):
        text = request.headers.get("X-Registry-Config")
        try:
            encoded = text.replace("+", "-").replace("/", "_")
            document = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True) or b"{}"
            registries = msgspec.json.decode(document, type=dict[str, dict[str, Any]])
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise Invalid(f"invalid X-Registry-Config header: {error}") from error
    return BuildOptions(
        tags=tuple(query.all("t")),
        dockerfile=query.get("dockerfile") or "Dockerfile",
        quiet=query.flag("q"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        build_arguments=_document(query, "buildargs", dict[str, str | None]) or {},
        labels=_document(query, "labels", dict[str, str]) or {},
        target=query.get("target"),
        network=query.get("networkmode") or "default",
        platform=platform_of(query),
        extra_hosts=tuple(host for value in query.all("extrahosts") for host in value.split(",") if host),
        shm_size=query.number("shmsize", 0) or 0,
        memory=query.number("memory", 0) or 0,
        memory_swap=query.number("memswap", 0) or 0,
        cpu_shares=query.number("cpushares", 0) or 0,
        cpu_quota=query.number("cpuquota", 0) or 0,
        cpu_period=query.number("cpuperiod", 0) or 0,
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        ulimits=tuple(_document(query, "ulimits", list[dict[str, Any]]) or ()),
        cgroup_parent=query.get("cgroupparent"),
        cache_from=tuple(_document(query, "cachefrom", list[str]) or ()),
        remote=query.get("remote"),
        squash=query.flag("squash"),
        credentials=registries,
    )


async def build(services: Services, request: Request, version: Version) -> Response:
    options = options_of(request)

    async def work(emit: progress.Emit) -> None:
        context: AsyncIterator[bytes] | None = None if options.remote else request.stream()
        await services.builder.build(options, context, emit)
        await services.database.committed()

    return await progress.streamed(work)


async def prune(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    for limit in ("keep-storage", "reserved-space", "max-used-space", "min-free-space"):
        if query.number(limit, 0):
            raise Unsupported(f"pruning the build cache down to a size ({limit}) is not supported", hint="filter with until=24h")
    filters = Filters(query, ("until", "unused-for", "id", "label", "label!"))
    until = min(timestamp(values[0]) for name in ("until", "unused-for") if (values := filters.get(name) or [str(1 << 33)]))

    def accept(key: str, entry: CacheEntry) -> bool:
        ids = filters.get("id")
        chosen = not ids or any(key.startswith(identity) for identity in ids)
        # steps have no labels: `docker system prune` sends its filters here too
        return chosen and entry.last_used < until and filters.labels(None)

    keys, freed = services.builder.prune(accept, all_entries=query.flag("all"))
    await services.database.committed()
    services.events.publish("builder", "prune", "", reclaimed=str(freed))
    return json_response({"CachesDeleted": [key[:25] for key in keys] or None, "SpaceReclaimed": freed})


async def cancel(services: Services, request: Request, version: Version) -> Response:
    raise Unsupported("cancelling a build by id is not supported", hint="close the build's connection")


ENDPOINTS = (
    ("POST", "/build", build),
    ("POST", "/build/prune", prune),
    ("POST", "/build/cancel", cancel),
)
