"""The container's filesystem: its root, and what is mounted into it (runtime-spec, config.md, "Mounts").

Every target is opened inside the new root with openat2 and mounted through its descriptor, never by path: a
link in the image cannot lead a mount out of the root, nor can one be swapped in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, Final

from boxship.runtime.failure import StartFailure, describe
from boxship.syscalls import mount as m
from boxship.syscalls import namespaces as ns
from boxship.syscalls.files import open_in_root

Spec = dict[str, Any]

_ATTRIBUTES: Final = {
    "ro": m.MOUNT_ATTR_RDONLY,
    "nosuid": m.MOUNT_ATTR_NOSUID,
    "nodev": m.MOUNT_ATTR_NODEV,
    "noexec": m.MOUNT_ATTR_NOEXEC,
    "noatime": m.MOUNT_ATTR_NOATIME,
    "strictatime": m.MOUNT_ATTR_STRICTATIME,
}
_NEGATIONS: Final = {"rw", "suid", "dev", "exec", "atime", "relatime", "defaults", "async", "diratime", "norelatime"}
_PROPAGATION: Final = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}
_ATIME: Final = 0x70
_IN_MEMORY: Final = frozenset({"tmpfs", "proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"})


def mount_root(root: Spec, staging: str) -> int:
    """Mount the overlay (or bind a plain directory) at `staging`, a directory of the engine; returns its descriptor."""
    try:
        if root["lower"]:
            options: list[tuple[str, str | int | None]] = [("lowerdir+", lower) for lower in root["lower"]]
            options += [("upperdir", root["upper"]), ("workdir", root["work"])]
            for option in root.get("options", ()):
                name, equals, value = option.partition("=")
                options.append((name, value if equals else None))
            mounted = m.new_mount("overlay", options)
        else:
            mounted = m.clone_tree(root["upper"])
        try:
            target = os.open(staging, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            m.attach(mounted, target)
            os.close(target)
        finally:
            os.close(mounted)
        return os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartFailure("mount", f"mounting the root: {describe(error)}", error.errno or 0) from error


def mount_all(root: int, mounts: list[Spec]) -> None:
    """Make the mounts of the specification, in order.

    A tmpfs becomes read-only after the last of them: the places of what is mounted into it are made in it.
    """
    try:
        for entry in mounts:
            _mount_one(root, entry)
        for entry in mounts:
            if _is_read_only_tmpfs(entry):
                _make_read_only(root, entry["destination"])
    except OSError as error:
        source, target = entry.get("source", entry.get("type")), entry["destination"]
        raise StartFailure(
            "mount", f'error mounting "{source}" to rootfs at "{target}": {describe(error)}', error.errno or 0
        ) from error


def _is_read_only_tmpfs(entry: Spec) -> bool:
    return entry.get("type") == "tmpfs" and "ro" in (entry.get("options") or ())


def _make_read_only(root: int, path: str) -> None:
    mounted = open_in_root(root, path, os.O_PATH)
    try:
        m.set_attributes(mounted, add=m.MOUNT_ATTR_RDONLY)
    finally:
        os.close(mounted)


def _mount_one(root: int, entry: Spec) -> None:
    options: list[str] = entry.get("options") or []
    recursive_bind, bind = "rbind" in options, "bind" in options or "rbind" in options
    attributes = clear = recursive_attributes = 0
    propagation = 0
    data: list[tuple[str, str | int | None]] = []
    for option in options:
        if option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option == "rro":
            recursive_attributes |= m.MOUNT_ATTR_RDONLY
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option in ("bind", "rbind") or option in _NEGATIONS or option.startswith("x-"):
            continue
        else:
            name, equals, value = option.partition("=")
            data.append((name, value if equals else None))
    if attributes & (m.MOUNT_ATTR_NOATIME | m.MOUNT_ATTR_STRICTATIME):
        clear |= _ATIME
    if bind:
        source = entry["source"]
        mounted = _clone(source, entry.get("namespace"), recursive=recursive_bind)
        is_directory = stat.S_ISDIR(os.fstat(mounted).st_mode)
        if attributes:
            m.set_attributes(mounted, add=attributes, clear=clear)
        if recursive_attributes:
            m.set_attributes(mounted, add=recursive_attributes, recursive=True)
    else:
        kind = entry["type"]
        if kind not in _IN_MEMORY and "source" in entry:
            data.insert(0, ("source", entry["source"]))
        if _is_read_only_tmpfs(entry):
            attributes &= ~m.MOUNT_ATTR_RDONLY
        mounted = m.new_mount(kind, data, attributes)
        is_directory = True
    try:
        target = open_target(root, entry["destination"], directory=is_directory)
        try:
            m.attach(mounted, target)
            if propagation:
                m.set_attributes(mounted, propagation=propagation & ~m.MS_REC, recursive=bool(propagation & m.MS_REC))
        finally:
            os.close(target)
    finally:
        os.close(mounted)


def _clone(source: str, namespace: str | None, *, recursive: bool) -> int:
    """A bind mount of `source`, which lies in another mount namespace where one is given: only there it can be cloned."""
    if namespace is None:
        return m.clone_tree(source, recursive=recursive)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.enter(other, ns.CLONE_NEWNS)
        try:
            return m.clone_tree(source, recursive=recursive)
        finally:
            ns.enter(own, ns.CLONE_NEWNS)
    finally:
        os.close(own)
        os.close(other)


def open_target(root: int, path: str, *, directory: bool, links: int = 40) -> int:
    """An O_PATH descriptor of a mount's target below the root; made, with its parents, where it is missing.

    A link that leads to nothing is followed, inside the root, and what is missing made there.
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parts = [part for part in path.split("/") if part]
    parent = os.dup(root)
    try:
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            so_far = "/".join(parts[: depth + 1])
            try:
                found = open_in_root(root, so_far, os.O_PATH)
            except FileNotFoundError:
                link = _link(parent, part)
                if link is not None:
                    if not links:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                    above = [] if link.startswith("/") else parts[:depth]
                    leads_to = "/".join([*above, link, *parts[depth + 1 :]])
                    return open_target(root, leads_to, directory=directory, links=links - 1)
                if last and not directory:
                    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o644, dir_fd=parent))
                else:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=parent)
                found = open_in_root(root, so_far, os.O_PATH)
            os.close(parent)
            parent = found
        return os.dup(parent)
    finally:
        os.close(parent)


