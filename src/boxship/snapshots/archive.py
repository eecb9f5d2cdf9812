"""Tars of files below a root that a stranger controls: written from it, and laid out in it.

Every path is resolved by the kernel inside the root (openat2), and files are reached through descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from boxship.errors import Conflict, Invalid, NotFound, from_os_error
from boxship.syscalls.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_in_root
from boxship.syscalls.removal import remove_tree

_COPY = 1 << 20
_XATTR = "SCHILY.xattr."

Links = dict[tuple[int, int], str]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NO_LINKS = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS


def walk(root: int) -> Iterator[tuple[str, os.stat_result, int]]:
    """Everything below an open directory: (path, status, its open parent), parents first, names sorted.

    One descriptor is open at a time however deep the tree is; what is taken away meanwhile is passed over. Raises
    `OSError` for a path that is too long for the kernel.
    """
    pending = [""]
    while pending:
        path = pending.pop()
        try:
            directory = open_in_root(root, path or ".", _DIRECTORY, resolve=_NO_LINKS)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            found: list[str] = []
            for name in sorted(os.listdir(directory)):
                below = f"{path}/{name}" if path else name
                try:
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield below, status, directory
                if stat.S_ISDIR(status.st_mode):
                    found.append(below)
            pending += reversed(found)
        finally:
            os.close(directory)


def add_file(tar: tarfile.TarFile, parent: int, name: str, path: str, status: os.stat_result, links: Links) -> None:
    """Append one file of an open directory under `path`; a further link to a file becomes a link entry."""
    entry = tarfile.TarInfo(path)
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    whole, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    entry.mtime = whole
    if fraction:
        _extended(entry)["mtime"] = f"{whole}.{fraction:09d}"
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(name, dir_fd=parent)
        entry.mode = 0o777
    elif kind == stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == stat.S_IFIFO:
        entry.type = tarfile.FIFOTYPE
    elif kind != stat.S_IFREG:
        return
    if kind != stat.S_IFDIR and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            tar.addfile(entry)
            return
    if kind == stat.S_IFREG:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with open(descriptor, "rb") as file:
            _add_xattrs(entry, descriptor)
            entry.size = os.fstat(descriptor).st_size
            tar.addfile(entry, cast(BinaryIO, _Whole(file)))
        return
    _add_xattrs(entry, f"/proc/self/fd/{parent}/{name}")
    tar.addfile(entry)


class _Whole:
    """A file of which as much can be read as its header says: what is cut off meanwhile reads as zeros."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


def _extended(entry: tarfile.TarInfo) -> dict[str, str]:
    return cast(dict[str, str], entry.pax_headers)


def _add_xattrs(entry: tarfile.TarInfo, file: int | str) -> None:
    follow = isinstance(file, int)  # a descriptor is the file itself, the path of a link is not followed
    with contextlib.suppress(OSError):
        for name in os.listxattr(file, follow_symlinks=follow):
            if not name.startswith("trusted.overlay."):
                value = os.getxattr(file, name, follow_symlinks=follow)
                _extended(entry)[_XATTR + name] = value.decode("utf-8", "surrogateescape")


def write_tar(root: int, path: str, out: BinaryIO, *, rename: str | None = None, follow: bool = False) -> None:
    """Write the file or directory at `path` below `root`, named `rename` (by default its own name).

    Raises `NotFound`. With `follow` a link at `path` itself is followed, inside the root.
    """
    parent_path, _, name = path.rstrip("/").rpartition("/")
    try:
        if follow or name in ("", ".", ".."):
            top = open_in_root(root, path or "/", os.O_PATH)
            descriptor = open_in_root(root, path or "/", os.O_RDONLY | os.O_NONBLOCK) if stat.S_ISDIR(os.fstat(top).st_mode) else -1
            os.close(top)
            if descriptor >= 0:
                with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    _add_directory(tar, descriptor, rename if rename is not None else (name or "."))
                return
        parent = open_in_root(root, parent_path or "/", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _missing(error, path) from error
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            shown = rename if rename is not None else name
            if stat.S_ISDIR(status.st_mode):
                _add_directory(tar, os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent), shown)
            else:
                add_file(tar, parent, name, shown, status, {})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(error, path) from error
    finally:
        os.close(parent)


def _missing(error: OSError, path: str) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"Could not find the file {path} in container")
    return from_os_error(error, "reading")


def _add_directory(tar: tarfile.TarFile, directory: int, path: str) -> None:
    """Append an open directory, which is closed, and everything below it."""
    links: Links = {}
    try:
        entry = tarfile.TarInfo(path)
        status = os.fstat(directory)
        entry.type, entry.mode = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        _add_xattrs(entry, directory)
        tar.addfile(entry)
        for below, found, parent in walk(directory):
            with contextlib.suppress(FileNotFoundError):  # a running container removed it meanwhile
                add_file(tar, parent, below.rpartition("/")[2], f"{path}/{below}" if path else below, found, links)
    finally:
        os.close(directory)


