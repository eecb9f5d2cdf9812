"""Files of containers: `cp`, `diff`, `export`, `commit`."""

from __future__ import annotations

import base64
import io
import json
import os
import posixpath
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import click

from boxship.cli.session import Failed, Session, pass_session
from boxship.errors import NotFound

_DIRECTORY = 1 << 31
_CHUNK = 1 << 20


@click.command("diff", short_help="List what a container changed in its files")
@click.argument("container")
@pass_session
def diff(session: Session, container: str) -> None:
    """List what a container changed (C), added (A) and deleted (D)."""
    for change in session.get(f"/containers/{container}/changes") or []:
        click.echo(f"{'CAD'[change['Kind']]} {change['Path']}")


@click.command("export", short_help="Write a container's files as a tar")
@click.option("-o", "--output", help="A file instead of stdout.")
@click.argument("container")
@pass_session
def export(session: Session, container: str, output: str | None) -> None:
    """Write a container's files as a tar."""
    write_out(session.call("GET", f"/containers/{container}/export").iter_bytes(), output)


def write_out(parts: Iterator[bytes], output: str | None) -> None:
    """Write bytes to a file or to stdout, never to a terminal."""
    if output is None:
        if sys.stdout.isatty():
            raise Failed("cowardly refusing to save to a terminal. Use the -o flag or redirect", 1)
        for part in parts:
            sys.stdout.buffer.write(part)
        return
    with open(output, "wb") as file:
        for part in parts:
            file.write(part)


@click.command("commit", short_help="Make an image of a container")
@click.option("-a", "--author", default="", help="Who made it.")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction to apply.")
@click.option("-m", "--message", default="", help="What was done.")
@click.option("-p/--no-pause", "--pause/--no-pause", default=True, help="Pause the container meanwhile.")
@click.argument("container")
@click.argument("name", required=False)
@pass_session
def commit(
    session: Session, container: str, name: str | None, author: str, change: tuple[str, ...], message: str, *, pause: bool
) -> None:
    """Make an image of a container's changes and print its id."""
    from boxship.cli.run import split_reference

    repository, tag = split_reference(name) if name else ("", "")
    query = {"container": container, "repo": repository, "tag": tag, "author": author, "comment": message,
             "changes": list(change), "pause": "1" if pause else "0"}  # fmt: skip
    click.echo(session.post("/commit", None, **query)["Id"])


@click.command("cp", short_help="Copy files between a container and the host")
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
        raise Failed("copying between containers is not supported", 1)
    if not source_container and not target_container:
        raise Failed("must specify at least one container source", 1)
    if source_container:
        _from_container(session, source_container, source_path, target_path, follow=follow_link)
    else:
        _to_container(session, source_path, target_container, target_path, keep=archive, follow=follow_link)


def _split(text: str) -> tuple[str, str]:
    name, separator, path = text.partition(":")
    if not separator or name.startswith((".", "/")):
        return "", text
    return name, path


def _stat(session: Session, container: str, path: str) -> dict[str, object] | None:
    try:
        response = session.call("HEAD", f"/containers/{container}/archive", query={"path": path})
    except NotFound as error:
        # an answer to HEAD has no body: ask what it was that is missing
        session.get(f"/containers/{container}/json")
        del error
        return None
    found = json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
    return dict(found)


def _from_container(session: Session, container: str, path: str, target: str, *, follow: bool) -> None:
    status = _stat(session, container, path)
    if status is None:
        raise NotFound(f"Could not find the file {path} in container {container}")
    if follow and status.get("linkTarget"):
        path = str(status["linkTarget"])
    response = session.call("GET", f"/containers/{container}/archive", query={"path": path})
    if target == "-":
        write_out(response.iter_bytes(), None)
        return
    base = posixpath.basename(path.rstrip("/")) or "/"
    contents_only = path.endswith("/.") or path in ("/", ".")
    place = Path(target)
    into = place.is_dir()
    if target.endswith("/") and not into and not bool(int(str(status["mode"])) & _DIRECTORY):
        raise Failed(f'destination directory "{target}" does not exist', 1)
    name = "" if contents_only and into else (base if into else place.name)
    with tarfile.open(fileobj=cast(BinaryIO, _Reader(response.iter_bytes())), mode="r|") as tar:
        for entry in tar:
            first, _, rest = entry.name.rstrip("/").partition("/")
            del first
            renamed = "/".join(part for part in (name, rest) if part)
            if not renamed and entry.isdir():
                continue
            entry.name = renamed
            if entry.islnk():
                entry.linkname = "/".join(p for p in (name, entry.linkname.partition("/")[2]) if p)
            tar.extract(entry, place if into else place.parent, filter="tar", numeric_owner=True)


class _Reader(io.RawIOBase):
    """A response's body as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        while not self._pending:
            try:
                self._pending = next(self._parts)
            except StopIteration:
                return b""
        data, self._pending = (self._pending[:size], self._pending[size:]) if size >= 0 else (self._pending, b"")
        return data


def _to_container(session: Session, path: str, container: str, target: str, *, keep: bool, follow: bool) -> None:
    status = _stat(session, container, target)
    is_directory = status is not None and bool(int(str(status["mode"])) & _DIRECTORY)
    if path == "-":
        if not is_directory:
            raise Failed(f"destination {container}:{target} must be a directory to unpack a tar", 1)
        body: Iterator[bytes] = iter(lambda: sys.stdin.buffer.read(_CHUNK), b"")
        session.call("PUT", f"/containers/{container}/archive", query={"path": target}, stream=body)
        return
    own = Path(path)
    if not own.exists() and not own.is_symlink():
        raise Failed(f"lstat {own.absolute()}: no such file or directory", 1)
    if is_directory:
        directory, name = target, "." if path.endswith("/.") else own.resolve().name if path in (".", "..") else own.name
    else:
        if target.endswith("/") and not own.is_dir():
            raise Failed(f"destination {container}:{target} does not exist or is no directory", 1)
        directory, name = posixpath.dirname(target.rstrip("/")) or "/", posixpath.basename(target.rstrip("/"))
    import tempfile

    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT, dereference=False) as tar:
            tar.add(os.path.realpath(own) if follow else own, arcname=name, filter=None if keep else _owned_by_root)
        spool.seek(0)
        parts = iter(lambda: spool.read(_CHUNK), b"")
        query = {"path": directory, "noOverwriteDirNonDir": 1}
        session.call("PUT", f"/containers/{container}/archive", query=query, stream=parts)


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
