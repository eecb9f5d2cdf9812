"""Requests and responses of HTTP/1.1, as the handlers see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from boxship.errors import Invalid
from boxship.oci.digest import encode_digest

T = TypeVar("T")

BODY_LIMIT = 16 << 20
"""The largest body read whole, in bytes."""


class Headers:
    """Header fields by name, whatever its case."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def get(self, name: str, default: str = "") -> str:
        return self._fields.get(name.lower(), default)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields


class Query:
    """The query string's parameters; each may stand several times. Raises `Invalid` for more than a thousand."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        try:
            fields = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise Invalid(f"malformed query string: {error}".lower()) from error
        for name, value in fields:
            self._values.setdefault(name, []).append(value)

    def get(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean as Docker reads one: anything but nothing, `0`, `no`, `false` and `none` is true."""
        values = self._values.get(name)
        if not values:
            return default
        return values[0].strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int | None = None) -> int | None:
        """Raises `Invalid` for what is no whole number."""
        text = self.get(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise Invalid(f'strconv.Atoi: parsing "{text}": invalid syntax (query parameter {name})') from None

    def __contains__(self, name: str) -> bool:
        return name in self._values


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


class Stream(Protocol):
    """A raw two-way stream, after the request has been taken over."""

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes; none at the end of the client's side."""
        ...

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    async def close(self) -> None: ...


class Exchange(Protocol):
    """The connection below a request."""

    def body(self) -> AsyncIterator[bytes]: ...
    async def hijack(self, head: bytes) -> Stream: ...


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: Query
    headers: Headers
    exchange: Exchange
    parameters: dict[str, str] = field(default_factory=dict)

    def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        return self.exchange.body()

    async def read(self, limit: int = BODY_LIMIT) -> bytes:
        """The body whole; raises `Invalid` beyond `limit` bytes."""
        parts, size = [], 0
        async for part in self.exchange.body():
            size += len(part)
            if size > limit:
                raise Invalid(f"request body is larger than the limit of {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    async def json(self, kind: type[T], *, default: T | None = None) -> T:
        """The body as a structure; raises `Invalid` that names what is wrong. An empty body, and null, is `default`."""
        data = (await self.read()).strip()
        if not data or (data == b"null" and default is not None):  # as the docker command commits, before 23
            if default is not None:
                return default
            raise Invalid("invalid JSON: got EOF while reading request body")
        given = self.headers.get("Content-Type")
        if given.partition(";")[0].strip().lower() != "application/json":
            raise Invalid(f"unsupported Content-Type header ({given}): must be 'application/json'")
        try:
            return msgspec.json.decode(data, type=kind, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            try:
                # a field that is null is one that was not given, whatever its type
                return msgspec.convert(_without_nulls(msgspec.json.decode(data)), kind, strict=False)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise Invalid(f"invalid JSON: {error}") from error

    async def hijack(self, content_type: str) -> Stream:
        """Take the connection over, as `docker attach` asks for it (Engine API, "ContainerAttach", "Hijacking")."""
        if self.headers.get("upgrade"):
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
        return await self.exchange.hijack(head.encode())


@dataclass(slots=True)
class FileRange:
    """A part of a file, sent by the kernel."""

    path: str
    offset: int
    size: int


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes | AsyncIterator[bytes] | FileRange = b""
    headers: dict[str, str] = field(default_factory=dict)


class Hijacked(Response):
    """What a handler returns when it has taken the connection over and is done with it."""


Handler = Callable[[Request], Awaitable[Response]]

_ENCODER = msgspec.json.Encoder(enc_hook=encode_digest)


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, _ENCODER.encode(value) + b"\n", {"Content-Type": "application/json", **(headers or {})})
