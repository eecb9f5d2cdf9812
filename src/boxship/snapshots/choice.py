"""Which driver: by trying, once."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from boxship.errors import BoxshipError, Conflict, Invalid, Unsupported
from boxship.snapshots.contract import Snapshotter
from boxship.snapshots.directories import DirectorySnapshotter
from boxship.snapshots.erofs import ErofsSnapshotter

DRIVERS = ("erofs", "overlay2")


def choose(data_root: Path, exec_root: Path, driver: str | None = None) -> tuple[Snapshotter, str]:
    """The snapshotter for `data_root`, and why it is that one.

    A data root stays with the driver that its layers were written by. Raises `Invalid` for a driver that does not
    exist, `Unsupported` where the one asked for, or used before, cannot work here, `Conflict` for another one than before.
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
        why = "it was asked for" if driver else "the data root was made with it"
        return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), why
    reason = _erofs_fails()
    if reason is None:
        return ErofsSnapshotter(root / "erofs", exec_root / "layers"), "the kernel mounts EROFS from files"
    if driver or before:
        hint = f"{data_root} was made with it: use another --data-root" if before else "use overlay2"
        raise Unsupported(f"storage driver erofs does not work here: {reason}", hint=hint)
    return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), f"erofs does not work here: {reason}"


def _used(root: Path) -> bool:
    """Whether layers or containers of a driver are there."""
    return any(directory.is_dir() and any(directory.iterdir()) for directory in (root / "layers", root / "writable"))


def _erofs_fails() -> str | None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("probe")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"probe"))
    with tempfile.TemporaryDirectory(prefix="boxship-probe-") as directory:
        snapshotter = ErofsSnapshotter(Path(directory), Path(directory) / "mounts")
        try:
            with snapshotter.writer() as writer:
                writer.write(data.getvalue())
                layer = writer.commit()
            shown = Path(snapshotter.show(layer)) / "probe"
            return None if shown.read_bytes() == b"probe" else "a file read back differs"
        except (BoxshipError, OSError) as error:
            return str(error)
        finally:
            snapshotter.close()