def apply_tar(
    root: int, target: str, stream: BinaryIO, *, owner: tuple[int, int] | None = None, mode: int | None = None,
    keep_kinds: bool = False, accept: Callable[[tarfile.TarInfo], bool] = lambda _: True,
) -> int:  # fmt: skip
    """Lay a tar out below the directory `target` of `root`; returns the bytes of its files.

    `owner` and `mode` override the entries'; with `keep_kinds` a directory is never replaced by a file nor a
    file by a directory. Raises `NotFound` without the directory, `Invalid` for a malformed tar, `Conflict`.
    """
    try:
        base = open_in_root(root, target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"Could not find the directory {target} in container") from error
        raise from_os_error(error, "opening") from error
    written = 0
    directory_times: list[tuple[str, int]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|*", errorlevel=2) as tar:
            for entry in tar:
                if accept(entry):
                    written += _lay(base, tar, entry, owner, mode, keep_kinds=keep_kinds)
                    if entry.isdir():
                        directory_times.append((entry.name, int(entry.mtime)))
        for name, mtime in reversed(directory_times):
            with contextlib.suppress(OSError):
                descriptor = open_in_root(base, name, os.O_RDONLY | os.O_DIRECTORY)
                os.utime(descriptor, (mtime, mtime))
                os.close(descriptor)
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"malformed tar: {error}") from error
    except OSError as error:
        raise from_os_error(error, "unpacking") from error
    finally:
        os.close(base)
    return written


def _lay(
    base: int, tar: tarfile.TarFile, entry: tarfile.TarInfo, owner: tuple[int, int] | None, mode: int | None,
    *, keep_kinds: bool,
) -> int:  # fmt: skip
    parts = [part for part in entry.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"tar names {entry.name!r}, which leaves the directory")
    if not parts:
        return 0
    parent = make_directories(base, parts[:-1])
    try:
        return _lay_in(base, parent, parts[-1], tar, entry, owner, mode, keep_kinds=keep_kinds)
    finally:
        os.close(parent)


def _lay_in(
    base: int, parent: int, name: str, tar: tarfile.TarFile, entry: tarfile.TarInfo, owner: tuple[int, int] | None,
    mode: int | None, *, keep_kinds: bool,
) -> int:  # fmt: skip
    permissions = mode if mode is not None and not entry.issym() else entry.mode & 0o7777
    uid, gid = owner or (entry.uid, entry.gid)
    try:
        existing = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        existing = None
    if existing is not None:
        was_directory = stat.S_ISDIR(existing.st_mode)
        if was_directory and not entry.isdir():
            if keep_kinds:
                raise Conflict(f"cannot overwrite directory {entry.name!r} with non-directory")
            remove_tree(parent, name)
        elif not was_directory:
            if keep_kinds and entry.isdir() and not stat.S_ISLNK(existing.st_mode):
                raise Conflict(f"cannot overwrite non-directory {entry.name!r} with directory")
            os.unlink(name, dir_fd=parent)
    if entry.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, permissions, dir_fd=parent)
    elif entry.issym():
        os.symlink(entry.linkname, name, dir_fd=parent)
    elif entry.islnk():
        source_parent, _, source_name = entry.linkname.strip("/").rpartition("/")
        source = open_in_root(base, source_parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)
        return 0
    elif entry.isfile():
        return _lay_file(parent, name, tar, entry, (uid, gid), permissions)
    elif entry.isfifo():
        os.mkfifo(name, permissions, dir_fd=parent)
    elif entry.ischr() or entry.isblk():
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        os.mknod(name, kind | permissions, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
    else:
        raise Invalid(f"tar has an entry of unknown type {entry.type!r}: {entry.name!r}")
    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    if not entry.issym():
        os.chmod(name, permissions, dir_fd=parent)
    _set_xattrs(f"/proc/self/fd/{parent}/{name}", entry)
    os.utime(name, ns=(_mtime_ns(entry), _mtime_ns(entry)), dir_fd=parent, follow_symlinks=False)
    return 0


def _lay_file(
    parent: int, name: str, tar: tarfile.TarFile, entry: tarfile.TarInfo, owner: tuple[int, int], permissions: int
) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = tar.extractfile(entry)
    assert source is not None
    with open(os.open(name, flags, 0o600, dir_fd=parent), "wb", buffering=0) as file:
        if entry.issparse():
            written = 0
            while chunk := source.read(_COPY):
                if chunk.count(0) == len(chunk):
                    file.seek(len(chunk), os.SEEK_CUR)
                else:
                    file.write(chunk)
                written += len(chunk)
            file.truncate(entry.size)
        else:
            while chunk := source.read(_COPY):
                file.write(chunk)
        os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), permissions)
        _set_xattrs(file.fileno(), entry)
        os.utime(file.fileno(), ns=(_mtime_ns(entry), _mtime_ns(entry)))
    return entry.size


def _mtime_ns(entry: tarfile.TarInfo) -> int:
    return int(entry.mtime * 1_000_000_000) if isinstance(entry.mtime, int) else round(entry.mtime * 1e9)


def _set_xattrs(file: int | str, entry: tarfile.TarInfo) -> None:
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR) and not key.startswith(_XATTR + "trusted.overlay."):
            set_xattr(file, key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))


def set_xattr(file: int | str, name: str, value: bytes) -> None:
    """Set an extended attribute of an open file, or of the path itself; one that the filesystem cannot hold is left out."""
    try:
        os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
            raise


def make_directories(root: int, parts: list[str], owner: tuple[int, int] = (0, 0), mode: int = 0o755) -> int:
    """Open the directory that `parts` name below `root`, making what is missing; links resolve inside the root."""
    current = os.dup(root)
    path = ""
    try:
        for part in parts:
            path = f"{path}/{part}" if path else part
            try:
                found = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, mode, dir_fd=current)
                os.chown(part, *owner, dir_fd=current)
                found = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
            except NotADirectoryError as error:
                raise Conflict(f"{path!r} is not a directory") from error
            os.close(current)
            current = found
        return os.dup(current)
    finally:
        os.close(current)
