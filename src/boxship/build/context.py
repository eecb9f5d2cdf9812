"""A build's context: a directory of files that a client sent, hidden behind its `.dockerignore`."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

from boxship.build.files import Tree
from boxship.errors import BoxshipError, Invalid, NotFound, from_os_error
from boxship.oci.ignore import Patterns
from boxship.snapshots.archive import apply_tar
from boxship.snapshots.compression import decompressed
from boxship.snapshots.streaming import fed
from boxship.syscalls.files import open_in_root

_DOCKERFILE_LIMIT = 16 << 20


class Context:
    """The files below `root`, an open directory that this object closes."""

    def __init__(self, directory: Path) -> None:
        self.root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.ignored = Patterns(self._optional(".dockerignore"))
        except BaseException:
            os.close(self.root)
            raise

    def close(self) -> None:
        os.close(self.root)

    def tree(self) -> Tree:
        """The files that COPY and ADD see; they belong to root in the image."""
        return Tree(self.root, self.ignored, (0, 0), "file not found in build context or excluded by .dockerignore: ")

    def dockerfile(self, name: str) -> str:
        """The text of the Dockerfile, whose own `.dockerignore` goes before the general one.

        Raises `Invalid` in Docker's words where there is none.
        """
        own = self._optional(f"{name}.dockerignore")
        if own:
            self.ignored = Patterns(own)
        try:
            return self._read(name)
        except NotFound:
            if name == "Dockerfile":
                try:
                    return self._read("dockerfile")
                except NotFound:
                    pass
            raise Invalid(f"Cannot locate specified Dockerfile: {name}") from None

    def _optional(self, name: str) -> str:
        try:
            return self._read(name)
        except NotFound:
            return ""

    def _read(self, name: str) -> str:
        try:
            descriptor = open_in_root(self.root, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"{name} is not in the context") from error
            raise from_os_error(error, f"reading {name}") from error
        try:
            with open(descriptor, "rb") as file:
                return text_of(file, name)
        except IsADirectoryError:
            raise Invalid(f"{name} is a directory") from None
        except UnicodeDecodeError as error:
            raise Invalid(f"{name} is no UTF-8 text: {error}") from error


def text_of(file: BinaryIO, name: str) -> str:
    """Raises `Invalid` for a file that is too large, `UnicodeDecodeError`."""
    data = file.read(_DOCKERFILE_LIMIT + 1)
    if len(data) > _DOCKERFILE_LIMIT:
        raise Invalid(f"{name} is larger than {_DOCKERFILE_LIMIT >> 20} MiB")
    return data.decode()


def is_tar(file: BinaryIO) -> bool:
    """Whether a file is a tar, compressed or not, by what it begins with."""
    try:
        tarfile.TarInfo.frombuf(decompressed(file).read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, BoxshipError):
        return False
    return True


def unpack(source: BinaryIO, directory: Path) -> None:
    """Lay a context's tar, compressed or not, out in a directory; raises `Invalid`."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        apply_tar(root, "/", cast(BinaryIO, _Whole(decompressed(source))))
    finally:
        os.close(root)


async def receive(stream: AsyncIterator[bytes], directory: Path) -> Context:
    """Unpack a context's tar as it comes, and open it; raises `Invalid`."""
    directory.mkdir(parents=True)
    await fed(stream, lambda source: unpack(source, directory))
    return Context(directory)


class _Whole:
    """A tar filled up to whole blocks: the docker command leaves the last padding out when it adds a Dockerfile itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if not data:
            data = bytes(-self._size % tarfile.BLOCKSIZE)
        self._size += len(data)
        return data
