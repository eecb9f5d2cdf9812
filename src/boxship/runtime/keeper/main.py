"""The keeper's work: requests in, processes started, exits reported."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Final

from boxship.runtime import cgroups, protocol
from boxship.runtime.container.launch import JOINED, Wiring, become_container, join_container
from boxship.runtime.failure import StartFailure, describe
from boxship.runtime.keeper.held import Container, Held
from boxship.runtime.keeper.logs import LogWriter
from boxship.runtime.keeper.loop import Loop
from boxship.runtime.keeper.stdio import Stdio
from boxship.runtime.protocol import Log, Message
from boxship.syscalls import namespaces as ns
from boxship.syscalls import process as p

_IDLE_SECONDS: Final = 10.0
"""How long a keeper with nothing to keep waits for a daemon before it ends."""

_OWN_PIDS: Final = "/proc/self/ns/pid"

Descriptors = list[int]


class Refused(Exception):
    """Raised where a request cannot be done as asked; its text is the reply's error."""


class Keeper:
    """Everything held: containers, the exits nobody has acknowledged, the daemon's connection."""

    def __init__(self, exec_root: str) -> None:
        self._loop = Loop()
        self._cgroups = cgroups.detect()
        self._containers: dict[str, Container] = {}
        self._waiting: dict[tuple[str, str], Stdio] = {}
        self._exits: dict[tuple[str, str], Message] = {}
        self._leftover_cgroups: list[str] = []
        self._connections: set[socket.socket] = set()
        self._programs: dict[int, bytes] = {}
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._own_pids = os.open(_OWN_PIDS, os.O_RDONLY | os.O_CLOEXEC)
        self._staging = os.path.join(exec_root, "root")
        os.makedirs(self._staging, 0o700, exist_ok=True)
        self._path = os.path.join(exec_root, "keeper.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        temporary = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        self._listener.bind(temporary)
        os.chmod(temporary, 0o600)
        self._listener.listen(8)
        os.rename(temporary, self._path)
        self._loop.watch(self._listener.fileno(), lambda _: self._accept())
        self._ending = False
        self._files = _raise_file_limit()
        self._operations: dict[str, Callable[[Message, Descriptors, Callable[..., None]], None]] = {
            "start": self._start,
            "exec": self._exec,
            "attach": self._attach,
            "discard": self._discard,
            "resize": self._resize,
            "signal": self._signal,
            "freeze": self._freeze,
            "update": self._update,
            "list": self._list,
            "acknowledge": self._acknowledge,
            "shutdown": self._shutdown,
        }

    def run(self) -> None:
        idle_since = time.monotonic()
        while not self._ending:
            busy = self._loop.run_once(1.0 if self._leftover_cgroups else 5.0)
            if self._leftover_cgroups:
                self._leftover_cgroups = [path for path in self._leftover_cgroups if not self._cgroups.delete(path)]
            if busy or self._containers or self._connections or self._exits:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _IDLE_SECONDS:
                break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # whoever it was has gone
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._connections.add(connection)
        self._loop.watch(connection.fileno(), lambda _: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        try:
            received = protocol.receive(connection)
        except (OSError, ValueError, TypeError):
            received = None  # gone, or beyond understanding
        if received is None:
            self._loop.forget(connection.fileno())
            self._connections.discard(connection)
            connection.close()
            return
        message, descriptors = received
        number = message.get("number", 0)

        def reply(body: Message, attached: tuple[int, ...] = ()) -> None:
            body["number"] = number
            self._say(connection, body, attached)

        try:
            self._operations[message["op"]](message, descriptors, reply)
        except StartFailure as failure:
            reply({"stage": failure.stage, "error": failure.message, "errno": failure.errno})
        except Refused as refused:
            reply({"stage": "request", "error": str(refused), "errno": 0})
        except OSError as error:
            reply({"stage": "request", "error": describe(error), "errno": error.errno or 0})
        except Exception as error:  # one bad request must not end what holds every container
            reply({"stage": "internal", "error": f"{type(error).__name__}: {error}", "errno": 0})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _say(self, connection: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(OSError):
            protocol.send(connection, message, descriptors)

    # --- starting ---

    def _start(self, message: Message, descriptors: Descriptors, reply: Callable[..., None]) -> None:
        container_id: str = message["id"]
        if container_id in self._containers:
            raise Refused(f"container {container_id} is running already")
        given = list(descriptors)
        netns = given.pop(0) if message["netns"] else None
        seccomp = _read_program(given.pop(0)) if message["seccomp"] else None
        spec: dict[str, Any] = message["spec"]
        joins = self._prepare_cgroup(message["cgroup"], spec["linux"].get("resources") or {})
        stdio = self._stdio(container_id, "", stdin_once=message["stdin_once"])
        try:
            log = Log(**message["log"])
            if log.path:
                stdio.log = LogWriter(log)
            held = Held(self._loop, container_id, "", stdio, self._container_ended)
            container = Container(held, message, joins)
            flags, pid_path = _clone_flags(spec)

            def child(wiring: Wiring) -> None:
                become_container(spec, message["root"], wiring, netns, init=message["init"])

            self._clone(held, flags, pid_path, child, spec["process"], joins, seccomp, reply, stdin=message["open_stdin"])
        except BaseException:
            stdio.drain()
            self._drop_cgroup(message["cgroup"])
            raise
        self._containers[container_id] = container

    def _exec(self, message: Message, descriptors: Descriptors, reply: Callable[..., None]) -> None:
        container = self._running(message["id"])
        if container.frozen:
            raise Refused(f"container {message['id']} is paused, unpause the container before exec")
        seccomp = _read_program(descriptors[0]) if message["seccomp"] else None
        stdio = self._stdio(message["id"], message["exec_id"], stdin_once=True)
        held = Held(self._loop, message["id"], message["exec_id"], stdio, self._exec_ended)
        pidfd = container.held.pidfd
        process = message["process"]

        def child(wiring: Wiring) -> None:
            join_container(process, pidfd, wiring)

        try:
            self._clone(held, 0, pidfd, child, process, container.joins, seccomp, reply, stdin=message["open_stdin"])
        except BaseException:
            stdio.drain()
            raise
        container.execs[message["exec_id"]] = held

    def _clone(
        self, held: Held, flags: int, pids: int | str | None, child: Callable[[Wiring], None], process: Message,
        joins: list[str], seccomp: bytes | None, reply: Callable[..., None], *, stdin: bool,
    ) -> None:  # fmt: skip
        """Clone a child that runs `child`; with `pids` it is born into that pid namespace."""
        mine: list[int] = []  # the keeper's ends, as long as nothing has taken them over
        childs: list[int] = []
        stdio: tuple[int, int, int] | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            if not process.get("terminal"):
                (out_read, out_write), (err_read, err_write) = _pipe(mine, childs), _pipe(mine, childs)
                in_write, in_read = _pipe(childs, mine)[::-1] if stdin else (-1, self._null)
                stdio = (in_read, out_write, err_write)
            pid, pidfd = self._clone_into(
                flags, pids, ours, lambda: child(Wiring(theirs, joins, stdio, seccomp, self._staging, self._files))
            )
        except BaseException:
            for descriptor in mine:
                os.close(descriptor)
            ours.close()
            raise
        finally:
            theirs.close()
            for descriptor in childs:
                os.close(descriptor)
        held.cloned(pid, pidfd, ours, reply, stdin=stdin)
        if stdio is not None:
            held.stdio.connect(in_write, out_read, err_read)

    def _clone_into(self, flags: int, pids: int | str | None, ours: socket.socket, child: Callable[[], None]) -> tuple[int, int]:
        born = None
        if isinstance(pids, str):
            pids = born = os.open(pids, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if pids is not None:
                ns.enter(pids, ns.CLONE_NEWPID)
            pid, pidfd = p.clone(flags)
            if pid == 0:
                ours.close()
                child()
                os._exit(1)
        finally:
            if pids is not None:
                ns.enter(self._own_pids, ns.CLONE_NEWPID)
            if born is not None:
                os.close(born)
        return pid, pidfd

    def _prepare_cgroup(self, path: str, resources: Message) -> list[str]:
        try:
            joins = self._cgroups.create(path)
            self._cgroups.apply(path, resources)
        except OSError as error:
            self._drop_cgroup(path)
            raise StartFailure("cgroup", f"setting the control group up: {describe(error)}", error.errno or 0) from error
        except BaseException:
            self._drop_cgroup(path)
            raise
        return joins

    def _drop_cgroup(self, path: str) -> None:
        if not self._cgroups.delete(path):
            self._leftover_cgroups.append(path)

    def _stdio(self, container: str, exec_id: str, *, stdin_once: bool) -> Stdio:
        waiting = self._waiting.pop((container, exec_id), None)
        stdio = waiting or Stdio(self._loop, stdin_once=stdin_once)
        stdio.stdin_once = stdin_once
        stdio.deserted = None
        return stdio

    # --- ending ---

    def _container_ended(self, held: Held) -> None:
        container = self._containers.pop(held.container)
        if not container.own_pids:
            container.kill_rest(self._cgroups.processes(container.cgroup))
        oom_killed = self._cgroups.oom_kills(container.cgroup) > 0
        if held.failure is None:
            self._report(held, oom_killed=oom_killed)
        self._drop_cgroup(container.cgroup)

    def _exec_ended(self, held: Held) -> None:
        container = self._containers.get(held.container)
        if container is not None:
            container.execs.pop(held.exec_id, None)
        if held.failure is None:
            self._report(held, oom_killed=False)

    def _report(self, held: Held, *, oom_killed: bool) -> None:
        message = held.exited(oom_killed=oom_killed)
        self._exits[held.container, held.exec_id] = message
        for connection in self._connections:
            self._say(connection, message)

    # --- the rest ---

    def _running(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise Refused(f"container {container_id} is not running")
        return container

    def _process(self, message: Message) -> Held:
        container = self._running(message["id"])
        if not message.get("exec_id"):
            return container.held
        held = container.execs.get(message["exec_id"])
        if held is None:
            raise Refused(f"exec {message['exec_id']} is not running")
        return held

    def _attach(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        key = (message["id"], message["exec_id"])
        container = self._containers.get(message["id"])
        held = container and (container.execs.get(message["exec_id"]) if message["exec_id"] else container.held)
        stdio = held.stdio if held else self._waiting.get(key)
        if stdio is None:
            stdio = self._waiting[key] = Stdio(self._loop, stdin_once=True)
            stdio.deserted = lambda: self._waiting.pop(key, None)
        attachment = stdio.attach(stdin=message["stdin"], stdout=message["stdout"], stderr=message["stderr"], raw=message["tty"])
        assert attachment.theirs is not None
        with attachment.theirs as theirs:
            attachment.theirs = None
            reply({}, (theirs.fileno(),))

    def _discard(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        stdio = self._waiting.pop((message["id"], message["exec_id"]), None)
        if stdio is not None:
            stdio.drain()
        reply({})

    def _resize(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        terminal = self._process(message).stdio.terminal
        if terminal >= 0:
            size = struct.pack("HHHH", message["height"], message["width"], 0, 0)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        reply({})

    def _signal(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        held = self._process(message)
        held.signal(message["signal"])
        container = self._containers[message["id"]]
        if message["signal"] == signal.SIGKILL and not held.exec_id:
            if not container.own_pids:
                container.kill_rest(self._cgroups.processes(container.cgroup))
            if container.frozen:
                self._cgroups.freeze(container.cgroup, frozen=False)
                container.frozen = False
        reply({})

    def _freeze(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        container = self._running(message["id"])
        self._cgroups.freeze(container.cgroup, message["frozen"])
        container.frozen = message["frozen"]
        reply({})

    def _update(self, message: Message, _: Descriptors, reply: Callable[..., None]) -> None:
        self._cgroups.apply(self._running(message["id"]).cgroup, message["resources"])
        reply({})

    def _list(self, _: Message, __: Descriptors, reply: Callable[..., None]) -> None:
        running = [
            {
                "id": container_id,
                "pid": container.held.pid,
                "frozen": container.frozen,
                "execs": {exec_id: held.pid for exec_id, held in container.execs.items()},
            }
            for container_id, container in self._containers.items()
        ]
        reply({"containers": running, "exits": [message["exited"] for message in self._exits.values()]})

    def _acknowledge(self, message: Message, _: Descriptors, __: Callable[..., None]) -> None:
        self._exits.pop((message["id"], message["exec_id"]), None)

    def _shutdown(self, _: Message, __: Descriptors, reply: Callable[..., None]) -> None:
        if self._containers:
            raise Refused(f"{len(self._containers)} containers are running")
        if self._exits:
            raise Refused(f"{len(self._exits)} exits have not been recorded yet")
        self._ending = True
        reply({})


def _clone_flags(spec: Message) -> tuple[int, str | None]:
    """The namespaces to be born into anew, and the path of a pid namespace to join."""
    flags, pid_path = 0, None
    for entry in spec["linux"]["namespaces"]:
        kind, path = entry["type"], entry.get("path")
        if kind == "pid" and path:
            pid_path = path
        elif not path and kind != "cgroup":
            flags |= JOINED[kind]
    return flags | ns.CLONE_NEWNS, pid_path


def _pipe(readers: list[int], writers: list[int]) -> tuple[int, int]:
    """A pipe whose ends are noted where they belong."""
    read, write = os.pipe2(os.O_CLOEXEC)
    readers.append(read)
    writers.append(write)
    return read, write


def _raise_file_limit() -> tuple[int, int]:
    """Every container takes a handful of descriptors: allow as many as may be. What the limit was is for the containers."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def _read_program(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


def main(exec_root: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    p.prctl(p.PR_SET_DUMPABLE, 0)
    with open("/proc/self/comm", "w") as file:
        file.write("boxship-keeper")
    keeper = Keeper(exec_root)
    gc.collect()
    gc.freeze()
    gc.disable()
    keeper.run()
