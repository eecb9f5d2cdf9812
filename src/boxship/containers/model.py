"""A container as it is journalled and told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from boxship.containers.config import ContainerConfig, EndpointConfig, HostConfig


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times are nanoseconds since 1970, 0 for never."""

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    dead: bool = False

    @property
    def running(self) -> bool:
        return self.status in ("running", "paused")


class MountPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is mounted where: `source` is a path of this host."""

    kind: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""
    options: list[str] = []
    copy: bool = False
    anonymous: bool = False


class Container(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container; `endpoints` is what it asks of each network."""

    id: str
    name: str
    created: int
    image: str
    image_name: str
    path: str
    args: list[str]
    config: ContainerConfig
    host: HostConfig
    endpoints: dict[str, EndpointConfig]
    mounts: list[MountPoint]
    state: State
    restart_count: int = 0
    stopped_by_user: bool = False
    platform: str = "linux"

    @property
    def short(self) -> str:
        return self.id[:12]


class HealthProbe(msgspec.Struct, frozen=True):
    started_at: int
    ended_at: int
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True):
    """`status` is starting, healthy or unhealthy."""

    status: str = "starting"
    failing_streak: int = 0
    probes: list[HealthProbe] = []


@dataclass(slots=True)
class ExecSession:
    """A process asked for in a running container; `exit_code` is None until it has ended, `ended` until it starts."""

    id: str
    container: str
    arguments: list[str]
    user: str
    environment: list[str]
    directory: str
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    privileged: bool
    detach_keys: str
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    ended: asyncio.Future[int] | None = None


@dataclass(frozen=True, slots=True)
class WaitResult:
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Times are nanoseconds since 1970; `tail` is None for everything."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class LogLine:
    stream: str
    time: str
    text: str
    attributes: dict[str, str]
