"""An HTTP/1.1 server on h11: keep-alive, chunks, 100-continue, and connections that handlers take over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import json
import logging
import os
import socket
import ssl
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import h11

from boxship.errors import Invalid, Unavailable
from boxship.http.message import FileRange, Handler, Headers, Hijacked, Query, Request, Response, Stream

log = logging.getLogger(__name__)

HEADER_SECONDS = 60.0
"""How long a client may take to send a request's head once it has begun."""

IDLE_SECONDS = 600.0
"""How long a connection is kept on which nothing comes."""

DEFAULT_GROUP = "docker"

_LINGER_SECONDS = 1.0
_TAKEN_SECONDS = 1.0
_HEAD_LIMIT = 64 << 10
_READ = 1 << 18
_HIGH_WATER = 1 << 20


class Server:
    """Serves one handler on any number of sockets."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._unix_paths: list[Path] = []

    async def serve_unix(self, path: Path, *, mode: int = 0o660, group: str | None = DEFAULT_GROUP) -> None:
        """Listen on a unix socket, owned by root and `group`; raises `Unavailable`.

        The default group need not exist; another one must: raises `Invalid`.
        """
        try:
            owner = grp.getgrnam(group).gr_gid if group else 0
        except KeyError as error:
            if group != DEFAULT_GROUP:
                raise Invalid(f"group {group} does not exist") from error
            owner = 0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clear(path)
            listener.bind(os.fspath(path))
            path.chmod(mode)
            os.chown(path, 0, owner)
        except OSError as error:
            listener.close()
            raise Unavailable(f"cannot listen on {path}: {(error.strerror or str(error)).lower()}") from error
        self._unix_paths.append(path)
        await self.serve_socket(listener)

    async def serve_tcp(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on TCP and return the port; raises `Unavailable`, and `Invalid` for a port that there is not."""
        try:
            connected = self._connected if tls is None else self._encrypted(tls)
            server = await asyncio.start_server(connected, host, port, limit=_HIGH_WATER)
        except OverflowError as error:
            raise Invalid(f"cannot listen on {host}:{port}: a port is at most 65535") from error
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
        self._servers.append(server)
        address: tuple[str, int] = server.sockets[0].getsockname()
        return address[1]

    async def serve_socket(self, listener: socket.socket) -> None:
        """Listen on a socket that is bound already (socket activation)."""
        listener.setblocking(False)
        if listener.family == socket.AF_UNIX:
            server = await asyncio.start_unix_server(self._connected, sock=listener, limit=_HIGH_WATER, backlog=512)
        else:
            server = await asyncio.start_server(self._connected, sock=listener, limit=_HIGH_WATER, backlog=512)
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening, end every connection."""
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=5)
        for path in self._unix_paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _encrypted(self, tls: ssl.SSLContext) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        from boxship.http.encryption import encrypted

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                await encrypted(reader, writer, tls, self._connected, limit=_HIGH_WATER)
            except asyncio.CancelledError:
                pass  # the server closes
            finally:
                self._connections.discard(task)

        return connected

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        connection = _Connection(reader, writer, self._handle)
        try:
            await connection.run()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, h11.ProtocolError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the server closes, or the client has gone
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(task)
            writer.close()


def _clear(path: Path) -> None:
    """Remove the socket that a server which is gone has left; raises `OSError` for a live one, and for another file."""
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "it exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        code = client.connect_ex(os.fspath(path))
    if code in (0, errno.EAGAIN):
        raise OSError(errno.EADDRINUSE, "another process listens there")
    path.unlink(missing_ok=True)


async def _taken(connection: socket.socket) -> None:
    """Wait until the client has read what was sent, where that can be seen: on a unix socket.

    docker-py reads the head through a buffer, and what follows past it: what comes along with the head is lost to it.
    """
    if connection.family != socket.AF_UNIX:
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _TAKEN_SECONDS
    while loop.time() < deadline and any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))):
        await asyncio.sleep(0.0002)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


class _Connection:
    """One client, request after request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self._hijacked: _Raw | None = None
        self._body_read = False
        self._body_ended = asyncio.Event()

    async def run(self) -> None:
        while True:
            event = await self._next_request()
            if event is None:
                return
            await self._serve(event)
            if self._hijacked is not None:
                await self._hijacked.close()
                return
            await self._drop_body()
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        begun: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint, str(error))
                return None
            if event is h11.NEED_DATA:
                if begun is None and self._h11.trailing_data[0]:
                    begun = loop.time()
                # whoever sends a head byte by byte may not hold the connection for ever
                left = IDLE_SECONDS if begun is None else begun + HEADER_SECONDS - loop.time()
                try:
                    async with asyncio.timeout(left):
                        self._h11.receive_data(await self._reader.read(_READ))
                except TimeoutError:
                    if begun is not None:
                        await self._refuse(408, "the request's head did not come in time")
                    return None
            elif isinstance(event, h11.Request):
                return event
            else:
                return None

    async def _refuse(self, status: int, reason: str) -> None:
        body = json.dumps({"message": reason}).encode() + b"\n"
        await self._send(Response(status, body, {"Content-Type": "application/json", "Connection": "close"}))
        # a connection closed with something unread is reset, and the client may never see why
        if self._writer.can_write_eof():
            self._writer.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    dropped = 0
                    while dropped < _HIGH_WATER and (data := await self._reader.read(_READ)):
                        dropped += len(data)

    async def _fill(self) -> None:
        self._h11.receive_data(await self._reader.read(_READ))

    async def _serve(self, event: h11.Request) -> None:
        target = event.target.decode("latin-1")
        if target.startswith(("http://", "https://")):
            # the absolute form, which every server must take (RFC 9112, section 3.2.2)
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        method = event.method.decode("latin-1")
        self._body_read = False
        self._body_ended.clear()
        headers = Headers(event.headers.raw_items())
        if headers.get("Content-Length", "0") == "0" and not headers.get("Transfer-Encoding"):
            async for _ in self.body():
                pass
        try:
            response = await self._handle(Request(method, path, Query(query), headers, self))
        except Invalid as error:
            await self._refuse(400, error.message)
            return
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s failed", method, path)
            response = Response(500, b'{"message":"internal error"}\n', {"Content-Type": "application/json"})
        if not isinstance(response, Hijacked) and self._hijacked is None:
            await self._send(response, head=method == "HEAD")

    async def body(self) -> AsyncIterator[bytes]:
        while not self._body_read:
            if self._h11.they_are_waiting_for_100_continue:
                self._write(self._h11.send(h11.InformationalResponse(status_code=100, reason=_reason(100), headers=[])))
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if self._reader.at_eof():
                    raise ConnectionResetError("the client ended its request early") from error
                raise Invalid(f"malformed request body: {error}") from error
            if event is h11.NEED_DATA:
                await self._fill()
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._body_read = True
                self._body_ended.set()
            else:
                raise ConnectionResetError("the client ended its request early")

    async def _drop_body(self) -> None:
        """A short body that the handler left unread is read away; a long one costs the connection."""
        dropped = 0
        if self._body_read or self._h11.their_state in (h11.DONE, h11.ERROR) or self._h11.our_state is h11.MUST_CLOSE:
            return
        async for part in self.body():
            dropped += len(part)
            if dropped > _HIGH_WATER:
                return

    async def hijack(self, head: bytes) -> Stream:
        if not self._body_read:
            async for _ in self.body():
                pass
        early = bytes(self._h11.trailing_data[0])
        self._hijacked = _Raw(self._reader, self._writer, early)
        self._writer.write(head)
        await self._writer.drain()
        await _taken(self._writer.get_extra_info("socket"))
        return self._hijacked

    def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)

    async def _send(self, response: Response, *, head: bool = False) -> None:
        headers = list(response.headers.items())
        if self._h11.they_are_waiting_for_100_continue:
            headers.append(("Connection", "close"))  # a client that waits to be asked may send its body still, or not
        body = response.body

        def opening() -> bytes:
            made = h11.Response(status_code=response.status, reason=_reason(response.status), headers=headers)
            return self._h11.send(made) or b""

        if isinstance(body, bytes):
            if response.status >= 200 and response.status not in (204, 304) and "Content-Length" not in response.headers:
                headers.append(("Content-Length", str(len(body))))
            parts = [opening()]
            if body and not head and response.status not in (204, 304):
                parts.append(self._h11.send(h11.Data(data=body)) or b"")
            parts.append(self._h11.send(h11.EndOfMessage()) or b"")
            self._writer.write(b"".join(parts))
            await self._writer.drain()
        elif isinstance(body, FileRange):
            headers.append(("Content-Length", str(body.size)))
            self._write(opening())
            if not head and body.size:
                await self._send_file(body)
            self._write(self._h11.send(h11.EndOfMessage()))
            await self._writer.drain()
        else:
            self._write(opening())
            await self._writer.drain()
            if not head:
                await self._send_stream(body)
            self._write(self._h11.send(h11.EndOfMessage()))
            await self._writer.drain()

    async def _send_file(self, part: FileRange) -> None:
        await self._writer.drain()
        with open(part.path, "rb") as file:
            data = self._h11.send_with_data_passthrough(h11.Data(data=_Sized(part.size)))
            assert data is not None
            sent = await asyncio.get_running_loop().sendfile(self._writer.transport, file, part.offset, part.size)
        if sent != part.size:
            raise ConnectionResetError("a file was shorter than was promised: only the end of the connection tells")

    async def _send_stream(self, body: AsyncIterator[bytes]) -> None:
        """Send what comes; where the client goes meanwhile, the source is cancelled."""
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.ensure_future(self._watch(task))
        try:
            async for part in body:
                if part:
                    self._write(self._h11.send(h11.Data(data=part)))
                    await self._writer.drain()
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _watch(self, task: asyncio.Task[None]) -> None:
        # until then the handler itself reads, and sees the client go
        await self._body_ended.wait()
        try:
            ahead = 0
            while (data := await self._reader.read(_READ)) and ahead < _HIGH_WATER:
                ahead += len(data)
                self._h11.receive_data(data)
        except (ConnectionError, h11.ProtocolError):
            pass
        task.cancel()


class _Sized(bytes):
    """Stands for file data in h11's count of the body."""

    _size: int

    def __new__(cls, size: int) -> _Sized:
        made = super().__new__(cls)
        made._size = size
        return made

    def __len__(self) -> int:
        return self._size


class _Raw:
    """A connection after the request: bytes both ways."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._early = early

    async def read(self, limit: int = 65536) -> bytes:
        if self._early:
            data, self._early = self._early[:limit], self._early[limit:]
            return data
        try:
            return await self._reader.read(limit)
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def write_eof(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def close(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(10):
                await self._writer.drain()
        self._writer.close()
