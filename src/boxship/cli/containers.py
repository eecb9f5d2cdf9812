"""The verbs that change containers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from boxship.cli.formatting import filters, parse_size
from boxship.cli.session import API, Failed, Session, pass_session, raise_for
from boxship.errors import BoxshipError


def for_each(names: Sequence[str], act: Callable[[str], object]) -> None:
    """Do something with each name and print it; every failure is told, and makes the exit code 1."""
    failed = False
    for name in names:
        try:
            act(name)
        except BoxshipError as error:
            click.echo(f"boxship: {error}", err=True)
            failed = True
        else:
            click.echo(name)
    if failed:
        sys.exit(1)


_names = click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)


@click.command("start", short_help="Start containers")
@click.option("-a", "--attach", "attached", is_flag=True, help="Show its output, and end with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on.")
@_names
@pass_session
def start(session: Session, names: tuple[str, ...], *, attached: bool, interactive: bool) -> None:
    """Start containers."""
    if not attached and not interactive:
        for_each(names, lambda name: session.post(f"/containers/{name}/start"))
        return
    if len(names) != 1:
        raise Failed("you cannot start and attach multiple containers at once", 1)
    from boxship.cli import stdio

    terminal = session.get(f"/containers/{names[0]}/json")["Config"]["Tty"]
    query = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(interactive)}
    response, connection, early = session.client.hijack("POST", f"{API}/containers/{names[0]}/attach", query=query)
    raise_for(response)
    session.post(f"/containers/{names[0]}/start")
    with stdio.raw_terminal(terminal and interactive and sys.stdin.isatty()):
        stdio.relay(connection, early, stdin=interactive, framed=not terminal)
    with contextlib.suppress(BoxshipError):
        sys.exit(int(session.post(f"/containers/{names[0]}/wait")["StatusCode"]))


@click.command("stop", short_help="Stop containers")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds until it is killed (-1: never).")
@click.option("-s", "--signal", default="", help="The signal to send.")
@_names
@pass_session
def stop(session: Session, names: tuple[str, ...], timeout: int | None, signal: str) -> None:
    """Ask containers to end, and make them after a while."""
    query = {"t": str(timeout) if timeout is not None else None, "signal": signal}
    for_each(names, lambda name: session.post(f"/containers/{name}/stop", **query))


@click.command("restart", short_help="Restart containers")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds until it is killed (-1: never).")
@click.option("-s", "--signal", default="", help="The signal to send.")
@_names
@pass_session
def restart(session: Session, names: tuple[str, ...], timeout: int | None, signal: str) -> None:
    """Stop containers and start them again."""
    query = {"t": str(timeout) if timeout is not None else None, "signal": signal}
    for_each(names, lambda name: session.post(f"/containers/{name}/restart", **query))


@click.command("kill", short_help="Send a signal to containers")
@click.option("-s", "--signal", default="SIGKILL", help="The signal (default SIGKILL).")
@_names
@pass_session
def kill(session: Session, names: tuple[str, ...], signal: str) -> None:
    """Send a signal to containers."""
    for_each(names, lambda name: session.post(f"/containers/{name}/kill", signal=signal))


@click.command("pause", short_help="Freeze containers")
@_names
@pass_session
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Freeze every process of containers."""
    for_each(names, lambda name: session.post(f"/containers/{name}/pause"))


@click.command("unpause", short_help="Let frozen containers go on")
@_names
@pass_session
def unpause(session: Session, names: tuple[str, ...]) -> None:
    """Let frozen containers go on."""
    for_each(names, lambda name: session.post(f"/containers/{name}/unpause"))


@click.command("rename", short_help="Rename a container")
@click.argument("name")
@click.argument("new")
@pass_session
def rename(session: Session, name: str, new: str) -> None:
    """Give a container another name."""
    session.post(f"/containers/{name}/rename", name=new)


@click.command("rm", short_help="Remove containers")
@click.option("-f", "--force", is_flag=True, help="Kill it first where it runs.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes too.")
@_names
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool, volumes: bool) -> None:
    """Remove containers."""
    for_each(names, lambda name: session.delete(f"/containers/{name}", force=force, v=volumes))


@click.command("wait", short_help="Wait for containers to end")
@_names
@pass_session
def wait(session: Session, names: tuple[str, ...]) -> None:
    """Wait for containers to end and print their exit codes."""
    for name in names:
        click.echo(session.post(f"/containers/{name}/wait")["StatusCode"])


@click.command("update", short_help="Change limits of containers")
@click.option("-m", "--memory", help="The most memory.")
@click.option("--memory-swap", help="The most memory and swap together; -1 for any.")
@click.option("--memory-reservation", help="Memory that it keeps under pressure.")
@click.option("--cpus", type=float, help="How many CPUs' time.")
@click.option("-c", "--cpu-shares", type=int, help="Its weight for CPU time.")
@click.option("--cpuset-cpus", help="On which CPUs it may run.")
@click.option("--pids-limit", type=int, help="The most processes.")
@click.option("--restart", help="When to start again.")
@_names
@pass_session
def update(session: Session, /, names: tuple[str, ...], **given: Any) -> None:
    """Change limits and the restart policy of containers."""
    body: dict[str, Any] = {
        field: parse_size(given[option])
        for field, option in (("Memory", "memory"), ("MemorySwap", "memory_swap"), ("MemoryReservation", "memory_reservation"))
        if given[option]
    }
    if given["cpus"]:
        body["NanoCpus"] = round(given["cpus"] * 1e9)
    body |= {
        field: given[option]
        for field, option in (("CpuShares", "cpu_shares"), ("CpusetCpus", "cpuset_cpus"), ("PidsLimit", "pids_limit"))
        if given[option] is not None
    }
    if given["restart"]:
        name, _, count = given["restart"].partition(":")
        body["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count) if count.isdigit() else 0}
    for_each(names, lambda name: session.post(f"/containers/{name}/update", body))


@click.command("prune", short_help="Remove stopped containers")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, force: bool) -> None:
    """Remove every stopped container."""
    confirm("This will remove all stopped containers.", force=force)
    report_pruned(session.post("/containers/prune", filters=filters(chosen)), "Containers", "ContainersDeleted")


def confirm(warning: str, *, force: bool) -> None:
    if not force:
        click.echo(f"WARNING! {warning}")
        click.confirm("Are you sure you want to continue?", abort=True)


def report_pruned(answer: dict[str, Any], word: str, field: str) -> int:
    """Print what was removed; the bytes freed."""
    from boxship.cli.formatting import size

    gone = answer.get(field) or []
    if gone:
        click.echo(f"Deleted {word}:")
        for each in gone:
            click.echo(" ".join(f"{key.lower()}: {value}" for key, value in each.items()) if isinstance(each, dict) else each)
        click.echo()
    freed = int(answer.get("SpaceReclaimed") or 0)
    if field != "NetworksDeleted":
        click.echo(f"Total reclaimed space: {size(freed)}")
    return freed
