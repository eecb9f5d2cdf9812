"""Writable snapshots: an overlay's upper directory each, over layers that a driver makes mountable.

    <root>/layers/<hex>/          one layer; what is in it is the driver's
    <root>/writable/<key>/        upper, work, and the layers it stands on
    <root>/trash/                 removed, and deleted in the background

A driver (`erofs`, `directories`) says how a layer is written and which directory shows it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from boxship.errors import AlreadyExists, NotFound, from_os_error
from boxship.oci.digest import Digest
from boxship.snapshots import upper
from boxship.snapshots.contract import Change, LayerWriter, RootMount
from boxship.snapshots.tree import Tree
from boxship.snapshots.writing import TAR, Writer
from boxship.syscalls import mount as m
from boxship.syscalls.files import open_in_root
from boxship.syscalls.removal import remove_tree


def _make_skeleton(directory: Path) -> Path:
    """What every container finds: the places where the engine mounts its own files."""
    for name in ("dev", "proc", "sys", "etc"):
        (directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"):
        (directory / name).touch(mode=0o644)
    return directory


class OverlaySnapshotter(ABC):
    """What both drivers share."""

    name: str

    def __init__(self, root: Path, mounts: Path) -> None:
        self._layers = root / "layers"
        self._writable = root / "writable"
        self._trash = root / "trash"
        self._mounts = mounts
        self._counter = itertools.count()
        for directory in (self._layers, self._writable, self._trash, mounts):
            directory.mkdir(parents=True, exist_ok=True)
        self._empty = root / "empty"
        self._empty.mkdir(exist_ok=True)
        self._nothing = root / "nothing"
        self._nothing.mkdir(exist_ok=True)
        self._skeleton = _make_skeleton(root / "skeleton")
        self._options = _overlay_options()
        for unfinished in self._layers.glob("new-*"):
            self._discard(unfinished)
        left = list(self._trash.iterdir())
        if left:
            threading.Thread(target=_remove_all, args=(left,), daemon=True, name="trash").start()

    # --- layers ---

    @abstractmethod
    def show(self, diff_id: str) -> str:
        """A directory that shows a layer, in the engine's mount namespace."""

    @abstractmethod
    def lay(self, directory: Path, tree: Tree, tar: BinaryIO, size: int) -> None:
        """Make the layer in `directory` mountable from its tree and its tar."""

    keeps_tar: bool
    """Whether the driver needs the tar itself."""

    def layer_directory(self, diff_id: str) -> Path:
        return self._layers / Digest(diff_id).hex

    def has_layer(self, diff_id: str) -> bool:
        return self.layer_directory(diff_id).exists()

    def writer(self, *, keep: bool = True) -> LayerWriter:
        directory = self._layers / f"new-{os.getpid()}-{next(self._counter)}"
        try:
            directory.mkdir()
            return Writer(self, directory, keep=keep or self.keeps_tar)
        except OSError as error:
            self._discard(directory)
            raise from_os_error(error, "beginning a layer") from error

    def adopt(self, directory: Path, diff_id: str) -> None:
        """Give a finished layer its name; one that is here already stays."""
        try:
            directory.rename(self.layer_directory(diff_id))
        except OSError as error:
            self._discard(directory)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise from_os_error(error, "committing a layer") from error

    def drop(self, directory: Path) -> None:
        self._discard(directory)

    def open_layer(self, diff_id: str) -> BinaryIO:
        try:
            return (self.layer_directory(diff_id) / TAR).open("rb")
        except FileNotFoundError:
            raise NotFound(f"the tar of layer {diff_id} is not here") from None

    def layer_size(self, diff_id: str) -> int:
        try:
            return int((self.layer_directory(diff_id) / "size").read_text())
        except FileNotFoundError:
            raise NotFound(f"layer {diff_id} is not here") from None

    def remove_layer(self, diff_id: str) -> None:
        directory = self.layer_directory(diff_id)
        if directory.exists():
            self._discard(directory)

    def layers(self, *, older_than: float = 0.0) -> list[Digest]:
        latest = time.time() - older_than
        found = [entry for entry in self._layers.iterdir() if not entry.name.startswith("new-")]
        return [Digest.from_hex(entry.name) for entry in found if entry.stat().st_mtime <= latest]

    # --- snapshots ---

    def prepare(self, key: str, layers: Sequence[str]) -> None:
        for layer in layers:
            if not self.has_layer(layer):
                raise NotFound(f"layer {layer} is not here")
        directory = self._writable / key
        try:
            directory.mkdir()
            (directory / "upper").mkdir(0o755)
            (directory / "work").mkdir()
            (directory / "layers").write_text(json.dumps(list(layers)))
        except FileExistsError:
            raise AlreadyExists(f"snapshot {key} exists already") from None
        except OSError as error:
            self.remove(key)
            raise from_os_error(error, "making a snapshot") from error

    def _layers_of(self, key: str) -> list[str]:
        try:
            layers: list[str] = json.loads((self._writable / key / "layers").read_text())
        except FileNotFoundError:
            raise NotFound(f"snapshot {key} is not here") from None
        return layers

    def exists(self, key: str) -> bool:
        return (self._writable / key / "layers").exists()

    def keys(self) -> list[str]:
        return [entry.name for entry in self._writable.iterdir()]

    def root(self, key: str) -> RootMount:
        directory = self._writable / key
        lower = tuple(self.show(layer) for layer in reversed(self._layers_of(key)))
        # at the very bottom: what an image brings itself wins, and no mount point becomes part of a change
        return RootMount((*lower, str(self._skeleton)), f"{directory}/upper", f"{directory}/work", self._options)

    @contextmanager
    def mounted(self, key: str) -> Iterator[int]:
        root = self.root(key)
        options = [("lowerdir+", lower) for lower in root.lower]
        options += [("upperdir", root.upper), ("workdir", root.work)]
        for option in root.options:
            name, _, value = option.partition("=")
            options.append((name, value))
        descriptor = self._mount(options, 0)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def viewed(self, layers: Sequence[str]) -> Iterator[int]:
        # an overlay for one layer too: it hides the layer's whiteouts, and lets nothing be written
        lower = [*(self.show(layer) for layer in reversed(layers)), str(self._empty), str(self._nothing)]
        descriptor = self._mount([("lowerdir+", directory) for directory in lower], m.MOUNT_ATTR_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _mount(self, options: list[tuple[str, str]], attributes: int) -> int:
        try:
            mounted = m.new_mount("overlay", options, attributes)
            try:
                return os.open(f"/proc/self/fd/{mounted}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            finally:
                os.close(mounted)
        except OSError as error:
            raise from_os_error(error, "mounting a snapshot") from error

    def changes(self, key: str) -> list[Change]:
        layers = self._layers_of(key)
        with self.viewed(layers) as below:

            def existed(path: str) -> bool:
                try:
                    os.close(open_in_root(below, path, os.O_PATH | os.O_NOFOLLOW))
                except OSError:
                    return False
                return True

            return upper.changes(self._writable / key / "upper", existed)

    def unchanged(self, key: str) -> bool:
        self._layers_of(key)
        return not os.listdir(self._writable / key / "upper")

    def write_diff(self, key: str, writer: LayerWriter) -> None:
        self._layers_of(key)
        upper.write_diff(self._writable / key / "upper", writer)

    def usage(self, key: str) -> int:
        self._layers_of(key)
        return upper.usage(self._writable / key / "upper")

    def remove(self, key: str) -> None:
        directory = self._writable / key
        if directory.exists():
            self._discard(directory)

    def close(self) -> None:
        return None

    def _discard(self, directory: Path) -> None:
        target = self._trash / secrets.token_hex(16)
        try:
            directory.rename(target)
        except FileNotFoundError:
            return
        threading.Thread(target=_remove_all, args=([target],), daemon=True, name="trash").start()


def _remove_all(directories: list[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # it is tried again at the next start
            remove_tree(str(directory))


def _overlay_options() -> tuple[str, ...]:
    """Switch off what would leave files in an upper directory that are not there in full, where it is on by default."""
    found = []
    for name in ("redirect_dir", "metacopy"):
        with contextlib.suppress(OSError):
            if Path(f"/sys/module/overlay/parameters/{name}").read_text().strip() == "Y":
                found.append(f"{name}=off")
    return tuple(found)
