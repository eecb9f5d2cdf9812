"""A keeper of its own, spoken to as the daemon does, with a root that holds nothing but busybox."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boxship.containers import specification
from boxship.containers.config import ContainerConfig, HostConfig
from boxship.containers.environment import process_environment
from boxship.containers.model import Container, State
from boxship.errors import Unavailable
from boxship.runtime import cgroups
from boxship.runtime.client import SOCKET_NAME, KeeperClient, spawn_keeper
from boxship.runtime.protocol import Acknowledge, Attach, Exec, Exited, List, Log, Reply, Request, Shutdown, Signal, Start
from boxship.runtime.seccomp import Seccomp
from boxship.snapshots.contract import RootMount

SECONDS = 20.0

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User:/home/user:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"


def make_busybox(root: Path) -> Path:
    """A directory that is a root with busybox and two users in it."""
    for name in ("bin", "dev", "proc", "sys", "etc", "tmp", "root", "home/user"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for name in (
        "sh", "cat", "echo", "sleep", "true", "false", "id", "ls", "grep", "stty", "ps", "dd", "head", "tail",
        "wc", "seq", "env", "hostname", "mount", "ip", "ping", "nc", "wget", "httpd", "nslookup", "mknod",
        "touch", "kill", "readlink", "stat", "sha256sum", "mkdir", "rm", "cut", "tr", "awk", "chroot",
        "unshare", "su", "test", "sync", "yes", "printf", "find", "dmesg", "date",
    ):  # fmt: skip
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    return root


class Stream:
    """An attached stream, read as Docker's frames or raw."""

    def __init__(self, connection: socket.socket, *, tty: bool) -> None:
        self.socket = connection
        self.tty = tty
        self.output: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._rest = bytearray()
        self.ended = False
        connection.settimeout(SECONDS)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close_input(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read_some(self) -> bool:
        """Take one piece; False at the end."""
        data = self.socket.recv(65536)
        if not data:
            self.ended = True
            return False
        if self.tty:
            self.output[1] += data
            return True
        self._rest += data
        while len(self._rest) >= 8:
            kind, length = struct.unpack(">BxxxI", self._rest[:8])
            if len(self._rest) < 8 + length:
                break
            self.output[kind] += self._rest[8 : 8 + length]
            del self._rest[: 8 + length]
        return True

    def read_until(self, expected: bytes, stream: int = 1) -> bytes:
        while expected not in self.output[stream]:
            assert self.read_some(), f"ended without {expected!r}: {self.output}"
        return bytes(self.output[stream])

    def read_all(self) -> tuple[bytes, bytes]:
        while self.read_some():
            pass
        assert not self._rest
        return bytes(self.output[1]), bytes(self.output[2])

    def close(self) -> None:
        self.socket.close()


@dataclass
class Run:
    """How a container is to be run."""

    args: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    init: bool = False
    seccomp: bool = True
    netns: int | None = None
    mounts: list[dict[str, Any]] = field(default_factory=list)
    change: Callable[[dict[str, Any]], None] = lambda spec: None


class Runtime:
    """A keeper and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.exec_root = directory / "run"
        self.exec_root.mkdir(parents=True)
        self.busybox = make_busybox(directory / "busybox")
        self.group = f"/boxship-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.cgroups = cgroups.detect()
        self.cgroups.create(self.group)
        self.seccomp = Seccomp(directory / "seccomp")
        self.exits: list[Exited] = []
        self.started: set[str] = set()
        self.streams: list[Stream] = []
        self.keeper_pid = spawn_keeper(self.exec_root)
        self.client = self.connect()

    # --- the connection ---

    def connect(self) -> KeeperClient:
        return KeeperClient(self.exec_root / SOCKET_NAME)

    def reconnect(self) -> None:
        """Go, as a daemon that was killed, and come back."""
        self.client.close()
        self.exits.clear()
        self.client = self.connect()

    def _wait(self, deadline: float) -> Reply | None:
        ready, _, _ = select.select([self.client], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "the keeper says nothing"
        message = self.client.receive()
        if isinstance(message, Exited):
            self.exits.append(message)
            return None
        return message

    def ask(self, request: Request, descriptors: tuple[int, ...] = ()) -> Reply:
        number = self.client.send(request, descriptors)
        deadline = time.monotonic() + SECONDS
        while True:
            reply = self._wait(deadline)
            if reply is not None and reply.number == number:
                return reply

    def exit_of(self, identity: str, exec_id: str = "") -> Exited:
        """Wait for an end, and acknowledge it."""
        deadline = time.monotonic() + SECONDS
        while True:
            for exited in self.exits:
                if (exited.id, exited.exec_id) == (identity, exec_id):
                    self.exits.remove(exited)
                    self.client.send(Acknowledge(identity, exec_id))
                    self.started.discard(identity) if not exec_id else None
                    return exited
            self._wait(deadline)

    # --- containers ---

    def container(self, identity: str, run: Run) -> Container:
        config = ContainerConfig(**{"hostname": identity[:12], "env": ["PATH=/bin"], **run.config})
        host = HostConfig(**{"network_mode": "none", "ipc_mode": "private", **run.host})
        return Container(identity, identity[:8], 0, "", "", run.args[0], run.args[1:], config, host, {}, [], State())

    def root(self, identity: str) -> RootMount:
        place = self.directory / "roots" / identity
        for name in ("upper", "work"):
            (place / name).mkdir(parents=True, exist_ok=True)
        return RootMount((str(self.busybox),), str(place / "upper"), str(place / "work"))

    def upper(self, identity: str) -> Path:
        return Path(self.root(identity).upper)

    def cgroup(self, identity: str) -> str:
        return f"{self.group}/{identity}"

    def spec(self, identity: str, run: Run) -> dict[str, Any]:
        container = self.container(identity, run)
        around = specification.Surroundings(
            self.cgroups, self.cgroup(identity), lambda _: 0, str(self.directory / "none"), run.mounts
        )  # fmt: skip
        spec = specification.build(container, around)
        spec["process"]["env"] = process_environment(container.config)
        if run.netns is None:
            spec["linux"]["namespaces"].append({"type": "network"})
        run.change(spec)
        return spec

    def request_start(self, run: Run, identity: str = "") -> tuple[str, Reply]:
        identity = identity or secrets.token_hex(32)
        container = self.container(identity, run)
        spec = self.spec(identity, run)
        descriptors = []
        if run.netns is not None:
            descriptors.append(run.netns)
        program = -1
        if run.seccomp:
            program = os.memfd_create("program", os.MFD_CLOEXEC)
            os.write(program, self.seccomp.default(spec["process"]["capabilities"]["bounding"]))
            descriptors.append(program)
        request = Start(
            identity, spec, asdict(self.root(identity)), self.cgroup(identity), run.log, container.config.open_stdin,
            container.config.stdin_once, run.init, run.netns is not None, run.seccomp,
        )  # fmt: skip
        try:
            reply = self.ask(request, tuple(descriptors))
        finally:
            if program >= 0:
                os.close(program)
        if reply.error is None:
            self.started.add(identity)
        return identity, reply

    def start(self, run: Run, identity: str = "") -> tuple[str, int]:
        """Start a container: its id, and its process id."""
        identity, reply = self.request_start(run, identity)
        assert reply.error is None, reply.body
        return identity, int(reply.body["pid"])

    def attach(self, identity: str, exec_id: str = "", *, stdin: bool = True, stdout: bool = True, tty: bool = False) -> Stream:
        reply = self.ask(Attach(identity, exec_id, stdin, stdout, True, tty))
        assert reply.error is None, reply.body
        stream = Stream(socket.socket(fileno=reply.descriptors[0]), tty=tty)
        self.streams.append(stream)
        return stream

    def run(self, *args: str, **options: Any) -> tuple[int, bytes, bytes]:
        """Run to the end: the exit code and the output."""
        identity = secrets.token_hex(32)
        stream = self.attach(identity, stdin=False, tty=bool(options.get("config", {}).get("tty")))
        _, reply = self.request_start(Run(list(args), **options), identity)
        assert reply.error is None, reply.body
        out, err = stream.read_all()
        stream.close()
        return self.exit_of(identity).code, out, err

    def shell(self, script: str, **options: Any) -> str:
        """What a script says on stdout; it must succeed."""
        code, out, err = self.run("sh", "-ec", script, **options)
        assert code == 0, (code, out, err)
        return out.decode()

    def exec(self, identity: str, *args: str, stdin: bool = False, process: dict[str, Any] | None = None) -> tuple[str, Reply]:
        exec_id = secrets.token_hex(8)
        base = self.spec(identity, Run(list(args)))["process"]
        reply = self.ask(Exec(identity, exec_id, {**base, **(process or {})}, stdin))
        return exec_id, reply

    def exec_output(self, identity: str, *args: str, process: dict[str, Any] | None = None) -> tuple[int, bytes, bytes]:
        exec_id = secrets.token_hex(8)
        stream = self.attach(identity, exec_id, stdin=False)
        base = self.spec(identity, Run(list(args)))["process"]
        reply = self.ask(Exec(identity, exec_id, {**base, **(process or {})}))
        assert reply.error is None, reply.body
        out, err = stream.read_all()
        stream.close()
        return self.exit_of(identity, exec_id).code, out, err

    def kill(self, identity: str) -> Exited:
        self.ask(Signal(identity, signal.SIGKILL))
        return self.exit_of(identity)

    # --- the end ---

    def close(self) -> None:
        """End every container and the keeper; nothing of them is left."""
        for stream in self.streams:
            stream.close()
        with contextlib.suppress(Unavailable, AssertionError):
            self.reconnect()
            for entry in self.ask(List()).body["containers"]:
                self.kill(entry["id"])
            deadline = time.monotonic() + SECONDS
            while self.ask(Shutdown()).error is not None and time.monotonic() < deadline:
                time.sleep(0.01)
        self.client.close()
        ended = False
        deadline = time.monotonic() + SECONDS
        while not ended:
            try:
                ended = os.waitpid(self.keeper_pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                ended = True
            if not ended and time.monotonic() > deadline:
                os.kill(self.keeper_pid, signal.SIGKILL)
            if not ended:
                time.sleep(0.005)
        deadline = time.monotonic() + SECONDS
        while not self.cgroups.delete(self.group) and time.monotonic() < deadline:
            time.sleep(0.01)


@contextmanager
def runtime(directory: Path) -> Iterator[Runtime]:
    made = Runtime(directory)
    try:
        yield made
    finally:
        made.close()
