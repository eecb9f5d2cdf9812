"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from boxship.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The parameters of the Engine API's `POST /build`; sizes in bytes, CPU quota and period in microseconds."""

    tags: tuple[str, ...] = ()
    dockerfile: str = "Dockerfile"
    quiet: bool = False
    no_cache: bool = False
    pull: bool = False
    build_arguments: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    target: str = ""
    network: str = "default"
    platform: Platform | None = None
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    ulimits: tuple[dict[str, Any], ...] = ()
    cgroup_parent: str = ""
    cache_from: tuple[str, ...] = ()
    remote: str = ""
    squash: bool = False
    credentials: dict[str, Any] = field(default_factory=dict)
