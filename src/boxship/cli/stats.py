"""`stats`: what containers use."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.session import Session, at, pass_session
from boxship.cli.verb import command
from boxship.errors import NotFound

_COLUMNS = {
    "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_DEFAULT = [name for name in _COLUMNS if name != "Container"]
_AT_ONCE = 16


@command("stats")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Once only.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.argument("names", metavar="[CONTAINER]...", nargs=-1)
@pass_session
def stats(session: Session, names: tuple[str, ...], form: str | None, *, everything: bool, no_stream: bool, no_trunc: bool) -> None:
    """Show what containers use, again and again."""
    for name in names:
        session.get(at("containers", name, "json"))  # a wrong name is told at once
    while True:
        begun = time.monotonic()
        chosen = names or tuple(entry["Id"] for entry in session.get("/containers/json", all=everything))
        rows = _rows(session, chosen, full=no_trunc)
        if not no_stream and sys.stdout.isatty():
            click.clear()
        f.print_rows(rows, _COLUMNS, form, _DEFAULT)
        if no_stream:
            return
        time.sleep(max(0.0, 1 - (time.monotonic() - begun)))


def _rows(session: Session, names: tuple[str, ...], *, full: bool) -> list[dict[str, Any]]:
    """Each figure is the difference over a second, so all are asked for at the same time."""

    def ask(name: str) -> dict[str, Any] | None:
        try:
            return usage(session.beside().get(at("containers", name, "stats"), stream="0"), full=full)
        except NotFound:
            return None  # it has gone since

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [{"Container": name, **row} for name, row in zip(names, pool.map(ask, names), strict=True) if row]


def usage(document: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """The fields of one container, from the engine's figures (Engine API, ContainerStats)."""
    cpu, before = document.get("cpu_stats") or {}, document.get("precpu_stats") or {}
    used = _number(cpu, "cpu_usage", "total_usage") - _number(before, "cpu_usage", "total_usage")
    passed = _number(cpu, "system_cpu_usage") - _number(before, "system_cpu_usage")
    percent = used / passed * _number(cpu, "online_cpus") * 100 if passed > 0 and used > 0 else 0.0
    memory = document.get("memory_stats") or {}
    inner = memory.get("stats") or {}
    held = _number(memory, "usage") - float(inner.get("total_inactive_file", inner.get("inactive_file", 0)))
    limit = _number(memory, "limit")
    networks = list((document.get("networks") or {}).values())
    received, sent = sum(each["rx_bytes"] for each in networks), sum(each["tx_bytes"] for each in networks)
    blocks = (document.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (sum(each["value"] for each in blocks if each["op"].lower() == operation) for operation in ("read", "write"))
    return {
        "ID": document["id"] if full else document["id"][:12],
        "Name": document["name"].lstrip("/"),
        "CPUPerc": f"{percent:.2f}%",
        "MemUsage": f"{f.binary_size(max(held, 0))} / {f.binary_size(limit)}",
        "MemPerc": f"{held / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{f.size(received)} / {f.size(sent)}",
        "BlockIO": f"{f.size(read)} / {f.size(written)}",
        "PIDs": str((document.get("pids_stats") or {}).get("current", 0)),
    }


def _number(where: dict[str, Any], *keys: str) -> float:
    found: Any = where
    for key in keys:
        found = (found or {}).get(key) or 0
    return float(found)
