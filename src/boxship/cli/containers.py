"""The verbs that change containers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.values import filters, nano_cpus, parse_size, restart_policy
from boxship.cli.verb import command
from boxship.errors import BoxshipError, NotFound


def for_each(names: Sequence[str], act: Callable[[str], object]) -> None:
    """Do something with each name and print it, unless that returns False; every failure is told, and the exit code is 1."""
    failed = False
    for name in names:
        try:
            if act(name) is not False:
                click.echo(name)
        except BoxshipError as error:
            click.echo(f"boxship: {error}", err=True)
            failed = True
    if failed:
        raise click.exceptions.Exit(1)


_names = click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)


@command("start")
@click.option("-a", "--attach", "attached", is_flag=True, help="Show its output, and end with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@click.option("--detach-keys", default="", help="The keys that detach (default ctrl-p,ctrl-q).")
@_names
@pass_session
def start(
    session: Session, names: tuple[str, ...], *, attached: bool, interactive: bool, sig_proxy: bool, detach_keys: str
) -> None:
    """Start containers."""
    if not attached and not interactive:
        for_each(names, lambda name: session.post(at("containers", name, "start")))
        return
    if len(names) != 1:
        raise Failed("you cannot start and attach multiple containers at once")
    from boxship.cli.attachment import Join, joined

    found = session.get(at("containers", names[0], "json"))
    config, identity = found["Config"], found["Id"]
    if config["Tty"] and interactive and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY")
    streams = [*(["stdin"] if interactive and config["OpenStdin"] else []), "stdout", "stderr"]
    condition = "removed" if found["HostConfig"].get("AutoRemove") else "next-exit"
    how = Join(streams, config["Tty"], sig_proxy, detach_keys, condition)
    raise click.exceptions.Exit(joined(session, identity, how, lambda: session.post(at("containers", identity, "start"))))


@command("stop")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds until it is killed (-1: never).")
@click.option("-s", "--signal", default="", help="The signal to send.")
@_names
@pass_session
def stop(session: Session, names: tuple[str, ...], timeout: int | None, signal: str) -> None:
    """Ask containers to end, and make them after a while."""
    query = {"t": str(timeout) if timeout is not None else None, "signal": signal}
    for_each(names, lambda name: session.post(at("containers", name, "stop"), **query))


@command("restart")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds until it is killed (-1: never).")
@click.option("-s", "--signal", default="", help="The signal to send.")
@_names
@pass_session
def restart(session: Session, names: tuple[str, ...], timeout: int | None, signal: str) -> None:
    """Stop containers and start them again."""
    query = {"t": str(timeout) if timeout is not None else None, "signal": signal}
    for_each(names, lambda name: session.post(at("containers", name, "restart"), **query))


@command("kill")
@click.option("-s", "--signal", default="SIGKILL", help="The signal (default SIGKILL).")
@_names
@pass_session
def kill(session: Session, names: tuple[str, ...], signal: str) -> None:
    """Send a signal to containers."""
    for_each(names, lambda name: session.post(at("containers", name, "kill"), signal=signal))


@command("pause")
@_names
@pass_session
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Freeze every process of containers."""
    for_each(names, lambda name: session.post(at("containers", name, "pause")))


@command("unpause")
@_names
@pass_session
def unpause(session: Session, names: tuple[str, ...]) -> None:
    """Let frozen containers go on."""
    for_each(names, lambda name: session.post(at("containers", name, "unpause")))


@command("rename")
@click.argument("name")
@click.argument("new")
@pass_session
def rename(session: Session, name: str, new: str) -> None:
    """Give a container another name."""
    session.post(at("containers", name, "rename"), name=new)


@command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill it first where it runs.")
@click.option("-l", "--link", is_flag=True, help="Remove a link, not the container.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes too.")
@_names
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool, link: bool, volumes: bool) -> None:
    """Remove containers."""
    for_each(names, lambda name: _remove(session, name, force=force, link=link, v=volumes))


def _remove(session: Session, name: str, **query: bool) -> bool:
    try:
        session.delete(at("containers", name), **query)
    except NotFound as error:
        if not query["force"]:
            raise
        click.echo(f"boxship: {error}", err=True)
        return False
    return True


