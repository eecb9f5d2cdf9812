"""The verbs that show containers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.session import Failed, Session, pass_session
from boxship.errors import NotFound

_PS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
    "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
    "Mounts": "MOUNTS", "Networks": "NETWORKS",
}  # fmt: skip


@click.command("ps", short_help="List containers")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, too.")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as status=exited.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-n", "--last", type=int, help="The last N created.")
@click.option("-l", "--latest", is_flag=True, help="The last created.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Show sizes.")
@pass_session
def ps(
    session: Session, chosen: tuple[str, ...], form: str | None, last: int | None, *, everything: bool, latest: bool,
    no_trunc: bool, quiet: bool, sizes: bool,
) -> None:  # fmt: skip
    """List containers."""
    limit = 1 if latest else last
    found = session.get("/containers/json", all=everything, filters=f.filters(chosen), limit=limit, size=sizes)
    rows = [_row(entry, full=no_trunc) for entry in found]
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", *(["Size"] if sizes else [])]
    f.print_rows(rows, _PS, form, columns)


def _row(entry: dict[str, Any], *, full: bool) -> dict[str, Any]:
    command = entry["Command"]
    identity, image = entry["Id"], entry["Image"]
    if image.startswith("sha256:") and not full:
        image = image[7:19]
    own, whole = entry.get("SizeRw") or 0, entry.get("SizeRootFs") or 0
    return {
        "ID": identity if full else identity[:12],
        "Image": image,
        "Command": f'"{command if full or len(command) <= 20 else command[:19] + "…"}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(entry["Created"])),
        "RunningFor": f.ago(entry["Created"]),
        "Ports": ", ".join(_ports(entry.get("Ports") or [])),
        "State": entry["State"],
        "Status": entry["Status"],
        "Size": f"{f.size(own)} (virtual {f.size(whole)})" if whole else f.size(own),
        "Names": ",".join(name.lstrip("/") for name in entry["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in (entry.get("Labels") or {}).items()),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in entry.get("Mounts") or []),
        "Networks": ",".join((entry.get("NetworkSettings") or {}).get("Networks") or {}),
    }


def _ports(ports: list[dict[str, Any]]) -> list[str]:
    found = []
    for port in sorted(ports, key=lambda p: (p["PrivatePort"], p["Type"], p.get("IP", ""))):
        inside = f"{port['PrivatePort']}/{port['Type']}"
        if port.get("PublicPort"):
            address = f"[{port['IP']}]" if ":" in port["IP"] else port["IP"]
            inside = f"{address}:{port['PublicPort']}->{inside}"
        found.append(inside)
    return found


@click.command("logs", short_help="Show a container's log")
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

    terminal = session.get(f"/containers/{container}/json")["Config"]["Tty"]
    query = {
        "stdout": 1, "stderr": 1, "follow": follow, "tail": tail, "since": moment(since), "until": moment(until),
        "timestamps": timestamps, "details": details,
    }  # fmt: skip
    response = session.call("GET", f"/containers/{container}/logs", query=query)
    (stdio.write_raw if terminal else stdio.write_frames)(response.iter_bytes())


def moment(text: str) -> str:
    """A time for the engine: durations are counted back from now."""
    from boxship.cli.flags import nanoseconds
    from boxship.errors import Invalid

    if not text or text[0].isdigit() is False:
        return text
    try:
        return f"{time.time() - nanoseconds(text) / 1e9:.9f}"
    except Invalid:
        return text


@click.command("inspect", short_help="Show everything about containers, images, networks, volumes")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Containers' sizes too.")
@click.option("--type", "kind", type=click.Choice(["container", "image", "network", "volume"]), help="Only this kind.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...], form: str | None, kind: str | None, *, sizes: bool) -> None:
    """Show everything that the engine knows about things."""
    paths = {
        "container": "/containers/{}/json" + ("?size=1" if sizes else ""), "image": "/images/{}/json",
        "network": "/networks/{}", "volume": "/volumes/{}",
    }  # fmt: skip
    chosen = [paths[kind]] if kind else list(paths.values())
    print_found(session, names, chosen, form, kind or "object")


def print_found(session: Session, names: tuple[str, ...], paths: list[str], form: str | None, word: str) -> None:
    """Print what each name is; the missing are told, and make the exit code 1."""
    found, missing = [], []
    for name in names:
        for path in paths:
            try:
                found.append(session.get(path.format(name)))
                break
            except NotFound:
                continue
        else:
            missing.append(name)
    if found or not form:
        f.print_inspected(found, form)
    for name in missing:
        click.echo(f"Error: No such {word}: {name}", err=True)
    if missing:
        sys.exit(1)


@click.command("top", context_settings={"ignore_unknown_options": True}, short_help="List the processes of a container")
@click.argument("container")
@click.argument("arguments", nargs=-1)
@pass_session
def top(session: Session, container: str, arguments: tuple[str, ...]) -> None:
    """List the processes of a container; further arguments are options of ps(1)."""
    found = session.get(f"/containers/{container}/top", ps_args=" ".join(arguments))
    f.print_table(found["Titles"], found["Processes"])


@click.command("port", short_help="List a container's published ports")
@click.argument("container")
@click.argument("port", required=False)
@pass_session
def port(session: Session, container: str, port: str | None) -> None:
    """List where a container's ports are published."""
    published = session.get(f"/containers/{container}/json")["NetworkSettings"].get("Ports") or {}
    wanted = port if port is None or "/" in port else f"{port}/tcp"
    if wanted is not None and not published.get(wanted):
        raise Failed(f"no public port '{wanted}' published for {container}", 1)
    for inside, bindings in published.items():
        for binding in bindings or []:
            address = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
            text = f"{address}:{binding['HostPort']}"
            if wanted is None:
                click.echo(f"{inside} -> {text}")
            elif wanted == inside:
                click.echo(text)


