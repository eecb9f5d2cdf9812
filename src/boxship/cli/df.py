"""`system df`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli import images, ps
from boxship.cli.session import Session, pass_session
from boxship.cli.verb import command
from boxship.errors import Invalid

Document = dict[str, Any]

_COLUMNS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
_ACTIVE = ("running", "paused", "restarting")
_PRECISION = 4


@command("df")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-v", "--verbose", is_flag=True, help="Each image, container, volume and entry of the build cache.")
@pass_session
def df(session: Session, form: str | None, *, verbose: bool) -> None:
    """Show what the engine keeps on disk."""
    if verbose and form:
        raise Invalid("--verbose and --format cannot be used together")
    document = session.get("/system/df")
    kinds = [document[name] or [] for name in ("Images", "Containers", "Volumes", "BuildCache")]
    if verbose:
        _show_each(*kinds)
    else:
        f.print_rows(_summary(document["LayersSize"], *kinds), _COLUMNS, form, list(_COLUMNS))


def _summary(
    layers: int, found: list[Document], containers: list[Document], volumes: list[Document], cache: list[Document]
) -> list[Document]:
    used = [entry for entry in found if entry["Containers"] > 0]
    active = [entry for entry in containers if entry["State"] in _ACTIVE]
    held = [entry for entry in volumes if _usage(entry)["RefCount"] > 0]
    own = [entry for entry in cache if not entry["Shared"]]  # what is shared counts as an image's

    def row(kind: str, total: int, in_use: int, size: int, free: int) -> Document:
        share = f" ({free * 100 // size}%)" if size else ""
        return {"Type": kind, "TotalCount": str(total), "Active": str(in_use), "Size": f.size(size, _PRECISION),
                "Reclaimable": f.size(free, _PRECISION) + share}  # fmt: skip

    def written(entries: Iterable[Document]) -> int:
        return sum(entry.get("SizeRw") or 0 for entry in entries)

    def filled(entries: Iterable[Document]) -> int:
        return sum(max(0, _usage(entry)["Size"]) for entry in entries)

    return [
        row("Images", len(found), len(used), layers, layers - sum(e["Size"] - e["SharedSize"] for e in used)),
        row("Containers", len(containers), len(active), written(containers), written(containers) - written(active)),
        row("Local Volumes", len(volumes), len(held), filled(volumes), filled(volumes) - filled(held)),
        row("Build Cache", len(cache), sum(bool(e["InUse"]) for e in cache), sum(e["Size"] for e in own),
            sum(e["Size"] for e in own if not e["InUse"])),
    ]  # fmt: skip


def _usage(volume: Document) -> Document:
    return volume.get("UsageData") or {"RefCount": 0, "Size": 0}


def _show_each(found: list[Document], containers: list[Document], volumes: list[Document], cache: list[Document]) -> None:
    # an image of several names has one line here, as it takes its room once
    rows = [next(images.rows_of(entry, full=False, digests=False)) for entry in found]
    fields = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
    _section("Images space usage:", [images.COLUMNS[name] for name in fields], [[row[name] for name in fields] for row in rows])
    rows = [ps.row_of(entry, full=False) for entry in containers]
    fields = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    heads = [str(ps.COLUMNS[name]) for name in fields]
    sizes = [f.size(entry.get("SizeRw") or 0) for entry in containers]
    cells = [[{**row, "Size": size}[name] for name in fields] for row, size in zip(rows, sizes, strict=True)]
    _section("Containers space usage:", heads, cells)
    _section("Local Volumes space usage:", ["VOLUME NAME", "LINKS", "SIZE"],
             [[v["Name"], str(_usage(v)["RefCount"]), f.size(_usage(v)["Size"], _PRECISION)] for v in volumes])  # fmt: skip
    total = sum(entry["Size"] for entry in cache if not entry["Shared"])
    _section(f"Build cache usage: {f.size(total, _PRECISION)}",
             ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"],
             [[e["ID"][:12], e["Type"], f.size(e["Size"]), _ago(e["CreatedAt"]), _ago(e["LastUsedAt"]), str(e["UsageCount"]),
               str(e["Shared"]).lower()] for e in cache], last=True)  # fmt: skip


def _section(title: str, head: list[str], rows: list[list[str]], *, last: bool = False) -> None:
    click.echo(f"{title}\n")
    f.print_table(head, rows)
    if not last:
        click.echo()


def _ago(text: str) -> str:
    from datetime import datetime

    return f"{f.duration(time.time() - datetime.fromisoformat(text[:26].rstrip('Z') + '+00:00').timestamp())} ago"
