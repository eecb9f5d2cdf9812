"""How Go prints values, and the functions that templates may call."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any

_VERB = re.compile(r"%([-+# 0]*)(\d*)(\.\d+)?([vsdqxXtfeg%])")
_MAPS = frozenset({"Annotations", "ExposedPorts", "Labels", "Options", "PortBindings", "Ports", "StorageOpt", "Sysctls", "Tmpfs",
                   "Volumes", "DriverOpts", "Networks"})  # fmt: skip
_POINTERS = frozenset({"Healthcheck", "Health", "Init", "MemorySwappiness", "OomKillDisable", "PidsLimit", "StopTimeout"})


class TemplateError(Exception):
    """Raised for a template that cannot be read, or does not fit the value."""


class Null:
    """A null of the engine's: printed as Go prints what it is there, a list, a map or a pointer."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


def null_of(name: str) -> Null:
    """The null of a field of that name."""
    if not name:
        return Null("<no value>")
    return Null("<nil>" if name in _POINTERS else "map[]" if name in _MAPS else "[]")


def truth(value: Any) -> bool:
    """Whether `if` takes it: anything but false, zero, nothing and what is empty."""
    return bool(value)


def show(value: Any) -> str:
    """A value as Go prints it."""
    if isinstance(value, Null):
        return value.text
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        if value and all(str(key)[:1].isupper() for key in value):
            return "{" + " ".join(show(null_of(key) if item is None else item) for key, item in value.items()) + "}"
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def compact_json(value: Any) -> str:
    """JSON without spaces; what is no data is left out."""

    def plain(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: plain(item) for key, item in inner.items() if not callable(item)}
        return [plain(item) for item in inner] if isinstance(inner, list) else inner

    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False, default=lambda _: None)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Null):
            raise IndexError("index of untyped nil")
        if isinstance(value, dict):
            value = value[key] if value.get(key) is not None else null_of(str(key) if key in value else "")
        elif isinstance(key, int) and not 0 <= key < len(value):
            raise IndexError(f"reflect: slice index out of range: {key}")
        else:
            value = value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match[1], match[2], match[3] or "", match[4]
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb in "dxXfeg" and isinstance(value, (int, float)):
            return f"%{flags}{width}{precision}{verb}" % value
        text = json.dumps(show(value), ensure_ascii=False) if verb == "q" else show(value)
        return f"%{flags.replace('+', '').replace('#', '')}{width}{precision}s" % text

    return _VERB.sub(one, form)


def _slice(value: Any, first: int = 0, last: int | None = None) -> Any:
    return value[first:last]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": compact_json,
    "index": _index,
    "slice": _slice,
    "len": len,
    "join": lambda values, separator: separator.join(show(value) for value in values or ()),
    "split": lambda value, separator: show(value).split(separator),
    "lower": lambda value: show(value).lower(),
    "upper": lambda value: show(value).upper(),
    "title": lambda value: re.sub(r"\b\w", lambda match: match[0].upper(), show(value)),
    "pad": lambda value, before, after: " " * before + show(value) + " " * after if show(value) else "",
    "truncate": lambda value, length: show(value)[:length],
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "not": lambda value: not truth(value),
    "and": lambda *values: next((value for value in values if not truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if truth(value)), values[-1]),
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
