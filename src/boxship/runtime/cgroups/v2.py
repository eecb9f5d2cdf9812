"""Control groups, version 2: one hierarchy (kernel: admin-guide/cgroup-v2)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from boxship.runtime.cgroups import devices
from boxship.runtime.cgroups.contract import CgroupStats, Resources, read_int, read_pairs, remove_tree, subdirectories, write

_WANTED = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")


class CgroupsV2:
    """The unified hierarchy at `root`."""

    version = 2

    def __init__(self, root: Path) -> None:
        self._root = root
        self._delegated: set[str] = set()

    def create(self, path: str) -> list[str]:
        directory = self._at(path)
        self._delegate(path.rpartition("/")[0])
        directory.mkdir(parents=True, exist_ok=True)
        return [f"{directory}/cgroup.procs"]

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _delegate(self, parent: str) -> None:
        if parent in self._delegated:
            return
        directory = self._root
        for part in ["", *parent.strip("/").split("/")]:
            directory = directory / part if part else directory
            directory.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                available = set((directory / "cgroup.controllers").read_text().split())
                for controller in available.intersection(_WANTED):
                    with contextlib.suppress(OSError):
                        (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        self._delegated.add(parent)

    def apply(self, path: str, resources: Resources) -> None:
        directory = self._at(path)
        memory = resources.get("memory") or {}
        limit, swap = memory.get("limit"), memory.get("swap")
        if limit:
            write(directory / "memory.max", limit if limit > 0 else "max")
        if swap and (directory / "memory.swap.max").exists():  # absent without swap accounting
            # OCI counts memory and swap together, the kernel swap alone
            write(directory / "memory.swap.max", "max" if swap < 0 else max(0, swap - max(0, limit or 0)))
        if memory.get("reservation"):
            write(directory / "memory.low", memory["reservation"])
        self._apply_cpu(directory, resources.get("cpu") or {})
        if pids := (resources.get("pids") or {}).get("limit"):
            write(directory / "pids.max", pids if pids > 0 else "max")
        self._apply_io(directory, resources.get("blockIO") or {})
        if rules := resources.get("devices"):
            devices.attach(str(directory), rules)

    def _apply_cpu(self, directory: Path, cpu: Resources) -> None:
        if shares := cpu.get("shares"):
            # the range 2..262144 onto 1..10000
            write(directory / "cpu.weight", 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142)
        if cpu.get("quota") or cpu.get("period"):
            quota = cpu.get("quota") or -1
            write(directory / "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100_000}")
        for key in ("cpus", "mems"):
            if cpu.get(key):
                write(directory / f"cpuset.{key}", cpu[key])

    def _apply_io(self, directory: Path, block: Resources) -> None:
        if block.get("weight"):
            if (directory / "io.bfq.weight").exists():
                write(directory / "io.bfq.weight", block["weight"])
            else:
                write(directory / "io.weight", f"default {1 + (block['weight'] - 10) * 9999 // 990}")
        for key, name in (
            ("throttleReadBpsDevice", "rbps"),
            ("throttleWriteBpsDevice", "wbps"),
            ("throttleReadIOPSDevice", "riops"),
            ("throttleWriteIOPSDevice", "wiops"),
        ):
            for device in block.get(key) or []:
                write(directory / "io.max", f"{device['major']}:{device['minor']} {name}={device['rate']}")

    def freeze(self, path: str, frozen: bool) -> None:
        write(self._at(path) / "cgroup.freeze", int(frozen))

    def processes(self, path: str) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(OSError):
            found = [int(line) for line in (self._at(path) / "cgroup.procs").read_text().split()]
        return found

    def children(self, path: str) -> list[str]:
        return subdirectories(self._at(path))

    def stats(self, path: str) -> CgroupStats:
        directory = self._at(path)
        cpu = read_pairs(directory / "cpu.stat")
        events = read_pairs(directory / "memory.events")
        block_bytes, operations = self._block(directory)
        return CgroupStats(
            cpu_total=cpu.get("usage_usec", 0) * 1000,
            cpu_user=cpu.get("user_usec", 0) * 1000,
            cpu_system=cpu.get("system_usec", 0) * 1000,
            throttled_periods=cpu.get("nr_throttled", 0),
            periods=cpu.get("nr_periods", 0),
            throttled_time=cpu.get("throttled_usec", 0) * 1000,
            memory_usage=read_int(directory / "memory.current"),
            memory_max_usage=read_int(directory / "memory.peak"),
            memory_limit=read_int(directory / "memory.max"),
            memory_failures=events.get("max", 0),
            memory_details=read_pairs(directory / "memory.stat"),
            pids=read_int(directory / "pids.current"),
            pids_limit=read_int(directory / "pids.max"),
            block_bytes=tuple(block_bytes),
            block_operations=tuple(operations),
        )

    def _block(self, directory: Path) -> tuple[list[tuple[int, int, str, int]], list[tuple[int, int, str, int]]]:
        transferred: list[tuple[int, int, str, int]] = []
        operations: list[tuple[int, int, str, int]] = []
        names = {"rbytes": (transferred, "Read"), "wbytes": (transferred, "Write"),
                 "rios": (operations, "Read"), "wios": (operations, "Write")}  # fmt: skip
        with contextlib.suppress(OSError):
            for line in (directory / "io.stat").read_text().splitlines():
                device, *fields = line.split()
                major, minor = device.split(":")
                for key, _, value in (field.partition("=") for field in fields):
                    if key in names:
                        target, operation = names[key]
                        target.append((int(major), int(minor), operation, int(value)))
        return transferred, operations

    def oom_kills(self, path: str) -> int:
        return read_pairs(self._at(path) / "memory.events").get("oom_kill", 0)

    def delete(self, path: str) -> bool:
        return remove_tree(self._at(path))

    def mounts(self, path: str) -> list[tuple[str, Path]]:
        return [("", self._at(path))]
