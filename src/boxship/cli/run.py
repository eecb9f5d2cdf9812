"""`run` and `create`."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any

import click

from boxship.cli import stdio
from boxship.cli.flags import container_options, request_of
from boxship.cli.session import Failed, Session, messages, pass_session, raise_for, registry_auth
from boxship.errors import BoxshipError, NotFound

_CONTEXT = {"ignore_unknown_options": False, "allow_interspersed_args": False}
_BEFORE_START = 125


@click.command("create", context_settings=_CONTEXT, short_help="Make a container without starting it")
@container_options
@click.argument("image")
@click.argument("command", nargs=-1)
@pass_session
def create(session: Session, /, image: str, command: tuple[str, ...], **given: Any) -> None:
    """Make a container and print its id."""
    click.echo(_create(session, image, command, given, detached=False))


@click.command("run", context_settings=_CONTEXT, short_help="Run a command in a new container")
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@container_options
@click.argument("image")
@click.argument("command", nargs=-1)
@pass_session
def run(session: Session, /, image: str, command: tuple[str, ...], *, detach: bool, sig_proxy: bool, **given: Any) -> None:
    """Run a command in a new container; the exit code is the command's."""
    try:
        identity = _create(session, image, command, given, detached=detach)
    except BoxshipError as error:
        raise Failed(str(error), _BEFORE_START) from error
    if detach:
        _start(session, identity)
        click.echo(identity)
        return
    sys.exit(_attached(session, identity, given, sig_proxy=sig_proxy))


def _create(session: Session, image: str, command: tuple[str, ...], given: dict[str, Any], *, detached: bool) -> str:
    body = request_of(image, command, given, detached=detached)
    cidfile = given["cidfile"]
    if cidfile and Path(cidfile).exists():
        raise Failed(f"container ID file found, make sure the other container isn't running or delete {cidfile}", _BEFORE_START)
    query = {"name": given["name"], "platform": given["platform"]}
    if given["pull"] == "always":
        pull_image(session, image, given["platform"])
    try:
        made = session.post("/containers/create", body, **query)
    except NotFound as error:
        if given["pull"] != "missing" or "No such image" not in error.message:
            raise
        click.echo(f"Unable to find image '{image}' locally", err=True)
        pull_image(session, image, given["platform"])
        made = session.post("/containers/create", body, **query)
    for warning in made.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
    if cidfile:
        Path(cidfile).write_text(made["Id"])
    return str(made["Id"])


def pull_image(session: Session, image: str, platform: str | None = None) -> None:
    """Fetch an image, its progress on stderr."""
    from boxship.cli.progress import show_progress

    name, tag = split_reference(image)
    response = session.call(
        "POST", "/images/create", query={"fromImage": name, "tag": tag, "platform": platform}, headers=registry_auth(image)
    )
    show_progress(messages(response), sys.stderr)


def split_reference(image: str) -> tuple[str, str]:
    """A name and its tag or digest, `latest` where it has neither."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name, digest
    head, _, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}/{name}" if head else name, tag or "latest"


def _start(session: Session, identity: str) -> None:
    try:
        session.post(f"/containers/{identity}/start")
    except BoxshipError as error:
        with contextlib.suppress(BoxshipError):
            code = int(session.get(f"/containers/{identity}/json")["State"]["ExitCode"])
            raise Failed(str(error), code if code in (126, 127) else _BEFORE_START) from error
        raise Failed(str(error), _exit_code(str(error))) from error


def _exit_code(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    return 126 if "permission denied" in message or "is a directory" in message else _BEFORE_START


def _attached(session: Session, identity: str, given: dict[str, Any], *, sig_proxy: bool) -> int:
    interactive, terminal = given["interactive"], given["tty"]
    if terminal and interactive and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY", 1)
    query = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(interactive), "detachKeys": given["detach_keys"] or ""}
    response, connection, early = session.client.hijack("POST", f"/v1.47/containers/{identity}/attach", query=query)
    raise_for(response)
    result: list[dict[str, Any]] = []
    waiting = _wait_beside(session, identity, result, removed=given["rm"])
    _start(session, identity)

    def send(name: str) -> None:
        session.post(f"/containers/{identity}/kill", signal=name)

    def resize(columns: int, rows: int) -> None:
        session.post(f"/containers/{identity}/resize", w=columns, h=rows)

    with stdio.forwarded_signals(send, enabled=sig_proxy and not terminal), stdio.raw_terminal(terminal and interactive):
        with stdio.on_resize(resize) if terminal else contextlib.nullcontext():
            stdio.relay(connection, early, stdin=interactive, framed=not terminal)
    if not result and _detached(session, identity):
        return 0
    waiting.join()
    if not result:
        raise Failed("the connection to the engine was lost", _BEFORE_START)
    return int(result[0].get("StatusCode", _BEFORE_START))


def _detached(session: Session, identity: str) -> bool:
    """Whether the output ended though the container runs on."""
    with contextlib.suppress(BoxshipError):
        return bool(session.get(f"/containers/{identity}/json")["State"]["Running"])
    return False


def _wait_beside(session: Session, identity: str, result: list[dict[str, Any]], *, removed: bool) -> threading.Thread:
    """Wait for the end on a connection of its own, begun before the start so that no end is missed."""
    from boxship.http.client import Client

    other = Client(session.client.host, session.client.tls)
    condition = "removed" if removed else "next-exit"
    response = other.request("POST", f"/v1.47/containers/{identity}/wait", query={"condition": condition})
    raise_for(response)

    def wait() -> None:
        with contextlib.suppress(BoxshipError):
            result.append(response.json())

    thread = threading.Thread(target=wait, name="wait", daemon=True)
    thread.start()
    return thread
