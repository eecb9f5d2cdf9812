"""Layers as plain directories, for kernels that cannot mount EROFS from files.

layers/<hex>/fs           the files
layers/<hex>/layer.tar    the exact tar, only for layers made here
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from boxship.snapshots.archive import set_xattr
from boxship.snapshots.overlay import OverlaySnapshotter
from boxship.snapshots.tree import Node, Tree
from boxship.syscalls.files import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root

_FILES = "fs"


class DirectorySnapshotter(OverlaySnapshotter):
    """Docker's overlay2, by its name."""

    name = "overlay2"
    keeps_tar = False

    def show(self, diff_id: str) -> str:
        return str(self.layer_directory(diff_id) / _FILES)

    def lay(self, directory: Path, tree: Tree, tar: BinaryIO, size: int) -> None:
        target = directory / _FILES
        target.mkdir()
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _Layout(tar.fileno(), root).fill(tree.root)
        finally:
            os.close(root)


class _Layout:
    """Makes the files of a tree; every directory on the way is one that it made itself."""

    def __init__(self, tar: int, root: int) -> None:
        self._tar = tar
        self._root = root
        self._made: dict[int, str] = {}

    def fill(self, root: Node) -> None:
        directories: list[tuple[str, Node]] = []
        pending = [("", root)]
        while pending:
            path, node = pending.pop()
            directories.append((path, node))
            descriptor = self._open(path)
            try:
                for name, child in sorted((node.children or {}).items()):
                    text = os.fsdecode(name)
                    here = f"{path}/{text}" if path else text
                    if child.is_directory:
                        os.mkdir(text, 0o700, dir_fd=descriptor)
                        pending.append((here, child))
                    else:
                        self._place(descriptor, text, here, child)
            finally:
                os.close(descriptor)
        for path, node in reversed(directories):
            descriptor = self._open(path)
            try:
                _attributes(descriptor, node)
            finally:
                os.close(descriptor)

    def _open(self, path: str) -> int:
        return open_in_root(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)

    def _place(self, directory: int, name: str, here: str, node: Node) -> None:
        first = self._made.get(id(node))
        if first is not None:
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=directory, follow_symlinks=False)
            return
        self._make(directory, name, node)
        if node.links > 1:
            self._made[id(node)] = here

    def _make(self, directory: int, name: str, node: Node) -> None:
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFREG:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                for offset, position, length in node.extents:
                    self._copy(position, descriptor, offset, length)
                if node.extents or node.size:
                    os.ftruncate(descriptor, node.size)
                _attributes(descriptor, node)
            finally:
                os.close(descriptor)
            return
        if kind == stat.S_IFLNK:
            os.symlink(node.target, os.fsencode(name), dir_fd=directory)
        else:
            os.mknod(name, node.mode, node.device, dir_fd=directory)
        os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(node.mode), dir_fd=directory)
        for key, value in node.xattrs.items():
            set_xattr(f"/proc/self/fd/{directory}/{name}", key, value)
        os.utime(name, ns=(_mtime(node), _mtime(node)), dir_fd=directory, follow_symlinks=False)

    def _copy(self, position: int, descriptor: int, offset: int, length: int) -> None:
        while length:
            copied = os.copy_file_range(self._tar, descriptor, length, position, offset)
            if not copied:
                raise OSError(5, "the layer's tar is shorter than its headers say")
            position, offset, length = position + copied, offset + copied, length - copied


def _attributes(descriptor: int, node: Node) -> None:
    os.fchown(descriptor, node.uid, node.gid)
    os.fchmod(descriptor, stat.S_IMODE(node.mode))
    for name, value in node.xattrs.items():
        set_xattr(descriptor, name, value)
    os.utime(descriptor, ns=(_mtime(node), _mtime(node)))


def _mtime(node: Node) -> int:
    return node.mtime * 1_000_000_000 + node.mtime_nsec
