"""Which driver: by trying, once."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
from pathlib import Path

from boxship.errors import BoxshipError, Conflict, Invalid, Unsupported
from boxship.snapshots.contract import Snapshotter
from boxship.snapshots.directories import DirectorySnapshotter
from boxship.snapshots.erofs import ErofsSnapshotter

DRIVERS = ("erofs", "overlay2")


def choose(data_root: Path, exec_root: Path, driver: str | None = None) -> tuple[Snapshotter, str]:
    """The snapshotter for `data_root`, and why it is that one.

    A data root stays with the driver that its layers were written by. Raises `Invalid` for a driver that does not
    exist, `Unsupported` where the one asked for cannot work here, `Conflict` for another one than before.
    """
    if driver not in (None, "", *DRIVERS):
        raise Invalid(f"unknown storage driver {driver!r}", hint=f"one of {', '.join(DRIVERS)}")
    root = data_root / "snapshots"
    before = next((name for name in DRIVERS if _used(root / name)), None)
    if driver and before and driver != before:
        raise Conflict(
            f"{data_root} holds images of the storage driver {before}, not {driver}",
            hint=f"use --storage-driver {before}, or another --data-root",
        )
    if (driver or before) == "overlay2":
        why = "the data root was made with it" if before else "it was asked for"
        return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), why
    # where it was used before it is not tried again: that would need room on a disk that may be full
    reason = None if before else _erofs_fails(root / "probe")
    if reason is None:
        return ErofsSnapshotter(root / "erofs", exec_root / "layers"), "the kernel mounts EROFS from files"
    if driver:
        raise Unsupported(f"storage driver erofs does not work here: {reason}", hint="use overlay2")
    return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), f"erofs does not work here: {reason}"


def _used(root: Path) -> bool:
    """Whether layers or containers of a driver are there."""
    return any(directory.is_dir() and any(directory.iterdir()) for directory in (root / "layers", root / "writable"))


def _erofs_fails(directory: Path) -> str | None:
    """Why EROFS does not work for files where `directory` would be: that depends on the file system, too."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("probe")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"probe"))
    shutil.rmtree(directory, ignore_errors=True)  # of a start that was killed
    try:
        with contextlib.closing(ErofsSnapshotter(directory, directory / "mounts")) as snapshotter:
            with snapshotter.writer() as writer:
                writer.write(data.getvalue())
                layer = writer.commit()
            shown = Path(snapshotter.show(layer)) / "probe"
            return None if shown.read_bytes() == b"probe" else "a file read back differs"
    except (BoxshipError, OSError) as error:
        return str(error)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
