"""What the daemon and the keeper say to each other.

One message is one packet of a unix SOCK_SEQPACKET socket: a JSON object, with file descriptors beside it. A
message too large for a packet travels in a memfd, which is then the last descriptor. Requests carry a
`number`, which the reply repeats; an `exited` message comes unasked and is repeated until acknowledged.
"""

from __future__ import annotations

import array
import json
import os
import socket
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

Message = dict[str, Any]

PACKET_LIMIT: Final = 96 * 1024
"""The largest JSON text sent as a packet, in bytes; larger ones travel in a memfd."""

_MAX_DESCRIPTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Log:
    """Where a container's output goes: `path` empty for no log; sizes in bytes, 0 for no rotation."""

    path: str = ""
    max_size: int = 0
    max_files: int = 1
    attributes: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container. Descriptors: by `netns` and `seccomp`, in this order, where they are true."""

    id: str
    spec: Message
    root: Message
    cgroup: str
    log: Log = field(default_factory=Log)
    open_stdin: bool = False
    stdin_once: bool = False
    init: bool = False
    netns: bool = False
    seccomp: bool = False
    op: str = "start"


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a process (an OCI `Process`) in a running container. Descriptor: by `seccomp`."""

    id: str
    exec_id: str
    process: Message
    open_stdin: bool = False
    seccomp: bool = False
    op: str = "exec"


@dataclass(frozen=True, slots=True)
class Attach:
    """Join the stdio of a container (`exec_id` empty) or an exec.

    The reply carries a stream socket: raw both ways with a terminal, else output in Docker's frames of an
    8-byte header. Shutting its writing side down closes the process's stdin where it was opened once.
    May come before Start or Exec: then no output is missed.
    """

    id: str
    exec_id: str = ""
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False
    op: str = "attach"


@dataclass(frozen=True, slots=True)
class Discard:
    """Let go whoever has joined the stdio of something that will not start."""

    id: str
    exec_id: str = ""
    op: str = "discard"


@dataclass(frozen=True, slots=True)
class Resize:
    id: str
    exec_id: str
    width: int
    height: int
    op: str = "resize"


@dataclass(frozen=True, slots=True)
class Signal:
    id: str
    signal: int
    exec_id: str = ""
    op: str = "signal"


@dataclass(frozen=True, slots=True)
class Freeze:
    id: str
    frozen: bool
    op: str = "freeze"


@dataclass(frozen=True, slots=True)
class Update:
    """Change a running container's limits (OCI `LinuxResources`)."""

    id: str
    resources: Message
    op: str = "update"


@dataclass(frozen=True, slots=True)
class List:
    """Ask for everything held: `containers` running, and the `exited` messages not acknowledged."""

    op: str = "list"


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """An `exited` message has been recorded; the keeper forgets it. No reply."""

    id: str
    exec_id: str = ""
    op: str = "acknowledge"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the keeper once no container is left; refused while one runs."""

    op: str = "shutdown"


Request = Start | Exec | Attach | Discard | Resize | Signal | Freeze | Update | List | Acknowledge | Shutdown


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: `error` is set where it failed, with the `stage` that failed."""

    number: int
    body: Message
    descriptors: tuple[int, ...] = ()

    @property
    def error(self) -> str | None:
        error = self.body.get("error")
        return str(error) if error is not None else None


@dataclass(frozen=True, slots=True)
class Exited:
    """A container or exec has ended: `code` is 128 + the signal where a signal ended it; `time` in nanoseconds."""

    id: str
    exec_id: str
    code: int
    time: int
    oom_killed: bool


def encode(request: Request, number: int) -> Message:
    # not `asdict`: it copies a specification through and through
    message = {each.name: getattr(request, each.name) for each in fields(request)}
    if isinstance(request, Start):
        message["log"] = asdict(request.log)
    message["number"] = number
    return message


def send(connection: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message; raises `OSError`."""
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) <= PACKET_LIMIT:
        _send(connection, text, descriptors)
        return
    memory = os.memfd_create("boxship-message", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(text)
        _send(connection, b"", (*descriptors, memory))
    finally:
        os.close(memory)


def _send(connection: socket.socket, text: bytes, descriptors: tuple[int, ...]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([text or b"\0"], ancillary)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message; None at the end of the connection.

    Raises `OSError` (`BlockingIOError` where none waits), `ValueError` or `TypeError` for what is no message.
    """
    text, ancillary, _, _ = connection.recvmsg(PACKET_LIMIT + 1, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    received = list(descriptors)
    if not text:
        return None
    try:
        if text == b"\0":
            if not received:
                raise ValueError("a message in a memfd came without it")
            with open(received.pop(), "rb") as file:
                file.seek(0)
                text = file.read()
        message = json.loads(text)
        if not isinstance(message, dict):
            raise TypeError("a message is an object")
    except (ValueError, TypeError):
        for descriptor in received:
            os.close(descriptor)
        raise
    return message, received
