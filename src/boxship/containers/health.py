"""Health checks: a probe now and then, and a pure rule from its result to the container's health."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from boxship.containers.execs import Execs
from boxship.containers.model import Container, ExecSession, Health, HealthProbe
from boxship.containers.service import Containers
from boxship.errors import BoxshipError, NotFound
from boxship.oci.image_config import Healthcheck

_SECOND = 1_000_000_000
_INTERVAL, _TIMEOUT, _RETRIES, _START_INTERVAL = 30 * _SECOND, 30 * _SECOND, 3, 5 * _SECOND
_KEPT_PROBES = 5
_OUTPUT_LIMIT = 4096


def after_probe(health: Health, probe: HealthProbe, retries: int, *, starting: bool) -> Health:
    """The health after one more probe; a failure while it starts does not count."""
    probes = [*health.probes, probe][-_KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health("healthy", 0, probes)
    if starting and health.status == "starting":
        return Health("starting", health.failing_streak, probes)
    streak = health.failing_streak + 1
    return Health("unhealthy" if streak >= (retries or _RETRIES) else health.status, streak, probes)


class HealthChecks:
    """Probes every running container that has a check."""

    def __init__(self, containers: Containers, execs: Execs) -> None:
        self._containers = containers
        self._execs = execs
        containers.started_hooks.append(self._started)

    def _started(self, container: Container) -> None:
        check = container.config.healthcheck
        if check is not None and check.test and check.test[0] != "NONE":
            if self._containers.health(container.id) is None:  # else it runs on, and the daemon is another one
                self._containers.set_health(container.id, Health())
            self._containers.spawn(self._watch(container, check))

    async def _watch(self, container: Container, check: Healthcheck) -> None:
        started = container.state.started_at
        while True:
            health = self._containers.health(container.id) or Health()
            starting = health.status == "starting" and time.time_ns() - started < check.start_period
            interval = (check.start_interval or _START_INTERVAL) if starting else (check.interval or _INTERVAL)
            await asyncio.sleep(interval / _SECOND)
            if not self._runs_since(container.id, started):
                return
            current = self._containers.get(container.id)
            if current.state.status == "paused":
                continue
            probe = await self._probe(current, check)
            starting = time.time_ns() - started < check.start_period
            updated = after_probe(health, probe, check.retries, starting=starting)
            if not self._runs_since(container.id, started):
                return
            self._containers.set_health(container.id, updated)
            if updated.status != health.status:
                self._containers.publish(f"health_status: {updated.status}", current)

    def _runs_since(self, identity: str, started: int) -> bool:
        try:
            state = self._containers.get(identity).state
        except NotFound:
            return False
        return state.running and state.started_at == started

    async def _probe(self, container: Container, check: Healthcheck) -> HealthProbe:
        began = time.time_ns()
        seconds = (check.timeout or _TIMEOUT) / _SECOND
        test = check.test or []
        arguments = test[1:]
        if test[0] == "CMD-SHELL":
            arguments = [*(container.config.shell or ["/bin/sh", "-c"]), *test[1:]]
        session = ExecSession(
            "", container.id, arguments, "", [], "", tty=False, stdin=False, stdout=True, stderr=True, privileged=False,
            detach_keys="",
        )  # fmt: skip
        output = bytearray()
        try:
            session = self._execs.create(container.id, session)
            stream = await self._execs.start(session.id, detach=False)
            assert stream is not None
            try:
                async with asyncio.timeout(seconds):
                    await _collect(stream, output)
                    code = await self._execs.wait(session)
            except TimeoutError:
                with contextlib.suppress(BoxshipError):
                    await self._execs.kill(session.id, signal.SIGKILL)
                return HealthProbe(began, time.time_ns(), -1, f"Health check exceeded timeout ({_shown(seconds)})")
            finally:
                os.close(stream)
        except BoxshipError as error:
            return HealthProbe(began, time.time_ns(), -1, str(error))
        return HealthProbe(began, time.time_ns(), code, bytes(output[:_OUTPUT_LIMIT]).decode(errors="replace"))


def _shown(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


async def _collect(stream: int, output: bytearray) -> None:
    """Read framed output to its end."""
    import socket

    loop = asyncio.get_running_loop()
    with socket.socket(fileno=os.dup(stream)) as connection:
        connection.setblocking(False)
        data = bytearray()
        while chunk := await loop.sock_recv(connection, 65536):
            data += chunk
            while len(data) >= 8 and len(data) >= 8 + int.from_bytes(data[4:8], "big"):
                length = int.from_bytes(data[4:8], "big")
                if len(output) < _OUTPUT_LIMIT:
                    output += data[8 : 8 + length]
                del data[: 8 + length]
