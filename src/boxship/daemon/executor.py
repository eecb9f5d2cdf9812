"""The commands of a build, run as containers that no list shows."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from boxship.build.executor import NotStarted, RunRequest
from boxship.containers import environment, specification
from boxship.containers import request as requests
from boxship.containers.config import ContainerConfig, EndpointConfig, HostConfig, Ulimit
from boxship.containers.keeper import StartFailed
from boxship.containers.model import Container, State
from boxship.containers.service import Containers
from boxship.errors import BoxshipError, Invalid
from boxship.runtime.protocol import Attach, Exited, Log, Signal

Output = Callable[[str, bytes], None]

_STREAMS = {1: "stdout", 2: "stderr"}
_HEADER = 8
_READ = 1 << 16


class ContainerExecutor:
    """Runs on the engine's keeper and networks, over a snapshot of the build's."""

    def __init__(self, containers: Containers, directory: Path) -> None:
        self._containers = containers
        self._directory = directory
        shutil.rmtree(directory, ignore_errors=True)  # what a daemon that was killed has left
        self._ended: dict[str, asyncio.Future[int]] = {}
        containers.exit_hooks.append(self._exited)

    async def run(self, request: RunRequest, output: Output) -> int:
        """The command's exit code, its output handed over as it comes; cancelled, the command is killed.

        Raises `NotStarted`, `Invalid` and what networks raise.
        """
        identity = secrets.token_hex(32)
        container = self._container(identity, request)
        keeper, launcher = self._containers.keeper, self._containers.launcher
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ended[identity] = ended
        directory = self._directory / identity
        directory.mkdir(parents=True)
        try:
            stream = (await keeper.ask(Attach(identity, "", stdin=False))).descriptors[0]
            with socket.socket(fileno=stream) as connection:
                connection.setblocking(False)
                try:
                    await launcher.launch(container, directory, self._containers.snapshotter.root(request.snapshot), Log())
                except StartFailed as error:
                    raise NotStarted(error.message, error.code) from error
                await _relay(connection, output)
                return await asyncio.shield(ended)
        except asyncio.CancelledError:
            with contextlib.suppress(BoxshipError):
                await keeper.ask(Signal(identity, signal.SIGKILL))
                await asyncio.wait_for(asyncio.shield(ended), 10)
            raise
        finally:
            self._ended.pop(identity, None)
            launcher.release(container)
            shutil.rmtree(directory, ignore_errors=True)

    def _exited(self, exited: Exited) -> None:
        future = self._ended.get(exited.id)
        if future is not None and not exited.exec_id and not future.done():
            future.set_result(exited.code)

    def _container(self, identity: str, request: RunRequest) -> Container:
        config = ContainerConfig(
            hostname=identity[:12], user=request.user, env=list(request.environment), working_dir=request.working_directory,
            cmd=list(request.arguments),
        )  # fmt: skip
        host = HostConfig(
            network_mode=request.network, extra_hosts=list(request.extra_hosts) or None, shm_size=request.shm_size,
            memory=request.memory, memory_swap=request.memory_swap, cpu_shares=request.cpu_shares,
            cpu_quota=request.cpu_quota, cpu_period=request.cpu_period, cpuset_cpus=request.cpuset_cpus,
            cpuset_mems=request.cpuset_mems, ulimits=_ulimits(request), cgroup_parent=request.cgroup_parent,
        )  # fmt: skip
        host = requests.completed(host, cgroup_version=self._containers.cgroups.version, default_log="none")
        specification.validate(config, host, frozenset({"none"}))
        environment.check_extra_hosts(host.extra_hosts or [])
        mode = host.network_mode
        joined = mode in ("host", "none") or mode.startswith("container:")
        endpoints = {} if joined else {self._containers.networks.get(mode).name: EndpointConfig()}
        return Container(
            identity, identity[:12], time.time_ns(), "", "", request.arguments[0], list(request.arguments[1:]), config, host,
            endpoints, [], State(),
        )  # fmt: skip


def _ulimits(request: RunRequest) -> list[Ulimit] | None:
    try:
        return msgspec.convert(list(request.ulimits), list[Ulimit]) or None
    except msgspec.ValidationError as error:
        raise Invalid(f"invalid ulimits: {error}") from error


async def _relay(connection: socket.socket, output: Output) -> None:
    """Hand over what comes in frames until the other side closes."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while chunk := await loop.sock_recv(connection, _READ):
        data += chunk
        while len(data) >= _HEADER:
            length = int.from_bytes(data[4:_HEADER], "big")
            if len(data) < _HEADER + length:
                break
            output(_STREAMS.get(data[0], "stdout"), bytes(data[_HEADER : _HEADER + length]))
            del data[: _HEADER + length]
