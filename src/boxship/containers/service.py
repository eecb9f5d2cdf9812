"""Containers: made, started, stopped, removed; their exits, restarts and health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from boxship.containers import environment, filling, log_options, mounts, names, request, restart, specification
from boxship.containers.config import ContainerConfig, EndpointConfig, HostConfig, NetworkingConfig
from boxship.containers.keeper import Keeper, StartFailed
from boxship.containers.launch import Launcher
from boxship.containers.logs import read as read_log
from boxship.containers.model import Container, Health, LogLine, LogQuery, State, WaitResult
from boxship.containers.signals import parse_signal
from boxship.errors import BoxshipError, Conflict, Invalid, NotFound, Unavailable
from boxship.events.bus import Events
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.network.service import Networks
from boxship.oci.platform import Platform
from boxship.runtime import cgroups
from boxship.runtime.protocol import Attach, Discard, Exited, Freeze, Resize, Signal, Update
from boxship.runtime.seccomp import Seccomp
from boxship.snapshots.contract import Snapshotter
from boxship.state.database import Database
from boxship.syscalls.removal import remove_tree
from boxship.volumes.service import Volumes

log = logging.getLogger(__name__)

_STOP_SECONDS = 10
_KILL_SECONDS = 5
"""How long what was killed may take to end."""


@dataclass(slots=True)
class _Live:
    """What is known of a container beside its record: nothing here outlives the daemon."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: list[asyncio.Future[WaitResult]] = field(default_factory=list)
    removed: list[asyncio.Future[WaitResult]] = field(default_factory=list)
    restart: asyncio.TimerHandle | None = None
    last_delay: float = 0.0
    removing: bool = False
    joined: bool = False
    """Somebody has attached before the start: the keeper holds a stream for it."""


