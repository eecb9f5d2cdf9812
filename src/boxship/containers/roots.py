"""The root of a container that does not run, with its volumes and binds in it, for who reads and writes files there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict

from boxship.errors import Invalid, from_os_error
from boxship.runtime.container.mounts import mount_all, mount_root
from boxship.runtime.failure import StartFailure
from boxship.snapshots.contract import RootMount
from boxship.syscalls import mount as m


@contextlib.contextmanager
def furnished(root: RootMount, entries: list[dict[str, object]]) -> Iterator[int]:
    """A root with OCI mounts in it, as a directory descriptor; attached nowhere. Raises `Invalid`, and what the host says."""
    tree = _assemble(root, entries)
    try:
        descriptor = os.open(f"/proc/self/fd/{tree}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        os.close(tree)


def _assemble(root: RootMount, entries: list[dict[str, object]]) -> int:
    # not every kernel mounts on what is attached nowhere: it hangs in the engine's own namespace for a moment
    staging = tempfile.mkdtemp(prefix="boxship-root-")
    try:
        descriptor = mount_root(asdict(root), staging)
        try:
            mount_all(descriptor, entries)
            return m.clone_tree(staging, recursive=True)
        finally:
            os.close(descriptor)
            m.unmount(staging, m.MNT_DETACH)
    except StartFailure as error:
        raise Invalid(str(error)) from error
    except OSError as error:
        raise from_os_error(error, "mounting the container's volumes") from error
    finally:
        os.rmdir(staging)
