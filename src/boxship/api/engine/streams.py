"""Stdio between a client's connection and the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from boxship.containers.model import LogLine
from boxship.errors import Invalid
from boxship.http.message import Stream

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_CHUNK = 1 << 16
_STREAMS = {"stdout": 1, "stderr": 2}
_DEFAULT_KEYS = "ctrl-p,ctrl-q"


def frame(stream: str, data: bytes) -> bytes:
    """Docker's frame: an 8-byte header, then the data."""
    return struct.pack(">BxxxI", _STREAMS[stream], len(data)) + data


def detach_sequence(text: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q` and the like; raises `Invalid`."""
    found = bytearray()
    for key in (text or _DEFAULT_KEYS).split(","):
        if len(key) == 1:
            found += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            found.append(ord(key[5].upper()) - 64)
        else:
            raise Invalid(f"Invalid detach keys: Unknown character: '{key}'")
    return bytes(found)


class _DetachFilter:
    """Watches input for the detach sequence; what was only its beginning is passed on."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False


async def relay(client: Stream, descriptor: int, *, stdin: bool, tty: bool, detach_keys: str = "") -> bool:
    """Carry bytes both ways until the process's output ends; True where the client detached."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=descriptor) as keeper:
        keeper.setblocking(False)
        detacher = _DetachFilter(detach_sequence(detach_keys)) if tty and stdin else None
        detached = loop.create_future()

        async def send() -> None:
            while data := await client.read(_CHUNK):
                if not stdin:
                    continue
                if detacher is not None:
                    data, found = detacher.feed(data)
                    if found:
                        if not detached.done():
                            detached.set_result(True)
                        return
                await loop.sock_sendall(keeper, data)
            with contextlib.suppress(OSError):
                keeper.shutdown(socket.SHUT_WR)

        async def receive() -> None:
            while data := await loop.sock_recv(keeper, _CHUNK):
                client.write(data)
                await client.drain()

        sending = asyncio.ensure_future(send())
        receiving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({receiving, detached}, return_when=asyncio.FIRST_COMPLETED)
            return detached.done()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


async def log_stream(lines: AsyncIterator[LogLine], *, tty: bool, timestamps: bool, details: bool) -> AsyncIterator[bytes]:
    """Log entries as the API sends them: framed, or raw for a terminal's."""
    async for line in lines:
        text = line.text.encode()
        if details:
            text = ",".join(f"{k}={v}" for k, v in sorted(line.attributes.items())).encode() + b" " + text
        if timestamps:
            text = line.time.encode() + b" " + text
        yield text if tty else frame(line.stream, text)
