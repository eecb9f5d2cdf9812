"""`volume`."""

from __future__ import annotations

import json
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, for_each, report_pruned
from boxship.cli.session import Session, at, pass_session
from boxship.cli.values import filters, labels, pairs
from boxship.cli.verb import command, unsupported
from boxship.errors import Unsupported

_CLUSTER = unsupported(
    "--availability", "--group", "--limit-bytes", "--required-bytes", "--scope", "--secret", "--sharing", "--topology-preferred",
    "--topology-required", "--type", why=": it is for volumes of a cluster",
)  # fmt: skip


@command("create")
@click.option("-d", "--driver", default="local", help="The driver (local).")
@click.option("-o", "--opt", multiple=True, help="An option of the driver: type=, device=, o=.")
@click.option("--label", multiple=True, help="Set a label.")
@_CLUSTER
@click.argument("name", default="")
@pass_session
def create(session: Session, name: str, driver: str, opt: tuple[str, ...], label: tuple[str, ...]) -> None:
    """Make a volume and print its name."""
    body = {"Name": name, "Driver": driver, "DriverOpts": pairs("--opt", opt), "Labels": labels(label)}
    click.echo(session.post("/volumes/create", body)["Name"])


COLUMNS = {
    "Driver": "DRIVER", "Name": "VOLUME NAME", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Scope": "SCOPE",
    "Links": "LINKS", "Size": "SIZE", "Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS",
    "Label": lambda name: name.rpartition(".")[2],
}  # fmt: skip


def row_of(entry: dict[str, Any]) -> dict[str, Any]:
    """One volume's fields."""
    usage = entry.get("UsageData") or {}
    return {
        "Availability": "N/A",
        "Driver": entry["Driver"],
        "Group": "N/A",
        "Label": f.label_of(entry.get("Labels")),
        "Labels": f.joined(entry.get("Labels")),
        "Links": str(usage["RefCount"]) if usage.get("RefCount", -1) >= 0 else "N/A",
        "Mountpoint": entry["Mountpoint"],
        "Name": entry["Name"],
        "Scope": entry["Scope"],
        "Size": f.size(usage["Size"]) if usage.get("Size", -1) >= 0 else "N/A",
        "Status": "N/A",
    }


@command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as dangling=true.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@unsupported(flags=("--cluster",))
@pass_session
def ls(session: Session, chosen: tuple[str, ...], form: str | None, *, quiet: bool) -> None:
    """List volumes."""
    found = session.get("/volumes", filters=filters(chosen))["Volumes"] or []
    rows = [row_of(entry) for entry in sorted(found, key=lambda entry: f.natural(entry["Name"]))]
    if quiet and not form:
        form = "{{.Name}}"
    f.print_rows(rows, COLUMNS, form, ["Driver", "Name"])


@command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove volumes."""
    for_each(names, lambda name: session.delete(at("volumes", name), force=force))


@command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Named ones, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, force: bool) -> None:
    """Remove every volume that no container uses."""
    kind = "local volumes" if everything else "anonymous local volumes"
    confirm(f"This will remove {kind} not used by at least one container.", force=force)
    wanted = json.loads(filters(chosen) or "{}") | ({"all": ["true"]} if everything else {})
    answer = session.post("/volumes/prune", filters=json.dumps(wanted) if wanted else "")
    report_pruned(answer, "Volumes", "VolumesDeleted")


@command("update", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def update(arguments: tuple[str, ...]) -> None:
    """Change a volume of a cluster."""
    raise Unsupported("volume update is not supported: it is for volumes of a cluster")
