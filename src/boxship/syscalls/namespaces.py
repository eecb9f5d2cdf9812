"""unshare(2), setns(2) and pidfds."""

from __future__ import annotations

import ctypes
from typing import Final

from boxship.syscalls.libc import LIBC, check, syscall

CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread."""
    check(LIBC.unshare(ctypes.c_int(flags)))


def enter(descriptor: int, flags: int = 0) -> None:
    """setns(2) with a namespace descriptor, or with a pidfd and the namespaces to join."""
    check(LIBC.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)))


def open_pid(pid: int) -> int:
    """pidfd_open(2): a descriptor for a process, close-on-exec; readable once it has ended."""
    return syscall("pidfd_open", pid, 0)
