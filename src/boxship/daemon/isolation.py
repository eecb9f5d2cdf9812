"""What the daemon takes for itself before it grows: its roots, its mount namespace, its keeper."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from boxship.errors import Conflict, Unavailable
from boxship.runtime.client import SOCKET_NAME, KeeperClient, spawn_keeper
from boxship.syscalls import mount as m
from boxship.syscalls import namespaces as ns

FIRST_PASSED = 3
"""sd_listen_fds(3)."""


def hold(root: Path, mode: int = 0o710) -> int:
    """Lock a root for this process, made with `mode` where it is not there: the lock's descriptor.

    Raises `Conflict` with the pid that holds it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=mode)
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot use {root}: {(error.strerror or '').lower()}") from error
    return _lock(descriptor, root)


def write_pid(path: Path) -> int:
    """Write this process's id to a file, and lock it: the lock's descriptor. Raises `Conflict` with the pid that holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {(error.strerror or '').lower()}") from error
    return _lock(descriptor, path)


def _lock(descriptor: int, path: Path) -> int:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Conflict(f"{path} is in use by the daemon with pid {pid}") from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(descriptor)
        raise Unavailable(f"cannot write to {path}: {(error.strerror or '').lower()}") from error
    return descriptor


def keep_passed_sockets() -> None:
    """Sockets passed by an activator (sd_listen_fds(3)) are this process's alone: the keeper must not inherit them."""
    passed = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and passed.isdecimal():
        for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(passed)):
            os.set_inheritable(descriptor, False)


def connect_keeper(exec_root: Path) -> KeeperClient:
    """The keeper of `exec_root`, started where there is none; this process then shares its mount namespace.

    All layers are mounted in that namespace: the host never sees them, and the kernel takes them away with the
    last process in it. Must be called while this process has one thread. Raises `Unavailable`.
    """
    try:
        exec_root.mkdir(parents=True, exist_ok=True, mode=0o711)
    except OSError as error:
        raise Unavailable(f"cannot use {exec_root}: {(error.strerror or '').lower()}") from error
    path = exec_root / SOCKET_NAME
    if path.exists():
        try:
            client = KeeperClient(path)
        except Unavailable:
            path.unlink(missing_ok=True)
        else:
            _join(client.peer_pid())
            return client
    try:
        ns.unshare(ns.CLONE_NEWNS)
        # what the host mounts later is still seen here; what is mounted here is not seen there
        m.mount("", "/", None, m.MS_REC | m.MS_SLAVE)
    except OSError as error:
        raise Unavailable(f"cannot make a mount namespace: {(error.strerror or '').lower()}") from error
    spawn_keeper(exec_root)
    return KeeperClient(path)


def _join(pid: int) -> None:
    directory = os.getcwd()
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.enter(descriptor, ns.CLONE_NEWNS)
    except OSError as error:
        raise Unavailable(f"cannot join the keeper's mount namespace: {(error.strerror or '').lower()}") from error
    finally:
        os.close(descriptor)
    os.chdir(directory)
