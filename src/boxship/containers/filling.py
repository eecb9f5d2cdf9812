"""A new container's volumes get what its image has at their places."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile

from boxship.containers.model import MountPoint
from boxship.errors import BoxshipError, Invalid, from_os_error
from boxship.images.model import Image
from boxship.snapshots.archive import apply_tar, write_tar
from boxship.snapshots.contract import Snapshotter
from boxship.syscalls.files import open_in_root
from boxship.syscalls.removal import remove_tree
from boxship.volumes.service import Volumes


async def fill_volumes(points: list[MountPoint], image: Image, snapshotter: Snapshotter, volumes: Volumes, holder: str) -> None:
    """Copy what the image has at a volume's destination into the volume, where that is still empty.

    Raises `Invalid` where the image has a file at the place of an anonymous volume, and what mounting and copying raise.
    """
    for point in points:
        if point.kind != "volume" or not point.copy:
            continue
        with snapshotter.viewed(image.layers) as root:
            try:
                os.close(open_in_root(root, point.destination, os.O_RDONLY | os.O_DIRECTORY))
            except NotADirectoryError:
                if point.anonymous:
                    raise Invalid(f"cannot mount volume over existing file, file exists {point.destination}") from None
                continue
            except OSError:
                continue  # the image has nothing there
            try:
                target = await volumes.mount(point.name, holder)
                await asyncio.to_thread(_fill, str(target), root, point)
            finally:
                volumes.release(point.name, holder)


def _fill(volume: str, root: int, point: MountPoint) -> None:
    """Copy a directory of an image into a volume; all of it or, where that fails, nothing."""
    doing, path = f"filling volume {point.name} from the image", point.destination
    try:
        target = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, doing) from error
    try:
        if os.listdir(target) or os.fstatvfs(target).f_flag & os.ST_RDONLY:
            return
        try:
            with tempfile.TemporaryFile() as spool:
                write_tar(root, path, spool, rename=".", follow=True)
                spool.seek(0)
                apply_tar(target, ".", spool)
            status = _status(root, path)
            os.fchown(target, status.st_uid, status.st_gid)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
        except (OSError, BoxshipError) as error:
            for name in os.listdir(target):
                remove_tree(target, name)
            if isinstance(error, BoxshipError):
                raise type(error)(f"{doing}: {error.message}", hint=error.hint) from error
            raise from_os_error(error, doing) from error
    finally:
        os.close(target)


def _status(root: int, path: str) -> os.stat_result:
    descriptor = open_in_root(root, path, os.O_PATH)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
