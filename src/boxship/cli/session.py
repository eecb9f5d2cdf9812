"""One command's requests to the engine: its answers as values, its failures as errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import click

from boxship.cli import endpoint
from boxship.errors import BoxshipError, Conflict, Denied, Invalid, NotFound, Unavailable
from boxship.http.client import Client, ClientResponse, Connection, quoted

API_VERSION = "1.47"
_TOO_NEW = re.compile(r"client version \S+ is too new\. Maximum supported API version is (\d+\.\d+)")
_KINDS: dict[int, type[BoxshipError]] = {400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict}

Query = dict[str, Any]


class Failed(BoxshipError):
    """Raised to end a command with an exit code of its own."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def at(kind: str, name: str, *rest: str) -> str:
    """The path of a thing by its name or id; raises `Invalid` for an empty one."""
    if not name.strip():
        raise Invalid(f"invalid {kind.rstrip('s')} name or ID: value is empty")
    return "/" + "/".join((kind, quoted(name), *rest))


class Session:
    """Requests to the engine. The socket is opened by the first of them."""

    def __init__(self, options: endpoint.Options) -> None:
        self.options = options
        self._client: Client | None = None
        self._version = API_VERSION

    @property
    def client(self) -> Client:
        """Raises `Invalid`, `NotFound`, `Unavailable`."""
        if self._client is None:
            host, tls = endpoint.find(self.options)
            self._client = Client(host, tls)
            if host == endpoint.DEFAULT_HOST:
                from boxship.cli.autostart import ensure_daemon

                ensure_daemon(host.removeprefix("unix://"))
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def beside(self) -> Session:
        """A session of connections of its own, for what goes on at the same time."""
        other = Session(self.options)
        other._client, other._version = self.client.another(), self._version
        return other

    def call(
        self, method: str, path: str, *, query: Query | None = None, body: Any = None, headers: dict[str, str] | None = None,
        stream: Iterable[bytes] | None = None,
    ) -> ClientResponse:  # fmt: skip
        """Ask; raises the engine's error. In `query`, what is None, empty or False is left out."""
        if stream is not None:
            self._agree_on_version()  # a stream cannot be sent twice
        response = self._request(method, path, query, body, headers, stream)
        if response.status == 400:
            data = response.read()
            found = _TOO_NEW.search(data.decode(errors="replace"))
            if found is None or self._version == found[1]:
                raise _error(400, data)
            self._version = found[1]
            response = self._request(method, path, query, body, headers, stream)
        if response.status >= 400:
            raise _error(response.status, response.read())
        return response

    def _request(
        self, method: str, path: str, query: Query | None, body: Any, headers: dict[str, str] | None,
        stream: Iterable[bytes] | None,
    ) -> ClientResponse:  # fmt: skip
        return self.client.request(
            method, f"/v{self._version}{path}", query=_given(query), json_body=body, headers=headers, body=stream
        )

    def _agree_on_version(self) -> None:
        response = self.client.request("GET", "/_ping")
        response.read()
        offered = response.headers.get("api-version", "")
        if re.fullmatch(r"\d+\.\d+", offered) and _number(offered) < _number(self._version):
            self._version = offered

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, query=query).json()

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        data = self.call("POST", path, query=query, body=body).read()
        return json.loads(data) if data.strip() else None

    def delete(self, path: str, **query: Any) -> Any:
        data = self.call("DELETE", path, query=query).read()
        return json.loads(data) if data.strip() else None

    def hijack(self, path: str, *, query: Query | None = None, body: Any = None) -> tuple[Connection, bytes]:
        """Ask for a raw stream: the socket, and what came early. Raises the engine's error."""
        response, connection, early = self.client.hijack("POST", f"/v{self._version}{path}", query=_given(query), json_body=body)
        if response.status >= 400:
            raise _error(response.status, response.read())
        return connection, early


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _given(query: Query | None) -> Query:
    return {name: "1" if value is True else value for name, value in (query or {}).items()
            if value is not None and value is not False and value not in ("", [])}  # fmt: skip


def _error(status: int, data: bytes) -> BoxshipError:
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode(errors="replace").strip() or f"the engine answered {status}"
    return _KINDS.get(status, Unavailable)(message)


def messages(response: ClientResponse) -> Iterator[dict[str, Any]]:
    """The JSON messages of long work; an error among them is raised."""
    for line in response.iter_lines():
        message = json.loads(line)
        if "error" in message:
            code = (message.get("errorDetail") or {}).get("code")
            raise Failed(str(message["error"]), code) if code else Unavailable(str(message["error"]))
        yield message


pass_session = click.make_pass_decorator(Session)
