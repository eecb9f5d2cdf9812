"""Files of a container: copied in and out, exported, compared, committed.

A running container is entered through the root of its first process, so that its volumes and mounts are seen;
for one that does not run they are mounted while they are needed. Every path is resolved by the kernel inside that
root, through descriptors.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from boxship.containers import mounts, roots
from boxship.containers.config import ContainerConfig
from boxship.containers.model import Container
from boxship.containers.service import Containers
from boxship.errors import Denied, Invalid, NotFound
from boxship.images.changes import apply_changes
from boxship.images.model import Image
from boxship.oci.image_config import ExecutionConfig, History, RootFS
from boxship.oci.reference import Reference
from boxship.runtime import users
from boxship.runtime.failure import StartFailure
from boxship.snapshots.archive import apply_tar, write_tar
from boxship.snapshots.contract import Change
from boxship.snapshots.streaming import fed, piped
from boxship.syscalls.files import open_in_root


@dataclass(frozen=True, slots=True)
class PathStat:
    """What `docker cp` wants to know of a path; the mode as Go's `os.FileMode` numbers it."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


class Files:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    @asynccontextmanager
    async def _root(self, container: Container) -> AsyncIterator[int]:
        if container.state.running:
            descriptor = os.open(f"/proc/{container.state.pid}/root/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        points = [point for point in container.mounts if point.kind != "tmpfs"]
        if not points:
            with self._containers.snapshotter.mounted(container.id) as descriptor:
                yield descriptor
            return
        volumes, holder = self._containers.volumes, f"{container.id}:{secrets.token_hex(4)}"
        try:
            entries = await mounts.specification(points, volumes, holder)
            with roots.furnished(self._containers.snapshotter.root(container.id), entries) as descriptor:
                yield descriptor
        finally:
            for point in points:
                volumes.release(point.name, holder)

    async def stat(self, name: str, path: str) -> PathStat:
        """Raises `NotFound` in Docker's words."""
        container = self._containers.get(name)
        async with self._root(container) as root:
            return await asyncio.to_thread(_stat, root, path, name)

    async def read(self, name: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """A path as a tar stream; raises `NotFound`."""
        container = self._containers.get(name)
        status = await self.stat(name, path)
        self._containers.publish("archive-path", container)

        async def stream() -> AsyncIterator[bytes]:
            async with self._root(container) as root:

                def produce(out: BinaryIO) -> None:
                    base = os.path.basename(path.rstrip("/")) or "."
                    directory = path.endswith(("/", "/."))
                    write_tar(root, path, out, rename="." if base == "." else base, follow=directory)

                async with aclosing(piped(produce)) as data:
                    async for part in data:
                        yield part

        return status, stream()

    async def write(self, name: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool, to_user: bool) -> None:
        """Unpack a tar into a directory; raises `NotFound`, `Conflict`, `Invalid`, `Denied` for a read-only root.

        With `to_user` everything is given to the container's user, where it has one; else to whom the tar says.
        """
        container = self._containers.get(name)
        holding = [p for p in container.mounts if f"{os.path.normpath(path)}/".startswith(f"{p.destination}/")]
        if holding and not max(holding, key=lambda point: len(point.destination)).read_write:
            raise Denied("mounted volume is marked read-only")
        if container.host.readonly_rootfs and not holding:
            raise Denied("container rootfs is marked read-only")
        async with self._root(container) as root:

            def consume(source: BinaryIO) -> None:
                try:
                    found = open_in_root(root, path, os.O_PATH)
                except OSError:
                    raise NotFound(f"Could not find the file {path} in container {name}") from None
                is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
                os.close(found)
                if not is_directory:
                    raise Invalid("extraction point is not a directory")
                owner = _owner(root, container.config.user) if to_user else None
                apply_tar(root, path, source, owner=owner, keep_kinds=keep_kinds)

            await fed(stream, consume)
        self._containers.publish("extract-to-dir", container)

    def export(self, name: str) -> AsyncIterator[bytes]:
        """The whole filesystem as a tar stream."""
        container = self._containers.get(name)
        self._containers.publish("export", container)

        def produce(out: BinaryIO) -> None:
            with self._containers.snapshotter.mounted(container.id) as root:
                write_tar(root, "/", out, rename="")

        return piped(produce)

    def changes(self, name: str) -> list[Change]:
        container = self._containers.get(name)
        return self._containers.snapshotter.changes(container.id)

    def size(self, container: Container) -> int:
        return self._containers.snapshotter.usage(container.id)

    async def commit(
        self, name: str, *, reference: Reference | None, message: str, author: str, changes: list[str], pause: bool,
        config: ContainerConfig | None,
    ) -> Image:  # fmt: skip
        """Make an image of a container; raises `NotFound`, `Invalid` for a change that is no instruction."""
        container = self._containers.get(name)
        paused = pause and container.state.status == "running"
        if paused:
            await self._containers.pause(container.id)
        try:
            image = await asyncio.to_thread(self._commit, container, reference, message, author, changes, config)
        finally:
            if paused:
                await self._containers.unpause(container.id)
        shown = reference.with_default_tag().familiar if reference else ""
        self._containers.publish("commit", container, comment=message, imageID=image.id, imageRef=shown)
        return image

    def _commit(
        self, container: Container, reference: Reference | None, message: str, author: str, changes: list[str],
        config: ContainerConfig | None,
    ) -> Image:  # fmt: skip
        images, snapshotter = self._containers.images, self._containers.snapshotter
        base = images.get(container.image)
        with images.pinned() as pin:
            with snapshotter.writer() as writer:
                snapshotter.write_diff(container.id, writer)
                layer = writer.commit()
            pin(layer)
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            execution = apply_changes(_execution(config or container.config), changes)
            history = [
                *(base.config.history or []),
                History(now, " ".join([container.path, *container.args]), author, message),
            ]
            made = msgspec.structs.replace(
                base.config, created=now, author=author, config=execution, history=history,
                rootfs=RootFS("layers", [*base.layers, layer]),
            )  # fmt: skip
            return images.create(
                made.encode(), parent=base.id, tags=[reference] if reference else [], action="tag" if reference else None
            )


def _execution(config: ContainerConfig) -> ExecutionConfig:
    return ExecutionConfig(
        config.user, config.exposed_ports, config.env, config.entrypoint, config.cmd, config.volumes, config.working_dir,
        config.labels, config.stop_signal, False, config.healthcheck, config.shell, config.on_build,
    )  # fmt: skip


def _owner(root: int, user: str) -> tuple[int, int] | None:
    """The ids of a container's user, read from the container's own files; raises `Invalid`."""
    if not user:
        return None
    try:
        found = users.resolve(user, (), _lines(root, "/etc/passwd"), _lines(root, "/etc/group"))
    except StartFailure as failure:
        raise Invalid(failure.message) from failure
    return found.uid, found.gid


def _lines(root: int, path: str) -> list[str]:
    try:
        with open(open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK), errors="surrogateescape") as file:
            return file.read(1 << 22).splitlines()
    except OSError:
        return []


def _stat(root: int, path: str, container: str) -> PathStat:
    try:
        parent_path, _, name = path.rstrip("/").rpartition("/")
        if path.endswith("/") or name in ("", ".", ".."):
            found = open_in_root(root, path, os.O_PATH)
            status, target = os.fstat(found), ""
            os.close(found)
        else:
            parent = open_in_root(root, parent_path or "/", os.O_RDONLY | os.O_DIRECTORY)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else ""
            os.close(parent)
            if target and not target.startswith("/"):
                target = os.path.normpath(os.path.join("/", parent_path, target))
    except OSError:
        raise NotFound(f"Could not find the file {path} in container {container}") from None
    mtime = datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z")
    return PathStat(os.path.basename(path.rstrip("/")) or "/", status.st_size, go_mode(status.st_mode), mtime, target)


def go_mode(mode: int) -> int:
    """A mode as Go's `os.FileMode` has it: permissions, and the kind in the high bits."""
    kinds = {
        stat.S_IFDIR: 1 << 31,
        stat.S_IFLNK: 1 << 27,
        stat.S_IFIFO: 1 << 25,
        stat.S_IFSOCK: 1 << 24,
        stat.S_IFBLK: 1 << 26,
        stat.S_IFCHR: 1 << 26 | 1 << 21,
    }
    found = mode & 0o777 | kinds.get(stat.S_IFMT(mode), 0)
    for bit, high in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        if mode & bit:
            found |= high
    return found
