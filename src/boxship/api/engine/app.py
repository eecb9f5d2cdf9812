"""The Engine API: versions negotiated, requests routed, errors mapped."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Awaitable, Callable

from boxship.api.engine.errors import error_response
from boxship.api.engine.services import Services
from boxship.errors import BoxshipError, Invalid, NotFound, from_os_error
from boxship.http.message import Request, Response
from boxship.http.router import Router

log = logging.getLogger(__name__)

API_VERSION = (1, 56)
"""The newest version spoken (the field's clients negotiate down to it)."""

MIN_VERSION = (1, 24)

_VERSIONED = re.compile(r"/v(\d{1,9})(?:\.(\d{1,9}))?(/.*)")

Version = tuple[int, int]
Endpoint = Callable[[Services, Request, Version], Awaitable[Response]]


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


class EngineAPI:
    """One handler for every request to the engine's socket."""

    def __init__(self, services: Services) -> None:
        from boxship.api.engine import build, containers, execs, images, networks, swarm, system, volumes

        self._services = services
        self._router: Router[Endpoint] = Router()
        self._headers = {
            "Api-Version": text(API_VERSION),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Boxship/{services.version} (linux)",
        }
        for module in (system, containers, execs, images, build, networks, volumes, swarm):
            for method, pattern, endpoint in module.ENDPOINTS:
                self._router.add(method, pattern, endpoint)

    async def handle(self, request: Request) -> Response:
        """Answer one request; every `BoxshipError` becomes its status and message."""
        try:
            response = await self._dispatch(request)
        except BoxshipError as error:
            log.debug("%s %s: %s", request.method, request.path, error, exc_info=True)
            response = error_response(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # a full disk can show itself anywhere, and the client can do something about it
            response = error_response(from_os_error(error, "writing"))
        response.headers = {**self._headers, **response.headers}
        return response

    async def _dispatch(self, request: Request) -> Response:
        version = API_VERSION
        match = _VERSIONED.fullmatch(request.path)
        if match:
            version = (int(match[1]), int(match[2] or 0))
            request.path = match[3]
        if version > API_VERSION:
            raise Invalid(f"client version {text(version)} is too new. Maximum supported API version is {text(API_VERSION)}")
        if version < MIN_VERSION:
            raise Invalid(
                f"client version {text(version)} is too old. Minimum supported API version is {text(MIN_VERSION)},"
                " please upgrade your client to a newer version"
            )
        found = self._router.find(request.method, request.path)
        if found is None and request.method == "HEAD":
            found = self._router.find("GET", request.path)
        if found is None:
            raise NotFound("page not found")
        endpoint, request.parameters = found
        return await endpoint(self._services, request, version)
