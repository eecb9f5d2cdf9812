"""A build's context: a directory behind its `.dockerignore`, or what comes on stdin."""

from __future__ import annotations

import os
import secrets
import sys
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from boxship.cli.session import Failed
from boxship.cli.tarstream import below, document, ending, packed
from boxship.oci.ignore import Patterns

_CHUNK = 1 << 20
_IGNORE = ".dockerignore"
_PACKED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""


class Context(NamedTuple):
    """What is sent for a build: a tar, and the name of the Dockerfile in it."""

    dockerfile: str
    parts: Iterator[bytes]


def from_stdin(dockerfile: str | None) -> Context:
    """A tar, compressed or not, or a Dockerfile without anything beside it."""
    stream = sys.stdin.buffer
    head = b""
    while len(head) < tarfile.BLOCKSIZE and (more := stream.read(tarfile.BLOCKSIZE - len(head))):
        head += more
    if head.startswith(_PACKED) or _begins_tar(head):
        return Context(dockerfile or "Dockerfile", _after(head, iter(lambda: stream.read(_CHUNK), b"")))
    if dockerfile:
        raise Failed("unable to prepare context: a Dockerfile on stdin cannot be named with --file")
    return Context("Dockerfile", iter([document("Dockerfile", head + stream.read()), ending()]))


def from_directory(path: str, dockerfile: str | None) -> Context:
    """A directory's files; the Dockerfile may stand elsewhere, or be `-`, stdin. Raises `Failed`, `OSError`."""
    if not os.path.isdir(path):
        raise Failed(f'unable to prepare context: path "{path}" not found')
    root = os.path.realpath(path)
    text = _read(os.path.join(root, _IGNORE)) if os.path.exists(os.path.join(root, _IGNORE)) else b""
    name, added = _dockerfile(root, dockerfile)
    patterns = Patterns(text.decode(errors="replace"))

    def parts() -> Iterator[bytes]:
        yield from packed(seen(root, patterns, {name, _IGNORE}), keep_owner=False)
        if added is not None:  # later entries of a tar win; the Dockerfile is no part of what COPY sees
            yield document(_IGNORE, text + f"\n{name}\n".encode())
            yield document(name, added)
        yield ending()

    return Context(name, parts())


def seen(root: str, patterns: Patterns, always: set[str]) -> Iterator[tuple[str, str]]:
    """The files that a build sees, by names in the tar and paths here; those of `always` are sent though they are ignored."""

    def enter(name: str) -> bool:
        return patterns.has_exceptions or name not in patterns or any(f"{each}/".startswith(f"{name}/") for each in always)

    for name, path in below(root, "", enter):
        if name and (name in always or name not in patterns):
            yield name, path


def _dockerfile(root: str, given: str | None) -> tuple[str, bytes | None]:
    """Its name in the context, and its text where it has to be added to that."""
    if given is None:
        plain = "dockerfile" if not _there(root, "Dockerfile") and _there(root, "dockerfile") else "Dockerfile"
        return plain, None
    if given == "-":
        return f".dockerfile.{secrets.token_hex(10)}", sys.stdin.buffer.read()
    place = given if os.path.exists(given) else os.path.join(root, given)
    if not os.path.isfile(place):
        raise Failed(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {place}: no such file or directory"
        )
    directory, base = os.path.split(os.path.abspath(place))
    inside = os.path.relpath(os.path.join(os.path.realpath(directory), base), root)
    if inside.startswith("../"):
        return f".dockerfile.{secrets.token_hex(10)}", _read(place)
    return inside, None


def _there(root: str, name: str) -> bool:
    return os.path.lexists(os.path.join(root, name))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _begins_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(head) == tarfile.BLOCKSIZE and not any(head)  # the end of an empty one
    return True


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest
