"""What belongs to a swarm, which this engine is no part of; and plugins, of which it has none."""

from __future__ import annotations

from boxship.api.engine.services import Services
from boxship.errors import NotFound, Unsupported
from boxship.http.message import Request, Response, json_response

Version = tuple[int, int]

_MESSAGE = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)


async def no_swarm(services: Services, request: Request, version: Version) -> Response:
    return json_response({"message": _MESSAGE}, 503)


async def no_plugins(services: Services, request: Request, version: Version) -> Response:
    return json_response([])


async def no_plugin(services: Services, request: Request, version: Version) -> Response:
    raise NotFound(f'plugin "{request.parameters["name"]}" not found')


async def no_plugin_support(services: Services, request: Request, version: Version) -> Response:
    raise Unsupported("plugins are not supported")


async def no_session(services: Services, request: Request, version: Version) -> Response:
    raise Unsupported("BuildKit sessions are not supported", hint="build with DOCKER_BUILDKIT=0")


ENDPOINTS = (
    *(
        (method, path, no_swarm)
        for kind in ("services", "tasks", "secrets", "configs", "nodes")
        for method, path in (("GET", f"/{kind}"), ("GET", f"/{kind}/{{id}}"), ("POST", f"/{kind}/create"),
                             ("DELETE", f"/{kind}/{{id}}"), ("POST", f"/{kind}/{{id}}/update"))
    ),
    *((method, path, no_swarm) for method, path in (
        ("GET", "/swarm"), ("POST", "/swarm/init"), ("POST", "/swarm/join"), ("POST", "/swarm/leave"),
        ("POST", "/swarm/update"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/unlock"))),
    ("GET", "/services/{id}/logs", no_swarm),
    ("GET", "/tasks/{id}/logs", no_swarm),
    ("PUT", "/volumes/{name}", no_swarm),
    ("GET", "/plugins", no_plugins),
    ("GET", "/plugins/privileges", no_plugin_support),
    ("POST", "/plugins/pull", no_plugin_support),
    ("POST", "/plugins/create", no_plugin_support),
    ("DELETE", "/plugins/{name:path}", no_plugin),
    *(("POST", f"/plugins/{{name:path}}/{verb}", no_plugin)
      for verb in ("enable", "disable", "upgrade", "push", "set")),
    ("GET", "/plugins/{name:path}/json", no_plugin),
    ("POST", "/session", no_session),
    ("POST", "/grpc", no_session),
)  # fmt: skip
