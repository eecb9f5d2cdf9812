"""The embedded name server: messages in, messages out; then over real sockets with an upstream of our own."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from boxship.network import dns as module
from boxship.network import resolvers
from boxship.network.dns import Resolver, failure
from boxship.network.links import Address

NAMES: dict[str, list[Address]] = {
    "web": [ipaddress.ip_address("10.1.0.2"), ipaddress.ip_address("fd00::2")],
    "db": [ipaddress.ip_address("10.1.0.3")],
    "many": [ipaddress.ip_address(f"10.1.1.{number}") for number in range(1, 100)],
}


def lookup(name: str) -> list[Address] | None:
    return NAMES.get(name)


def reverse(address: Address) -> str | None:
    return "web.net" if str(address) in ("10.1.0.2", "fd00::2") else None


def sockets() -> tuple[socket.socket, socket.socket]:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    datagrams.bind(("127.0.0.1", 0))
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    stream.bind(("127.0.0.1", 0))
    stream.listen()
    return datagrams, stream


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[list[str]], Resolver]]:
    made: list[Resolver] = []

    def make(upstreams: list[str]) -> Resolver:
        made.append(Resolver(*sockets(), lookup, reverse, lambda: upstreams))
        return made[-1]

    yield make
    for resolver in made:
        resolver.close()
        for own in resolver._sockets:
            own.close()


def query(name: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def answered(resolver: Resolver, wire: bytes) -> dns.message.Message:
    answer = resolver.answer(wire)
    assert answer
    return dns.message.from_wire(answer)


Serve = Callable[[list[str]], Resolver]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", "A", ["10.1.0.2"]), ("web.", "A", ["10.1.0.2"]), ("WeB", "A", ["10.1.0.2"]), ("web", "AAAA", ["fd00::2"]),
        ("db", "AAAA", []), ("db", "MX", []), ("web", "ANY", []), ("2.0.1.10.in-addr.arpa", "PTR", ["web.net."]),
        (ipaddress.ip_address("fd00::2").reverse_pointer, "PTR", ["web.net."]),
    ],
)  # fmt: skip
async def test_names_of_ours(serve: Serve, name: str, kind: str, expected: list[str]) -> None:
    message = answered(serve(["192.0.2.1"]), query(name, kind))
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags & dns.flags.QR
    assert message.flags & dns.flags.RA
    assert [str(record) for rrset in message.answer for record in rrset] == expected


async def test_the_question_and_its_number_come_back(serve: Serve) -> None:
    asked = dns.message.make_query("web", "A")
    message = answered(serve([]), asked.to_wire())
    assert message.id == asked.id
    assert message.question == asked.question


@pytest.mark.parametrize("name", ["example.com", "web.other", "unknown"])
async def test_other_names_are_forwarded(serve: Serve, name: str) -> None:
    assert serve(["192.0.2.1"]).answer(query(name)) is None


async def test_without_anyone_to_ask_a_plain_name_does_not_exist(serve: Serve) -> None:
    resolver = serve([])
    assert answered(resolver, query("unknown")).rcode() == dns.rcode.NXDOMAIN
    assert resolver.answer(query("example.com")) is None


async def test_an_unknown_address_is_forwarded(serve: Serve) -> None:
    assert serve([]).answer(query("9.9.9.10.in-addr.arpa", "PTR")) is None
    assert serve([]).answer(query("nonsense.in-addr.arpa", "PTR")) is None


@pytest.mark.parametrize("data", [b"", b"\0", bytes(12), bytes(11), b"\xff" * 40, query("web")[:-1], b"GET / HTTP/1.1\r\n\r\n"])
async def test_what_is_no_query_gets_no_answer(serve: Serve, data: bytes) -> None:
    assert serve([]).answer(data) == b""


async def test_an_answer_is_not_answered(serve: Serve) -> None:
    """Two resolvers that answer each other's answers never stop."""
    response = dns.message.make_response(dns.message.make_query("web", "A"))
    assert serve([]).answer(response.to_wire()) == b""


async def test_an_answer_too_long_for_a_datagram_says_so(serve: Serve) -> None:
    resolver = serve([])
    whole = answered(resolver, query("many"))
    assert len(whole.answer[0]) == 99
    short = resolver.answer(query("many"), datagram=True)
    assert short is not None
    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    large = resolver.answer(query("many", use_edns=0, payload=4096), datagram=True)
    assert large is not None
    assert not dns.message.from_wire(large).flags & dns.flags.TC


