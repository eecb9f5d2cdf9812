"""Lists as tables, templates or JSON; sizes and times as people read them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]

_MIN_WIDTH = 10
_PADDING = 3
"""Docker's tables: columns three spaces apart and at least ten wide, the last as wide as it is."""


def print_rows(rows: Sequence[Row], columns: Mapping[str, Any], form: str | None, default: Sequence[str]) -> None:
    """Print rows: `form` is a template, `table …`, `json`, or nothing for the default columns.

    `columns` gives each field's heading. Raises `Invalid` for a template that cannot be read.
    """
    if form == "json":
        form = "{{json .}}"
    if not form or form.strip() == "table":
        print_table([columns[name] for name in default], [[str(row[name]) for name in default] for row in rows])
        return
    from boxship.cli.template import compile_template

    if form.startswith("table"):
        render = compile_template(re.sub(r"^(\s|\\t)+", "", form.removeprefix("table")))
        lines = [render(columns), *(render(row) for row in rows)]
        print_table(lines[0].split("\t"), [line.split("\t") for line in lines[1:]])
        return
    render = compile_template(form)
    for row in rows:
        click.echo(render({key: row[key] for key in sorted(row)}))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], least: int = _MIN_WIDTH) -> None:
    """Print aligned columns, each at least that wide."""
    lines = [head, *rows]
    widths = [
        max(least, _PADDING + max(len(line[column]) for line in lines if len(line) > column + 1))
        for column in range(max(len(line) for line in lines) - 1)
    ]
    for line in lines:
        cells = [cell.ljust(widths[column]) for column, cell in enumerate(line[:-1])]
        click.echo("".join([*cells, line[-1]]))


def print_inspected(documents: list[Any], form: str | None) -> None:
    """Print documents as one indented JSON list, as one without spaces (`json`), or each by a template."""
    if form and form != "json":
        for document in documents:
            print_document(document, form)
        return
    spaces: dict[str, Any] = {"separators": (",", ":")} if form else {"indent": 4}
    click.echo(json.dumps(documents, ensure_ascii=False, **spaces))


def print_document(document: Any, form: str) -> None:
    """Print one document by a template, or as JSON."""
    from boxship.cli.template import compile_template

    click.echo(compile_template("{{json .}}" if form == "json" else form)(document))


def label_of(labels: Mapping[str, str] | None) -> Any:
    """For `{{.Label "name"}}`: the value of one label."""
    return lambda name: (labels or {}).get(name, "")


def joined(labels: Mapping[str, str] | None) -> str:
    """Labels in one field."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def shortened(text: str, width: int) -> str:
    """At most `width` characters; the last is an ellipsis where some were cut off."""
    return text if len(text) <= width else text[: width - 1] + "…"


def size(count: float, precision: int = 3) -> str:
    """Bytes in decimal units, three digits: `1.23MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{_digits(count, precision)}{unit}"
        count /= 1000
    return ""


def binary_size(count: float) -> str:
    """Bytes in binary units: `1.234MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{_digits(count, 4)}{unit}"
        count /= 1024
    return ""


def _digits(count: float, precision: int) -> str:
    """As Go's %.3g has it where there are no exponents."""
    shown = f"{count:.{precision}g}"
    return f"{count:.0f}" if "e" in shown else shown


def ago(seconds: float) -> str:
    """A time since 1970, in seconds, as how long it is ago."""
    return f"{duration(time.time() - seconds)} ago"


def duration(seconds: float) -> str:
    """How long, as Docker says it."""
    if seconds < 1:
        return "Less than a second"
    count = int(seconds)
    if count == 1:
        return "1 second"
    if count < 60:
        return f"{count} seconds"
    minutes = count // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 365 * 2, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{hours // (24 * 365)} years"


def local_time(seconds: float) -> str:
    """A time since 1970, in seconds, as lists show it."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key for sorting by which `net10` comes after `net9`."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name) if part]


def created(text: str) -> str:
    """A time of the engine's (RFC 3339) as lists show it."""
    date, _, clock = text.partition("T")
    return f"{date} {clock.removesuffix('Z')} +0000 UTC" if text.endswith("Z") else text


def rfc3339(seconds: float) -> str:
    """A time since 1970, in seconds, in the local zone."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return f"{text[:-2]}:{text[-2:]}"
