"""What a writable snapshot holds: the upper directory of an overlay, as changes and as a tar."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from boxship.snapshots.archive import add_file, walk
from boxship.snapshots.contract import Change, LayerWriter
from boxship.snapshots.tree import OPAQUE_MARKER, OPAQUE_XATTR, WHITEOUT_PREFIX


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(parent: int, name: str) -> bool:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        return os.getxattr(descriptor, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
    finally:
        os.close(descriptor)


def changes(upper: Path, existed: Callable[[str], bool]) -> list[Change]:
    """The changes as `docker diff` tells them; `existed` says whether the layers below have a path."""
    found: list[Change] = []
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, status, _ in walk(root):
            if _is_whiteout(status):
                found.append(Change("/" + path, "deleted"))
            else:
                found.append(Change("/" + path, "modified" if existed(path) else "added"))
    finally:
        os.close(root)
    return sorted(found, key=lambda change: change.path)


def write_diff(upper: Path, writer: LayerWriter) -> None:
    """Write the upper directory as a layer's tar: sorted, whiteouts and opaque marks in the OCI form."""
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    links: dict[tuple[int, int], str] = {}
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Sink(writer)), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path, status, parent in walk(root):
                directory, _, name = path.rpartition("/")
                if _is_whiteout(status):
                    tar.addfile(_marker(f"{directory}/" if directory else "", WHITEOUT_PREFIX + name, status))
                    continue
                if stat.S_ISSOCK(status.st_mode):
                    continue
                add_file(tar, parent, name, path, status, links)
                if stat.S_ISDIR(status.st_mode) and is_opaque(parent, name):
                    tar.addfile(_marker(f"{path}/", OPAQUE_MARKER, status))
    finally:
        os.close(root)


def _marker(prefix: str, name: str, status: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(prefix + name)
    entry.mode = 0o600
    entry.mtime = int(status.st_mtime)
    return entry


class _Sink:
    """A layer writer as the file that tarfile wants."""

    def __init__(self, writer: LayerWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> int:
        return self._writer.write(data)


def usage(upper: Path) -> int:
    """Bytes that the files of an upper directory occupy."""
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen: set[int] = set()
        total = 0
        for _, status, _ in walk(root):
            if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
                seen.add(status.st_ino)
                total += min(status.st_size, status.st_blocks * 512)
        return total
    finally:
        os.close(root)
