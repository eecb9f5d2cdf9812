"""openat2(2): opening paths inside a root that a stranger controls; sync_file_range(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

from boxship.syscalls.libc import LIBC, syscall

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

_RANGE_WRITE: Final = 2


# a rename or a mount anywhere on the host meanwhile, and the kernel cannot vouch for a `..`: it says EAGAIN, try again
_ATTEMPTS: Final = 128


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def open_in_root(
    root: int,
    path: str | bytes,
    flags: int,
    mode: int = 0,
    *,
    resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
) -> int:
    """Open `path` as if the open directory `root` were `/`: links and `..` cannot leave it. Close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & (os.O_CREAT | os.O_TMPFILE) else 0, resolve)
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(BlockingIOError):
            return syscall("openat2", root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)
    return syscall("openat2", root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """sync_file_range(2): let the kernel begin to write out a part of a file, so that a later fsync has less to wait for.

    Says nothing of when that is done, and makes nothing durable by itself; a file system that cannot is no error.
    """
    LIBC.sync_file_range(ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_RANGE_WRITE))
