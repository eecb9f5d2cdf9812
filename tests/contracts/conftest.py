"""Both snapshot drivers, and a way to say what stands below a directory so that two can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.snapshots.directories import DirectorySnapshotter
from boxship.snapshots.erofs import ErofsSnapshotter
from boxship.snapshots.overlay import OverlaySnapshotter

Driver = Callable[[], OverlaySnapshotter]
Listing = dict[str, tuple[Any, ...]]

_KINDS: dict[str, type[OverlaySnapshotter]] = {"erofs": ErofsSnapshotter, "overlay2": DirectorySnapshotter}


@pytest.fixture(params=list(_KINDS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """Opens the driver under test at the same roots each time it is called, as a restart of the daemon does."""
    opened: list[OverlaySnapshotter] = []

    def open_driver() -> OverlaySnapshotter:
        made = _KINDS[request.param](tmp_path / "snapshots", tmp_path / "mounts")
        opened.append(made)
        return made

    yield open_driver
    for made in opened:
        made.close()


@pytest.fixture
def snapshotter(driver: Driver) -> OverlaySnapshotter:
    return driver()


@pytest.fixture(scope="session")
def listing() -> Callable[[int], Listing]:
    """Everything below an open directory, by path: kind, mode, owner, time, size, device, target, attributes, content."""

    def attributes(path: str) -> tuple[tuple[str, bytes], ...]:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay.")]
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))

    def look(directory: int) -> Listing:
        found: Listing = {}
        first: dict[int, str] = {}
        base = f"/proc/self/fd/{directory}"
        for parent, directories, files in os.walk(base + "/."):
            directories.sort()
            for name in sorted([*directories, *files]):
                path = os.path.join(parent, name)
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue  # overlay lists a whiteout that has nothing to hide, but it is not there
                shown = os.path.relpath(path, base)
                kind = stat.S_IFMT(status.st_mode)
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if kind == stat.S_IFREG else ""
                target = os.readlink(path) if kind == stat.S_IFLNK else ""
                link = first.setdefault(status.st_ino, shown) if kind != stat.S_IFDIR and status.st_nlink > 1 else shown
                size = 0 if kind == stat.S_IFDIR else status.st_size
                found[shown] = (
                    oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, size,
                    status.st_rdev, target, attributes(path), content, link,
                )  # fmt: skip
        return found

    return look


@pytest.fixture(scope="session")
def by_tar(listing: Callable[[int], Listing]) -> Callable[[Path, Path], Listing]:
    """What GNU tar makes of an archive."""

    def read(archive: Path, target: Path) -> Listing:
        target.mkdir()
        subprocess.run(
            ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-f", archive, "-C", target],
            check=True, timeout=60,
        )  # fmt: skip
        descriptor = os.open(target, os.O_RDONLY)
        try:
            return listing(descriptor)
        finally:
            os.close(descriptor)

    return read
