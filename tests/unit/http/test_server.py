"""The server, spoken to byte by byte, as well-behaved and as ill-behaved clients do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from boxship.errors import Unavailable
from boxship.http import server as module
from boxship.http.message import FileRange, Hijacked, Request, Response, json_response
from boxship.http.server import Server


class Client:
    """A connection, and answers taken apart by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), fields

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, fields = await self.head()
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await self.reader.readline()).strip(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
            return status, fields, body
        return status, fields, await self.reader.readexactly(int(fields.get("content-length", "0")))

    async def ask(self, text: str | bytes) -> tuple[int, dict[str, str], bytes]:
        self.send(text)
        return await self.answer()

    async def ended(self) -> bool:
        """Whether the server closes the connection, with nothing more said."""
        return await asyncio.wait_for(self.reader.read(), 5) == b""

    def close(self) -> None:
        self.writer.close()


@dataclass
class Served:
    connect: Callable[[], Awaitable[Client]]
    seen: list[tuple[str, str, bytes]]
    cancelled: asyncio.Event
    directory: Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    seen: list[tuple[str, str, bytes]] = []
    cancelled = asyncio.Event()
    clients: list[Client] = []

    async def forever() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one", b"", b"two"):
            yield part

    async def handle(request: Request) -> Response:
        if request.path == "/hijack":
            body = await request.read()
            stream = await request.hijack("application/vnd.docker.raw-stream")
            stream.write(b"got:" + body + b"|")
            while data := await stream.read():
                stream.write(data.upper())
                await stream.drain()
            stream.write(b"|end")
            stream.write_eof()
            return Hijacked()
        if request.path == "/unread":
            return Response(200, b"did not look")
        if request.path == "/fails":
            raise RuntimeError("planted")
        if request.path == "/stream":
            return Response(200, parts())
        if request.path == "/forever":
            return Response(200, forever())
        if request.path == "/file":
            return Response(
                200, FileRange(str(tmp_path / "file"), int(request.query.get("offset", "0")), int(request.query.get("size")))
            )
        if request.path == "/none":
            return Response(204)
        body = await request.read(limit=1000)
        seen.append((request.method, request.path, body))
        return json_response({"method": request.method, "path": request.path, "size": len(body), "q": request.query.all("q")})

    server = Server(handle)
    await server.serve_unix(tmp_path / "s.sock", group=None)

    async def connect() -> Client:
        client = Client(*await asyncio.open_unix_connection(str(tmp_path / "s.sock")))
        clients.append(client)
        return client

    yield Served(connect, seen, cancelled, tmp_path)
    for client in clients:
        client.close()
    await server.close()
    assert not (tmp_path / "s.sock").exists()


async def test_one_connection_serves_request_after_request(served: Served) -> None:
    client = await served.connect()
    for number in range(3):
        status, fields, body = await client.ask(f"GET /a/{number}?q=1&q=2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200
        assert fields["content-type"] == "application/json"
        assert json.loads(body) == {"method": "GET", "path": f"/a/{number}", "size": 0, "q": ["1", "2"]}


async def test_requests_sent_ahead_are_answered_in_order(served: Served) -> None:
    client = await served.connect()
    client.send("".join(f"POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{n}" for n in range(5)))
    assert [json.loads((await client.answer())[2])["path"] for _ in range(5)] == [f"/{n}" for n in range(5)]


async def test_bodies_in_chunks_and_in_pieces(served: Served) -> None:
    client = await served.connect()
    for (
        byte
    ) in b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\n":
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 200
    assert served.seen == [("PUT", "/x", b"hello!")]


async def test_a_client_that_asks_first_is_told_to_go_on(served: Served) -> None:
    client = await served.connect()
    client.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.head())[0] == 100
    assert (await client.ask("body"))[0] == 200
    assert served.seen == [("POST", "/x", b"body")]


async def test_a_client_that_asks_first_is_spared_a_body_nobody_reads(served: Served) -> None:
    client = await served.connect()
    status, _, body = await client.ask("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert (status, body) == (200, b"did not look")
    assert await client.ended()


async def test_a_body_nobody_read_is_no_request(served: Served) -> None:
    client = await served.connect()
    hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(f"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}")
    assert (await client.answer())[2] == b"did not look"
    assert json.loads((await client.ask("GET /next HTTP/1.1\r\nHost: x\r\n\r\n"))[2])["path"] == "/next"
    assert [path for _, path, _ in served.seen] == ["/next"]


async def test_an_endless_unread_body_costs_the_connection(served: Served) -> None:
    client = await served.connect()
    client.send("POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.answer())[0] == 200
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            client.send(chunk)
            await client.writer.drain()
    with contextlib.suppress(ConnectionError):
        assert await client.ended()
    assert served.seen == []


@pytest.mark.parametrize(
    "request_text",
    [
        "NONSENSE\r\n\r\n", "GET / FTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "\x16\x03\x01\x02\x00\x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /?" + "&".join(f"a{n}" for n in range(1001)) + " HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)  # fmt: skip
async def test_bad_requests_are_refused_and_the_connection_ends(served: Served, request_text: str) -> None:
    client = await served.connect()
    status, fields, body = await client.ask(request_text)
    assert status in (400, 501)
    assert fields["connection"] == "close"
    assert json.loads(body)["message"]
    assert await client.ended()
    assert served.seen == []


async def test_a_malformed_chunk_is_the_clients_fault(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    client = await served.connect()
    status, _, body = await client.ask("PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert status == 400
    assert b"malformed request body" in body
    assert await client.ended()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_client_that_goes_in_the_middle_is_no_error(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    client = await served.connect()
    client.send("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this")
    await client.writer.drain()
    client.writer.write_eof()
    assert await client.ended()
    assert served.seen == []
    assert not caplog.records


async def test_a_head_too_large_is_refused(served: Served) -> None:
    client = await served.connect()
    client.send("GET / HTTP/1.1\r\nHost: x\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            client.send("X-Long: " + "y" * 8000 + "\r\n")
            await client.writer.drain()
    assert (await client.head())[0] == 431


async def test_a_body_beyond_the_handlers_limit_is_refused(served: Served) -> None:
    client = await served.connect()
    status, _, body = await client.ask("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + "y" * 1001)
    assert status == 400
    assert b"larger than the limit" in body


async def test_a_head_sent_ever_so_slowly_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.15)
    client = await served.connect()

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"y" * 400:
                client.send(bytes([byte]))
                await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    try:
        assert (await client.head())[0] == 408
    finally:
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_an_idle_connection_is_let_go_in_silence(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    client = await served.connect()
    assert await client.ended()


async def test_a_handler_that_fails_is_a_500_and_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    client = await served.connect()
    status, _, body = await client.ask("GET /fails HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 500
    assert b"planted" not in body
    assert "GET /fails failed" in caplog.text
    assert (await client.ask("GET /next HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200


async def test_streams_are_chunked_and_the_connection_goes_on(served: Served) -> None:
    client = await served.connect()
    for _ in range(2):
        status, fields, body = await client.ask("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, fields["transfer-encoding"], body) == (200, "chunked", b"onetwo")


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection(served: Served) -> None:
    client = await served.connect()
    client.send("GET /stream HTTP/1.0\r\n\r\n")
    status, fields = await client.head()
    assert status == 200
    assert "transfer-encoding" not in fields
    assert await client.reader.read() == b"onetwo"


async def test_a_stream_ends_when_its_client_goes(served: Served) -> None:
    client = await served.connect()
    client.send("GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.head()
    client.close()
    await asyncio.wait_for(served.cancelled.wait(), 5)


async def test_a_head_request_gets_no_body(served: Served) -> None:
    client = await served.connect()
    client.send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields = await client.head()
    assert status == 200
    assert int(fields["content-length"]) > 0
    assert (await client.ask("GET /none HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 204
    assert (await client.ask("GET /next HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200


@pytest.mark.parametrize(("offset", "size"), [(0, 300_000), (0, 0), (1000, 5), (299_999, 1), (7, 250_000)])
async def test_a_part_of_a_file(served: Served, offset: int, size: int) -> None:
    data = os.urandom(300_000)
    (served.directory / "file").write_bytes(data)
    client = await served.connect()
    for _ in range(2):
        status, fields, body = await client.ask(f"GET /file?offset={offset}&size={size} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200
        assert fields["content-length"] == str(size)
        assert body == data[offset : offset + size]


async def test_a_file_shorter_than_promised_ends_the_connection(served: Served) -> None:
    (served.directory / "file").write_bytes(b"short")
    client = await served.connect()
    client.send("GET /file?size=100 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.head())[1]["content-length"] == "100"
    assert await asyncio.wait_for(client.reader.read(), 5) == b"short"


async def test_the_absolute_form_is_taken(served: Served) -> None:
    client = await served.connect()
    assert (await client.ask("GET http://docker/v1?q=7 HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
    assert served.seen == [("GET", "/v1", b"")]


@pytest.mark.parametrize(("upgrade", "status"), [("Connection: Upgrade\r\nUpgrade: tcp\r\n", 101), ("", 200)])
async def test_a_hijacked_connection_keeps_the_bytes_that_came_early(served: Served, upgrade: str, status: int) -> None:
    client = await served.connect()
    client.send(f"POST /hijack HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 2\r\n\r\n{{}}early")
    got, fields = await client.head()
    assert got == status
    assert fields["content-type"] == "application/vnd.docker.raw-stream"
    if upgrade:
        assert fields["upgrade"] == "tcp"
    assert await asyncio.wait_for(client.reader.readexactly(12), 5) == b"got:{}|EARLY"
    client.send(b" and late")
    client.writer.write_eof()
    assert await asyncio.wait_for(client.reader.read(), 5) == b" AND LATE|end"


async def test_closing_the_server_ends_every_connection(tmp_path: Path) -> None:
    async def handle(request: Request) -> Response:
        await asyncio.Event().wait()
        return Response()

    server = Server(handle)
    port = await server.serve_tcp("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.02)
    await server.close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_sockets_that_cannot_be(tmp_path: Path) -> None:
    async def handle(request: Request) -> Response:
        return Response()

    first, second = Server(handle), Server(handle)
    port = await first.serve_tcp("127.0.0.1", 0)
    try:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: .*in use"):
            await second.serve_tcp("127.0.0.1", port)
        with pytest.raises(Unavailable, match="cannot listen on"):
            await second.serve_unix(tmp_path / ("x" * 200))
    finally:
        await first.close()


async def test_the_socket_is_closed_to_others(tmp_path: Path) -> None:
    async def handle(request: Request) -> Response:
        return Response()

    server = Server(handle)
    await server.serve_unix(tmp_path / "s", group=None)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
    await server.close()
