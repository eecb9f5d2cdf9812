"""Files copied from one tree into another, and what they amount to as one checksum.

Every path is resolved by the kernel inside its tree's root.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass

from boxship.errors import Invalid, from_os_error
from boxship.oci.ignore import translate
from boxship.snapshots.archive import make_directories
from boxship.syscalls.files import open_in_root
from boxship.syscalls.removal import remove_tree

_CHUNK = 1 << 20
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Tree:
    """Where files are taken from: an open directory, paths left out, and whose the copies are (None: as they are)."""

    root: int
    ignored: Container[str] = ()
    owner: tuple[int, int] | None = None

    def find(self, pattern: str) -> list[str]:
        """The paths that a source of COPY names, without a leading slash; raises `Invalid` in Docker's words."""
        cleaned = posixpath.normpath("/" + pattern).lstrip("/") or "."
        if _WILDCARDS & set(cleaned):
            found = sorted(self._matching(cleaned.split("/"), ""))
            if not found:
                raise Invalid(
                    "COPY failed: no source files were specified: nothing in the build context fits"
                    f" {pattern!r} (or .dockerignore excludes it)"
                )
            return found
        if cleaned == ".":
            return [cleaned]
        try:
            os.close(open_in_root(self.root, cleaned, os.O_PATH))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise from_os_error(error, f"reading {cleaned}") from error
        else:
            if cleaned not in self.ignored or self.is_directory(cleaned):
                return [cleaned]
        raise Invalid(
            f"COPY failed: file not found in build context or excluded by .dockerignore: stat {cleaned}: file does not exist"
        )

    def _matching(self, components: list[str], below: str) -> Iterator[str]:
        pattern = translate(components[0])
        try:
            directory = open_in_root(self.root, below or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            names = os.listdir(directory)
        finally:
            os.close(directory)
        for name in names:
            path = f"{below}/{name}" if below else name
            if not pattern.fullmatch(name):
                continue
            if len(components) > 1:
                yield from self._matching(components[1:], path)
            elif path not in self.ignored:
                yield path

    def is_directory(self, path: str) -> bool:
        descriptor = open_in_root(self.root, path, os.O_PATH)
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def checksum(self, paths: list[str]) -> str:
        """SHA-256 over names, kinds, modes, owners and contents; times do not count (hex)."""
        total = hashlib.sha256()
        for path in paths:
            descriptor = open_in_root(self.root, path, os.O_PATH)
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            name = posixpath.basename(path) if not stat.S_ISDIR(status.st_mode) else ""
            self._add(total, self.root, path, path, name, status)
        return total.hexdigest()

    def _add(self, total: hashlib._Hash, parent: int, name: str, path: str, shown: str, status: os.stat_result) -> None:
        uid, gid = self.owner or (status.st_uid, status.st_gid)
        total.update(f"{shown}\0{status.st_mode:o}\0{uid}:{gid}\0{status.st_rdev}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISLNK(status.st_mode):
            total.update(os.fsencode(os.readlink(name, dir_fd=parent)))
        elif stat.S_ISREG(status.st_mode):
            with open(self._open(parent, name, path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        elif stat.S_ISDIR(status.st_mode):
            directory = self._open(parent, name, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for child in sorted(os.listdir(directory)):
                    below = child if path == "." else f"{path}/{child}"
                    own = os.stat(child, dir_fd=directory, follow_symlinks=False)
                    if below in self.ignored and not stat.S_ISDIR(own.st_mode):
                        continue
                    self._add(total, directory, child, below, f"{shown}/{child}", own)
            finally:
                os.close(directory)

    def _open(self, parent: int, name: str, path: str, flags: int) -> int:
        """Open an entry of an open directory; the first one, named from the root, may be behind links."""
        if parent == self.root:
            return open_in_root(self.root, path, flags)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


@dataclass(frozen=True, slots=True)
class Target:
    """Where copies go: a tree's root, and overrides of owner and mode."""

    root: int
    owner: tuple[int, int] | None = None
    mode: int | None = None


def copy(source: Tree, paths: list[str], target: Target, destination: str, *, into_directory: bool) -> None:
    """Copy sources to an absolute path: directories by what is in them, files under their name or as that path.

    Raises `Conflict` where a file is in the way of a directory.
    """
    parts = [part for part in destination.split("/") if part]
    owner = target.owner or source.owner or (0, 0)
    for path in paths:
        descriptor = open_in_root(source.root, path, os.O_PATH)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            directory = open_in_root(source.root, path, os.O_RDONLY | os.O_DIRECTORY)
            into = make_directories(target.root, parts, owner)
            try:
                _copy_children(source, directory, "" if path == "." else path, target, into)
            finally:
                os.close(directory)
                os.close(into)
            continue
        name = posixpath.basename(path)
        inside = into_directory or _is_directory(target.root, "/".join(parts))
        parent = make_directories(target.root, parts if inside else parts[:-1], owner)
        try:
            file = open_in_root(source.root, path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                _copy_file(file, parent, name if inside else parts[-1], source, target)
            finally:
                os.close(file)
        finally:
            os.close(parent)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path or ".", os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _copy_children(source: Tree, directory: int, path: str, target: Target, into: int) -> None:
    for name in sorted(os.listdir(directory)):
        below = f"{path}/{name}" if path else name
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if below in source.ignored and not getattr(source.ignored, "has_exceptions", False):
                continue
            _copy_directory(source, directory, name, below, status, target, into)
        elif below not in source.ignored:
            _copy_entry(source, directory, name, status, target, into)


def _copy_directory(source: Tree, parent: int, name: str, path: str, status: os.stat_result, target: Target, into: int) -> None:
    try:
        existing = os.stat(name, dir_fd=into, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=into)
    else:
        if not stat.S_ISDIR(existing.st_mode):
            os.unlink(name, dir_fd=into)
            os.mkdir(name, 0o700, dir_fd=into)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    copied = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=into)
    try:
        _copy_children(source, directory, path, target, copied)
        uid, gid = target.owner or source.owner or (status.st_uid, status.st_gid)
        os.fchown(copied, uid, gid)
        os.fchmod(copied, stat.S_IMODE(status.st_mode) if target.mode is None else target.mode)
        _copy_xattrs(directory, copied)
        os.utime(copied, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(directory)
        os.close(copied)


def _copy_entry(source: Tree, parent: int, name: str, status: os.stat_result, target: Target, into: int) -> None:
    if stat.S_ISREG(status.st_mode):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _copy_file(file, into, name, source, target)
        finally:
            os.close(file)
        return
    remove_tree(into, name)
    uid, gid = target.owner or source.owner or (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=into)
    elif stat.S_ISSOCK(status.st_mode):
        return
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=into)
    os.chown(name, uid, gid, dir_fd=into, follow_symlinks=False)
    os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=into, follow_symlinks=False)


def _copy_file(file: int, into: int, name: str, source: Tree, target: Target) -> None:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise Invalid(f"{name} is neither a file nor a directory")
    remove_tree(into, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, 0o600, dir_fd=into)
    try:
        while os.sendfile(made, file, None, _CHUNK):
            pass
        uid, gid = target.owner or source.owner or (status.st_uid, status.st_gid)
        os.fchown(made, uid, gid)
        os.fchmod(made, stat.S_IMODE(status.st_mode) if target.mode is None else target.mode)
        _copy_xattrs(file, made)
        os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(made)


def _copy_xattrs(source: int, copied: int) -> None:
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if not name.startswith("trusted.overlay."):
            try:
                os.setxattr(copied, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
