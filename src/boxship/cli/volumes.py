"""`volume`."""

from __future__ import annotations

import json

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, for_each, report_pruned
from boxship.cli.inspection import print_found
from boxship.cli.session import Session, pass_session


@click.group("volume")
def volume() -> None:
    """Volumes."""


@volume.command("create")
@click.option("-d", "--driver", default="local", help="The driver (local).")
@click.option("-o", "--opt", multiple=True, help="An option of the driver: type=, device=, o=.")
@click.option("--label", multiple=True, help="Set a label.")
@click.argument("name", default="")
@pass_session
def create(session: Session, name: str, driver: str, opt: tuple[str, ...], label: tuple[str, ...]) -> None:
    """Make a volume and print its name."""
    body = {
        "Name": name, "Driver": driver, "DriverOpts": dict(each.partition("=")[::2] for each in opt),
        "Labels": dict(each.partition("=")[::2] for each in label),
    }  # fmt: skip
    click.echo(session.post("/volumes/create", body)["Name"])


_COLUMNS = {"Driver": "DRIVER", "Name": "VOLUME NAME", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Scope": "SCOPE"}


@volume.command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as dangling=true.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@pass_session
def ls(session: Session, chosen: tuple[str, ...], form: str | None, *, quiet: bool) -> None:
    """List volumes."""
    rows = [
        {
            "Driver": entry["Driver"], "Name": entry["Name"], "Mountpoint": entry["Mountpoint"], "Scope": entry["Scope"],
            "Labels": ",".join(f"{key}={value}" for key, value in (entry["Labels"] or {}).items()),
        }
        for entry in session.get("/volumes", filters=f.filters(chosen))["Volumes"] or []
    ]  # fmt: skip
    if quiet:
        for row in rows:
            click.echo(row["Name"])
        return
    f.print_rows(rows, _COLUMNS, form, ["Driver", "Name"])


@volume.command("inspect")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...], form: str | None) -> None:
    """Show everything about volumes."""
    print_found(session, names, ["/volumes/{}"], form, "volume")


@volume.command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove volumes."""
    for_each(names, lambda name: session.delete(f"/volumes/{name}", force=force))


@volume.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Named ones, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, force: bool) -> None:
    """Remove every volume that no container uses."""
    kind = "local volumes" if everything else "anonymous local volumes"
    confirm(f"This will remove {kind} not used by at least one container.", force=force)
    wanted = json.loads(f.filters(chosen) or "{}") | ({"all": ["true"]} if everything else {})
    answer = session.post("/volumes/prune", filters=json.dumps(wanted) if wanted else "")
    report_pruned(answer, "Volumes", "VolumesDeleted")
