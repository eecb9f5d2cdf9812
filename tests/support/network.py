"""Network namespaces as the machines of a test, and what speaks and listens in them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

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
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return made


class Answering:
    """Listens on a port of a namespace, TCP and UDP, and tells everyone who asks its name and who they are."""

    def __init__(self, namespace: Namespace, port: int, name: str = "here") -> None:
        self._name = name
        self._selector = selectors.DefaultSelector()
        self._ended, self._end = socket.socketpair()
        self._selector.register(self._ended, selectors.EVENT_READ)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = namespace.socket(kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::", port))
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
                            connection.sendall(self._answer(peer))
                    else:
                        _, peer = here.recvfrom(100)
                        here.sendto(self._answer(peer), peer)

    def _answer(self, peer: Sequence[Any]) -> bytes:
        return f"{self._name} {peer[0].removeprefix('::ffff:')}".encode()

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            here: Any = key.fileobj
            here.close()
        self._selector.close()


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
