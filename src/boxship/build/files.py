"""Files copied from one tree into another, and what they amount to as one checksum.

Every path is resolved by the kernel inside its tree's root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from boxship.errors import Conflict, Invalid, from_os_error
from boxship.oci.ignore import Patterns, translate
from boxship.snapshots.archive import make_directories, walk
from boxship.syscalls.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_in_root
from boxship.syscalls.removal import remove_tree

_CHUNK = 1 << 20
_MOST_LINKS = 40
_WILDCARDS = frozenset("*?[")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NO_LINKS = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

_NOTHING = Patterns()


@dataclass(frozen=True, slots=True)
class Tree:
    """Where files are taken from: an open directory, paths left out, and whose the copies are (None: as they are)."""

    root: int
    ignored: Patterns = _NOTHING
    owner: tuple[int, int] | None = None
    missing: str = ""
    """What the message about a file that is not there begins with."""

    def find(self, pattern: str) -> list[str]:
        """The paths that a source of COPY names, without a leading slash; raises `Invalid` in Docker's words."""
        cleaned = posixpath.normpath("/" + pattern).lstrip("/") or "."
        if not _WILDCARDS & set(cleaned):
            self._require(cleaned)
            return [cleaned]
        found = sorted(self._matching(cleaned.split("/"), ""))
        if not found:
            raise Invalid(f"no source files were specified: nothing fits {pattern!r}")
        for path in found:
            self._require(path)
        return found

    def _require(self, path: str) -> None:
        try:
            os.close(open_in_root(self.root, path, os.O_PATH))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise from_os_error(error, f"reading {path}") from error
        else:
            if path == "." or path not in self.ignored or (self.is_directory(path) and any(self.below(path))):
                return
        raise Invalid(f"{self.missing}stat {path}: file does not exist")

    def _matching(self, components: list[str], below: str) -> Iterator[str]:
        """Paths that fit; a name behind a wildcard is no link to be followed."""
        pattern, rest = components[0], components[1:]
        if rest and not _WILDCARDS & set(pattern):
            yield from self._matching(rest, f"{below}/{pattern}" if below else pattern)
            return
        try:
            directory = open_in_root(self.root, below or ".", _DIRECTORY)
        except OSError:
            return
        expression = translate(pattern)
        try:
            names = [name for name in os.listdir(directory) if expression.fullmatch(name)]
            if rest:
                names = [name for name in names if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)]
        finally:
            os.close(directory)
        for name in names:
            path = f"{below}/{name}" if below else name
            if rest:
                yield from self._matching(rest, path)
            elif path not in self.ignored:
                yield path

    def status(self, path: str) -> os.stat_result:
        """Of the file that a path leads to, behind links."""
        descriptor = open_in_root(self.root, path, os.O_PATH)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def is_directory(self, path: str) -> bool:
        return stat.S_ISDIR(self.status(path).st_mode)

    def below(self, path: str) -> Iterator[tuple[str, os.stat_result, int]]:
        """What a directory holds that is not left out: (path from there, status, its open parent), parents first.

        A directory that is left out is there all the same where something in it is let in again.
        """
        directory = open_in_root(self.root, path, _DIRECTORY)
        prefix = "" if path == "." else f"{path}/"
        held: list[tuple[str, os.stat_result]] = []
        try:
            for name, status, parent in walk(directory):
                if not self.ignored:
                    yield name, status, parent
                elif prefix + name not in self.ignored:
                    needed = [each for each in held if name.startswith(each[0] + "/")]
                    for above, its in needed:
                        held.remove((above, its))
                        yield above, its, -1
                    yield name, status, parent
                elif stat.S_ISDIR(status.st_mode) and self.ignored.has_exceptions:
                    held.append((name, status))
        finally:
            os.close(directory)

    def owner_of(self, status: os.stat_result) -> tuple[int, int]:
        return self.owner or (status.st_uid, status.st_gid)

    def checksum(self, paths: list[str]) -> str:
        """SHA-256 over names, kinds, modes, owners and contents; times do not count (hex)."""
        total = hashlib.sha256()
        for path in paths:
            status = self.status(path)
            if stat.S_ISDIR(status.st_mode):
                self._describe(total, "", status)
                for name, found, parent in self.below(path):
                    self._describe(total, name, found)
                    _add_content(total, parent, posixpath.basename(name), found)
            else:
                self._describe(total, posixpath.basename(path), status)
                _add_bytes(total, open_in_root(self.root, path, os.O_RDONLY | os.O_NONBLOCK))
        return total.hexdigest()

    def _describe(self, total: hashlib._Hash, name: str, status: os.stat_result) -> None:
        uid, gid = self.owner_of(status)
        total.update(f"{name}\0{status.st_mode:o}\0{uid}:{gid}\0{status.st_rdev}\0".encode("utf-8", "surrogateescape"))


