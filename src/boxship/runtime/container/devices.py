"""Device nodes and links below /dev (runtime-spec, config-linux.md, "Default Devices")."""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from boxship.runtime.failure import StartFailure, describe
from boxship.syscalls.files import open_in_root

_DEFAULT: Final = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS: Final = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
)
_KINDS: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_devices(root: int, devices: list[dict[str, Any]]) -> None:
    """Make the default nodes and links, and the devices of the specification, below the container's /dev."""
    try:
        directory = open_in_root(root, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StartFailure("mount", f"opening /dev: {describe(error)}", error.errno or 0) from error
    try:
        for name, major, minor in _DEFAULT:
            _node(directory, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        for target, name in _LINKS:
            if name == "core" and not os.path.exists(target):
                continue
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                continue
        for device in devices:
            _make(root, device)
    except OSError as error:
        raise StartFailure("mount", f"making devices: {describe(error)}", error.errno or 0) from error
    finally:
        os.close(directory)


def _make(root: int, device: dict[str, Any]) -> None:
    parent, _, name = device["path"].rpartition("/")
    descriptor = _open_parents(root, parent)
    try:
        mode = _KINDS[device["type"]] | (device.get("fileMode") or 0o660) & 0o7777
        _node(descriptor, name, mode, os.makedev(device.get("major", 0), device.get("minor", 0)))
        os.chown(name, device.get("uid") or 0, device.get("gid") or 0, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)


def _open_parents(root: int, path: str) -> int:
    current = "/"
    for part in path.strip("/").split("/"):
        parent = open_in_root(root, current, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if part:
                os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)
        current = f"{current}/{part}"
    return open_in_root(root, current, os.O_RDONLY | os.O_DIRECTORY)


def _node(directory: int, name: str, mode: int, device: int) -> None:
    try:
        os.mknod(name, mode, device, dir_fd=directory)
    except FileExistsError:
        existing = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if existing.st_rdev != device or stat.S_IFMT(existing.st_mode) != stat.S_IFMT(mode):
            os.unlink(name, dir_fd=directory)
            os.mknod(name, mode, device, dir_fd=directory)
    os.chmod(name, mode & 0o7777, dir_fd=directory)
