"""What a running daemon holds on the host that none of its records explains."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from tests.support.engine import Engine, running

_CGROUPS = Path("/sys/fs/cgroup")
_SECONDS = 10.0


def keeper_pid(engine: Engine) -> int:
    """The process id of a daemon's keeper."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"launch.py\0{engine.exec_root}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        except OSError:
            continue
    raise AssertionError("no keeper runs")


def check_nothing_left(engine: Engine) -> None:
    """Fail with what is left once everything has had its time to go."""
    deadline = time.monotonic() + _SECONDS
    while found := left(engine):
        assert time.monotonic() < deadline, f"left behind: {found}"
        time.sleep(0.02)


def left(engine: Engine) -> list[str]:
    """Directories, control groups, mounts and processes of containers that are not there.

    What the daemon leaves beyond its own end (links, rules, mounts on the host) is checked after every test.
    """
    containers = engine.api("GET", "/containers/json?all=1")[1]
    known = {each["Id"] for each in containers}
    alive = {each["Id"] for each in containers if each["State"] in ("running", "paused")}
    keeper = keeper_pid(engine)
    return [*_directories(engine, known), *_cgroups(engine, alive), *_mounts(engine, keeper), *_processes(keeper, len(alive))]


def _directories(engine: Engine, known: set[str]) -> list[str]:
    data, (snapshots,) = engine.data_root, list((engine.data_root / "snapshots").glob("*/writable"))
    found = [entry for root in (data / "containers", snapshots) for entry in root.iterdir() if entry.name not in known]
    found += snapshots.parent.glob("layers/new-*")
    for scratch in (data / "build", engine.exec_root / "build"):
        found += scratch.iterdir() if scratch.exists() else []
    # layers of the build's cache have no image; without one every layer has
    if not engine.api("GET", "/v1.44/system/df")[1]["BuildCache"]:
        images = [engine.api("GET", f"/images/{image['Id']}/json")[1] for image in engine.api("GET", "/images/json?all=1")[1]]
        layers = {layer.partition(":")[2] for image in images for layer in image["RootFS"]["Layers"] or []}
        found += [entry for entry in snapshots.parent.glob("layers/*") if entry.name not in layers]
    return [str(path) for path in found]


def _cgroups(engine: Engine, alive: set[str]) -> list[str]:
    name = f"boxship-{hashlib.sha256(str(engine.data_root).encode()).hexdigest()[:6]}"
    groups = [*_CGROUPS.glob(f"{name}/*/"), *_CGROUPS.glob(f"*/{name}/*/")]
    return [str(group) for group in groups if group.name not in alive]


def _mounts(engine: Engine, keeper: int) -> list[str]:
    targets = [line.split()[4] for line in Path(f"/proc/{keeper}/mountinfo").read_text().splitlines()]
    layers = engine.exec_root / "layers"
    return [f"mount {target}" for target in targets
            if Path(target).is_relative_to(engine.directory) and Path(target).parent != layers]  # fmt: skip


def _processes(keeper: int, count: int) -> list[str]:
    """The keeper's children, where there are more of them than containers that run."""
    children = [int(pid) for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()]
    living = [pid for pid in children if running(pid)]
    return [f"{len(living)} processes for {count} containers"] if len(living) > count else []
