"""`cp`: files between containers and the host, by the docker command's rules for names."""

from __future__ import annotations

import base64
import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import click

from boxship.cli.files import read_in, write_out
from boxship.cli.formatting import size
from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.tarstream import below, ending, packed, unpack
from boxship.cli.verb import command
from boxship.errors import NotFound

_DIRECTORY, _SYMLINK = 1 << 31, 1 << 27
"""Bits of a mode as Go has them (io/fs.FileMode)."""

Status = dict[str, Any]


@command("cp")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-L", "--follow-link", is_flag=True, help="Follow a link that is the source.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
@click.argument("source")
@click.argument("destination")
@pass_session
def cp(session: Session, source: str, destination: str, *, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files: CONTAINER:PATH to a path of the host, or the other way; - is a tar on stdin or stdout."""
    source_container, source_path = _split(source)
    target_container, target_path = _split(destination)
    if source_container and target_container:
        raise Failed("copying between containers is not supported")
    if not source_container and not target_container:
        raise Failed("must specify at least one container source")
    if source_container:
        copied = _from_container(session, source_container, source_path, target_path, keep=archive, follow=follow_link)
    else:
        copied = _to_container(session, source_path, target_container, target_path, keep=archive, follow=follow_link)
    if not quiet and destination != "-":
        shown = destination if target_container else os.path.abspath(target_path)
        click.echo(f"Successfully copied {size(copied)} to {shown}", err=True)


def _split(text: str) -> tuple[str, str]:
    """The container and the path in it; no container for a path of the host."""
    name, separator, path = text.partition(":")
    if not separator or not name or name.startswith((".", "/")):
        return "", text
    return name, path


def _stat(session: Session, container: str, path: str) -> Status | None:
    try:
        response = session.call("HEAD", at("containers", container, "archive"), query={"path": path})
    except NotFound:
        session.get(at("containers", container, "json"))  # an answer to HEAD has no body: ask what it is that is missing
        return None
    response.read()
    return dict(json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"])))


def _is(status: Status | None, bit: int) -> bool:
    return status is not None and bool(int(status["mode"]) & bit)


def _through_link(path: str, status: Status | None) -> str:
    """Where a link in a container leads to."""
    if status is None or not _is(status, _SYMLINK) or not status.get("linkTarget"):
        return path
    return posixpath.join(posixpath.dirname(path.rstrip("/")), str(status["linkTarget"]))


# --- out of a container ---


def _from_container(session: Session, container: str, path: str, target: str, *, keep: bool, follow: bool) -> int:
    status = _stat(session, container, path)
    if status is None:
        raise NotFound(f"Could not find the file {path} in container {container}")
    base = posixpath.basename(posixpath.normpath(path)) or "/"
    if follow:
        path = _through_link(path, status)
        status = _stat(session, container, path)
    response = session.call("GET", at("containers", container, "archive"), query={"path": path})
    if target == "-":
        write_out(response.iter_bytes(), None)
        return 0
    directory, name = _place(target, base, is_directory=_is(status, _DIRECTORY), contents=path.endswith("/.") or path in ("/", "."))

    def renamed(entry: str) -> str | None:
        _, _, rest = entry.rstrip("/").partition("/")
        return "/".join(part for part in (name, rest) if part) or None

    return unpack(response.iter_bytes(), directory, renamed, keep_owner=keep)


def _place(target: str, base: str, *, is_directory: bool, contents: bool) -> tuple[str, str]:
    """The directory of the host in which to unpack, and the name that what is copied gets there; none for its contents."""
    if os.path.isdir(target):
        return target, "" if contents or base == "/" else base
    if os.path.lexists(target) and is_directory:
        raise Failed("cannot copy directory")
    if target.endswith("/") and not is_directory:
        raise Failed(f'destination directory "{target}" must be a directory')
    directory, name = os.path.split(os.path.abspath(target))
    if not os.path.isdir(directory):
        raise Failed(f'invalid output path: directory "{directory}" does not exist')
    return directory, name


# --- into a container ---


def _to_container(session: Session, path: str, container: str, target: str, *, keep: bool, follow: bool) -> int:
    status = _stat(session, container, target)
    if _is(status, _SYMLINK):
        target = _through_link(target, status)
        status = _stat(session, container, target)
    is_directory = _is(status, _DIRECTORY)
    if path == "-":
        if not is_directory:
            raise Failed(f'destination "{container}:{target}" must be a directory')
        with read_in("-") as stream:
            session.call("PUT", at("containers", container, "archive"), query={"path": target}, stream=stream).read()
        return 0
    if not os.path.lexists(path):
        raise Failed(f"lstat {os.path.abspath(path)}: no such file or directory")
    source = os.path.realpath(path) if follow or path.endswith("/") else path
    own_directory = os.path.isdir(source) and not os.path.islink(source)
    if is_directory:
        base = os.path.basename(os.path.abspath(path))
        directory, name = target, "." if own_directory and path.endswith(("/.", "/..")) else base
    else:
        if status is not None and own_directory:
            raise Failed("cannot copy directory")
        if target.endswith("/") and not own_directory:
            raise Failed(f'destination directory "{target}" must be a directory')
        directory, name = posixpath.dirname(target.rstrip("/")) or "/", posixpath.basename(target.rstrip("/"))
    sent = _Counted(chain(packed(below(source, name), keep_owner=keep), [ending()]))
    query = {"path": directory, "noOverwriteDirNonDir": True, "copyUIDGID": keep}
    session.call("PUT", at("containers", container, "archive"), query=query, stream=sent).read()
    return sent.total


class _Counted:
    """Bytes that go by."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self.total += len(part)
            yield part
