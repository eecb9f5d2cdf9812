"""The daemon's end of the connection to the keeper, and how a keeper is started."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from boxship.errors import Unavailable
from boxship.runtime import protocol
from boxship.runtime.protocol import Exited, Reply, Request

SOCKET_NAME = "keeper.sock"
_START_SECONDS = 10.0


class KeeperClient:
    """A connection to a keeper; never blocks on receiving: wait for `fileno()` to become readable."""

    def __init__(self, socket_path: Path) -> None:
        """Raises `Unavailable` where no keeper listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._number = 0
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self._socket.connect(os.fspath(socket_path))
        except OSError as error:
            self._socket.close()
            raise Unavailable(f"no keeper listens on {socket_path}: {error.strerror}") from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: Request, descriptors: Sequence[int] = ()) -> int:
        """Send a request; the number returned is that of its reply. Raises `Unavailable` once the keeper is gone."""
        self._number += 1
        try:
            protocol.send(self._socket, protocol.encode(request, self._number), tuple(descriptors))
        except OSError as error:
            raise Unavailable(f"the keeper does not answer: {error.strerror}") from error
        return self._number

    def receive(self) -> Reply | Exited | None:
        """The next message, or None where none waits. Raises `Unavailable` once the keeper is gone."""
        self._socket.setblocking(False)
        try:
            received = protocol.receive(self._socket)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Unavailable(f"the connection to the keeper failed: {error.strerror}") from error
        finally:
            self._socket.setblocking(True)
        if received is None:
            raise Unavailable("the keeper has ended")
        message, descriptors = received
        if "exited" in message:
            return Exited(**message["exited"])
        return Reply(message.pop("number"), message, tuple(descriptors))

    def peer_pid(self) -> int:
        """The keeper's process id."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def close(self) -> None:
        self._socket.close()


def spawn_keeper(exec_root: Path) -> int:
    """Start a keeper for `exec_root` and wait until it listens; returns its pid. Raises `Unavailable`.

    Call it in the mount namespace in which layers are mounted, and before the daemon has grown.
    """
    source = Path(__file__).parent / "keeper" / "launch.py"
    interpreter = os.path.realpath(sys.executable)
    socket_path = exec_root / SOCKET_NAME
    socket_path.unlink(missing_ok=True)
    arguments = [interpreter, "-I", "-S", str(source), str(exec_root)]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    pid = os.posix_spawn(interpreter, arguments, environment, setsid=True)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if socket_path.exists():
            return pid
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise Unavailable("the keeper ended while it started", hint="see the daemon's log")
        time.sleep(0.002)
    raise Unavailable(f"the keeper did not listen within {_START_SECONDS:.0f} s")