def _add_content(total: hashlib._Hash, parent: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        total.update(os.fsencode(os.readlink(name, dir_fd=parent)) + b"\0")
    elif stat.S_ISREG(status.st_mode):
        _add_bytes(total, os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent))


def _add_bytes(total: hashlib._Hash, descriptor: int) -> None:
    with open(descriptor, "rb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            total.update(hashlib.file_digest(file, "sha256").digest())


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
        if source.is_directory(path):
            into = make_directories(target.root, parts, owner)
            try:
                _Directory(source, target, into).fill(path)
            finally:
                os.close(into)
            continue
        inside = into_directory or _is_directory(target.root, "/".join(parts))
        where = [*parts, posixpath.basename(path)] if inside else _behind_links(target.root, parts)
        parent = make_directories(target.root, where[:-1], owner)
        try:
            file = open_in_root(source.root, path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                _copy_file(file, parent, where[-1], source, target)
            finally:
                os.close(file)
        finally:
            os.close(parent)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path or ".", _DIRECTORY))
    except OSError:
        return False
    return True


def _behind_links(root: int, parts: list[str]) -> list[str]:
    """The path of the file that a path leads to: a destination that is a link stays one."""
    for _ in range(_MOST_LINKS):
        try:
            parent = open_in_root(root, "/".join(parts[:-1]) or ".", os.O_PATH)
        except OSError:
            return parts
        try:
            link = os.readlink(parts[-1], dir_fd=parent)
        except OSError:
            return parts
        finally:
            os.close(parent)
        joined = posixpath.normpath(posixpath.join("/", *parts[:-1], link))
        parts = [part for part in joined.split("/") if part]
        if not parts:
            break
    raise Conflict("the destination is a link that leads to no file")


class _Directory:
    """The copy of one directory's content into another, open one."""

    def __init__(self, source: Tree, target: Target, into: int) -> None:
        self._source = source
        self._target = target
        self._into = into
        self._links: dict[tuple[int, int], str] = {}
        self._times: list[tuple[str, int]] = []
        self._parent: tuple[str, int] | None = None

    def fill(self, path: str) -> None:
        try:
            for below, status, parent in self._source.below(path):
                if stat.S_ISDIR(status.st_mode):
                    self._directory(path, below, status)
                else:
                    self._entry(parent, below, status)
            for below, mtime in reversed(self._times):
                with self._made(below) as directory:
                    os.utime(directory, ns=(mtime, mtime))
        finally:
            if self._parent is not None:
                os.close(self._parent[1])

    @contextlib.contextmanager
    def _made(self, below: str) -> Iterator[int]:
        descriptor = open_in_root(self._into, below, _DIRECTORY, resolve=_NO_LINKS)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _place(self, below: str) -> tuple[int, str]:
        """The open directory into which an entry goes, and its name there."""
        where, _, name = below.rpartition("/")
        if self._parent is None or self._parent[0] != where:
            if self._parent is not None:
                os.close(self._parent[1])
                self._parent = None
            self._parent = (where, open_in_root(self._into, where or ".", _DIRECTORY, resolve=_NO_LINKS))
        return self._parent[1], name

    def _directory(self, path: str, below: str, status: os.stat_result) -> None:
        place, name = self._place(below)
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=place)
                os.mkdir(name, 0o700, dir_fd=place)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=place)
        with self._made(below) as made:
            os.fchown(made, *(self._target.owner or self._source.owner_of(status)))
            os.fchmod(made, stat.S_IMODE(status.st_mode) if self._target.mode is None else self._target.mode)
            original = open_in_root(self._source.root, f"{path}/{below}", _DIRECTORY)
            try:
                _copy_xattrs(original, made)
            finally:
                os.close(original)
        self._times.append((below, status.st_mtime_ns))

    def _entry(self, parent: int, below: str, status: os.stat_result) -> None:
        if stat.S_ISSOCK(status.st_mode):
            return
        place, name = self._place(below)
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), below)
            if first != below:
                remove_tree(place, name)
                os.link(first, name, src_dir_fd=self._into, dst_dir_fd=place, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                _copy_file(file, place, name, self._source, self._target)
            finally:
                os.close(file)
            return
        remove_tree(place, name)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=place)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=place)
        os.chown(name, *(self._target.owner or self._source.owner_of(status)), dir_fd=place, follow_symlinks=False)
        os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=place, follow_symlinks=False)


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
        os.fchown(made, *(target.owner or source.owner_of(status)))
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
