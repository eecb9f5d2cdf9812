"""Kernel parameters of the container's namespaces."""

from __future__ import annotations

import ctypes
import os

from boxship.runtime.failure import StartFailure, describe
from boxship.syscalls.files import open_in_root
from boxship.syscalls.libc import LIBC, check

_PROC_SUPER_MAGIC = 0x9FA0


def write(root: int, parameters: dict[str, str]) -> None:
    """Write each below the container's /proc/sys, once the file is seen to be of a procfs; raises `StartFailure`."""
    for name, value in parameters.items():
        path = "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
        try:
            descriptor = open_in_root(root, path, os.O_WRONLY)
            try:
                if filesystem_kind(descriptor) != _PROC_SUPER_MAGIC:
                    raise StartFailure("mount", f"{path} of the container is not a file of procfs")
                os.write(descriptor, str(value).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StartFailure("mount", f"setting sysctl {name}: {describe(error)}", error.errno or 0) from error


def filesystem_kind(descriptor: int) -> int:
    """The magic number of the filesystem an open file is on (statfs(2))."""
    status = (ctypes.c_long * 32)()
    check(LIBC.fstatfs(descriptor, ctypes.byref(status)))
    return int(status[0])
