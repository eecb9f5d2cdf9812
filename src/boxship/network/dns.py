"""The embedded name server at 127.0.0.11: names of a container's networks, everything else forwarded.

Its sockets are inside the container's namespace on ports of the kernel's choice, where a rule sends what goes
to port 53: so the container may serve port 53 itself. Messages: RFC 1035.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable

from boxship.network.links import Address

ADDRESS = "127.0.0.11"
TTL_SECONDS = 600
PORT = 53
"""Where other name servers listen."""

FORWARD_SECONDS = 4.0
"""How long one of them is waited for."""

CONCURRENT_LIMIT = 100
"""How many forwarded queries and streams of one container are worked at; what comes beyond that is refused."""

_PLAIN_LIMIT = 512
"""The largest answer in a datagram, in bytes, to whoever does not say otherwise (RFC 1035, section 4.2.1)."""


Lookup = Callable[[str], list[Address] | None]
"""The addresses of a name; None where the name is not ours to answer."""

Reverse = Callable[[Address], str | None]


Upstreams = Callable[[], list[str]]
"""The name servers that the container's other queries go to, at this moment."""


class Resolver:
    """Answers for one container."""

    def __init__(
        self, datagrams: socket.socket, stream: socket.socket, lookup: Lookup, reverse: Reverse, upstreams: Upstreams
    ) -> None:
        self.ports = [datagrams.getsockname()[1], stream.getsockname()[1]]
        self._sockets = (datagrams, stream)
        self._lookup = lookup
        self._reverse = reverse
        self._upstreams = upstreams
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self) -> None:
        datagrams, stream = self._sockets
        asyncio.get_running_loop().add_reader(datagrams.fileno(), self._received)
        self._server = await asyncio.start_server(self._stream, sock=stream)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._sockets[0].fileno())
        self._sockets[0].close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def _received(self) -> None:
        try:
            data, sender = self._sockets[0].recvfrom(4096)
        except OSError:
            return

        answer = self.answer(data, datagram=True)
        if answer is None and len(self._tasks) >= CONCURRENT_LIMIT:
            answer = failure(data, 5)
        if answer is None:
            task = asyncio.ensure_future(self._forward(data, sender))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._send(answer, sender)

    def _send(self, answer: bytes, to: tuple[str, int]) -> None:
        if answer:
            with contextlib.suppress(OSError):
                self._sockets[0].sendto(answer, to)

    async def _forward(self, data: bytes, sender: tuple[str, int]) -> None:
        self._send(await self._forward_datagram(data) or failure(data), sender)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= CONCURRENT_LIMIT:
            writer.close()
            return
        self._tasks.add(task)
        try:
            async with asyncio.timeout(30):
                while True:
                    length = struct.unpack(">H", await reader.readexactly(2))[0]
                    data = await reader.readexactly(length)
                    answer = self.answer(data)
                    if answer is None:
                        answer = await self._forward_stream(data) or failure(data)
                    if answer:
                        writer.write(struct.pack(">H", len(answer)) + answer)
                        await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def answer(self, data: bytes, *, datagram: bool = False) -> bytes | None:
        """The answer to a query about our own names; None for one to be forwarded, empty for no query at all.

        One too long for its datagram is cut to nothing and marked so: whoever asks comes back by stream.
        """
        import dns.exception
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rdatatype
        import dns.reversename
        import dns.rrset

        try:
            query = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError, struct.error):
            return b""
        if len(query.question) != 1 or query.flags & dns.flags.QR:
            return b""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        response = dns.message.make_response(query, recursion_available=True)
        limit = (max(_PLAIN_LIMIT, query.payload) if query.edns >= 0 else _PLAIN_LIMIT) if datagram else 65535

        def written() -> bytes:
            try:
                return response.to_wire(max_size=limit)
            except dns.exception.TooBig:
                response.answer.clear()
                response.flags |= dns.flags.TC
                return response.to_wire(max_size=limit)

        if question.rdtype == dns.rdatatype.PTR:
            try:
                found = self._reverse(ipaddress.ip_address(dns.reversename.to_address(question.name)))
            except (dns.exception.DNSException, ValueError):
                return None
            if found is None:
                return None
            response.answer.append(dns.rrset.from_text(question.name, TTL_SECONDS, "IN", "PTR", f"{found}."))
            return written()
        addresses = self._lookup(name)
        if addresses is None:
            return (
                None
                if "." in name or question.rdtype not in (dns.rdatatype.A, dns.rdatatype.AAAA) or self._upstreams()
                else failure(data, 3)
            )
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
        fitting = [str(address) for address in addresses if address.version == version]
        if fitting and version is not None:
            kind = "A" if version == 4 else "AAAA"
            response.answer.append(dns.rrset.from_text(question.name, TTL_SECONDS, "IN", kind, *fitting))
        return written()

    async def _forward_datagram(self, data: bytes) -> bytes | None:
        loop = asyncio.get_running_loop()
        for upstream in self._upstreams():
            family = socket.AF_INET6 if ":" in upstream else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as far:
                try:
                    async with asyncio.timeout(FORWARD_SECONDS):
                        await loop.sock_connect(far, (upstream, PORT))
                        await loop.sock_sendall(far, data)
                        while True:
                            answer = await loop.sock_recv(far, 65535)
                            if answer[:2] == data[:2]:
                                return answer
                except (OSError, TimeoutError):
                    continue
        return None

    async def _forward_stream(self, data: bytes) -> bytes | None:
        for upstream in self._upstreams():
            try:
                async with asyncio.timeout(FORWARD_SECONDS):
                    reader, writer = await asyncio.open_connection(upstream, PORT)
                    try:
                        writer.write(struct.pack(">H", len(data)) + data)
                        length = struct.unpack(">H", await reader.readexactly(2))[0]
                        return await reader.readexactly(length)
                    finally:
                        writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        return None


def failure(query: bytes, code: int = 2) -> bytes:
    """The answer SERVFAIL (2), NXDOMAIN (3) or REFUSED (5) to a query."""
    if len(query) < 12:
        return b""
    flags = 0x8080 | (query[2] & 0x79) << 8 | code
    return query[:2] + struct.pack(">H", flags) + query[4:6] + bytes(6) + query[12:]
