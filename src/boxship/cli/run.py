"""`run` and `create`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from boxship.cli.attachment import Join, joined
from boxship.cli.flags import container_options
from boxship.cli.request import attached_streams, request_of
from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.verb import command
from boxship.errors import BoxshipError, Invalid, NotFound

_CONTEXT = {"allow_interspersed_args": False}
_BEFORE_START = 125
"""The exit code where the engine itself failed (docker run, "Exit status")."""


@command("create", context_settings=_CONTEXT)
@container_options
@click.argument("image")
@click.argument("arguments", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@pass_session
def create(session: Session, /, image: str, arguments: tuple[str, ...], **given: Any) -> None:
    """Make a container without starting it, and print its id."""
    click.echo(_create(session, image, arguments, given, detached=False))


@command("run", context_settings=_CONTEXT)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@container_options
@click.argument("image")
@click.argument("arguments", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@pass_session
def run(session: Session, /, image: str, arguments: tuple[str, ...], *, detach: bool, sig_proxy: bool, **given: Any) -> None:
    """Run a command in a new container; the exit code is the command's.

    It is 125 where the engine failed, 126 where the command could not be run, 127 where it was not found.
    """
    if given["tty"] and given["interactive"] and not detach and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY")
    try:
        identity = _create(session, image, arguments, given, detached=detach)
        if detach:
            _start(session, identity)
            click.echo(identity)
            return
        how = Join(
            attached_streams(given, detached=False), given["tty"], sig_proxy, given["detach_keys"] or "",
            "removed" if given["rm"] else "next-exit",
        )  # fmt: skip
        code = joined(session, identity, how, lambda: _start(session, identity))
    except Failed:
        raise
    except BoxshipError as error:
        raise Failed(str(error), _BEFORE_START) from error
    raise click.exceptions.Exit(code)


def _create(session: Session, image: str, arguments: tuple[str, ...], given: dict[str, Any], *, detached: bool) -> str:
    body = request_of(image, arguments, given, detached=detached)
    cidfile = given["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise Invalid(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    query = {"name": given["name"], "platform": given["platform"]}
    if given["pull"] == "always":
        pull_image(session, image, given["platform"], quiet=given["quiet"])
    try:
        made = session.post("/containers/create", body, **query)
    except NotFound as error:
        if given["pull"] == "never" or "No such image" not in error.message:
            raise
        if not given["quiet"]:
            click.echo(f"Unable to find image '{tagged(image)}' locally", err=True)
        pull_image(session, image, given["platform"], quiet=given["quiet"])
        made = session.post("/containers/create", body, **query)
    for warning in made.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
    if cidfile:
        with open(cidfile, "w") as file:
            file.write(made["Id"])
    return str(made["Id"])


def pull_image(session: Session, image: str, platform: str | None = None, *, quiet: bool = False) -> None:
    """Fetch an image, its progress on stderr."""
    from boxship.cli.credentials import auth_header
    from boxship.cli.progress import show_progress
    from boxship.cli.session import messages

    name, tag = split_reference(image)
    response = session.call(
        "POST", "/images/create", query={"fromImage": name, "tag": tag, "platform": platform}, headers=auth_header(image)
    )
    if quiet:
        for _ in messages(response):
            pass
    else:
        show_progress(messages(response), sys.stderr)


def split_reference(image: str) -> tuple[str, str]:
    """A name and its tag or digest, `latest` where it has neither."""
    name, at_sign, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", digest if at_sign else tag or "latest"


def tagged(image: str) -> str:
    """A reference with the tag that it means."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _start(session: Session, identity: str) -> None:
    try:
        session.post(at("containers", identity, "start"))
    except BoxshipError as error:
        raise Failed(str(error), _exit_code(str(error))) from error


def _exit_code(message: str) -> int:
    """As the docker command tells from the engine's words."""
    if any(words in message for words in ("executable file not found", "no such file or directory")):
        return 127
    if any(words in message for words in ("permission denied", "is a directory")):
        return 126
    return _BEFORE_START
