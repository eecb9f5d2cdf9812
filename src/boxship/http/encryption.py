"""TLS in front of a server's connection, which the client can end while the server goes on (RFC 8446, section 6.1).

asyncio's own TLS ends both sides at once, and so loses what a process says after the end of a client's piped stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

_READ = 1 << 16
_HANDSHAKE_SECONDS = 30.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def encrypted(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, serve: Serve, *, limit: int
) -> None:
    """Shake hands, then let `serve` speak with the client through a pair of sockets, until it ends; closes `writer`."""
    outside = _Outside(reader, writer, context)
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await outside.shake_hands()
        near, far = socket.socketpair()
        served_reader, served_writer = await asyncio.open_connection(sock=far, limit=limit)
        inner_reader, inner_writer = await asyncio.open_connection(sock=near, limit=limit)
        inward = asyncio.create_task(outside.decrypt(inner_writer))
        serving = asyncio.ensure_future(serve(served_reader, served_writer))
        try:
            await outside.encrypt(inner_reader)
            await serving
        finally:
            for task in (inward, serving):
                task.cancel()
            await asyncio.wait([inward, serving])
            inner_writer.close()
    except (OSError, TimeoutError):
        pass  # no TLS, or a client that has gone; `ssl.SSLError` is an OSError
    finally:
        writer.close()


class _Outside:
    """The client's side. One event loop uses it, so that nothing comes between a step of TLS and its bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        """Raises `ssl.SSLError`."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
        await self._flush()

    async def decrypt(self, to: asyncio.StreamWriter) -> None:
        """Hand on what the client says: its end as an end of ours, its going as a going."""
        with contextlib.suppress(OSError):
            while True:
                try:
                    data = self._tls.read(_READ)
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._receive()
                    continue
                if not data:
                    break
                to.write(data)
                await to.drain()
            to.write_eof()
            while await self._reader.read(_READ):
                pass
        to.transport.abort()

    async def encrypt(self, source: asyncio.StreamReader) -> None:
        """Hand on what the server says, and its end."""
        while data := await source.read(_READ):
            self._tls.write(data)
            await self._flush()
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()

    async def _receive(self) -> None:
        if data := await self._reader.read(_READ):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()
