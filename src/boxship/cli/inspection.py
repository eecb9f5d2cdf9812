"""The verbs that show containers and other things one by one."""

from __future__ import annotations

from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.values import moment
from boxship.cli.verb import command
from boxship.errors import NotFound


@command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("-n", "--tail", default="all", help="The last lines only.")
@click.option("--since", default="", help="From this time on (a time, or a duration such as 10m).")
@click.option("--until", default="", help="Up to this time.")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line.")
@click.option("--details", is_flag=True, help="Show labels and variables kept with each line.")
@click.argument("container")
@pass_session
def logs(
    session: Session, container: str, tail: str, since: str, until: str, *, follow: bool, timestamps: bool, details: bool
) -> None:
    """Show a container's log: its stdout on stdout, its stderr on stderr."""
    from boxship.cli import stdio

    terminal = session.get(at("containers", container, "json"))["Config"]["Tty"]
    query = {
        "stdout": 1, "stderr": 1, "follow": follow, "tail": tail, "since": moment(since), "until": moment(until),
        "timestamps": timestamps, "details": details,
    }  # fmt: skip
    response = session.call("GET", at("containers", container, "logs"), query=query)
    (stdio.write_raw if terminal else stdio.write_frames)(response.iter_bytes())


_PATHS = {"container": ("containers", "json"), "image": ("images", "json"), "network": ("networks",), "volume": ("volumes",)}


@command("inspect")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Containers' sizes too.")
@click.option("--type", "kind", type=click.Choice(list(_PATHS)), help="Only this kind.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...], form: str | None, kind: str | None, *, sizes: bool) -> None:
    """Show everything that the engine knows about things."""
    print_found(session, names, form, kind, sizes=sizes)


def _inspector(kind: str) -> click.Command:
    @command("inspect")
    @click.option("-f", "--format", "form", help="A Go template, or json.")
    @click.option("-s", "--size", "sizes", is_flag=True, help="Show its sizes, too.", hidden=kind != "container")
    @click.argument("names", metavar=f"{kind.upper()}...", nargs=-1, required=True)
    @pass_session
    def inspect(session: Session, names: tuple[str, ...], form: str | None, *, sizes: bool) -> None:
        """Show everything that the engine knows."""
        print_found(session, names, form, kind, sizes=sizes)

    return inspect


inspect_container, inspect_image, inspect_network, inspect_volume = (_inspector(kind) for kind in _PATHS)


def print_found(session: Session, names: tuple[str, ...], form: str | None, kind: str | None, *, sizes: bool = False) -> None:
    """Print what each name is; the missing are told, and make the exit code 1."""
    found, missing = [], []
    for name in names:
        document = _find(session, name, [kind] if kind else list(_PATHS), sizes=sizes)
        if document is None:
            missing.append(name)
        else:
            found.append(document)
    if found or not form:
        f.print_inspected(found, form)
    for name in missing:
        click.echo(f"boxship: No such {kind or 'object'}: {name}", err=True)
    if missing:
        raise click.exceptions.Exit(1)


def _find(session: Session, name: str, kinds: list[str], *, sizes: bool) -> Any:
    for kind in kinds:
        collection, *rest = _PATHS[kind]
        try:
            return session.get(at(collection, name, *rest), size=sizes and kind == "container")
        except NotFound:
            continue
    return None


@command("top", context_settings={"ignore_unknown_options": True})
@click.argument("container")
@click.argument("arguments", nargs=-1)
@pass_session
def top(session: Session, container: str, arguments: tuple[str, ...]) -> None:
    """List the processes of a container; further arguments are options of ps(1)."""
    found = session.get(at("containers", container, "top"), ps_args=" ".join(arguments))
    f.print_table(found["Titles"], found["Processes"], least=20)


@command("port")
@click.argument("container")
@click.argument("port", required=False)
@pass_session
def port(session: Session, container: str, port: str | None) -> None:
    """List where a container's ports are published."""
    published = session.get(at("containers", container, "json"))["NetworkSettings"].get("Ports") or {}
    wanted = port if port is None or "/" in port else f"{port}/tcp"
    if wanted is not None and not published.get(wanted):
        raise Failed(f"no public port '{wanted}' published for {container}")
    for inside, bindings in published.items():
        for binding in bindings or []:
            address = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
            text = f"{address}:{binding['HostPort']}"
            if wanted is None:
                click.echo(f"{inside} -> {text}")
            elif wanted == inside:
                click.echo(text)
