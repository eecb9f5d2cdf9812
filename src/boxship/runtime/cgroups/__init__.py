"""Control groups: one contract, two implementations (`v1`, `v2`), chosen by what is mounted."""

from __future__ import annotations

from pathlib import Path

from boxship.runtime.cgroups.contract import Cgroups, CgroupStats
from boxship.runtime.cgroups.v1 import CgroupsV1
from boxship.runtime.cgroups.v2 import CgroupsV2

__all__ = ["CgroupStats", "Cgroups", "CgroupsV1", "CgroupsV2", "detect"]

ROOT = Path("/sys/fs/cgroup")


def detect(root: Path = ROOT) -> Cgroups:
    """The hierarchy in use: v2 where it alone is mounted, else v1."""
    if (root / "cgroup.controllers").exists():
        return CgroupsV2(root)
    return CgroupsV1(root)
