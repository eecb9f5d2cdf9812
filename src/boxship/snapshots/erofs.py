"""Layers as EROFS: the tar as it came, and beside it an index that the kernel mounts over it.

layers/<hex>/layer.tar      the layer's exact tar
layers/<hex>/index.erofs    metadata only, pointing into the tar
<mounts>/<half the hex>     where a layer in use is mounted
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import BinaryIO

from boxship.errors import from_os_error
from boxship.oci.digest import Digest
from boxship.snapshots import erofs_image
from boxship.snapshots.overlay import OverlaySnapshotter
from boxship.snapshots.tree import Tree
from boxship.snapshots.writing import TAR
from boxship.syscalls import mount as m

INDEX = "index.erofs"


class ErofsSnapshotter(OverlaySnapshotter):
    """Needs a kernel that mounts EROFS from files (6.12 and later)."""

    name = "erofs"
    keeps_tar = True

    def __init__(self, root: Path, mounts: Path) -> None:
        super().__init__(root, mounts)
        self._mounted: dict[str, str] = {}
        self._lock = threading.Lock()

    def lay(self, directory: Path, tree: Tree, tar: BinaryIO, size: int) -> None:
        def read(offset: int, length: int) -> bytes:
            return os.pread(tar.fileno(), length, offset)

        with (directory / INDEX).open("wb") as index:
            index.write(erofs_image.build(tree, size, read))
            index.flush()
            os.fsync(index.fileno())

    def show(self, diff_id: str) -> str:
        with self._lock:
            target = self._mounted.get(diff_id)
            if target is None:
                target = self._mounted[diff_id] = self._mount_layer(diff_id)
            return target

    def _mount_point(self, diff_id: str) -> Path:
        # half of the digest: as hard to forge as it must be, and hundreds of layers still fit into one option
        return self._mounts / Digest(diff_id).hex[:32]

    def _mount_layer(self, diff_id: str) -> str:
        directory = self.layer_directory(diff_id)
        target = self._mount_point(diff_id)
        target.mkdir(exist_ok=True)
        if os.path.ismount(target):
            return str(target)  # from before a restart of the daemon
        try:
            m.mount(str(directory / INDEX), str(target), "erofs", m.MS_RDONLY, f"device={directory / TAR}")
        except OSError as error:
            raise from_os_error(error, "mounting a layer") from error
        return str(target)

    def remove_layer(self, diff_id: str) -> None:
        with self._lock:
            self._mounted.pop(diff_id, None)
            target = self._mount_point(diff_id)
            if target.exists():
                with contextlib.suppress(OSError):
                    m.unmount(str(target), m.MNT_DETACH)
                with contextlib.suppress(OSError):
                    target.rmdir()
        super().remove_layer(diff_id)

    def close(self) -> None:
        with self._lock:
            for target in self._mounted.values():
                with contextlib.suppress(OSError):
                    m.unmount(target, m.MNT_DETACH)
                with contextlib.suppress(OSError):
                    os.rmdir(target)
            self._mounted.clear()
