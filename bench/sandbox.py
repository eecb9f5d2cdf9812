"""A place that leaves nothing behind: namespaces and control groups of the run's own.

Engines lay firewall rules, bridges, mounts and control groups, and leave daemons. Inside, all of it belongs to
namespaces that end with the run, and to control groups below one of its own, which are removed after it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_INSIDE = "BOXSHIP_BENCH_SANDBOX"


def inside() -> Path | None:
    """The run's directory, where this process is in the sandbox already."""
    found = os.environ.get(_INSIDE)
    return Path(found) if found else None


def run(arguments: Sequence[str]) -> int:
    """Run this program again in a sandbox and clean up after it; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    group = f"boxship-bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="boxship-bench-", ignore_cleanup_errors=True) as directory:
        hierarchies = [entry for entry in sorted(_CGROUPS.iterdir()) if (entry / "cgroup.procs").exists()]
        huge = Path(directory) / "hugetlb"
        if hierarchies and not (_CGROUPS / "hugetlb").exists():
            # crun wants this one too; only the first cgroup namespace may bring a hierarchy up
            huge.mkdir()
            _mount("-t", "cgroup", "-o", "hugetlb", "cgroup", str(huge))
            hierarchies.append(huge)
        hierarchies = hierarchies or [_CGROUPS]
        before = {hierarchy: _own_group(hierarchy) for hierarchy in hierarchies}
        try:
            for hierarchy in hierarchies:
                _make(hierarchy / group)
                (hierarchy / group / "cgroup.procs").write_text("0")
            # --kill-child: whatever is left of the engines ends with the first process of the pid namespace
            command = ["unshare", "--mount", "--net", "--pid", "--cgroup", "--ipc", "--fork", "--kill-child", "--mount-proc",
                       sys.executable, "-m", "bench", *arguments]  # fmt: skip
            return subprocess.run(command, env={**os.environ, _INSIDE: directory}, check=False).returncode
        finally:
            for hierarchy in hierarchies:
                with contextlib.suppress(OSError):
                    (hierarchy / before[hierarchy].lstrip("/") / "cgroup.procs").write_text("0")
                _remove(hierarchy / group)
            if huge.exists():
                subprocess.run(["umount", str(huge)], check=False)


def enter() -> None:
    """Make the namespaces ready: own control groups, /run and /dev/shm, loopback up."""
    names = [entry.name for entry in sorted(_CGROUPS.iterdir()) if (entry / "cgroup.procs").exists()]
    if names:
        _mount("-t", "tmpfs", "-o", "mode=755", "cgroup", str(_CGROUPS))
        for name in sorted({*names, "hugetlb"}):
            target = _CGROUPS / name
            target.mkdir()
            kind = "cgroup2" if name == "unified" else "cgroup"
            options = {"unified": [], "systemd": ["-o", "none,name=systemd"]}.get(name, ["-o", name])
            _mount("-t", kind, *options, "cgroup", str(target))
    else:
        _mount("-t", "cgroup2", "cgroup", str(_CGROUPS))
    for directory in ("/run", "/dev/shm"):
        _mount("-t", "tmpfs", "tmpfs", directory)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _own_group(hierarchy: Path) -> str:
    """This process's group in a hierarchy, as a path below its root."""
    name = {"systemd": "name=systemd", "unified": ""}.get(hierarchy.name, hierarchy.name)
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == name or (hierarchy == _CGROUPS and not controllers):
            return path
    return "/"


def _make(group: Path) -> None:
    group.mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (group.parent / file).exists() and not (group / file).read_text().strip():
            (group / file).write_text((group.parent / file).read_text())


def _remove(group: Path) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
