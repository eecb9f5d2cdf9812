"""From method and path to a handler."""

from __future__ import annotations

import re
from typing import Generic, TypeVar
from urllib.parse import unquote

_PLACEHOLDER = re.compile(r"\{(\w+)(:path)?\}")


T = TypeVar("T")


class Router(Generic[T]):
    """Patterns such as `/containers/{id}/start`; `{name:path}` also takes slashes. The first that fits wins."""

    def __init__(self) -> None:
        self._literal: dict[tuple[str, str], T] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], T]]] = {}
        self._paths: list[re.Pattern[str]] = []

    def add(self, method: str, pattern: str, handler: T) -> None:
        expression = re.compile(_PLACEHOLDER.sub(lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", pattern))
        self._paths.append(expression)
        if "{" not in pattern:
            self._literal[method, pattern] = handler
        else:
            first = pattern.split("/")[1]
            key = (method, "" if "{" in first else first)
            self._patterns.setdefault(key, []).append((expression, handler))

    def find(self, method: str, path: str) -> tuple[T, dict[str, str]] | None:
        """The handler and its parameters, percent-decoded; None where nothing fits."""
        handler = self._literal.get((method, path))
        if handler is not None:
            return handler, {}
        for first in (path.split("/")[1] if path.startswith("/") else "", ""):
            for expression, candidate in self._patterns.get((method, first), ()):
                match = expression.fullmatch(path)
                if match:
                    return candidate, {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    def knows(self, path: str) -> bool:
        """Whether the path exists under some method."""
        return any(expression.fullmatch(path) for expression in self._paths)
