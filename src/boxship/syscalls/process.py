"""clone3(2), prctl(2), capset(2), seccomp(2) and the like: what turns a process into a container's."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final

from boxship.syscalls.libc import LIBC, check, number, syscall

CLONE_PIDFD: Final = 0x1000
CLONE_INTO_CGROUP: Final = 0x200000000

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_SET_KEEPCAPS: Final = 8

_CAPABILITY_VERSION_3: Final = 0x20080522
_SECCOMP_SET_MODE_FILTER: Final = 1
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_CLOSE_RANGE_CLOEXEC: Final = 4


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def clone(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """clone3(2) as a fork into new namespaces: (0, -1) in the child, (pid, pidfd) in the parent.

    Only for a single-threaded process: the child goes on with a copy of this interpreter. With `cgroup`, the
    descriptor of a cgroup v2 directory, the child is born in it.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=signal.SIGCHLD,
        cgroup=cgroup or 0,
    )
    LIBC.syscall.restype = ctypes.c_long
    pid = check(LIBC.syscall(ctypes.c_long(number("clone3")), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments))))
    return (pid, pidfd.value) if pid else (0, -1)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return check(LIBC.prctl(ctypes.c_int(option), *padded))


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for this thread, from 64-bit masks."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "6I",
        effective & low, permitted & low, inheritable & low,
        effective >> high, permitted >> high, inheritable >> high,
    )  # fmt: skip
    check(LIBC.capset(header, data))


def install_seccomp(program: bytes) -> None:
    """Install a BPF filter (an array of `struct sock_filter`) for this process and what it becomes."""
    instructions = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, filter_program)


def join_new_session_keyring() -> None:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): the process gets a keyring that no other container can search."""
    syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)


def close_on_exec_from(first: int) -> None:
    """close_range(2): mark every descriptor from `first` on close-on-exec."""
    syscall("close_range", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def close_from(first: int) -> None:
    """close_range(2): close every descriptor from `first` on."""
    syscall("close_range", first, 0xFFFFFFFF, 0)


def send_signal(pidfd: int, signal_number: int) -> None:
    """pidfd_send_signal(2): a signal that cannot reach a recycled pid."""
    signal.pidfd_send_signal(pidfd, signal_number)


def pivot_root(new_root_descriptor: int) -> None:
    """Make an open directory, which must be a mount, the root of this mount namespace; the old one is gone."""
    os.fchdir(new_root_descriptor)
    syscall("pivot_root", b".", b".")
    check(LIBC.umount2(b".", 2))
    os.chdir("/")