def _link(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def mask_paths(root: int, masked: list[str], read_only: list[str]) -> None:
    """Hide `masked` behind /dev/null or an empty directory, and make `read_only` so; absent ones are passed over."""
    null = -1
    try:
        for path in masked:
            target = _open_existing(root, path)
            if target is None:
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                mounted = m.new_mount("tmpfs", [("size", "0"), ("mode", "755")], m.MOUNT_ATTR_RDONLY)
            else:
                if null < 0:
                    null = _open_null(root)
                mounted = m.clone_tree("", directory=null)
            m.attach(mounted, target)
            os.close(mounted)
            os.close(target)
        for path in read_only:
            target = _open_existing(root, path)
            if target is None:
                continue
            mounted = m.clone_tree("", directory=target, recursive=True)
            m.set_attributes(mounted, add=m.MOUNT_ATTR_RDONLY, recursive=True)
            m.attach(mounted, target)
            os.close(mounted)
            os.close(target)
    except OSError as error:
        raise StartFailure("mount", f"masking {path}: {describe(error)}", error.errno or 0) from error
    finally:
        if null >= 0:
            os.close(null)


def _open_existing(root: int, path: str) -> int | None:
    try:
        return open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return None
        raise


def _open_null(root: int) -> int:
    """The container's own /dev/null, once it has been seen to be that device and no file laid in its place."""
    descriptor = open_in_root(root, "/dev/null", os.O_PATH)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(descriptor)
        raise StartFailure("mount", "/dev/null of the container is not the null device")
    return descriptor
