"""Which driver: by trying, once."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from boxship.errors import BoxshipError, Invalid, Unsupported
from boxship.snapshots.contract import Snapshotter
from boxship.snapshots.directories import DirectorySnapshotter
from boxship.snapshots.erofs import ErofsSnapshotter

DRIVERS = ("erofs", "overlay2")


def choose(data_root: Path, exec_root: Path, driver: str | None = None) -> tuple[Snapshotter, str]:
    """The snapshotter for `data_root`, and why it is that one.

    Raises `Invalid` for a driver that does not exist, `Unsupported` where the one asked for cannot work here.
    """
    if driver not in (None, "", *DRIVERS):
        raise Invalid(f"unknown storage driver {driver!r}", hint=f"one of {', '.join(DRIVERS)}")
    root = data_root / "snapshots"
    if driver == "overlay2":
        return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), "it was asked for"
    reason = _erofs_fails()
    if reason is None:
        return ErofsSnapshotter(root / "erofs", exec_root / "layers"), "the kernel mounts EROFS from files"
    if driver == "erofs":
        raise Unsupported(f"storage driver erofs does not work here: {reason}", hint="use overlay2")
    return DirectorySnapshotter(root / "overlay2", exec_root / "layers"), f"erofs does not work here: {reason}"


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
