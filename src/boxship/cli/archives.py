"""Images as tars: `save`, `load`, `import`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from boxship.cli.files import read_in, write_out
from boxship.cli.progress import show_progress
from boxship.cli.run import split_reference
from boxship.cli.session import Failed, Session, messages, pass_session
from boxship.cli.verb import command


@command("save")
@click.option("-o", "--output", help="A file instead of stdout.")
@click.option("--platform", help="The platform to save.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def save(session: Session, names: tuple[str, ...], output: str | None, platform: str | None) -> None:
    """Write images as a tar that any engine reads."""
    response = session.call("GET", "/images/get", query={"names": list(names), "platform": platform})
    write_out(response.iter_bytes(), output)


@command("load")
@click.option("-i", "--input", "file", help="A file instead of stdin.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def load(session: Session, file: str | None, *, quiet: bool) -> None:
    """Read images from a tar: of `save`, or an OCI layout."""
    if file is None and sys.stdin.isatty():
        raise Failed("requested load from stdin, but stdin is empty")
    query = {"quiet": quiet or not sys.stdout.isatty()}
    with read_in(file or "-") as stream:
        show_progress(messages(session.call("POST", "/images/load", query=query, stream=stream)), sys.stdout)


@command("import")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction to apply.")
@click.option("-m", "--message", default="", help="What it is.")
@click.option("--platform", help="Its platform.")
@click.argument("file", metavar="FILE|-")
@click.argument("name", required=False)
@pass_session
def import_(session: Session, file: str, name: str | None, change: tuple[str, ...], message: str, platform: str | None) -> None:
    """Make an image of a root filesystem's tar, and print its id; - is stdin."""
    repository, suffix = split_reference(name) if name else ("", "")
    query = {"repo": repository, "tag": suffix, "message": message, "changes": list(change), "platform": platform}
    if file.startswith(("http://", "https://")):
        response = session.call("POST", "/images/create", query={**query, "fromSrc": file})
        _print_statuses(messages(response))
        return
    with read_in(file) as stream:
        _print_statuses(messages(session.call("POST", "/images/create", query={**query, "fromSrc": "-"}, stream=stream)))


def _print_statuses(found: Iterator[dict[str, Any]]) -> None:
    for message in found:
        click.echo(message["status"])
