"""COPY and ADD: sources found, described by their content, and laid into a snapshot."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from boxship.build.context import Context, is_tar
from boxship.build.files import Target, Tree, copy
from boxship.errors import Invalid, Unavailable, Unsupported
from boxship.registry.threads import begin, settled
from boxship.snapshots.archive import apply_tar, make_directories
from boxship.snapshots.compression import decompressed
from boxship.syscalls.files import open_in_root

Origin = Callable[[str], Awaitable[list[str]]]
"""From the name in `--from` to the layers of that stage or image, lowest first."""

_URL = ("http://", "https://")
_GIT = re.compile(r"git@|git://|ssh://|https?://.*\.git(#|$)")


@dataclass(frozen=True, slots=True)
class Part:
    """Files of one tree; `unpack` for archives that ADD lays out."""

    tree: Tree
    paths: list[str]
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY or ADD whose sources are at hand; `described` names them by their content."""

    parts: list[Part]
    described: str

    def apply(self, root: int, destination: str, owner: str, mode: str) -> None:
        """Lay the sources into the tree at `root`; raises `Invalid`, `Conflict`."""
        target = Target(root, _owner(root, owner) if owner else None, _mode(mode) if mode else None)
        into_directory = names_directory(destination)
        destination = posixpath.normpath("/" + destination)
        for part in self.parts:
            if not part.unpack:
                copy(part.tree, part.paths, target, destination, into_directory=into_directory)
                continue
            os.close(make_directories(root, [each for each in destination.split("/") if each]))
            with closing(_reader(part.tree, part.paths[0])) as file:
                apply_tar(root, destination, decompressed(file), owner=target.owner, mode=None)


def names_directory(destination: str) -> bool:
    return destination.endswith("/") or posixpath.basename(destination) in (".", "..")


class Copier:
    """Finds the sources of one build's copies."""

    def __init__(self, context: Context, viewed: Callable[[list[str]], object], origin: Origin, scratch: Path) -> None:
        self._context = context
        self._viewed = viewed
        self._origin = origin
        self._scratch = scratch

    @asynccontextmanager
    async def prepared(self, name: str, sources: list[str], destination: str, origin: str) -> AsyncIterator[Copy]:
        """The copy of these sources; raises `Invalid` in Docker's words for those that are not there."""
        async with AsyncExitStack() as stack:
            tree = Tree(stack.enter_context(self._view(await self._origin(origin)))) if origin else self._context.tree()
            parts: list[Part] = []
            for source in sources:
                if name == "ADD" and _GIT.match(source):
                    raise Unsupported(f"ADD of a git repository is not supported: {source}")
                if name == "ADD" and source.startswith(_URL):
                    directory = self._scratch / f"url-{len(parts)}-{time.monotonic_ns()}"
                    stack.callback(shutil.rmtree, directory, ignore_errors=True)
                    file = await _download(source, directory, named=names_directory(destination))
                    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    stack.callback(os.close, root)
                    parts.append(Part(Tree(root, owner=(0, 0)), [file]))
                    continue
                if not origin and posixpath.normpath(source.lstrip("/")).startswith(".."):
                    raise Invalid(f"{name} failed: forbidden path outside the build context: {source} ()")
                parts += await settled(begin(_found, tree, name, source))
            if len(parts) > 1 and not names_directory(destination):
                raise Invalid(
                    f"When using {name} with more than one source file, the destination must be a directory and end with a /"
                )
            yield Copy(parts, await settled(begin(_describe, parts)))

    @contextmanager
    def _view(self, layers: list[str]) -> Iterator[int]:
        with self._viewed(layers) as root:  # type: ignore[attr-defined]
            yield root


def _found(tree: Tree, name: str, source: str) -> list[Part]:
    try:
        return [Part(tree, [path], unpack=name == "ADD" and _is_archive(tree, path)) for path in tree.find(source)]
    except Invalid as error:
        raise Invalid(f"{name} failed: {error.message}") from error


def _describe(parts: list[Part]) -> str:
    sums = [part.tree.checksum(part.paths) for part in parts]
    if len(parts) == 1:
        directory = parts[0].tree.is_directory(parts[0].paths[0])
        return f"{'dir' if directory else 'file'}:{sums[0]}"
    return f"multi:{hashlib.sha256(''.join(sums).encode()).hexdigest()}"


def _reader(tree: Tree, path: str) -> BinaryIO:
    return open(open_in_root(tree.root, path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def _is_archive(tree: Tree, path: str) -> bool:
    if tree.is_directory(path):
        return False
    with closing(_reader(tree, path)) as file:
        return is_tar(file)


async def _download(url: str, directory: Path, *, named: bool) -> str:
    """Fetch a URL into a directory: the file's name, which it must have where it is `named` by it. Its time is the server's.

    Raises `Invalid`, `Unavailable`.
    """
    try:
        name = posixpath.basename(unquote(urlsplit(url).path))
    except ValueError as error:
        raise Invalid(f"ADD failed: {url}: {error}") from error
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        if named:
            raise Invalid(f"ADD failed: cannot determine filename from url: {url}")
        name = "unnamed"
    directory.mkdir(parents=True)
    path = directory / name
    try:
        async with httpx.AsyncClient(follow_redirects=True, timeout=60) as client, client.stream("GET", url) as response:
            if response.status_code >= 400:
                raise Invalid(f"ADD failed: {url}: {response.status_code} {response.reason_phrase}")
            with path.open("wb") as file:
                async for chunk in response.aiter_bytes():
                    file.write(chunk)
            stamp = response.headers.get("Last-Modified")
    except httpx.InvalidURL as error:
        raise Invalid(f"ADD failed: {url}: {error}") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"ADD failed: {url}: {error}") from error
    seconds = 0.0
    if stamp:
        try:
            seconds = parsedate_to_datetime(stamp).timestamp()
        except (ValueError, TypeError):
            seconds = 0.0
    os.utime(path, (seconds, seconds))
    path.chmod(0o600)
    return name


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Invalid(f"invalid chmod parameter: {text!r}: it should be octal, between 0 and 07777")
    return mode


def _owner(root: int, text: str) -> tuple[int, int]:
    """`user[:group]` by number or name; a user alone is its group's name too (Dockerfile reference, `--chown`)."""
    user, _, group = text.partition(":")
    return (
        _number(root, user, "etc/passwd", f"can't find uid for user {user}"),
        _number(root, group or user, "etc/group", f"can't find gid for group {group or user}"),
    )


def _number(root: int, name: str, file: str, missing: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        with open(open_in_root(root, file, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(":")
                if len(fields) >= 3 and fields[0] == name and fields[2].isdecimal():
                    return int(fields[2])
    except OSError:
        pass
    raise Invalid(f"unable to convert uid/gid chown string to host mapping: {missing}: no such entry in /{file}")