def test_failures_are_answers_to_the_question() -> None:
    asked = dns.message.make_query("web", "A")
    for code in (2, 3):
        message = dns.message.from_wire(failure(asked.to_wire(), code))
        assert (message.rcode(), message.id, message.question) == (code, asked.id, asked.question)
        assert message.flags & dns.flags.QR
    assert failure(b"short") == b""


class Upstream(asyncio.DatagramProtocol):
    """Answers every name under test. with 192.0.2.7; after a datagram that is not meant for the asker."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = dns.message.from_wire(data)
        response = dns.message.make_response(asked)
        response.answer.append(dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", "192.0.2.7"))
        forged = bytearray(response.to_wire())
        forged[0] ^= 0xFF
        self.transport.sendto(bytes(forged), addr)
        self.transport.sendto(response.to_wire(), addr)


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(struct.unpack(">H", await reader.readexactly(2))[0])
        answer = dns.message.make_response(dns.message.from_wire(data)).to_wire()
        writer.write(struct.pack(">H", len(answer)) + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", port)
    monkeypatch.setattr(module, "PORT", port)
    monkeypatch.setattr(module, "FORWARD_SECONDS", 0.2)
    yield "127.0.0.1"
    transport.close()
    server.close()


async def ask_datagram(port: int, data: bytes) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        await loop.sock_connect(asking, ("127.0.0.1", port))
        await loop.sock_sendall(asking, data)
        return dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(asking, 4096), 5))


async def test_over_the_sockets(serve: Serve, upstream: str) -> None:
    resolver = serve(["127.0.0.9", upstream])
    await resolver.serve()
    datagrams, stream = resolver.ports
    assert [str(record) for record in (await ask_datagram(datagrams, query("web"))).answer[0]] == ["10.1.0.2"]
    assert [str(record) for record in (await ask_datagram(datagrams, query("far.test"))).answer[0]] == ["192.0.2.7"]
    assert (await ask_datagram(datagrams, query("many"))).flags & dns.flags.TC
    reader, writer = await asyncio.open_connection("127.0.0.1", stream)
    for name, answers in (("many", 99), ("web", 1), ("far.test", 0)):
        data = query(name)
        writer.write(struct.pack(">H", len(data)) + data)
        length = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 5))[0]
        message = dns.message.from_wire(await reader.readexactly(length))
        assert sum(len(rrset) for rrset in message.answer) == answers
    writer.close()


async def test_where_nobody_answers_the_failure_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORWARD_SECONDS", 0.1)
    resolver = serve(["127.0.0.9"])
    await resolver.serve()
    assert (await ask_datagram(resolver.ports[0], query("far.test"))).rcode() == dns.rcode.SERVFAIL


async def test_who_asks_too_much_at_once_is_refused_but_for_our_own_names(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    monkeypatch.setattr(module, "PORT", silent.getsockname()[1])
    resolver = serve(["127.0.0.1"])
    await resolver.serve()
    with silent, socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect(("127.0.0.1", resolver.ports[0]))
        for number in range(module.CONCURRENT_LIMIT):
            asking.send(query(f"n{number}.example.com"))
            await asyncio.sleep(0)
        silent.settimeout(5)
        for _ in range(module.CONCURRENT_LIMIT):
            await asyncio.to_thread(silent.recv, 512)
        assert (await ask_datagram(resolver.ports[0], query("more.example.com"))).rcode() == dns.rcode.REFUSED
        assert (await ask_datagram(resolver.ports[0], query("db"))).rcode() == dns.rcode.NOERROR


def test_the_hosts_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# c\nnameserver 127.0.0.53 # local\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n"
                    "domain old\nsearch a.b c\noptions ndots:2 edns0\noptions rotate\nnameserver\nsortlist x\n")  # fmt: skip
    config = resolvers.read(file)
    assert config.servers == ("127.0.0.53", "10.0.0.1", "::1", "fe80::1%eth0")
    assert config.search == ("a.b", "c")
    assert config.options == ("ndots:2", "edns0", "rotate")
    assert resolvers.reachable(config).servers == ("10.0.0.1", "fe80::1%eth0")
    assert resolvers.reachable(resolvers.ResolverConfig(("127.0.0.1",), (), ())).servers == resolvers.FALLBACK
    assert resolvers.read(tmp_path / "absent") == resolvers.ResolverConfig((), (), ())
    assert config.render() == (
        "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nsearch a.b c\n"
        "options ndots:2 edns0 rotate\n"
    )
