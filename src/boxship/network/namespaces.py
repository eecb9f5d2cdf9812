"""Network namespaces, made on a thread of their own and handed on as descriptors.

A namespace has no name anywhere: it lives as long as a descriptor or a process holds it, and the kernel takes
its links away with it. So nothing can be left behind, whatever is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from boxship.network import links
from boxship.syscalls import namespaces as ns
from boxship.syscalls.netlink import Netlink

T = TypeVar("T")

_SETTINGS = (
    # a container's port 80 is its own to give, and so is its ping
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    # IPv6 is for interfaces that are given an address; these are known to be free, and a bridge port that sends
    # a container's packets back to it would make it take itself for a rival
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
)

_SELF = "/proc/thread-self/ns/net"


class Workshop:
    """A thread that may leave the host's network namespace for a while; what it does, it does in turn."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="network-namespaces", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self._host = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
        self._route = links.open_route()
        while (job := self._jobs.get()) is not None:
            job()
        self._route.close()
        os.close(self._host)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function on the thread."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return  # whoever asked has gone; the thread must not
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._jobs.put(job)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    @property
    def route(self) -> Netlink:
        """The host's rtnetlink socket; for functions on the thread."""
        return self._route

    def make(self) -> int:
        """A new namespace with its loopback up, as a descriptor; for functions on the thread."""
        ns.unshare(ns.CLONE_NEWNET)
        try:
            for path, value in _SETTINGS:
                set_sysctl(path, value)
            descriptor = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
            inside = links.open_route()
            try:
                inside.request([links.set_up(1)])
            finally:
                inside.close()
            return descriptor
        finally:
            ns.enter(self._host, ns.CLONE_NEWNET)

    def inside(self, namespace: int, function: Callable[[], T]) -> T:
        """Call a function with the thread in the namespace; for functions on the thread."""
        ns.enter(namespace, ns.CLONE_NEWNET)
        try:
            return function()
        finally:
            ns.enter(self._host, ns.CLONE_NEWNET)


def set_sysctl(name: str, value: str) -> None:
    """Set a value below /proc/sys/net of the calling thread's namespace; a kernel that has none of the name is left."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)


def open_resolver_sockets(ports: list[int]) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets at 127.0.0.11 in the calling thread's namespace, on the given ports or the kernel's."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    datagrams.bind(("127.0.0.11", ports[0] if ports else 0))
    stream.bind(("127.0.0.11", ports[1] if len(ports) > 1 else 0))
    stream.listen(16)
    return datagrams, stream
