"""`ps`: containers as a list."""

from __future__ import annotations

from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.session import Session, pass_session
from boxship.cli.values import filters
from boxship.cli.verb import command

COLUMNS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
    "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
    "Mounts": "MOUNTS", "Networks": "NETWORKS", "LocalVolumes": "LOCAL VOLUMES", "Platform": "PLATFORM",
    "Label": lambda name: name.rpartition(".")[2],
}  # fmt: skip
_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15


@command("ps")
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
    sizes = sizes or (not quiet and form is not None and ".Size" in form)
    found = session.get("/containers/json", all=everything, filters=filters(chosen), limit=limit, size=sizes)
    rows = [row_of(entry, full=no_trunc) for entry in found]
    if quiet and not form:
        for row in rows:
            click.echo(row["ID"])
        return
    default = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", *(["Size"] if sizes else [])]
    f.print_rows(rows, COLUMNS, form, default)


def row_of(entry: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """One container's fields."""
    text, identity, image = entry["Command"], entry["Id"], entry["Image"] or "<no image>"
    if image.startswith("sha256:") and not full:
        image = image[7:19]
    own, whole = entry.get("SizeRw") or 0, entry.get("SizeRootFs") or 0
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in entry.get("Mounts") or []]
    return {
        "ID": identity if full else identity[:12],
        "Image": image,
        "Command": f'"{text if full else f.shortened(text, _COMMAND_WIDTH)}"',
        "CreatedAt": f.local_time(entry["Created"]),
        "RunningFor": f.ago(entry["Created"]),
        "Ports": shown_ports(entry.get("Ports") or []),
        "State": entry["State"],
        "Status": entry["Status"],
        "Size": f"{f.size(own)} (virtual {f.size(whole)})" if whole else f.size(own),
        "Names": ",".join(name.lstrip("/") for name in entry["Names"] if full or name.count("/") == 1),
        "Labels": f.joined(entry.get("Labels")),
        "Label": f.label_of(entry.get("Labels")),
        "Mounts": ",".join(mount if full else f.shortened(mount, _MOUNT_WIDTH) for mount in mounts),
        "LocalVolumes": str(sum(1 for mount in entry.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Networks": ",".join((entry.get("NetworkSettings") or {}).get("Networks") or {}),
        "Platform": "",
    }


def shown_ports(ports: list[dict[str, Any]]) -> str:
    """Ports as the docker command shows them: neighbours that lead to the same number are one range."""
    mapped: list[str] = []
    ended: list[str] = []
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    for port in sorted(ports, key=lambda p: (p["PrivatePort"], p.get("IP", ""), p.get("PublicPort", 0), p["Type"])):
        inside, outside, address = port["PrivatePort"], port.get("PublicPort"), port.get("IP", "")
        if outside and outside != inside:
            mapped.append(f"{_host(address)}:{outside}->{inside}/{port['Type']}")
            continue
        key = (address if outside else "", port["Type"])
        first, last = groups.get(key, (inside, inside - 1))
        if inside == last + 1 or inside == last:
            groups[key] = (first, inside)
        else:
            ended.append(_group(key, first, last))
            groups[key] = (inside, inside)
    return ", ".join([*ended, *(_group(key, first, last) for key, (first, last) in groups.items()), *mapped])


def _group(key: tuple[str, str], first: int, last: int) -> str:
    address, protocol = key
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
