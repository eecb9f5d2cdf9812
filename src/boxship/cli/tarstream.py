"""Tars made as they are sent, and unpacked as they come."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from boxship.errors import Invalid

_CHUNK = 1 << 20
_EXTRACT: dict[str, Any] = {"numeric_owner": True, **({"filter": "fully_trusted"} if hasattr(tarfile, "tar_filter") else {})}
"""The filters of later Pythons are not needed: what leaves the destination is refused here."""


def packed(files: Iterable[tuple[str, str]], *, keep_owner: bool) -> Iterator[bytes]:
    """Files of a tar, each by its name in it and its path here, links as links; sockets are left out. `ending` is to follow."""
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in files:
            entry = cast("tarfile.TarInfo | None", tar.gettarinfo(path, name))
            if entry is None:
                continue
            if not keep_owner:
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
            yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if entry.isreg():
                yield from _contents(path, entry.size)


def document(name: str, data: bytes) -> bytes:
    """A file of a tar."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    return entry.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def ending() -> bytes:
    """What a tar ends with."""
    return bytes(2 * tarfile.BLOCKSIZE)


def below(root: str, name: str, include: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, str]]:
    """A file or a whole directory, by names in a tar and paths here, in a fixed order."""
    yield name, root
    if os.path.isdir(root) and not os.path.islink(root):
        for entry in sorted(os.listdir(root)):
            inner = posixpath.join(name, entry)
            if include(inner):
                yield from below(os.path.join(root, entry), inner, include)


def _contents(path: str, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb") as file:
        while left and (data := file.read(min(_CHUNK, left))):
            left -= len(data)
            yield data
    if left:
        raise Invalid(f"{path} became shorter while it was read")
    yield bytes(-size % tarfile.BLOCKSIZE)


def unpack(parts: Iterator[bytes], destination: str, renamed: Callable[[str], str | None], *, keep_owner: bool) -> int:
    """Unpack a tar into a directory, every entry under the name that `renamed` gives it; the bytes of its files.

    Raises `Invalid` for an entry that would come to stand outside, be it through a link of the tar itself.
    """
    total = 0
    root = os.path.realpath(destination)
    with tarfile.open(fileobj=cast(BinaryIO, _Reader(parts)), mode="r|") as tar:
        for entry in tar:
            name = renamed(entry.name)
            if name is None:
                continue
            target = _inside(root, name)
            if entry.islnk():
                source = renamed(entry.linkname)
                if source is None:
                    continue
                _make_way(target, directory=False)
                os.link(_inside(root, source), target, follow_symlinks=False)
                continue
            _make_way(target, directory=entry.isdir())
            if not keep_owner:
                entry.uid, entry.gid = os.geteuid(), os.getegid()
            entry.name = os.path.relpath(target, root)
            total += entry.size
            tar.extract(entry, root, set_attrs=True, **_EXTRACT)
    return total


def _inside(root: str, name: str) -> str:
    """Where an entry comes to stand: its directory is looked up through every link, and must be below `root`."""
    directory, base = os.path.split(os.path.join(root, os.path.normpath("/" + name).lstrip("/")))
    parent = os.path.realpath(directory)
    if parent != root and not parent.startswith(root.rstrip("/") + "/"):
        raise Invalid(f"the tar has an entry that leads outside: {name}")
    return os.path.join(parent, base)


def _make_way(target: str, *, directory: bool) -> None:
    if not os.path.lexists(target):
        return
    if os.path.isdir(target) and not os.path.islink(target):
        if not directory:
            raise Invalid(f'cannot overwrite directory "{target}" with non-directory')
    elif directory and not os.path.islink(target):
        raise Invalid(f'cannot overwrite non-directory "{target}" with directory')
    else:
        os.unlink(target)  # a file that is written through a link would end up elsewhere


class _Reader(io.RawIOBase):
    """A response's body as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        while not self._pending:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._pending = part
        data, self._pending = (self._pending[:size], self._pending[size:]) if size >= 0 else (self._pending, b"")
        return data
