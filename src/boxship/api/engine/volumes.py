"""`/volumes`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from boxship.api.engine import progress, render
from boxship.api.engine.filters import Filters
from boxship.api.engine.services import Services
from boxship.errors import Invalid, Unsupported
from boxship.http.message import Request, Response, json_response
from boxship.volumes.service import Volume

Version = tuple[int, int]


class _CreateBody(msgspec.Struct, rename="pascal"):
    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


async def list_(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("dangling", "driver", "label", "name"))
    volumes = services.volumes
    try:
        patterns = [re.compile(value) for value in filters.get("name")]
    except re.error as error:
        raise Invalid(f"invalid filter 'name': {error}") from None
    found = []
    for volume in volumes.all():
        if patterns and not any(pattern.search(volume.name) for pattern in patterns):
            continue
        if filters.get("driver") and volume.driver not in filters.get("driver"):
            continue
        if "dangling" in filters and filters.flag("dangling", default=False) == bool(volumes.users(volume.name)):
            continue
        if filters.labels(volume.labels):
            found.append(render.volume(volumes, volume))
    return json_response({"Volumes": found, "Warnings": None})


async def create(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(_CreateBody, default=_CreateBody())
    if body.cluster_volume_spec:
        raise Unsupported("cluster volumes are not supported")
    volume = services.volumes.create(body.name, driver=body.driver, options=body.driver_opts, labels=body.labels)
    await services.database.committed()
    return json_response(render.volume(services.volumes, volume), 201)


async def inspect(services: Services, request: Request, version: Version) -> Response:
    return json_response(render.volume(services.volumes, services.volumes.get(request.parameters["name"])))


async def remove(services: Services, request: Request, version: Version) -> Response:
    await services.volumes.remove(request.parameters["name"], force=request.query.flag("force"))
    await services.database.committed()
    return Response(204)


async def prune(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("all", "label", "label!"))
    # since 1.42 only anonymous volumes go, unless all are asked for
    everything = filters.flag("all", default=version < (1, 42))

    def accept(volume: Volume) -> bool:
        return (everything or volume.anonymous) and filters.labels(volume.labels) and filters.without_labels(volume.labels)

    removed, freed = await services.volumes.prune(accept)
    await services.database.committed()
    services.events.publish("volume", "prune", "", reclaimed=str(freed))
    return progress.pruned(request, version, removed, {"VolumesDeleted": removed or None, "SpaceReclaimed": freed})


ENDPOINTS = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("DELETE", "/volumes/{name}", remove),
)
