"""Further processes in running containers."""

from __future__ import annotations

import asyncio
import os
import secrets

from boxship.containers import environment, specification
from boxship.containers.keeper import StartFailed
from boxship.containers.launch import memory_file
from boxship.containers.model import ExecSession
from boxship.containers.service import Containers
from boxship.errors import BoxshipError, Conflict, Invalid, NotFound
from boxship.runtime.protocol import Attach, Exec, Exited, Signal

_KEPT = 500
"""How many sessions that have ended are remembered."""


class Execs:
    """The exec sessions of an engine; they do not outlive it."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._sessions: dict[str, ExecSession] = {}
        containers.exit_hooks.append(self._exited)
        containers.removed_hooks.append(self._removed)

    def create(self, name: str, session: ExecSession) -> ExecSession:
        """Keep a session for a later start; raises `Conflict` where the container does not run."""
        container = self._containers.get(name)
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        if not session.arguments or not session.arguments[0]:
            raise Invalid("No exec command specified")
        session.id = secrets.token_hex(32)
        session.container = container.id
        if len(self._sessions) > _KEPT:
            for old in [key for key, s in self._sessions.items() if s.exit_code is not None][: _KEPT // 2]:
                del self._sessions[old]
        self._sessions[session.id] = session
        self._containers.publish(f"exec_create: {' '.join(session.arguments)}", container, execID=session.id)
        return session

    def get(self, identity: str) -> ExecSession:
        session = self._sessions.get(identity)
        if session is None:
            raise NotFound(f"No such exec instance: {identity}")
        return session

    def of(self, container: str) -> list[str]:
        return [s.id for s in self._sessions.values() if s.container == container and s.running]

    async def start(self, identity: str, *, detach: bool) -> int | None:
        """Start a session: the descriptor of its stdio unless detached. Raises `Conflict`, `Invalid`."""
        session = self.get(identity)
        if session.running or session.exit_code is not None:
            raise Conflict(f"exec {identity} has already run")
        container = self._containers.get(session.container)
        config, host = container.config, container.host
        inherited = environment.process_environment(config)
        names = {item.partition("=")[0] for item in session.environment}
        merged = [item for item in inherited if item.partition("=")[0] not in names] + session.environment
        if session.tty and not any(item.startswith("TERM=") for item in merged):
            merged.append("TERM=xterm")
        process = specification.process(
            config, host, session.arguments, [item for item in merged if "=" in item], session.user or config.user,
            session.directory or config.working_dir, tty=session.tty, privileged=session.privileged,
        )  # fmt: skip
        program = self._containers.launcher.seccomp_program(
            container, process["capabilities"]["bounding"], privileged=session.privileged
        )
        descriptors = [memory_file(program)] if program is not None else []
        keeper = self._containers.keeper
        stream: int | None = None
        try:
            if not detach:
                attach = Attach(container.id, identity, session.stdin, session.stdout, session.stderr, session.tty)
                stream = (await keeper.ask(attach)).descriptors[0]
            reply = await keeper.ask(
                Exec(container.id, identity, process, session.stdin and not detach, bool(descriptors)), descriptors
            )
            session.running, session.pid = True, reply.body["pid"]
            session.ended = asyncio.get_running_loop().create_future()
        except BoxshipError as error:
            if stream is not None:
                os.close(stream)
            if isinstance(error, StartFailed):
                session.exit_code = error.code
                raise Invalid(
                    f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}: unknown"
                ) from error
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._containers.publish(f"exec_start: {' '.join(session.arguments)}", container, execID=identity)
        return stream

    async def wait(self, session: ExecSession) -> int:
        """The exit code of a session that was started."""
        assert session.ended is not None
        return await asyncio.shield(session.ended)

    async def kill(self, identity: str, number: int) -> None:
        session = self.get(identity)
        if session.running:
            await self._containers.keeper.ask(Signal(session.container, number, identity))

    async def resize(self, identity: str, width: int, height: int) -> None:
        session = self.get(identity)
        if session.running:
            await self._containers.resize(session.container, width, height, identity)

    def _exited(self, exited: Exited) -> None:
        session = self._sessions.get(exited.exec_id)
        if session is None:
            return
        session.running, session.exit_code, session.pid = False, exited.code, 0
        if session.ended is not None and not session.ended.done():
            session.ended.set_result(exited.code)
        try:
            container = self._containers.get(session.container)
        except NotFound:
            del self._sessions[exited.exec_id]  # it was removed before this end was heard of
            return
        self._containers.publish("exec_die", container, execID=exited.exec_id, exitCode=str(exited.code))

    def _removed(self, container: str) -> None:
        """Forget the sessions of a container; one that runs is forgotten once its end has been heard of."""
        for session in [s for s in self._sessions.values() if s.container == container and not s.running]:
            del self._sessions[session.id]
