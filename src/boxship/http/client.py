"""A synchronous HTTP/1.1 client for the command line: unix sockets, TCP, TLS; small to import."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import h11

from boxship.errors import Invalid, Unavailable

_READ = 1 << 18


@dataclass(frozen=True, slots=True)
class TLS:
    """Files for a TCP host: the authority that signed the server, and our certificate."""

    ca: str
    certificate: str
    key: str
    verify: bool = True


@dataclass(slots=True)
class ClientResponse:
    status: int
    headers: dict[str, str]
    _connection: _Link = field(repr=False)

    def iter_bytes(self) -> Iterator[bytes]:
        """The body as it comes."""
        return self._connection.body()

    def read(self) -> bytes:
        return b"".join(self.iter_bytes())

    def json(self) -> Any:
        return json.loads(self.read() or b"null")

    def iter_lines(self) -> Iterator[bytes]:
        """The body line by line, as the engine streams JSON."""
        pending = b""
        for part in self.iter_bytes():
            *lines, pending = (pending + part).split(b"\n")
            yield from (line for line in lines if line.strip())
        if pending.strip():
            yield pending


class Client:
    """Requests to one host, `unix:///path` or `tcp://host:port`; a connection each, as requests may stream."""

    def __init__(self, host: str, tls: TLS | None = None) -> None:
        """Raises `Invalid` for a host of another form."""
        scheme, separator, rest = host.partition("://")
        if not separator or scheme not in ("unix", "tcp", "http", "https"):
            raise Invalid(f"invalid host {host!r}", hint="expected unix:///path or tcp://host:port")
        self.host = host
        self._unix = rest if scheme == "unix" else None
        address = rest.rstrip("/")
        name, _, port = address.rpartition(":")
        self._address = (name.strip("[]") or address, int(port) if port.isdigit() else (2376 if tls else 2375))
        self.tls = tls
        self._idle: _Link | None = None

    def request(
        self, method: str, path: str, *, query: Any = None, headers: dict[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None, json_body: Any = None,
    ) -> ClientResponse:  # fmt: skip
        """Send a request and read the response's head; raises `Unavailable` where nothing answers."""
        fields = {"Host": "boxship", **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            fields["Content-Type"] = "application/json"
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            fields["Content-Length"] = "0"
        if query:
            path = f"{path}?{urlencode(query, doseq=True)}"
        link = self._idle if self._idle is not None and self._idle.reusable() else _Link(self._connect())
        self._idle = link
        status, received = link.exchange(method, path, fields, body)
        return ClientResponse(status, received, link)

    def hijack(
        self, method: str, path: str, *, query: Any = None, json_body: Any = None
    ) -> tuple[ClientResponse, socket.socket, bytes]:
        """Ask for a raw stream: the response, the socket where it was granted, and bytes that came early."""
        response = self.request(
            method, path, query=query, json_body=json_body, headers={"Connection": "Upgrade", "Upgrade": "tcp"}
        )
        link, self._idle = response._connection, None
        early = link.early() if response.status in (101, 200) else b""
        return response, link.socket, early

    def _connect(self) -> socket.socket:
        try:
            if self._unix is not None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.connect(self._unix)
                return connection
            connection = socket.create_connection(self._address, timeout=30)
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Unavailable(
                f"Cannot connect to the Boxship daemon at {self.host}: {(error.strerror or str(error)).lower()}",
                hint="is the daemon running?",
            ) from error
        if self.tls is None:
            return connection
        import ssl

        context = ssl.create_default_context(cafile=self.tls.ca if self.tls.verify else None)
        if not self.tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        try:
            return context.wrap_socket(connection, server_hostname=self._address[0])
        except ssl.SSLError as error:
            raise Unavailable(f"TLS with {self.host} failed: {error.reason}") from error


class _Link:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._h11 = h11.Connection(h11.CLIENT)

    def reusable(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    def exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | Iterable[bytes] | None
    ) -> tuple[int, dict[str, str]]:
        try:
            head = self._h11.send(h11.Request(method=method, target=path, headers=list(headers.items()))) or b""
            if isinstance(body, bytes) or body is None:
                data = self._h11.send(h11.Data(data=body)) if body else b""
                self.socket.sendall(head + (data or b"") + (self._h11.send(h11.EndOfMessage()) or b""))
            else:
                self.socket.sendall(head)
                for part in body:
                    self.socket.sendall(self._h11.send(h11.Data(data=part)) or b"")
                self.socket.sendall(self._h11.send(h11.EndOfMessage()) or b"")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered early; what it said is read below
        except OSError as error:
            raise Unavailable(f"the daemon does not answer: {error.strerror}") from error
        while True:
            event = self._next()
            if isinstance(event, (h11.Response, h11.InformationalResponse)):
                if event.status_code == 100:
                    continue
                return event.status_code, {k.decode().lower(): v.decode("latin-1") for k, v in event.headers}
            raise Unavailable("the daemon closed the connection without an answer")

    def _next(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise Unavailable(f"the daemon closed the connection early: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            try:
                self._h11.receive_data(self.socket.recv(_READ))
            except OSError as error:
                raise Unavailable(f"the connection to the daemon broke: {error.strerror}") from error

    def body(self) -> Iterator[bytes]:
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    def early(self) -> bytes:
        return bytes(self._h11.trailing_data[0])
