"""Network namespaces as the machines of a test, and what speaks and listens in them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from boxship.syscalls import namespaces as ns

SECONDS = 5.0
"""How long an answer may take."""

SILENCE_SECONDS = 0.4
"""How long nothing must come where nothing may."""


class Namespace:
    """A network namespace by descriptor; the main thread can step into it, commands can run in it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def of(cls, pid: int) -> Namespace:
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls) -> Namespace:
        """A new one with its loopback up; it lives as long as its descriptor, or a process in it."""
        home = cls.of(os.getpid())
        ns.unshare(ns.CLONE_NEWNET)
        try:
            made = cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            ns.enter(home.descriptor, ns.CLONE_NEWNET)
            home.close()
        made.run("ip", "link", "set", "lo", "up")
        return made

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @property
    def wrapper(self) -> tuple[str, ...]:
        """What a command starts with to run in here."""
        return ("nsenter", f"--net={self.path}")

    def run(self, *command: str, check: bool = True, input: str | None = None) -> str:
        done = subprocess.run([*self.wrapper, *command], input=input, capture_output=True, text=True, timeout=30, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace for as long as the context lasts."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            ns.enter(self.descriptor, ns.CLONE_NEWNET)
            try:
                yield
            finally:
                ns.enter(home, ns.CLONE_NEWNET)
        finally:
            os.close(home)

    def socket(self, kind: int, *, family: int = socket.AF_INET6, protocol: int = 0) -> socket.socket:
        with self.entered():
            made = socket.socket(family, kind, protocol)
        if family == socket.AF_INET6 and kind != socket.SOCK_RAW:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return made


class Listening:
    """Listens on a port of a namespace, TCP and UDP; what it says is its subclass's."""

    def __init__(self, namespace: Namespace, port: int, address: str = "::") -> None:
        self._selector = selectors.DefaultSelector()
        self._ended, self._end = socket.socketpair()
        self._selector.register(self._ended, selectors.EVENT_READ)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = namespace.socket(kind, family=socket.AF_INET6 if ":" in address else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            if kind == socket.SOCK_STREAM:
                listener.listen(16)
            self._selector.register(listener, selectors.EVENT_READ, kind)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while True:
            for key, _ in self._selector.select():
                here: Any = key.fileobj
                if here is self._ended:
                    return
                with contextlib.suppress(OSError):
                    if key.data == socket.SOCK_STREAM:
                        connection, peer = here.accept()
                        with connection:
                            connection.settimeout(SECONDS)
                            self.connected(connection, peer)
                    else:
                        data, peer = here.recvfrom(4096)
                        here.sendto(self.answer(data, peer), peer)

    def connected(self, connection: socket.socket, peer: Sequence[Any]) -> None:
        connection.sendall(self.answer(b"", peer))

    def answer(self, data: bytes, peer: Sequence[Any]) -> bytes:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            here: Any = key.fileobj
            here.close()
        self._selector.close()


class Answering(Listening):
    """Tells everyone who asks its name and who they are."""

    def __init__(self, namespace: Namespace, port: int, name: str = "here", address: str = "::") -> None:
        super().__init__(namespace, port, address)
        self._name = name

    def answer(self, data: bytes, peer: Sequence[Any]) -> bytes:
        return f"{self._name} {peer[0].removeprefix('::ffff:')}".encode()


class NameServer(Listening):
    """A name server that knows some names, and remembers what it was asked."""

    def __init__(self, namespace: Namespace, names: dict[str, str], address: str = "::") -> None:
        super().__init__(namespace, 53, address)
        self._names = names
        self.asked: list[str] = []

    def connected(self, connection: socket.socket, peer: Sequence[Any]) -> None:
        length = int.from_bytes(connection.recv(2), "big")
        answer = self.answer(connection.recv(length, socket.MSG_WAITALL), peer)
        connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, data: bytes, peer: Sequence[Any]) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        response = dns.message.make_response(query)
        if name not in self._names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", self._names[name]))
        return response.to_wire()


def look_up(
    namespace: Namespace, name: str, kind: str = "A", *, server: str = "127.0.0.11", stream: bool = False
) -> list[str] | str:
    """What a name server says to whoever asks from the namespace: its answers, or its refusal's name."""
    query = dns.message.make_query(name, kind)
    with namespace.entered():
        ask_ = dns.query.tcp if stream else dns.query.udp
        response = ask_(query, server, timeout=SECONDS)
    if response.rcode() != dns.rcode.NOERROR:
        return dns.rcode.to_text(response.rcode())
    return sorted(item.to_text() for answer in response.answer for item in answer)


def ask(namespace: Namespace, address: str, port: int, protocol: str = "tcp", *, seconds: float = SECONDS) -> str:
    """What answers there to whoever asks from the namespace; raises `OSError` where nothing does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with namespace.socket(kind, family=family) as asking:
        asking.settimeout(seconds)
        asking.connect((address, port))
        if protocol == "udp":
            asking.send(b"who")
            return asking.recv(100).decode()
        found = b""
        while part := asking.recv(100):
            found += part
        if not found:
            raise ConnectionResetError("closed without an answer")
        return found.decode()


def silent(namespace: Namespace, address: str, port: int, protocol: str = "tcp") -> bool:
    """Whether nothing answers there."""
    try:
        ask(namespace, address, port, protocol, seconds=SILENCE_SECONDS)
    except OSError:
        return True
    return False
