"""How every system call of this room is made: through libc, with `OSError` for a failure."""

from __future__ import annotations

import ctypes
import os
from typing import Final

LIBC: Final = ctypes.PyDLL(None, use_errno=True)
"""Calls that hold the interpreter's lock: short ones, and those after which a child must not wait for it."""

LIBC_RELEASING: Final = ctypes.CDLL(None, use_errno=True)
"""Calls that may block, with the interpreter's lock released meanwhile."""

_NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {"pivot_root": 155, "keyctl": 250, "seccomp": 317, "bpf": 321, "setns": 308, "capset": 126},
    "aarch64": {"pivot_root": 41, "keyctl": 219, "seccomp": 277, "bpf": 280, "setns": 268, "capset": 91},
}
_COMMON: Final[dict[str, int]] = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}


def number(name: str) -> int:
    """The number of a system call here; raises `OSError` (ENOSYS) on a machine we have no table for."""
    found = _COMMON.get(name) or _NUMBERS.get(os.uname().machine, {}).get(name)
    if found is None:
        raise OSError(38, f"no system call number for {name} on {os.uname().machine}")
    return found


def check(result: int, path: str | bytes | None = None) -> int:
    """Pass a result through; a negative one becomes `OSError` with the calling thread's errno."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(path) if path is not None else None)
    return result


def syscall(name: str, *arguments: object, path: str | bytes | None = None) -> int:
    """Make a system call by name, holding the interpreter's lock; integers are passed as longs."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    LIBC.syscall.restype = ctypes.c_long
    return check(LIBC.syscall(ctypes.c_long(number(name)), *converted), path)
