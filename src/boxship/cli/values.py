"""Values as options give them: sizes, durations, pairs, variables from files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from boxship.errors import Invalid

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1g`, `512k`; raises `Invalid`."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise Invalid(f"invalid size: '{text}'", hint="such as 512m or 1g")
    return int(float(match[1]) * 1024 ** "bkmgtp".index(match[2] or "b"))


def nanoseconds(text: str) -> int:
    """Of a duration such as `1m30s`; raises `Invalid`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Invalid(f'invalid duration "{text}"', hint="such as 30s or 1m30s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def moment(text: str) -> str:
    """A time for the engine: a duration is counted back from now, a date is read in the local zone. Raises `Invalid`."""
    import time
    from datetime import datetime

    if not text or re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    try:
        return f"{time.time() - nanoseconds(text) / 1e9:.9f}"
    except Invalid:
        pass
    try:
        micro = re.sub(r"([.]\d{1,6})\d*", r"\1", text)  # as fine as Python reads it
        return f"{datetime.fromisoformat(micro).timestamp():.9f}"
    except ValueError:
        raise Invalid(f'invalid time "{text}"', hint="such as 10m, 2026-01-31 or 2026-01-31T10:00:00Z") from None


def pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """`name=value` each; raises `Invalid` that names the option."""
    for value in values:
        if "=" not in value or value.startswith("="):
            raise Invalid(f"invalid value for {option}: {value!r}", hint="use name=value")
    return dict(value.partition("=")[::2] for value in values)


def labels(values: Sequence[str], files: Sequence[str] = ()) -> dict[str, str]:
    """`--label` and `--label-file`: a name alone has an empty value. Raises `Invalid`."""
    found = dict(text.partition("=")[::2] for text in [*_lines(files), *values])
    if "" in found:
        raise Invalid("invalid label: a name is needed", hint="use name=value")
    return found


def environment(values: Sequence[str], files: Sequence[str]) -> list[str]:
    """`-e` and `--env-file`: a name alone takes its value from our own environment, or is left out. Raises `Invalid`."""
    found = []
    for line in [*_lines(files), *values]:
        name, separator, _ = line.partition("=")
        if not name or re.search(r"\s", name):
            raise Invalid(f"invalid environment variable: {line}")
        if separator:
            found.append(line)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def _lines(files: Sequence[str]) -> Iterator[str]:
    for file in files:
        try:
            with open(file, encoding="utf-8-sig") as source:
                for line in source.read().split("\n"):
                    text = line.removesuffix("\r").lstrip()
                    if text and not text.startswith("#"):
                        yield text
        except OSError as error:
            raise Invalid(f"open {file}: {(error.strerror or '').lower()}") from error
        except UnicodeDecodeError as error:
            raise Invalid(f"{file} is no UTF-8: {error.reason}") from error


def filters(values: Sequence[str]) -> str:
    """`--filter` options as the API takes them; raises `Invalid`."""
    found: dict[str, list[str]] = {}
    for value in values:
        name, separator, wanted = value.partition("=")
        if not separator:
            raise Invalid(f'invalid argument "{value}" for --filter: bad format of filter (expected name=value)')
        found.setdefault(name.strip().lower(), []).append(wanted.strip())
    return json.dumps(found) if found else ""


def ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048`; raises `Invalid`."""
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if match is None:
        raise Invalid(f"invalid ulimit argument: {text}", hint="use name=soft[:hard]")
    return {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])}


def nano_cpus(text: str) -> int:
    """`--cpus`; raises `Invalid`."""
    try:
        return round(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise Invalid(f"invalid value {text!r} for --cpus: expected a number such as 1.5") from None


def restart_policy(text: str) -> dict[str, Any]:
    """`no`, `always`, `unless-stopped`, `on-failure[:n]`; raises `Invalid`."""
    name, separator, count = text.partition(":")
    if separator and not count.isdecimal():
        raise Invalid("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def csv_fields(text: str) -> list[tuple[str, str, bool]]:
    """`a=1,"b=x,y",c` as name, value, and whether there was one; raises `Invalid`."""
    import csv

    try:
        [row] = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise Invalid(f"invalid value {text!r}: {error}") from error
    return [(name.strip().lower(), value, bool(equals)) for name, equals, value in (field.partition("=") for field in row)]
