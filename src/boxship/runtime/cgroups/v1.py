"""Control groups, version 1: one hierarchy a controller (kernel: admin-guide/cgroup-v1)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from boxship.runtime.cgroups.contract import CgroupStats, Resources, read_int, read_pairs, remove_tree, subdirectories, write

_NO_LIMIT = 1 << 62
_NAMED = "systemd"


class CgroupsV1:
    """The controllers mounted below `root`, one directory each."""

    version = 1

    def __init__(self, root: Path) -> None:
        self._root = root
        names = sorted(entry.name for entry in root.iterdir() if (entry / "cgroup.procs").exists()) if root.exists() else []
        # co-mounted controllers (cpu,cpuacct) appear once under each name as links: keep one of each
        self._controllers = [name for name in names if name != "unified" and not (root / name).is_symlink()]
        self._directories: dict[str, Path] = {}
        for name in self._controllers:
            for part in name.split(","):
                self._directories[part] = root / name

    def create(self, path: str) -> list[str]:
        joins = []
        for name in self._controllers:
            directory = f"{self._root}/{name}{path}"
            self._make(name, directory, path)
            joins.append(f"{directory}/cgroup.procs")
        return joins

    def _make(self, name: str, directory: str, path: str) -> None:
        target = Path(directory)
        try:
            target.mkdir()
        except FileNotFoundError:
            parent = path.rpartition("/")[0]
            self._make(name, f"{self._root}/{name}{parent}", parent)
            with contextlib.suppress(FileExistsError):
                target.mkdir()
        except FileExistsError:
            return
        if name == "cpuset":
            self._inherit_cpuset(target)

    def _inherit_cpuset(self, directory: Path) -> None:
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not (directory / file).read_text().strip():
                (directory / file).write_text((directory.parent / file).read_text())

    def _at(self, controller: str, path: str) -> Path | None:
        directory = self._directories.get(controller)
        return directory / path.lstrip("/") if directory else None

    def _set(self, controller: str, path: str, file: str, value: object) -> None:
        directory = self._at(controller, path)
        if directory is None:
            raise OSError(2, f"this kernel has no {controller} controller", file)
        write(directory / file, value)

    def apply(self, path: str, resources: Resources) -> None:
        self._apply_memory(path, resources.get("memory") or {})
        self._apply_cpu(path, resources.get("cpu") or {})
        if limit := (resources.get("pids") or {}).get("limit"):
            self._set("pids", path, "pids.max", limit if limit > 0 else "max")
        self._apply_blkio(path, resources.get("blockIO") or {})
        for rule in resources.get("devices") or []:
            number = f"{_number(rule.get('major'))}:{_number(rule.get('minor'))}"
            kind = rule.get("type") or "a"
            entry = "a" if kind == "a" and number == "*:*" else f"{kind} {number} {rule.get('access') or 'rwm'}"
            self._set("devices", path, "devices.allow" if rule["allow"] else "devices.deny", entry)

    def _apply_memory(self, path: str, memory: Resources) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        if limit and swap:
            # raising: the larger first, as memory.memsw must never be below memory.limit
            directory = self._at("memory", path)
            current = read_int(directory / "memory.memsw.limit_in_bytes", _NO_LIMIT) if directory else _NO_LIMIT
            order = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
            values = dict(zip(order, (swap, limit), strict=True))
            if 0 < swap <= current or limit < 0:
                order.reverse()
            for file in order:
                if "memsw" not in file or (directory and (directory / file).exists()):
                    self._set("memory", path, file, values[file])
        elif limit:
            self._set("memory", path, "memory.limit_in_bytes", limit)
        if reservation := memory.get("reservation"):
            self._set("memory", path, "memory.soft_limit_in_bytes", reservation)
        if memory.get("swappiness") is not None:
            self._set("memory", path, "memory.swappiness", memory["swappiness"])
        if memory.get("kernelTCP"):
            self._set("memory", path, "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"])
        if memory.get("disableOOMKiller"):
            self._set("memory", path, "memory.oom_control", 1)

    def _apply_cpu(self, path: str, cpu: Resources) -> None:
        for key, controller, file in (
            ("shares", "cpu", "cpu.shares"),
            ("period", "cpu", "cpu.cfs_period_us"),
            ("quota", "cpu", "cpu.cfs_quota_us"),
            ("realtimePeriod", "cpu", "cpu.rt_period_us"),
            ("realtimeRuntime", "cpu", "cpu.rt_runtime_us"),
            ("cpus", "cpuset", "cpuset.cpus"),
            ("mems", "cpuset", "cpuset.mems"),
        ):
            if cpu.get(key):
                self._set(controller, path, file, cpu[key])

    def _apply_blkio(self, path: str, block: Resources) -> None:
        if block.get("weight"):
            directory = self._at("blkio", path)
            bfq = directory is not None and (directory / "blkio.bfq.weight").exists()
            self._set("blkio", path, "blkio.bfq.weight" if bfq else "blkio.weight", block["weight"])
        for device in block.get("weightDevice") or []:
            self._set("blkio", path, "blkio.weight_device", f"{device['major']}:{device['minor']} {device['weight']}")
        for key, file in (
            ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
            ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
            ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
            ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
        ):
            for device in block.get(key) or []:
                self._set("blkio", path, file, f"{device['major']}:{device['minor']} {device['rate']}")

    def freeze(self, path: str, frozen: bool) -> None:
        self._set("freezer", path, "freezer.state", "FROZEN" if frozen else "THAWED")

    def processes(self, path: str) -> list[int]:
        directory = self._at("pids", path) or self._at("freezer", path) or self._at("memory", path)
        if directory is None:
            return []
        found: list[int] = []
        with contextlib.suppress(OSError):
            found = [int(line) for line in (directory / "cgroup.procs").read_text().split()]
        return found

    def children(self, path: str) -> list[str]:
        return sorted({name for each in self._controllers for name in subdirectories(self._root / each / path.lstrip("/"))})

    def stats(self, path: str) -> CgroupStats:
        account = self._at("cpuacct", path) or Path("/nonexistent")
        memory = self._at("memory", path) or Path("/nonexistent")
        pids = self._at("pids", path) or Path("/nonexistent")
        throttling = read_pairs((self._at("cpu", path) or account) / "cpu.stat")
        tick = 10_000_000
        times = read_pairs(account / "cpuacct.stat")
        limit = read_int(memory / "memory.limit_in_bytes")
        per_core: tuple[int, ...] = ()
        with contextlib.suppress(OSError):
            per_core = tuple(int(part) for part in (account / "cpuacct.usage_percpu").read_text().split())
        return CgroupStats(
            cpu_total=read_int(account / "cpuacct.usage"),
            cpu_user=times.get("user", 0) * tick,
            cpu_system=times.get("system", 0) * tick,
            cpu_per_core=per_core,
            throttled_periods=throttling.get("nr_throttled", 0),
            periods=throttling.get("nr_periods", 0),
            throttled_time=throttling.get("throttled_time", 0),
            memory_usage=read_int(memory / "memory.usage_in_bytes"),
            memory_max_usage=read_int(memory / "memory.max_usage_in_bytes"),
            memory_limit=0 if limit >= _NO_LIMIT else limit,
            memory_failures=read_int(memory / "memory.failcnt"),
            memory_details=read_pairs(memory / "memory.stat"),
            pids=read_int(pids / "pids.current"),
            pids_limit=read_int(pids / "pids.max"),
            block_bytes=self._block(path, "blkio.throttle.io_service_bytes_recursive"),
            block_operations=self._block(path, "blkio.throttle.io_serviced_recursive"),
        )

    def _block(self, path: str, file: str) -> tuple[tuple[int, int, str, int], ...]:
        directory = self._at("blkio", path)
        if directory is None:
            return ()
        entries = []
        with contextlib.suppress(OSError):
            for line in (directory / file).read_text().splitlines():
                device, _, rest = line.partition(" ")
                operation, _, count = rest.partition(" ")
                if ":" in device and count:
                    major, minor = device.split(":")
                    entries.append((int(major), int(minor), operation, int(count)))
        return tuple(entries)

    def oom_kills(self, path: str) -> int:
        directory = self._at("memory", path)
        return read_pairs(directory / "memory.oom_control").get("oom_kill", 0) if directory else 0

    def delete(self, path: str) -> bool:
        return all([remove_tree(Path(f"{self._root}/{name}{path}")) for name in self._controllers])

    def mounts(self, path: str) -> list[tuple[str, Path]]:
        return [(name, Path(f"{self._root}/{name}{path}")) for name in self._controllers]


def _number(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)
