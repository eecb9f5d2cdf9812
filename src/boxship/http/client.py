"""A synchronous HTTP/1.1 client for the command line: unix sockets, TCP, TLS (RFC 9112).

Small to import: a command is over in the time that a library for all of HTTP takes to load.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from boxship.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from boxship.http.tls import TLSConnection

Connection: TypeAlias = "socket.socket | TLSConnection"

_READ = 1 << 18
_HEAD_LIMIT = 1 << 16
"""The longest head of a response, in bytes."""


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: str, safe: bytes = b":@/") -> str:
    """Percent-encoded, as part of a path (RFC 3986, section 2.1)."""
    data = text.encode(errors="surrogateescape")
    return "".join(chr(byte) if byte in _UNRESERVED or byte in safe else f"%{byte:02X}" for byte in data)


def _query(values: Mapping[str, Any]) -> str:
    """`a=1&b=2`; a list gives its name several times."""
    pairs = [(name, each) for name, value in values.items() for each in (value if isinstance(value, list) else [value])]
    return "&".join(f"{quoted(name, b'')}={quoted(str(value), b'')}" for name, value in pairs)


class TLS(NamedTuple):
    """Files for a TCP host: the authority that signed the server, and our certificate."""

    ca: str
    certificate: str
    key: str
    verify: bool = True


class ClientResponse:
    """A response's head; the body comes when it is asked for."""

    def __init__(self, status: int, headers: dict[str, str], connection: _Link) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

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
        self._address = (name.strip("[]") or address, int(port) if port.isdecimal() else (2376 if tls else 2375))
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
            path = f"{path}?{_query(query)}"
        link, self._idle = self._idle, None
        found = None
        if link is not None and link.reusable:
            if body is None or isinstance(body, bytes):
                found = link.exchange(method, path, fields, body)  # None where it was closed while it was idle
            if found is None:
                link.socket.close()
        if link is None or found is None:
            link = _Link(self.connect())
            try:
                found = link.exchange(method, path, fields, body)
                if found is None:
                    raise Unavailable("the daemon closed the connection without an answer")
            except BaseException:
                link.socket.close()
                raise
        self._idle = link
        return ClientResponse(*found, link)

    def hijack(
        self, method: str, path: str, *, query: Any = None, json_body: Any = None
    ) -> tuple[ClientResponse, Connection, bytes]:
        """Ask for a raw stream: the response, the socket where it was granted, and bytes that came early."""
        response = self.request(method, path, query=query, json_body=json_body, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
        link, self._idle = response._connection, None
        early = link.early() if response.status in (101, 200) else b""
        return response, link.socket, early

    def another(self) -> Client:
        """A client of the same host, with connections of its own."""
        return Client(self.host, self.tls)

    def close(self) -> None:
        if self._idle is not None:
            self._idle.socket.close()
            self._idle = None

    def connect(self) -> Connection:
        """A bare connection to the host; raises `Unavailable`."""
        try:
            if self._unix is not None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.connect(self._unix)
                except OSError:
                    connection.close()
                    raise
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
        try:
            return self._encrypted(connection, self.tls)
        except BaseException:
            connection.close()
            raise

    def _encrypted(self, connection: socket.socket, files: TLS) -> Connection:
        import ssl

        from boxship.http.tls import TLSConnection

        try:
            context = ssl.create_default_context(cafile=files.ca if files.verify else None)
            if not files.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(files.certificate, files.key)
        except OSError as error:
            names = ", ".join(name for name in (files.ca, files.certificate, files.key) if not os.access(name, os.R_OK))
            raise Invalid(f"cannot use the files for TLS: {names or error}", hint="see --tlscacert, --tlscert, --tlskey") from error
        try:
            return TLSConnection(connection, context, self._address[0])
        except ssl.SSLError as error:
            reason = str(getattr(error, "verify_message", "") or error.reason or error).lower().replace("_", " ")
            raise Unavailable(f"TLS with {self.host} failed: {reason}") from error
        except OSError as error:
            raise Unavailable(f"TLS with {self.host} failed: {(error.strerror or str(error)).lower()}") from error


class _Link:
    """One connection, and what was received on it."""

    def __init__(self, connection: Connection) -> None:
        self.socket = connection
        self.reusable = False
        """Whether the last response has been read to its end, and the connection stays."""
        self._received = bytearray()
        self._length: int | None = 0
        """The body's length; None for one that ends with the connection, -1 for chunks."""
        self._closes = False

    def exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | Iterable[bytes] | None
    ) -> tuple[int, dict[str, str]] | None:
        """The response's status and headers; None where the server closed without a byte of it."""
        self.reusable = False
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any("\r" in line or "\n" in line for line in lines) or " " in path:
            raise Invalid(f"invalid request: {path[:200]!r}")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        try:
            if body is None or isinstance(body, bytes):
                self.socket.sendall(head + (body or b""))
            else:
                self.socket.sendall(head)
                for part in body:
                    if part:
                        self.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))
                self.socket.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered early; what it said is read below
        except OSError as error:
            raise Unavailable(f"the daemon does not answer: {error.strerror}") from error
        status = 100
        while status == 100:
            found = self._head()
            if found is None:
                return None
            status, received = found
        if method == "HEAD" or status in (101, 204, 304):
            self._length = 0
        elif "chunked" in received.get("transfer-encoding", ""):
            self._length = -1
        else:
            self._length = int(received["content-length"]) if received.get("content-length", "").isdecimal() else None
        self._closes = self._length is None or "close" in received.get("connection", "").lower() or status == 101
        self.reusable = self._length == 0 and not self._closes
        return status, received

    def _head(self) -> tuple[int, dict[str, str]] | None:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > _HEAD_LIMIT:
                raise Unavailable("what answers is no daemon: the head of its response has no end")
            if not self._receive():
                if self._received:
                    raise Unavailable("the daemon closed the connection early")
                return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise Unavailable(f"what answers is no daemon: {first[:60]!r}")
        fields = (line.partition(":") for line in lines)
        return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in fields}

    def _receive(self) -> bool:
        """Whether more came."""
        try:
            data = self.socket.recv(_READ)
        except ConnectionResetError:
            return False
        except OSError as error:
            raise Unavailable(f"the connection to the daemon broke: {(error.strerror or str(error)).lower()}") from error
        self._received += data
        return bool(data)

    def body(self) -> Iterator[bytes]:
        """What is left of the body; nothing once it has been read."""
        if self._length is None:
            while self._received or self._receive():
                yield self._taken(len(self._received))
            self._length = 0
        elif self._length < 0:
            yield from self._chunks()
        else:
            length, self._length = self._length, 0
            yield from self._exactly(length)
        self.reusable = not self._closes
        if self._closes:
            self.socket.close()

    def _chunks(self) -> Iterator[bytes]:
        self._length = 0
        while True:
            size = self._line().partition(b";")[0].strip()
            try:
                length = int(size, 16)
            except ValueError:
                raise Unavailable(f"the daemon sent a broken chunk: {bytes(size[:20])!r}") from None
            if not length:
                break
            yield from self._exactly(length)
            self._line()
        while self._line():
            pass  # a trailer

    def _line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > _HEAD_LIMIT or not self._receive():
                raise Unavailable("the daemon closed the connection early")
        return self._taken(end + 2)[:-2]

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length:
            if not self._received and not self._receive():
                raise Unavailable("the daemon closed the connection early")
            data = self._taken(min(length, len(self._received)))
            length -= len(data)
            yield data

    def _taken(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def early(self) -> bytes:
        """What came behind the head of a stream that was taken over."""
        return self._taken(len(self._received))
