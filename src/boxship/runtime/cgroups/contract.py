"""What a hierarchy of control groups must do, whichever version it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Resources = dict[str, Any]
"""OCI `LinuxResources` (runtime-spec, config-linux.md, section "Control groups")."""


@dataclass(frozen=True, slots=True)
class CgroupStats:
    """One reading; times in nanoseconds, sizes in bytes. A limit of 0 means that there is none."""

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_per_core: tuple[int, ...] = ()
    throttled_periods: int = 0
    periods: int = 0
    throttled_time: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_details: dict[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int = 0
    block_bytes: tuple[tuple[int, int, str, int], ...] = ()
    block_operations: tuple[tuple[int, int, str, int], ...] = ()


class Cgroups(Protocol):
    """A path such as `/boxship/<id>` names a group; every method is idempotent where it can be."""

    version: int

    def create(self, path: str) -> list[str]:
        """Make the group; returns the files into which a process that joins writes `0`."""
        ...

    def apply(self, path: str, resources: Resources) -> None:
        """Set limits; raises `OSError` with the file that refused."""
        ...

    def freeze(self, path: str, frozen: bool) -> None: ...

    def processes(self, path: str) -> list[int]: ...

    def children(self, path: str) -> list[str]:
        """The names of the groups right below."""
        ...

    def stats(self, path: str) -> CgroupStats: ...

    def oom_kills(self, path: str) -> int: ...

    def delete(self, path: str) -> bool:
        """Remove the group and those below it; False where a process is still in it."""
        ...

    def mounts(self, path: str) -> list[tuple[str, Path]]:
        """What a container sees below /sys/fs/cgroup: (name, directory here); the empty name is all of it."""
        ...


def read_int(path: Path, default: int = 0) -> int:
    """The number in a control file; "max" and an absent file are the default."""
    try:
        text = path.read_text().strip()
    except OSError:
        return default
    return int(text) if text.lstrip("-").isdecimal() else default


def read_pairs(path: Path) -> dict[str, int]:
    """A control file of `key value` lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def write(path: Path, value: object) -> None:
    """Write a control file; raises `OSError` with its path."""
    try:
        with path.open("w") as file:
            file.write(str(value))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {str(value)!r})", str(path)) from error


def subdirectories(directory: Path) -> list[str]:
    """The names of the groups below a group's directory; none where it is not there."""
    try:
        return [entry.name for entry in directory.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def remove_tree(directory: Path) -> bool:
    """rmdir a group and its descendants, deepest first; False where one is busy."""
    try:
        directory.rmdir()
        return True
    except FileNotFoundError:
        return True
    except OSError:
        pass
    try:
        children = [entry for entry in directory.iterdir() if entry.is_dir()]
        done = all([remove_tree(child) for child in children])
        directory.rmdir()
        return done
    except FileNotFoundError:
        return True
    except OSError:
        return False
