"""Named volumes, by the local driver: a directory each, or a mount made when a container first needs it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from boxship.errors import Conflict, Invalid, NotFound, from_os_error
from boxship.events.bus import Events
from boxship.state.database import Database
from boxship.syscalls import mount as m
from boxship.syscalls.removal import remove_tree

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = frozenset({"type", "o", "device", "size"})
_FLAGS = {
    "ro": m.MS_RDONLY,
    "nosuid": m.MS_NOSUID,
    "nodev": m.MS_NODEV,
    "noexec": m.MS_NOEXEC,
    "noatime": m.MS_NOATIME,
    "bind": m.MS_BIND,
    "rbind": m.MS_BIND | m.MS_REC,
    "rw": 0,
    "defaults": 0,
}


class Volume(msgspec.Struct, frozen=True, omit_defaults=True):
    """A volume; `created` in nanoseconds since 1970."""

    name: str
    created: int
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class Volumes:
    """Every volume of the engine. `users` tells which containers refer to one; the engine sets it."""

    def __init__(self, root: Path, database: Database, events: Events) -> None:
        self._root = root
        self._events = events
        self._volumes = database.collection("volumes", Volume)
        self._mounted: dict[str, set[str]] = {}
        self.users: Callable[[str], list[str]] = lambda _: []
        root.mkdir(parents=True, exist_ok=True)

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
        self, name: str = "", *, driver: str = "local", options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:  # fmt: skip
        """Make a volume, or return the one of that name; raises `Invalid`, `NotFound` for a driver, `Conflict`."""
        options = dict(options or {})
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if name and not _NAME.fullmatch(name):
            raise Invalid(
                f'"{name}" includes invalid characters for a local volume name,'
                ' only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        for option in options:
            if option not in _OPTIONS:
                raise Invalid(f'invalid option: "{option}"')
        if options and not options.get("device") and options.get("type") != "tmpfs":
            raise Invalid('missing required option: "device"')
        existing = self._volumes.get(name) if name else None
        if existing is not None:
            if options and existing.options != options:
                raise Conflict(f"volume {name} exists already with other options")
            return existing
        anonymous = not name
        name = name or secrets.token_hex(32)
        try:
            self.path(name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, "making a volume") from error
        volume = Volume(name, time.time_ns(), "local", labels or {}, options, anonymous)
        self._volumes.put(name, volume)
        self._events.publish("volume", "create", name, driver="local")
        return volume

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises `Conflict` while containers refer to it; with `force` an absent one is no error."""
        volume = self._volumes.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = self.users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self._unmount(name)
        if volume.options:
            # never recursive: should a mount be left in spite of all, its files are not the engine's
            with contextlib.suppress(OSError):
                self.path(name).rmdir()
                (self._root / name).rmdir()
        else:
            with contextlib.suppress(OSError):
                remove_tree(str(self._root / name))
        self._volumes.delete(name)
        self._events.publish("volume", "destroy", name, driver="local")

    def prune(self, accept: Callable[[Volume], bool]) -> tuple[list[str], int]:
        """Remove unused volumes that `accept` takes: their names, and the bytes freed."""
        removed, freed = [], 0
        for volume in self.all():
            if not self.users(volume.name) and accept(volume):
                freed += self.size(volume.name)
                self.remove(volume.name)
                removed.append(volume.name)
        return removed, freed

    def size(self, name: str) -> int:
        """Bytes of the volume's files."""
        total = 0
        for directory, _, names in os.walk(self.path(name)):
            for file in names:
                try:
                    total += os.lstat(os.path.join(directory, file)).st_size
                except OSError:
                    continue
        return total

    def mount(self, name: str, container: str) -> Path:
        """Make the volume's files available to a container; raises what the kernel says, translated."""
        volume = self.get(name)
        path = self.path(name)
        path.mkdir(parents=True, exist_ok=True)
        if volume.options and not _is_mounted(path):
            self._mount(volume, path)
        self._mounted.setdefault(name, set()).add(container)
        self._events.publish("volume", "mount", name, container=container, driver="local", destination=str(path), propagation="")
        return path

    def release(self, name: str, container: str) -> None:
        """A container does without it now."""
        holders = self._mounted.get(name, set())
        if container in holders:
            holders.discard(container)
            self._events.publish("volume", "unmount", name, container=container, driver="local")
            if not holders and name in self._volumes and self._volumes.all[name].options:
                self._unmount(name)

    def _mount(self, volume: Volume, path: Path) -> None:
        kind = volume.options.get("type", "")
        device = volume.options.get("device", "")
        flags, data = 0, []
        for option in volume.options.get("o", "").split(","):
            if option in _FLAGS:
                flags |= _FLAGS[option]
            elif option.startswith("addr=") and kind.startswith("nfs"):
                data.append(f"addr={_resolve(option[5:])}")
            elif option:
                data.append(option)
        try:
            m.mount(device, str(path), kind if kind not in ("none", "") else None, flags, ",".join(data) or None)
        except OSError as error:
            raise from_os_error(error, f"failed to mount local volume: mount {device}:{path}, type: {kind}") from error

    def _unmount(self, name: str) -> None:
        path = self.path(name)
        while _is_mounted(path):
            m.unmount(str(path), m.MNT_DETACH)


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted at `path`: a bind of the same file system too, which st_dev does not tell."""
    return path.exists() and _mount_id(path) != _mount_id(path.parent)


def _mount_id(path: Path) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)[0][4][0])
    except OSError:
        raise Invalid(f"the address {host!r} of an nfs volume cannot be resolved") from None