class Containers:
    """Every container of one engine."""

    def __init__(
        self, *, data_root: Path, images: Images, snapshotter: Snapshotter, networks: Networks, volumes: Volumes,
        keeper: Keeper, database: Database, events: Events, seccomp: Seccomp, cgroup_parent: str = "/boxship",
        default_log: str = "json-file", no_new_privileges: bool = False,
    ) -> None:  # fmt: skip
        self.root = data_root / "containers"
        self.root.mkdir(parents=True, exist_ok=True)
        self.images = images
        self.snapshotter = snapshotter
        self.networks = networks
        self.volumes = volumes
        self.keeper = keeper
        self.events = events
        self.cgroups = cgroups.detect()
        self._database = database
        self._default_log = default_log
        self.launcher = Launcher(
            networks=networks, volumes=volumes, keeper=keeper, seccomp=seccomp, cgroups=self.cgroups,
            cgroup_parent=cgroup_parent, find=self.get, directory=self.directory, no_new_privileges=no_new_privileges,
        )  # fmt: skip
        self._containers = database.collection("containers", Container)
        self._healths = database.collection("health", Health)
        self._names = {container.name: container.id for container in self._containers.all.values()}
        self._live: dict[str, _Live] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._to_acknowledge: list[Exited] = []
        self.exit_hooks: list[Callable[[Exited], None]] = []
        self.started_hooks: list[Callable[[Container], None]] = []
        self.removed_hooks: list[Callable[[str], None]] = []
        keeper.exited = self.exited
        images.in_use = self._users_of_image
        volumes.users = lambda name: [c.id for c in self._containers.all.values() if any(p.name == name for p in c.mounts)]

    # --- finding ---

    def all(self) -> list[Container]:
        """Every container, newest first."""
        return sorted(self._containers.all.values(), key=lambda container: container.created, reverse=True)

    def get(self, name: str) -> Container:
        """By id, name, or unique prefix of an id; raises `NotFound`, `Invalid` in Docker's words."""
        found = self._containers.get(name)
        if found is None:
            identity = self._names.get(name.removeprefix("/"))
            if identity is not None:
                return self._containers.all[identity]
            matching = [c for key, c in self._containers.all.items() if name and key.startswith(name)]
            if len(matching) > 1:
                raise Invalid(f"Multiple IDs found with provided prefix: {name}")
            if not matching:
                raise NotFound(f"No such container: {name}")
            found = matching[0]
        return found

    def health(self, identity: str) -> Health | None:
        return self._healths.get(identity)

    def set_health(self, identity: str, health: Health | None) -> None:
        if health is None:
            self._healths.delete(identity)
        else:
            self._healths.put(identity, health)

    def _of(self, identity: str) -> _Live:
        return self._live.setdefault(identity, _Live())

    def _users_of_image(self, image: str) -> list[tuple[str, bool]]:
        return [(c.id, c.state.running) for c in self._containers.all.values() if c.image == image]

    def directory(self, identity: str) -> Path:
        return self.root / identity

    def log_path(self, container: Container) -> str:
        """Where its log is; empty for none."""
        if container.host.log_config.type == "none":
            return ""
        return str(self.directory(container.id) / f"{container.id}-json.log")

    def cgroup(self, container: Container) -> str:
        return self.launcher.cgroup(container)

    def _put(self, container: Container) -> Container:
        self._containers.put(container.id, container)
        return container

    def _change(self, identity: str, **changes: object) -> Container:
        return self._put(msgspec.structs.replace(self._containers.all[identity], **changes))

    def set_state(self, identity: str, **changes: object) -> Container:
        state = msgspec.structs.replace(self._containers.all[identity].state, **changes)
        return self._change(identity, state=state)

    def publish(self, action: str, container: Container, **attributes: str) -> None:
        """An event of a container, with its image, name and labels."""
        labels = dict(container.config.labels or {})
        self.events.publish(
            "container",
            action,
            container.id,
            **{**labels, "image": container.image_name, "name": container.name, **attributes},
        )

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run something beside the request that asked for it; owned until it ends."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())

    # --- making ---

    async def create(
        self,
        name: str,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        platform: Platform | None,
    ) -> Container:
        """Make a container; raises `NotFound` for its image, `Conflict` for its name, `Invalid`, `Unsupported`."""
        image = self.images.get(config.image)
        if platform is not None:
            if not image.config.platform.satisfies(platform):
                raise NotFound(
                    f"image with reference {config.image} was found but does not provide the specified platform ({platform})"
                )
        identity = secrets.token_hex(32)
        name = names.validated(name) if name else self._free_name()
        if name in self._names:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._names[name]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )
        host = request.completed(host, cgroup_version=self.cgroups.version, default_log=self._default_log)
        specification.validate(config, host, log_options.LOG_DRIVERS)
        environment.check_extra_hosts(host.extra_hosts or [])
        log_options.check(host)
        merged = environment.merge(config, image, identity, host)
        endpoints = request.endpoints(host, networking, config, self.networks, self.get)
        command = [*(merged.entrypoint or []), *(merged.cmd or [])]
        points = await mounts.resolve(config, host, image, self.volumes, self.get)
        self._names[name] = identity
        directory = self.directory(identity)
        try:
            directory.mkdir(0o710)
            self.snapshotter.prepare(identity, image.layers)
            await filling.fill_volumes(points, image, self.snapshotter, self.volumes, identity)
            if self.images.find(image.id) is None:
                raise NotFound(f"No such image: {config.image}")  # removed while its files were copied
        except BaseException:
            del self._names[name]
            shutil.rmtree(directory, ignore_errors=True)
            self.snapshotter.remove(identity)
            await mounts.remove_anonymous(points, self.volumes)
            raise
        container = self._put(
            Container(
                identity, name, time.time_ns(), image.id, config.image, command[0], command[1:], merged, host, endpoints,
                points, State(), platform=image.config.os,
            )
        )  # fmt: skip
        self.publish("create", container)
        return container

    def _free_name(self) -> str:
        for _ in range(20):
            name = names.generate()
            if name not in self._names:
                return name
        return f"{names.generate()}_{secrets.token_hex(4)}"

    # --- starting ---

    async def start(self, name: str) -> bool:
        """Start a container; False where it runs already. Raises `StartFailed`, `Conflict` and what networks raise."""
        container = self.get(name)
        async with self._of(container.id).lock:
            container = self.get(container.id)
            if container.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.running:
                return False
            if self._of(container.id).removing:
                raise Conflict("container is marked for removal and cannot be started")
            self._cancel_restart(container.id)
            self._change(container.id, stopped_by_user=False, restart_count=0)
            self._of(container.id).last_delay = 0.0
            await self._start(container)
            return True

    async def _start(self, container: Container) -> None:
        try:
            pid = await self.launcher.launch(
                container, self.directory(container.id), self.snapshotter.root(container.id),
                log_options.log_of(container, self.log_path(container)),
            )  # fmt: skip
        except BoxshipError as error:
            code = error.code if isinstance(error, StartFailed) else 128
            message = error.message
            if isinstance(error, StartFailed):
                message = (
                    "failed to create task for container: failed to create shim task: OCI runtime create failed:"
                    f" unable to start container process: {error.message}: unknown"
                )
            self.set_state(container.id, status="exited" if container.state.started_at else "created",
                           exit_code=code, error=message, pid=0, finished_at=container.state.finished_at)  # fmt: skip
            self.launcher.release(container)
            with contextlib.suppress(BoxshipError):
                await self.keeper.ask(Discard(container.id))
            if container.host.auto_remove:
                self.spawn(self.auto_remove(container.id))
            if isinstance(error, StartFailed):
                raise Invalid(message) from error
            raise
        started = self.set_state(
            container.id, status="running", pid=pid, started_at=time.time_ns(), exit_code=0, error="",
            oom_killed=False, finished_at=0,
        )  # fmt: skip
        self.publish("start", started)
        self.set_health(container.id, None)
        for hook in self.started_hooks:
            hook(started)

    # --- exits ---

    def exited(self, exited: Exited) -> None:
        """Record an end that the keeper reports, and do what follows from it."""
        for hook in self.exit_hooks:
            hook(exited)
        if exited.exec_id or exited.id not in self._containers:
            self.keeper.acknowledge(exited)
            return
        self._to_acknowledge.append(exited)
        self.spawn(self._acknowledge())
        before = self._containers.all[exited.id]
        if exited.oom_killed:
            self.publish("oom", before)
        container = self.set_state(
            exited.id,
            status="exited",
            pid=0,
            exit_code=exited.code,
            finished_at=exited.time,
            oom_killed=exited.oom_killed,
        )
        self.launcher.release(container)
        ran = max(0, exited.time - before.state.started_at)
        self.publish("die", container, exitCode=str(exited.code), execDuration=str(ran // 1_000_000_000))
        live = self._of(exited.id)
        self.set_health(exited.id, None)
        self._tell_end(live, WaitResult(exited.code))
        decision = restart.after_exit(
            container.host.restart_policy, exited.code, stopped_by_user=container.stopped_by_user or live.removing,
            count=container.restart_count, ran_seconds=ran / 1e9, last_delay=live.last_delay,
        )  # fmt: skip
        if decision.restart:
            live.last_delay = decision.delay
            self.set_state(exited.id, status="restarting")
            loop = asyncio.get_running_loop()
            live.restart = loop.call_later(decision.delay, lambda: self.spawn(self._restart(exited.id)))
        elif container.host.auto_remove and not live.removing:
            self.spawn(self.auto_remove(exited.id))

    async def _settled(self, identity: str) -> Container:
        """A container once no start of it is under way; raises `NotFound`."""
        async with self._of(identity).lock:
            return self.get(identity)

    def _tell_end(self, live: _Live, result: WaitResult) -> None:
        for future in live.ended:
            if not future.done():
                future.set_result(result)
        live.ended.clear()

    async def _acknowledge(self) -> None:
        """Let the keeper forget the ends that are journalled; what cannot be written yet is told again after a restart."""
        exits, self._to_acknowledge = self._to_acknowledge, []
        try:
            await self._database.committed()
        except (BoxshipError, asyncio.CancelledError):
            self._to_acknowledge = exits + self._to_acknowledge
            return
        with contextlib.suppress(Unavailable):  # a keeper that is gone remembers nothing
            for exited in exits:
                self.keeper.acknowledge(exited)

    async def _restart(self, identity: str) -> None:
        live = self._of(identity)
        async with live.lock:
            container = self._containers.get(identity)
            if container is None or container.state.running or live.removing or container.stopped_by_user:
                return
            live.restart = None
            self._change(identity, restart_count=container.restart_count + 1)
            try:
                await self._start(self.get(identity))
            except BoxshipError as error:
                self._tell_end(live, WaitResult(self.get(identity).state.exit_code, error.message))

    async def auto_remove(self, identity: str) -> None:
        with contextlib.suppress(BoxshipError):
            await self.remove(identity, force=True, volumes=True)

    def _cancel_restart(self, identity: str) -> bool:
        """Let a container that waits for its restart be; False where it does not wait."""
        live = self._of(identity)
        if live.restart is None:
            return False
        live.restart.cancel()
        live.restart = None
        if self._containers.all[identity].state.status == "restarting":
            self._tell_end(live, WaitResult(self.set_state(identity, status="exited").state.exit_code))
        return True

    # --- stopping ---

    async def stop(self, name: str, *, signal_name: str = "", seconds: int | None = None) -> bool:
        """Ask a container to end, and make it after `seconds` (-1: never); False where it did not run."""
        container = self.get(name)
        number = parse_signal(signal_name or container.config.stop_signal or "SIGTERM")
        self._change(container.id, stopped_by_user=True)
        container = await self._settled(container.id)
        if self._cancel_restart(container.id):
            self.publish("stop", self.get(container.id))
            return True
        if not container.state.running:
            return False
        ended = self._wait_future(container.id)
        if seconds is None:
            seconds = container.config.stop_timeout if container.config.stop_timeout is not None else _STOP_SECONDS
        await self._signal(container, number)
        if container.state.status == "paused":
            await self._freeze(container, frozen=False)
        try:
            async with asyncio.timeout(None if seconds < 0 else seconds):
                await asyncio.shield(ended)
        except TimeoutError:
            await self._signal(container, signal.SIGKILL)
            await ended
        self.publish("stop", self.get(container.id))
        return True

    async def kill(self, name: str, signal_name: str = "SIGKILL") -> None:
        """Send a signal; raises `Conflict` where the container does not run, `Invalid` for no signal."""
        container = self.get(name)
        number = parse_signal(signal_name or "SIGKILL")
        container = await self._settled(container.id)
        if container.state.status == "restarting":
            # nothing is there that a signal could reach
            self._change(container.id, stopped_by_user=True)
            self._cancel_restart(container.id)
            return
        if not container.state.running:
            raise Conflict(f"cannot kill container: {name}: container {container.id} is not running")
        stop = parse_signal(container.config.stop_signal or "SIGTERM")
        if number in (signal.SIGKILL, stop):
            self._change(container.id, stopped_by_user=True)
        ended = self._wait_future(container.id) if number == signal.SIGKILL else None
        await self._signal(container, number)
        if ended is not None:
            await ended

    async def _signal(self, container: Container, number: int) -> None:
        with contextlib.suppress(Conflict):
            await self.keeper.ask(Signal(container.id, number))
        self.publish("kill", container, signal=str(int(number)))

    async def restart(self, name: str, *, signal_name: str = "", seconds: int | None = None) -> None:
        container = self.get(name)
        await self.stop(name, signal_name=signal_name, seconds=seconds)
        await self.start(container.id)
        self.publish("restart", self.get(container.id))

    async def pause(self, name: str) -> None:
        container = self.get(name)
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        self._must_run(container)
        await self._freeze(container, frozen=True)

    async def unpause(self, name: str) -> None:
        container = self.get(name)
        if container.state.status != "paused":
            raise Conflict(f"Container {container.id} is not paused")
        await self._freeze(container, frozen=False)

    async def _freeze(self, container: Container, *, frozen: bool) -> None:
        await self.keeper.ask(Freeze(container.id, frozen))
        if self.get(container.id).state.running:
            self.publish("pause" if frozen else "unpause", self.set_state(container.id, status="paused" if frozen else "running"))

    def _must_run(self, container: Container) -> None:
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running:
            raise Conflict(f"Container {container.id} is not running")

    # --- waiting, logs, attaching ---

    def _wait_future(self, identity: str) -> asyncio.Future[WaitResult]:
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        self._of(identity).ended.append(future)
        return future

    def wait(self, name: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """The end of a container: `not-running`, `next-exit` or `removed`; raises `Invalid` for another condition."""
        container = self.get(name)
        if condition == "removed":
            future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
            self._of(container.id).removed.append(future)
            return future
        if condition not in ("not-running", "next-exit"):
            raise Invalid(f'invalid condition: "{condition}"')
        if condition == "not-running" and not container.state.running and container.state.status != "restarting":
            future = asyncio.get_running_loop().create_future()
            future.set_result(WaitResult(container.state.exit_code, container.state.error))
            return future
        return self._wait_future(container.id)

    def logs(self, name: str, query: LogQuery) -> AsyncIterator[LogLine]:
        container = self.get(name)
        path = self.log_path(container)
        if not path:
            raise Invalid("configured logging driver does not support reading")

        def ended() -> bool:
            found = self._containers.get(container.id)
            return found is None or not (found.state.running or found.state.status == "restarting")

        return read_log(path, query, ended)

    async def attach(self, container: Container, *, stdin: bool, stdout: bool, stderr: bool) -> int:
        """Join a container's stdio: a stream socket's descriptor, the caller's to close."""
        if container.state.status == "paused":
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        self._of(container.id).joined = not container.state.running
        reply = await self.keeper.ask(Attach(container.id, "", stdin, stdout, stderr, container.config.tty))
        self.publish("attach", container)
        return reply.descriptors[0]

    async def resize(self, name: str, width: int, height: int, exec_id: str = "") -> None:
        container = self.get(name)
        self._must_run(container)
        await self.keeper.ask(Resize(container.id, exec_id, width, height))
        if not exec_id:
            self.publish("resize", container, height=str(height), width=str(width))

    # --- changing ---

    def rename(self, name: str, new: str) -> None:
        container = self.get(name)
        new = names.validated(new)
        if new == container.name:
            raise Invalid("Renaming a container with the same name as its current name")
        if new in self._names:
            raise Conflict(
                f'Conflict. The container name "/{new}" is already in use by container "{self._names[new]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )
        del self._names[container.name]
        self._names[new] = container.id
        renamed = self._change(container.id, name=new)
        self.networks.rename(container.id, new)
        self.publish("rename", renamed, oldName=f"/{container.name}")

    async def update(self, name: str, changes: dict[str, object]) -> None:
        """Change limits and the restart policy (fields of `HostConfig`); raises `Invalid`, `Conflict`."""
        container = self.get(name)
        host = msgspec.structs.replace(container.host, **changes)
        if changes.get("memory") and not changes.get("memory_swap") and host.memory_swap and host.memory > host.memory_swap > 0:
            raise Conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
            )
        policy = host.restart_policy
        if container.host.auto_remove and policy.name not in ("", "no"):
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        specification.validate(container.config, host, log_options.LOG_DRIVERS)
        if container.state.running:
            limits = specification.resources(host)
            limits.pop("devices", None)
            await self.keeper.ask(Update(container.id, limits))
        self.publish("update", self._change(container.id, host=host))

    def set_endpoints(self, identity: str, endpoints: dict[str, EndpointConfig]) -> None:
        self._change(identity, endpoints=endpoints)

    # --- removing ---

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container; raises `Conflict` in Docker's words where it runs and `force` is not given."""
        container = self.get(name)
        live = self._of(container.id)
        if live.removing:
            raise Conflict(f"removal of container {name} is already in progress")
        if (container.state.running or container.state.status == "restarting") and not force:
            status = container.state.status
            hint = "unpause and then stop" if status == "paused" else "stop"
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {status}:'
                f" {hint} the container before removing or force remove"
            )
        live.removing = True
        try:
            await self._settled(container.id)
            self._cancel_restart(container.id)
            if self.get(container.id).state.running:
                ended = self._wait_future(container.id)
                await self._signal(container, signal.SIGKILL)
                await ended
            if live.joined:
                with contextlib.suppress(Unavailable):  # a keeper that is gone holds nothing
                    await self.keeper.ask(Discard(container.id))
            await self.discard(self.get(container.id), volumes=volumes)
        finally:
            live.removing = False

    async def discard(self, container: Container, *, volumes: bool) -> None:
        """Remove everything of a container that does not run."""
        self.snapshotter.remove(container.id)
        with contextlib.suppress(OSError):  # what is left goes at the next start
            remove_tree(str(self.directory(container.id)))
        self._containers.delete(container.id)
        self.set_health(container.id, None)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]
        live = self._live.pop(container.id, None)
        try:
            if volumes and any(point.anonymous for point in container.mounts):
                # goes on also where whoever asked for it has gone
                await asyncio.shield(self.spawn(mounts.remove_anonymous(container.mounts, self.volumes)))
        finally:
            result = WaitResult(container.state.exit_code)
            if live is not None:
                self._tell_end(live, result)
            for future in live.removed if live else []:
                if not future.done():
                    future.set_result(result)
            for hook in self.removed_hooks:
                hook(container.id)
            self.publish("destroy", container)

    # --- with the daemon ---

    async def stop_all(self, seconds: float) -> None:
        """Stop every container with the daemon, killing what has not ended within `seconds`.

        Those with a restart policy start again with the daemon.
        """
        for live in self._live.values():
            if live.restart is not None:
                live.restart.cancel()
        running = [container for container in self.all() if container.state.running]

        async def stop(container: Container) -> None:
            with contextlib.suppress(BoxshipError):
                await self.stop(container.id)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(stop(container) for container in running))
        # also what was started meanwhile
        left = {container.id: self._wait_future(container.id) for container in self.all() if container.state.running}
        for identity in left:
            with contextlib.suppress(BoxshipError):
                await self._signal(self.get(identity), signal.SIGKILL)
        if left:
            await asyncio.wait(left.values(), timeout=_KILL_SECONDS)
        for container in running:
            if container.id in self._containers:
                self._change(container.id, stopped_by_user=container.stopped_by_user)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._acknowledge()

    def image_of(self, container: Container) -> Image | None:
        return self.images.find(container.image)
