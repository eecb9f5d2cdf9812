"""Lists as tables, templates or JSON; sizes and times as people read them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from boxship.cli.template import compile_template, show
from boxship.errors import Invalid

Row = dict[str, Any]

_FIELD = re.compile(r"\{\{\s*\.(\w+)[^}]*\}\}")


def print_rows(rows: Sequence[Row], columns: dict[str, str], form: str | None, default: Sequence[str]) -> None:
    """Print rows: `form` is a template, `table …`, `json`, or nothing for the default columns.

    `columns` gives each field's heading.
    """
    if form == "json":
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if form and not form.startswith("table"):
        render = compile_template(form)
        for row in rows:
            click.echo(render(row))
        return
    if form and form.removeprefix("table").strip():
        text = form.removeprefix("table").lstrip(" ").removeprefix("\\t").replace("\\t", "\t")
        fields = _FIELD.findall(text)
        unknown = [field for field in fields if field not in columns]
        if unknown:
            raise Invalid(f"template: can't evaluate field {unknown[0]}")
        cells = text.split("\t")
        render_cells = [compile_template(cell) for cell in cells]
        head = [_FIELD.sub(lambda m: columns[m[1]], cell) for cell in cells]
        print_table(head, [[render(row) for render in render_cells] for row in rows])
        return
    print_table([columns[name] for name in default], [[show(row[name]) for name in default] for row in rows])


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, three spaces apart."""
    widths = [max(len(head[i]), *(len(row[i]) for row in rows), 0) if rows else len(head[i]) for i in range(len(head))]
    for row in (head, *rows):
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size(count: float) -> str:
    """Bytes in decimal units, three digits: `1.23MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g}{unit}" if count < 1000 else f"{count:.0f}{unit}"
        count /= 1000
    return ""


def binary_size(count: float) -> str:
    """Bytes in binary units: `1.234MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.4g}{unit}"
        count /= 1024
    return ""


def ago(seconds: float) -> str:
    """A time since 1970, in seconds, as how long it is ago."""
    return f"{duration(time.time() - seconds)} ago"


def duration(seconds: float) -> str:
    """How long, as Docker says it."""
    if seconds < 1:
        return "Less than a second"
    for limit, unit, name in ((60, 1, "second"), (3600, 60, "minute"), (48 * 3600, 3600, "hour"), (14 * 86400, 86400, "day"),
                              (60 * 86400, 7 * 86400, "week"), (730 * 86400, 30 * 86400, "month")):  # fmt: skip
        if seconds < limit:
            count = int(seconds // unit)
            if count == 1 and name in ("minute", "hour"):
                return f"About {'a' if name == 'minute' else 'an'} {name}"
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{int(seconds // (365 * 86400))} years"


def timestamp(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0 where there is none."""
    if not text or text.startswith("0001-"):
        return 0.0
    head = re.sub(r"\.(\d{1,6})\d*", r".\1", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(head).timestamp()


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1g`, `512k`; raises `Invalid`."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise Invalid(f"invalid size: '{text}'", hint="such as 512m or 1g")
    factor = 1024 ** "bkmgtp".index(match[2] or "b")
    return int(float(match[1]) * factor)


def filters(values: Sequence[str]) -> str:
    """`--filter` options as the API takes them; raises `Invalid`."""
    found: dict[str, list[str]] = {}
    for value in values:
        name, separator, wanted = value.partition("=")
        if not separator:
            raise Invalid(f"invalid filter {value!r}", hint="use name=value")
        found.setdefault(name.strip().lower(), []).append(wanted.strip())
    return json.dumps(found) if found else ""


def print_inspected(documents: list[Any], form: str | None) -> None:
    """Print documents as indented JSON, or each by a template."""
    if form and form != "json":
        render = compile_template(form)
        for document in documents:
            click.echo(render(document))
        return
    click.echo(json.dumps(documents, ensure_ascii=False, indent=None if form == "json" else 4))
