"""mount(2), umount2(2), and the mount API by file descriptor (fsopen, fsconfig, fsmount, move_mount, open_tree)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final

from boxship.syscalls.libc import LIBC, check, syscall

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_REMOUNT: Final = 32
MS_DIRSYNC: Final = 128
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24

MNT_DETACH: Final = 2

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
FSCONFIG_CMD_RECONFIGURE: Final = 7

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20

_CLOEXEC: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2); raises `OSError` with the target as its file name."""
    check(
        LIBC.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(LIBC.umount2(os.fsencode(target), flags), target)


def new_mount(kind: str, options: Iterable[tuple[str, str | int | None]] = (), attributes: int = 0) -> int:
    """Make a filesystem and return its mount, attached nowhere, as a descriptor: closing it unmounts.

    An option is (name, text), (name, descriptor) or (name, None) for a flag. Raises `OSError`, whose text
    carries the kernel's own explanation where it gave one.
    """
    context = syscall("fsopen", kind.encode(), _CLOEXEC, path=kind)
    try:
        try:
            for name, value in options:
                _configure(context, name, value)
            syscall("fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0)
            return syscall("fsmount", context, _CLOEXEC, attributes)
        except OSError as error:
            raise OSError(error.errno, f"{os.strerror(error.errno or 0)}{_explanation(context)}", kind) from error
    finally:
        os.close(context)


def _configure(context: int, name: str, value: str | int | None) -> None:
    if value is None:
        syscall("fsconfig", context, FSCONFIG_SET_FLAG, name.encode(), None, 0)
    elif isinstance(value, int):
        syscall("fsconfig", context, FSCONFIG_SET_FD, name.encode(), None, value)
    else:
        syscall("fsconfig", context, FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)


def _explanation(context: int) -> str:
    lines = []
    while True:
        try:
            lines.append(os.read(context, 512).decode(errors="replace").strip())
        except OSError:
            return "".join(f"; {line}" for line in lines)


def clone_tree(path: str, *, recursive: bool = False, directory: int = -100) -> int:
    """A bind mount of `path` (relative to `directory`), attached nowhere, as a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0) | (0 if path else _AT_EMPTY_PATH)
    return syscall("open_tree", directory, os.fsencode(path), flags, path=path)


def attach(mount_descriptor: int, target_directory: int, target: str = "") -> None:
    """Attach a mount at `target` below an open directory, or at the descriptor itself."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if target else _MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", mount_descriptor, b"", target_directory, os.fsencode(target), flags, path=target)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def set_attributes(
    descriptor: int,
    path: str = "",
    *,
    add: int = 0,
    clear: int = 0,
    propagation: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on a mount by descriptor, or by path below it."""
    attributes = _MountAttributes(add, clear, propagation, 0)
    flags = (0 if path else _AT_EMPTY_PATH) | (_AT_RECURSIVE if recursive else 0)
    syscall(
        "mount_setattr", descriptor, os.fsencode(path), flags, ctypes.byref(attributes), ctypes.sizeof(attributes),
        path=path,
    )  # fmt: skip
