"""A process the keeper holds: from its clone to the report of its exit."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from boxship.runtime.keeper.loop import Loop
from boxship.runtime.keeper.stdio import Stdio
from boxship.runtime.protocol import Message
from boxship.syscalls import process as p

Outcome = Callable[[Message], None]

_P_PIDFD: Final = 3


class Held:
    """One process: a container's first, or an exec's."""

    def __init__(self, loop: Loop, container: str, exec_id: str, stdio: Stdio, ended: Callable[[Held], None]) -> None:
        self.container = container
        self.exec_id = exec_id
        self.stdio = stdio
        self.pid = 0
        self.pidfd = -1
        self.code = -1
        self.ended_at = 0
        self.failure: Message | None = None
        self._loop = loop
        self._ended = ended
        self._channel: socket.socket | None = None
        self._outcome: Outcome | None = None
        self._wants_stdin = False

    def cloned(self, pid: int, pidfd: int, channel: socket.socket, outcome: Outcome, *, stdin: bool) -> None:
        """The child runs; `outcome` gets `{"pid": …}` once it has exec'ed, or its failure."""
        self.pid, self.pidfd = pid, pidfd
        self._channel, self._outcome, self._wants_stdin = channel, outcome, stdin
        channel.setblocking(False)
        self._loop.watch(channel.fileno(), lambda _: self._hear())
        self._loop.watch(pidfd, lambda _: self._reap())

    def _hear(self) -> None:
        channel = self._channel
        if channel is None:
            return
        while True:
            try:
                data, ancillary, _, _ = channel.recvmsg(1 << 16, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data[:1] == b"T" and ancillary:
                terminal = array.array("i")
                terminal.frombytes(ancillary[0][2])
                self.stdio.connect_terminal(terminal[0], stdin=self._wants_stdin)
            elif data[:1] == b"E":
                # told once the child has gone, so that whoever hears of it can try again at once
                self.failure = json.loads(data[1:])
            elif not data:
                break
        self._loop.forget(channel.fileno())
        channel.close()
        self._channel = None
        if self.failure is None:
            self._tell({"pid": self.pid})

    def _tell(self, outcome: Message) -> None:
        if self._outcome is not None:
            report, self._outcome = self._outcome, None
            report(outcome)

    def _reap(self) -> None:
        self._hear()
        if self._channel is not None:
            return  # something else still holds the channel: its end of file comes
        try:
            result = os.waitid(_P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result = None
            self.code = 255
        else:
            if result is None:
                return
            killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.code = 128 + result.si_status if killed else result.si_status
        self.ended_at = time.time_ns()
        self._loop.forget(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self.stdio.drain()
        self._ended(self)
        if self.failure is not None:
            self._tell(self.failure)

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended is no error."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:
                p.send_signal(self.pidfd, number)

    def exited(self, *, oom_killed: bool) -> Message:
        return {
            "exited": {
                "id": self.container,
                "exec_id": self.exec_id,
                "code": self.code,
                "time": self.ended_at,
                "oom_killed": oom_killed,
            }
        }


class Container:
    """A running container: its first process, its execs, its control group."""

    def __init__(self, held: Held, request: dict[str, Any], joins: list[str]) -> None:
        self.held = held
        self.cgroup: str = request["cgroup"]
        self.joins = joins
        self.execs: dict[str, Held] = {}
        self.frozen = False
        namespaces = {entry["type"]: entry.get("path") for entry in request["spec"]["linux"]["namespaces"]}
        self.own_pids = "pid" in namespaces and not namespaces["pid"]

    def kill_rest(self, pids: list[int]) -> None:
        """Without a pid namespace of its own, what is left in the control group has to be killed one by one."""
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