_STATS = {"ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
          "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS"}  # fmt: skip


@click.command("stats", short_help="Show what containers use")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Once only.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.argument("names", metavar="CONTAINER...", nargs=-1)
@pass_session
def stats(
    session: Session, names: tuple[str, ...], form: str | None, *, everything: bool, no_stream: bool, no_trunc: bool
) -> None:
    """Show what containers use, again and again."""
    while True:
        chosen = names or tuple(entry["Id"] for entry in session.get("/containers/json", all=everything))
        rows = [_usage(session.get(f"/containers/{name}/stats", stream="0"), full=no_trunc) for name in chosen]
        if not no_stream and sys.stdout.isatty():
            click.clear()
        f.print_rows(rows, _STATS, form, list(_STATS))
        if no_stream:
            return
        time.sleep(1)


def _usage(document: dict[str, Any], *, full: bool) -> dict[str, Any]:
    cpu, before = document.get("cpu_stats") or {}, document.get("precpu_stats") or {}

    def value(where: dict[str, Any], *keys: str) -> float:
        found: Any = where
        for key in keys:
            found = (found or {}).get(key) or 0
        return float(found)

    used = value(cpu, "cpu_usage", "total_usage") - value(before, "cpu_usage", "total_usage")
    passed = value(cpu, "system_cpu_usage") - value(before, "system_cpu_usage")
    percent = used / passed * value(cpu, "online_cpus") * 100 if passed > 0 and used > 0 else 0.0
    memory = document.get("memory_stats") or {}
    inner = memory.get("stats") or {}
    usage = value(memory, "usage") - float(inner.get("total_inactive_file", inner.get("inactive_file", 0)))
    limit = value(memory, "limit")
    networks = (document.get("networks") or {}).values()
    received, sent = sum(n["rx_bytes"] for n in networks), sum(n["tx_bytes"] for n in networks)
    blocks = (document.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    amount: Callable[[str], int] = lambda op: sum(entry["value"] for entry in blocks if entry["op"].lower() == op)  # noqa: E731
    return {
        "ID": document["id"] if full else document["id"][:12],
        "Name": document["name"].lstrip("/"),
        "CPUPerc": f"{percent:.2f}%",
        "MemUsage": f"{f.binary_size(max(usage, 0))} / {f.binary_size(limit)}",
        "MemPerc": f"{usage / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{f.size(received)} / {f.size(sent)}",
        "BlockIO": f"{f.size(amount('read'))} / {f.size(amount('write'))}",
        "PIDs": str((document.get("pids_stats") or {}).get("current", 0)),
    }
