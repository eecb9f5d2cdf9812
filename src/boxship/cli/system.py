"""The verbs of the engine itself."""

from __future__ import annotations

import json
import os
import platform
import time
from typing import Any

import click

from boxship import __version__
from boxship.cli import formatting as f
from boxship.cli.containers import confirm
from boxship.cli.inspection import moment
from boxship.cli.session import Session, pass_session
from boxship.cli.template import compile_template


@click.command("version", short_help="Show versions")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def version(session: Session, form: str | None) -> None:
    """Show the versions of this command and of the engine."""
    client = {"Version": __version__, "PythonVersion": platform.python_version(), "Os": "linux", "Arch": os.uname().machine}
    document = {"Client": client, "Server": session.get("/version")}
    if form:
        click.echo(json.dumps(document) if form == "json" else compile_template(form)(document))
        return
    for name, part in document.items():
        click.echo(f"{name}:")
        for key in ("Version", "ApiVersion", "MinAPIVersion", "PythonVersion", "KernelVersion", "Os", "Arch"):
            if part.get(key):
                click.echo(f" {key + ':':<16} {part[key]}")


@click.command("info", short_help="Show the engine's state")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def info(session: Session, form: str | None) -> None:
    """Show the engine's state."""
    document = session.get("/info")
    if form:
        click.echo(json.dumps(document) if form == "json" else compile_template(form)(document))
        return
    shown: list[tuple[str, Any]] = [
        ("Containers", document["Containers"]), (" Running", document["ContainersRunning"]),
        (" Paused", document["ContainersPaused"]), (" Stopped", document["ContainersStopped"]), ("Images", document["Images"]),
        ("Server Version", document["ServerVersion"]), ("Storage Driver", document["Driver"]),
        *((f" {key}", value) for key, value in document["DriverStatus"]), ("Logging Driver", document["LoggingDriver"]),
        ("Cgroup Version", document["CgroupVersion"]), ("Security Options", ", ".join(document["SecurityOptions"])),
        ("Kernel Version", document["KernelVersion"]), ("Operating System", document["OperatingSystem"]),
        ("CPUs", document["NCPU"]), ("Total Memory", f.binary_size(document["MemTotal"])), ("Name", document["Name"]),
        ("ID", document["ID"]), ("Root Dir", document["DockerRootDir"]),
    ]  # fmt: skip
    for key, value in shown:
        click.echo(f"{key}: {value}")
    for warning in document.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)


@click.command("events", short_help="Show what happens, as it happens")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as type=container.")
@click.option("--format", "form", help="A Go template, or json.")
@click.option("--since", default="", help="From this time on.")
@click.option("--until", default="", help="Up to this time.")
@pass_session
def events(session: Session, chosen: tuple[str, ...], form: str | None, since: str, until: str) -> None:
    """Show what happens, as it happens."""
    query = {"filters": f.filters(chosen), "since": moment(since), "until": moment(until)}
    render = compile_template(form) if form and form != "json" else None
    for line in session.call("GET", "/events", query=query).iter_lines():
        event = json.loads(line)
        if form:
            click.echo(render(event) if render else line.decode())
            continue
        attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
        whole, nano = divmod(event["timeNano"], 10**9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(whole)) + f".{nano:09d}"
        click.echo(f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})")


@click.command("df", short_help="Show what the engine keeps on disk")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@pass_session
def df(session: Session, form: str | None) -> None:
    """Show what the engine keeps on disk."""
    document = session.get("/system/df")
    images, containers = document["Images"] or [], document["Containers"] or []
    volumes, cache = document["Volumes"] or [], document["BuildCache"] or []
    running = [entry for entry in containers if entry["State"] == "running"]
    used = [entry for entry in images if entry["Containers"] > 0]
    held = [entry for entry in volumes if (entry.get("UsageData") or {}).get("RefCount", 0) > 0]

    def row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
        share = f" ({free * 100 // size}%)" if size else ""
        return {"Type": kind, "TotalCount": total, "Active": active, "Size": f.size(size), "Reclaimable": f.size(free) + share}

    volume_size = sum(max(0, (v.get("UsageData") or {}).get("Size", 0)) for v in volumes)
    rows = [
        row("Images", len(images), len(used), document["LayersSize"],
            sum(i["Size"] - max(0, i["SharedSize"]) for i in images if i not in used)),
        row("Containers", len(containers), len(running), sum(c.get("SizeRw") or 0 for c in containers),
            sum(c.get("SizeRw") or 0 for c in containers if c not in running)),
        row("Local Volumes", len(volumes), len(held), volume_size,
            volume_size - sum(max(0, (v.get("UsageData") or {}).get("Size", 0)) for v in held)),
        row("Build Cache", len(cache), 0, sum(c["Size"] for c in cache), sum(c["Size"] for c in cache if not c["Shared"])),
    ]  # fmt: skip
    columns = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
    f.print_rows(rows, columns, form, list(columns))


@click.command("prune", short_help="Remove what is not used")
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container uses.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, volumes: bool, force: bool) -> None:
    """Remove stopped containers, unused networks, unused images and the build cache."""
    confirm("This will remove all stopped containers, unused networks, dangling images and the build cache.", force=force)
    wanted = json.loads(f.filters(chosen) or "{}")
    freed = 0
    kinds = [("containers", {}), ("networks", {}), *([("volumes", {})] if volumes else []),
             ("images", {"dangling": ["false"]} if everything else {})]  # fmt: skip
    for kind, extra in kinds:
        both = {**wanted, **extra}
        answer = session.post(f"/{kind}/prune", filters=json.dumps(both) if both else "")
        freed += int(answer.get("SpaceReclaimed") or 0)
        for field, gone in answer.items():
            if field.endswith("Deleted") and gone:
                click.echo(f"Deleted {kind.capitalize()}:")
                for each in gone:
                    click.echo(each if isinstance(each, str) else next(iter(each.values())))
    freed += int(session.post("/build/prune").get("SpaceReclaimed") or 0)
    click.echo(f"Total reclaimed space: {f.size(freed)}")


@click.command("prune", short_help="Forget the build cache")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-a", "--all", "everything", is_flag=True, help="All of it (there is no other way here).")
@pass_session
def builder_prune(session: Session, *, everything: bool, force: bool) -> None:
    """Forget the build cache."""
    del everything  # the cache is one piece: with and without, all of it goes
    confirm("This will remove the build cache.", force=force)
    click.echo(f"Total reclaimed space: {f.size(int(session.post('/build/prune').get('SpaceReclaimed') or 0))}")