@command("wait")
@_names
@pass_session
def wait(session: Session, names: tuple[str, ...]) -> None:
    """Wait for containers to end and print their exit codes."""
    failed = False
    for name in names:
        try:
            click.echo(session.post(at("containers", name, "wait"))["StatusCode"])
        except BoxshipError as error:
            click.echo(f"boxship: {error}", err=True)
            failed = True
    if failed:
        raise click.exceptions.Exit(1)


_SIZES = {"Memory": "memory", "MemorySwap": "memory_swap", "MemoryReservation": "memory_reservation"}
_AS_GIVEN = {
    "CpuShares": "cpu_shares", "CpuPeriod": "cpu_period", "CpuQuota": "cpu_quota", "CpuRealtimePeriod": "cpu_rt_period",
    "CpuRealtimeRuntime": "cpu_rt_runtime", "CpusetCpus": "cpuset_cpus", "CpusetMems": "cpuset_mems",
    "BlkioWeight": "blkio_weight", "PidsLimit": "pids_limit",
}  # fmt: skip


@command("update")
@click.option("-m", "--memory", help="The most memory.")
@click.option("--memory-swap", help="The most memory and swap together; -1 for any.")
@click.option("--memory-reservation", help="Memory that it keeps under pressure.")
@click.option("--cpus", help="How many CPUs' time.")
@click.option("-c", "--cpu-shares", type=int, help="Its weight for CPU time.")
@click.option("--cpu-period", type=int, help="The period of its quota, in microseconds.")
@click.option("--cpu-quota", type=int, help="CPU time in each period, in microseconds.")
@click.option("--cpu-rt-period", type=int, help="The period of real-time scheduling, in microseconds.")
@click.option("--cpu-rt-runtime", type=int, help="Real-time CPU time in each period, in microseconds.")
@click.option("--cpuset-cpus", help="On which CPUs it may run.")
@click.option("--cpuset-mems", help="On which memory nodes.")
@click.option("--blkio-weight", type=int, help="Its weight for block devices: 10 to 1000.")
@click.option("--pids-limit", type=int, help="The most processes; -1 for any.")
@click.option("--restart", help="When to start again.")
@_names
@pass_session
def update(session: Session, /, names: tuple[str, ...], **given: Any) -> None:
    """Change limits and the restart policy of containers."""
    body: dict[str, Any] = {field: parse_size(given[option]) for field, option in _SIZES.items() if given[option]}
    body |= {field: given[option] for field, option in _AS_GIVEN.items() if given[option] is not None}
    if given["cpus"]:
        body["NanoCpus"] = nano_cpus(given["cpus"])
    if given["restart"]:
        body["RestartPolicy"] = restart_policy(given["restart"])
    if not body:
        raise Failed("you must provide one or more flags when using this command")
    for_each(names, lambda name: _update(session, name, body))


def _update(session: Session, name: str, body: dict[str, Any]) -> None:
    for warning in (session.post(at("containers", name, "update"), body) or {}).get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)


@command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, force: bool) -> None:
    """Remove every stopped container."""
    confirm("This will remove all stopped containers.", force=force)
    report_pruned(session.post("/containers/prune", filters=filters(chosen)), "Containers", "ContainersDeleted")


def confirm(warning: str, *, force: bool) -> None:
    """Ask before something is lost; raises `Failed` where the answer is not yes."""
    if force:
        return
    click.echo(f"WARNING! {warning}")
    click.echo("Are you sure you want to continue? [y/N] ", nl=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failed("the pruning was not confirmed")


def report_pruned(answer: dict[str, Any], word: str, field: str) -> int:
    """Print what was removed; the bytes freed."""
    from boxship.cli.formatting import size

    gone = answer.get(field) or []
    if gone:
        click.echo(f"Deleted {word}:")
        for each in gone:
            click.echo("\n".join(f"{key.lower()}: {value}" for key, value in each.items()) if isinstance(each, dict) else each)
        click.echo()
    freed = int(answer.get("SpaceReclaimed") or 0)
    if field != "NetworksDeleted":
        click.echo(f"Total reclaimed space: {size(freed)}")
    return freed
