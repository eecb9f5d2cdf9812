"""What a build asks of whoever runs its commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from boxship.errors import Invalid

Output = Callable[[str, bytes], None]
"""Takes the name of a stream, stdout or stderr, and bytes."""


class NotStarted(Invalid):
    """Raised when a command could not be executed; `code` is what a shell would exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A command over a writable snapshot. Memory and shm in bytes, CPU quota and period in microseconds."""

    snapshot: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    working_directory: str
    user: str
    network: str
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


class Executor(Protocol):
    async def run(self, request: RunRequest, output: Output) -> int:
        """The command's exit code, its output as it comes; cancelled, the command is killed. Raises `NotStarted`."""
        ...
