"""What the Engine API speaks to."""

from __future__ import annotations

from dataclasses import dataclass, field

from boxship.build.service import Builder
from boxship.containers.execs import Execs
from boxship.containers.files import Files
from boxship.containers.service import Containers
from boxship.events.bus import Events
from boxship.images.store import Images
from boxship.network.service import Networks
from boxship.registry.registries import Registries
from boxship.state.database import Database
from boxship.volumes.service import Volumes


@dataclass(slots=True)
class EngineFacts:
    """What `info` tells of the engine itself; a reload of the settings changes it."""

    id: str
    data_root: str
    driver_reason: str
    labels: list[str] = field(default_factory=list)
    mirrors: list[str] = field(default_factory=list)
    insecure: list[str] = field(default_factory=list)
    log_driver: str = "json-file"
    debug: bool = False
    live_restore: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    version: str
    facts: EngineFacts
    containers: Containers
    execs: Execs
    files: Files
    images: Images
    registries: Registries
    networks: Networks
    volumes: Volumes
    builder: Builder
    events: Events
    database: Database
