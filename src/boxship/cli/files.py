"""Containers' files as a whole: `diff`, `export`, `commit`; and tars of ours and theirs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from boxship.cli.run import split_reference
from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.verb import command

_CHUNK = 1 << 20


@command("diff")
@click.argument("container")
@pass_session
def diff(session: Session, container: str) -> None:
    """List what a container changed (C), added (A) and deleted (D)."""
    for change in session.get(at("containers", container, "changes")) or []:
        click.echo(f"{'CAD'[change['Kind']]} {change['Path']}")


@command("export")
@click.option("-o", "--output", help="A file instead of stdout.")
@click.argument("container")
@pass_session
def export(session: Session, container: str, output: str | None) -> None:
    """Write a container's files as a tar."""
    refuse_terminal(output)
    write_out(session.call("GET", at("containers", container, "export")).iter_bytes(), output)


@command("commit")
@click.option("-a", "--author", default="", help="Who made it.")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction to apply.")
@click.option("-m", "--message", default="", help="What was done.")
@click.option("-p", "--pause/--no-pause", default=True, help="Pause the container meanwhile.")
@click.argument("container")
@click.argument("name", required=False)
@pass_session
def commit(
    session: Session, container: str, name: str | None, author: str, change: tuple[str, ...], message: str, *, pause: bool
) -> None:
    """Make an image of a container's changes and print its id."""
    repository, tag = split_reference(name) if name else ("", "")
    query = {"container": container, "repo": repository, "tag": tag, "author": author, "comment": message,
             "changes": list(change), "pause": "1" if pause else "0"}  # fmt: skip
    click.echo(session.post("/commit", None, **query)["Id"])


def refuse_terminal(output: str | None) -> None:
    """Raises `Failed` where a tar would go to a terminal."""
    if output is None and sys.stdout.isatty():
        raise Failed("cowardly refusing to save to a terminal. Use the -o flag or redirect")


def write_out(parts: Iterator[bytes], output: str | None) -> None:
    """Write bytes to stdout, or to a file, which is whole or not there."""
    if output is None:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(output) and not os.path.isfile(output):
        with open(output, "wb") as file:  # a device or a pipe
            file.writelines(parts)
        return
    temporary = f"{output}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, output)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def read_in(file: str) -> Iterator[Iterator[bytes]]:
    """A file's bytes, piece by piece; - is stdin. Raises `OSError` at once where it cannot be read."""
    if file == "-":
        yield iter(lambda: sys.stdin.buffer.read(_CHUNK), b"")
        return
    with open(file, "rb", buffering=0) as source:
        yield iter(lambda: source.read(_CHUNK), b"")
