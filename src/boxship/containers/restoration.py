"""After a start of the daemon: what runs, what ended meanwhile, what must start again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time

from boxship.containers import restart
from boxship.containers.service import Containers
from boxship.errors import BoxshipError
from boxship.runtime.protocol import Exited, Signal

log = logging.getLogger(__name__)

_END_SECONDS = 10.0


async def restore(containers: Containers) -> None:
    """After a start of the daemon: learn from the keeper what runs and what ended meanwhile."""
    held = await containers.keeper.held()
    running = {entry["id"]: entry for entry in held["containers"]}
    known = {container.id for container in containers.all()}
    await containers.networks.restore({identity: entry["pid"] for identity, entry in running.items() if identity in known})
    ended = {entry["id"]: Exited(**entry) for entry in held["exits"] if not entry["exec_id"]}
    to_start: list[str] = []
    snapshots = set(containers.snapshotter.keys())
    for container in list(containers.all()):
        if container.id not in snapshots and container.id not in running:
            # the daemon was killed within its removal
            await containers.discard(container, volumes=container.host.auto_remove)
            continue
        was_running = container.state.running or container.state.status == "restarting"
        entry = running.get(container.id)
        if was_running:
            containers.launcher.hold(container)
        if entry is not None:
            status = "paused" if entry["frozen"] else "running"
            containers.set_state(container.id, status=status, pid=entry["pid"],
                           started_at=container.state.started_at or time.time_ns())  # fmt: skip
            if containers.launcher.lacks_network(container):
                # the daemon was killed within its start: nobody was told that it runs
                log.warning("container %s is ended: the record of its network was lost", container.id[:12])
                await containers.keeper.ask(Signal(container.id, signal.SIGKILL))
                continue
            for hook in containers.started_hooks:
                hook(containers.get(container.id))
        elif container.id in ended:
            containers.exited(ended[container.id])
        elif container.state.status == "restarting":
            containers.set_state(container.id, status="exited")
        elif was_running:
            # ended unseen, with the host or with the keeper
            containers.set_state(container.id, status="exited", pid=0, exit_code=255, finished_at=time.time_ns())
            containers.launcher.release(container)
        if entry is None and container.id not in ended:
            policy = container.host.restart_policy
            state = containers.get(container.id).state
            if state.started_at and restart.after_daemon_start(
                policy, state.exit_code, stopped_by_user=container.stopped_by_user, count=container.restart_count
            ):
                to_start.append(container.id)
            elif container.host.auto_remove and was_running:
                containers.spawn(containers.auto_remove(container.id))
    known = {container.id for container in containers.all()}
    for entry in held["exits"]:
        if entry["exec_id"] or entry["id"] in running or entry["id"] not in known:
            containers.keeper.acknowledge(Exited(**entry))
    await end_leftovers(containers, set(running))
    for identity in running:
        if identity not in known:
            await containers.keeper.ask(Signal(identity, signal.SIGKILL))
    for key in snapshots:
        if key not in known:
            containers.snapshotter.remove(key)
    for directory in containers.root.iterdir():
        if directory.name not in known:
            shutil.rmtree(directory, ignore_errors=True)
    for identity in to_start:
        containers.spawn(_start_again(containers, identity))


async def end_leftovers(containers: Containers, running: set[str]) -> None:
    """Kill what a keeper that was killed has left behind: every process in a control group that no keeper holds."""
    groups = [containers.cgroup(container) for container in containers.all() if container.id not in running]
    parent = containers.launcher.cgroup_parent
    groups += [f"{parent}/{name}" for name in containers.cgroups.children(parent) if name not in running]
    deadline = time.monotonic() + _END_SECONDS
    for group in dict.fromkeys(groups):
        while not containers.cgroups.delete(group) and time.monotonic() < deadline:
            pids = containers.cgroups.processes(group)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if pids:
                with contextlib.suppress(OSError):
                    containers.cgroups.freeze(group, frozen=False)  # what is frozen does not die
            await asyncio.sleep(0.01)


async def _start_again(containers: Containers, identity: str) -> None:
    try:
        await containers.start(identity)
    except BoxshipError as error:
        log.warning("container %s was not started again: %s", identity[:12], error)
