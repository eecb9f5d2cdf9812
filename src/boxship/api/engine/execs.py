"""`/exec`."""

from __future__ import annotations

import contextlib

import msgspec

from boxship.api.engine import render, streams
from boxship.api.engine.services import Services
from boxship.containers.model import ExecSession
from boxship.errors import Conflict, Invalid
from boxship.http.message import Hijacked, Request, Response, json_response

Version = tuple[int, int]


class CreateBody(msgspec.Struct, rename="pascal"):
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class StartBody(msgspec.Struct, rename="pascal"):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


async def create(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(CreateBody)
    streams.detach_sequence(body.detach_keys)
    session = ExecSession(
        "", "", body.cmd or [], body.user, body.env or [], body.working_dir, body.tty, body.attach_stdin, body.attach_stdout,
        body.attach_stderr, body.privileged, body.detach_keys,
    )  # fmt: skip
    return json_response({"Id": services.execs.create(request.parameters["id"], session).id}, 201)


async def start(services: Services, request: Request, version: Version) -> Response:
    identity = request.parameters["id"]
    body = await request.json(StartBody, default=StartBody())
    session = services.execs.get(identity)
    if body.detach:
        await services.execs.start(identity, detach=True)
        return Response(200)
    kind = streams.RAW if session.tty or version < (1, 42) else streams.MULTIPLEXED
    try:
        descriptor = await services.execs.start(identity, detach=False)
    except Invalid as error:
        # the connection is the process's by now: its clients look for the failure there, and in the exit code
        connection = await request.hijack(kind)
        message = f"{error}\r\n".encode()
        connection.write(message if session.tty else streams.frame("stdout", message))
        await connection.drain()
        return Hijacked()
    assert descriptor is not None
    if body.console_size and len(body.console_size) == 2:
        with contextlib.suppress(Conflict):  # it has ended already
            await services.execs.resize(identity, body.console_size[1], body.console_size[0])
    connection = await request.hijack(kind)
    if not await streams.relay(connection, descriptor, stdin=session.stdin, tty=session.tty, detach_keys=session.detach_keys):
        await services.execs.wait(session)  # its client asks for the exit code as soon as the connection ends
    return Hijacked()


async def inspect(services: Services, request: Request, version: Version) -> Response:
    return json_response(render.exec_session(services.execs.get(request.parameters["id"])))


async def resize(services: Services, request: Request, version: Version) -> Response:
    width, height = request.query.number("w"), request.query.number("h")
    if width is None or height is None:
        raise Invalid("invalid resize: both w and h are needed")
    await services.execs.resize(request.parameters["id"], width, height)
    return Response(200)


ENDPOINTS = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("GET", "/exec/{id}/json", inspect),
    ("POST", "/exec/{id}/resize", resize),
)
