"""`system df`."""

from __future__ import annotations

from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.session import Session, pass_session
from boxship.cli.verb import command, unsupported


@command("df")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@unsupported(flags=("--verbose", "-v"))
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
