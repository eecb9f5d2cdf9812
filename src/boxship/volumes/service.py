"""Named volumes, by the local driver: a directory each, or a mount made while containers use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from boxship.errors import BoxshipError, Conflict, Invalid, NotFound, from_os_error
from boxship.events.bus import Events
from boxship.state.database import Database
from boxship.syscalls.removal import remove_tree
from boxship.volumes import local

log = logging.getLogger(__name__)

ANONYMOUS = "com.docker.volume.anonymous"
"""The label that clients know a volume without a name of its own by."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_REMOVED = ".removed-"


class Volume(msgspec.Struct, frozen=True, omit_defaults=True):
    """A volume; `created` in nanoseconds since 1970."""

    name: str
    created: int
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS in self.labels


class Volumes:
    """Every volume of the engine. `users` tells which containers refer to one; the engine sets it."""

    def __init__(self, root: Path, database: Database, events: Events) -> None:
        self._root = root
        self._events = events
        self._volumes = database.collection("volumes", Volume)
        self._holders: dict[str, set[str]] = {}
        self._attaching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.users: Callable[[str], list[str]] = lambda _: []
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_REMOVED}*"):
            _remove_files(left)

    def all(self) -> list[Volume]:
        return sorted(self._volumes.all.values(), key=lambda volume: volume.name)

    def get(self, name: str) -> Volume:
        """Raises `NotFound` in Docker's words."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def path(self, name: str) -> Path:
        """Where a volume's files are."""
        return self._root / name / "_data"

    def create(
        self, name: str = "", *, driver: str = "local", options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:  # fmt: skip
        """Make a volume, or return the one of that name; without a name it is anonymous.

        Raises `Invalid` or `Unsupported` for a name or options, `NotFound` for a driver, and `Conflict` where the
        volume of that name has other options.
        """
        options, labels = dict(options or {}), dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            labels[ANONYMOUS] = ""
        try:
            if driver not in ("", "local"):
                raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
            existing = self._volumes.get(name)
            if existing is not None:
                if options and existing.options != options:
                    raise Conflict("a volume of that name exists already with other options")
                return existing
            _check_name(name)
            local.check(options)
            self.path(name).mkdir(parents=True, exist_ok=True)
        except BoxshipError as error:
            raise type(error)(f"create {name}: {error.message}", hint=error.hint) from error
        except OSError as error:
            raise from_os_error(error, f"create {name}: making a directory") from error
        volume = Volume(name, time.time_ns(), "local", labels, options)
        self._volumes.put(name, volume)
        self._events.publish("volume", "create", name, driver="local")
        return volume

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Raises `Conflict` while containers refer to it; with `force` an absent one is no error."""
        if force and name not in self._volumes:
            return
        volume = self.get(name)
        users = sorted({*self.users(name), *(holder.partition(":")[0] for holder in self._holders.get(name, ()))})
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        removed = self._root / f"{_REMOVED}{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            if volume.options:
                # never recursive: should a mount be left in spite of all, its files are not the engine's
                local.detach(self.path(name))
                self.path(name).rmdir()
                (self._root / name).rmdir()
            else:
                # at once out of the way of a new one of the same name: deleting may take its time
                (self._root / name).rename(removed)
        self._volumes.delete(name)
        self._attaching.pop(name, None)
        self._events.publish("volume", "destroy", name, driver="local")
        if removed.exists():
            await asyncio.to_thread(_remove_files, removed)

    async def prune(self, accept: Callable[[Volume], bool]) -> tuple[list[str], int]:
        """Remove unused volumes that `accept` takes: their names, and the bytes freed.

        Those with options are kept, as with Docker: their files lie elsewhere, and nothing would be freed.
        """
        removed, freed = [], 0
        for volume in self.all():
            if volume.options or not accept(volume):
                continue
            size = await asyncio.to_thread(self.size, volume.name)
            with contextlib.suppress(Conflict, NotFound):
                await self.remove(volume.name)
                removed.append(volume.name)
                freed += size
        return removed, freed

    def size(self, name: str) -> int:
        """Bytes of the volume's files, each counted once; -1 for a volume with options, whose files lie elsewhere."""
        volume = self._volumes.get(name)
        if volume is not None and volume.options:
            return -1
        files: dict[tuple[int, int], int] = {}
        for directory, _, names in os.walk(self.path(name)):
            for file in names:
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(directory, file))
                    files[status.st_dev, status.st_ino] = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return sum(files.values())

    # --- in use ---

    async def mount(self, name: str, holder: str) -> Path:
        """Make the volume's files available to `holder`, a container or, after a colon, something done for it.

        `release` must follow, also after an error. Raises what the kernel says, translated.
        """
        volume, path = self.get(name), self.path(name)
        self.hold(name, holder)
        if volume.options:
            async with self._attaching[name]:
                await asyncio.to_thread(local.attach, volume.options, path)
        else:
            path.mkdir(parents=True, exist_ok=True)
        container = holder.partition(":")[0]
        self._events.publish("volume", "mount", name, container=container, driver="local", destination=str(path), propagation="")
        return path

    def hold(self, name: str, holder: str) -> None:
        """A container uses the volume: one that was running before this daemon started, too."""
        self._holders.setdefault(name, set()).add(holder)

    def release(self, name: str, holder: str) -> None:
        """A container does without it now."""
        holders = self._holders.get(name, set())
        if holder not in holders:
            return
        holders.discard(holder)
        self._events.publish("volume", "unmount", name, container=holder.partition(":")[0], driver="local")
        if not holders:
            del self._holders[name]
            volume = self._volumes.get(name)
            if volume is not None and volume.options:
                local.detach(self.path(name))


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise Invalid("volume name is too short, names should be at least two alphanumeric characters")
    if not _NAME.fullmatch(name):
        raise Invalid(
            f'"{name}" includes invalid characters for a local volume name,'
            ' only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def _remove_files(directory: Path) -> None:
    try:
        remove_tree(str(directory))
    except OSError as error:
        log.warning("files of a removed volume are left in %s: %s", directory, error.strerror)
