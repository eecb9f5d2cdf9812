"""The `filters` parameter of list and prune requests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from boxship.errors import Invalid
from boxship.http.message import Query

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(h|ms|m|s|us|ns))")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Filters:
    """What was asked for, by name; raises `Invalid` for a filter that the request does not know."""

    def __init__(self, query: Query, known: Iterable[str]) -> None:
        self._values = parse(query.get("filters"))
        for name in self._values:
            if name not in known:
                raise Invalid(f"invalid filter '{name}'")

    def get(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean filter; raises `Invalid` for another value."""
        values = self.get(name)
        if not values:
            return default
        if values[0].lower() not in ("1", "true", "0", "false"):
            raise Invalid(f"invalid filter '{name}=[{' '.join(values)}]'")
        return values[0].lower() in ("1", "true")

    def labels(self, labels: Mapping[str, str] | None, *, name: str = "label") -> bool:
        """Whether labels have every `key` and `key=value` asked for."""
        have = labels or {}
        for wanted in self.get(name):
            key, equals, value = wanted.partition("=")
            if key not in have or (equals and have[key] != value):
                return False
        return True

    def without_labels(self, labels: Mapping[str, str] | None) -> bool:
        have = labels or {}
        for unwanted in self.get("label!"):
            key, equals, value = unwanted.partition("=")
            if key in have and (not equals or have[key] == value):
                return False
        return True

    def until(self) -> int:
        """The `until` filter as nanoseconds since 1970; a time in the future where there is none."""
        values = self.get("until")
        return timestamp(values[0]) if values else 1 << 63


def parse(text: str) -> dict[str, list[str]]:
    """Both forms that clients send: {"a": ["b"]} and {"a": {"b": true}}."""
    if not text:
        return {}
    try:
        document = json.loads(text)
        found: dict[str, list[str]] = {}
        for name, values in document.items():
            if isinstance(values, dict):
                found[str(name)] = [str(value) for value, wanted in values.items() if wanted]
            elif isinstance(values, list):
                found[str(name)] = [str(value) for value in values]
            else:
                raise ValueError(f"values of {name} are no list")
    except (ValueError, AttributeError, RecursionError) as error:
        raise Invalid(f"invalid filters: {error}") from error
    return found


def timestamp(text: str) -> int:
    """Nanoseconds since 1970 from what Docker takes: seconds with a fraction, a duration ago, or an RFC 3339 time."""
    if not text or text == "0":
        return 0
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time_ns() - int(sum(float(number) * _UNITS[unit] for number, unit in parts) * 1e9)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Invalid(f'invalid time "{text}"', hint="expected seconds since 1970, a duration as 10m, or RFC 3339") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)


def rfc3339(nanoseconds: int) -> str:
    """A time as Docker renders it; 0 is Go's zero time."""
    if not nanoseconds:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
