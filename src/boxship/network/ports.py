"""Published ports: reserved by a socket of ours, carried by the firewall, and relayed where it cannot.

The firewall carries everything but what the kernel does not route: connections to `::1`, and those over IPv6
to a container that has no IPv6 address. These reach the reserving socket, and a relay serves them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import cast

from boxship.errors import Conflict, Unavailable, Unsupported
from boxship.network import flows
from boxship.network.firewall import Firewall
from boxship.network.model import PortRequest, PublishedPort

_EPHEMERAL = (32768, 60999)
_CHUNK = 1 << 16
_UDP_IDLE_SECONDS = 90.0


class Ports:
    """Every published port of the host."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._held: dict[tuple[str, str, int], _Relay] = {}
        self._next = _EPHEMERAL[0]

    async def publish(self, request: PortRequest, ipv4: str, ipv6: str, *, ipv6_host: bool) -> list[PublishedPort]:
        """Publish one port on every address it asks for; raises `Conflict` where it is taken."""
        if request.protocol not in ("tcp", "udp"):
            raise Unsupported(f"publishing {request.protocol} ports is not supported")
        hosts = [request.host_ip] if request.host_ip else ["0.0.0.0", *(["::"] if ipv6_host else [])]
        if request.host_ip == "::" and not ipv6_host:
            raise Unavailable("cannot publish on ::: this host has no IPv6")
        candidates = range(request.first, (request.last or request.first) + 1) if request.first else self._free()
        failure: Conflict | None = None
        for port in candidates:
            try:
                return await self._publish_at(request, hosts, port, ipv4, ipv6)
            except Conflict as conflict:
                failure = conflict
        raise failure or Conflict("no free port is left to publish on")

    def _free(self) -> list[int]:
        first, last = _EPHEMERAL
        span = last - first + 1
        start = self._next
        self._next = first + (start - first + 1) % span
        return [first + (start - first + step) % span for step in range(256)]

    async def _publish_at(self, request: PortRequest, hosts: list[str], port: int, ipv4: str, ipv6: str) -> list[PublishedPort]:
        made: list[PublishedPort] = []
        try:
            for host in hosts:
                published = PublishedPort(request.container_port, request.protocol, host, port)
                await self.take(published, ipv4, ipv6)
                made.append(published)
        except BaseException:
            for published in made:
                self.release(published, ipv4, ipv6)
            raise
        return made

    async def take(self, port: PublishedPort, ipv4: str, ipv6: str) -> None:
        """Reserve and carry one port on one address; raises `Conflict`, `Unavailable`."""
        key = (port.protocol, port.host_ip, port.host_port)
        where = f"{port.host_ip if ':' not in port.host_ip else f'[{port.host_ip}]'}:{port.host_port}"
        if key in self._held:
            raise Conflict(f"Bind for {where} failed: port is already allocated")
        target = (ipv4 or ipv6, port.container_port)
        self._held[key] = relay = _Relay(port.protocol, target)
        try:
            await relay.listen(port.host_ip, port.host_port)
            address = ipv6 if ":" in port.host_ip else ipv4
            if address:
                self._firewall.publish(port.protocol, port.host_ip, port.host_port, address, port.container_port)
            else:
                self._firewall.relay(port.protocol, port.host_port)
        except OSError as error:
            relay.close()
            del self._held[key]
            if error.errno == errno.EADDRINUSE:
                raise Conflict(
                    f"failed to bind host port for {where}:{target[0]}:{target[1]}/{port.protocol}: address already in use"
                ) from error
            raise Unavailable(f"cannot publish on {where}: {(error.strerror or '').lower()}") from error

    def release(self, port: PublishedPort, ipv4: str, ipv6: str) -> None:
        """Let a port go; one that was never held is no error."""
        relay = self._held.pop((port.protocol, port.host_ip, port.host_port), None)
        if relay is None:
            return
        relay.close()
        address = ipv6 if ":" in port.host_ip else ipv4
        if address:
            with contextlib.suppress(OSError):
                self._firewall.withdraw(port.protocol, port.host_ip, port.host_port, address)
                if port.protocol == "udp":
                    flows.forget(address)
        elif not any(key[0] == port.protocol and ":" in key[1] and key[2] == port.host_port for key in self._held):
            with contextlib.suppress(OSError):
                self._firewall.unrelay(port.protocol, port.host_port)

    def close(self) -> None:
        for relay in self._held.values():
            relay.close()
        self._held.clear()


class _Relay:
    """The reserving socket of one port, and what passes through it."""

    def __init__(self, protocol: str, target: tuple[str, int]) -> None:
        self._protocol = protocol
        self._target = target
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_STREAM if self._protocol == "tcp" else socket.SOCK_DGRAM
        listener = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self._protocol == "tcp":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            if self._protocol == "tcp":
                self._server = await asyncio.start_server(self._serve, sock=listener, backlog=128)
            else:
                loop = asyncio.get_running_loop()
                self._transport, _ = await loop.create_datagram_endpoint(lambda: _DatagramRelay(self._target), sock=listener)
        except BaseException:
            listener.close()
            raise

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with asyncio.timeout(30):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except (OSError, TimeoutError):
            writer.close()
            self._connections.discard(task)
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        except* OSError:
            pass
        finally:
            self._connections.discard(task)
            for end in (writer, far_writer):
                end.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._transport is not None:
            self._transport.close()
        for task in self._connections:
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


class _DatagramRelay(asyncio.DatagramProtocol):
    """Passes datagrams on, with a socket of its own for each sender, until it has been silent for a while."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._transport: asyncio.DatagramTransport | None = None
        self._senders: dict[tuple[str, int], socket.socket] = {}
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # the loop's own transports are of this kind, but not of this class before Python 3.12
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        far = self._senders.get(addr)
        if far is None:
            family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
            far = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            far.connect(self._target)
            self._senders[addr] = far
            loop.add_reader(far.fileno(), self._answer, addr, far)
        else:
            self._timers[addr].cancel()
        self._timers[addr] = loop.call_later(_UDP_IDLE_SECONDS, self._forget, addr)
        with contextlib.suppress(OSError):
            far.send(data)

    def _answer(self, addr: tuple[str, int], far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data = far.recv(_CHUNK)
            if self._transport is not None:
                self._transport.sendto(data, addr)

    def _forget(self, addr: tuple[str, int]) -> None:
        far = self._senders.pop(addr, None)
        timer = self._timers.pop(addr, None)
        if timer is not None:
            timer.cancel()
        if far is not None:
            asyncio.get_running_loop().remove_reader(far.fileno())
            far.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for addr in list(self._senders):
            self._forget(addr)
