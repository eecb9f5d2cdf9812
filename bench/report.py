"""Medians, ratios and the table."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.works import Line

_MARKS = re.compile(r"(<!-- results -->\n).*(<!-- end of results -->)", re.DOTALL)
README = Path(__file__).with_name("README.md")


class Results:
    """Every value measured, by line and engine."""

    def __init__(self) -> None:
        self._values: dict[Line, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, line: Line, engine: str, value: float) -> None:
        self._values[line][engine].append(value)

    def table(self) -> str:
        """Markdown; a figure's exponent-free median, with how often it was measured where that was less than ten times."""
        rows = ["| work | dockerd | podman | Boxship | ratio | wanted | met |", "|---|---|---|---|---|---|---|"]
        rows += [self._row(line, found) for line, found in self._values.items()]
        return "\n".join(rows) + "\n"

    def _row(self, line: Line, found: dict[str, list[float]]) -> str:
        def cell(engine: str) -> str:
            values = found.get(engine)
            return f"{median(values):.3g} {line.unit}" if values else "-"

        ours, theirs = found.get("boxship"), found.get(line.peer)
        ratio, met = "-", "-"
        if ours and theirs:
            quotient = median(ours) / median(theirs)
            ratio = f"{quotient:.2f} of {line.peer}" if quotient > 0.2 else f"1/{1 / quotient:.1f} of {line.peer}"
            good = quotient >= line.factor if line.rate else quotient <= line.factor
            met = "yes" if good else "no"
        if ours and line.absolute is not None:
            met = "yes" if median(ours) <= line.absolute else "no"
        return f"| {line.title} | {cell('dockerd')} | {cell('podman')} | {cell('boxship')} | {ratio} | {_wanted(line)} | {met} |"


def _wanted(line: Line) -> str:
    if line.absolute is not None:
        return f"≤ {line.absolute:g} {line.unit}"
    sign = "≥" if line.rate else "≤"
    factor = f"1/{round(1 / line.factor)}" if line.factor <= 0.5 else f"{line.factor:g}"
    return f"{sign} {factor} of {line.peer}"


def conditions(versions: dict[str, str], rounds: int, images: str) -> str:
    """When, where and with what."""
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; {os.cpu_count()} cores, kernel {platform.release().split('-')[0]}, Python"
        f" {platform.python_version()}; {listed}; {rounds} rounds. {images}\n"
    )


def write(text: str) -> None:
    """Put the results into the README."""
    README.write_text(_MARKS.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", README.read_text()))
