"""`.dockerignore`: which paths of a context a build does not see (Dockerfile reference, ".dockerignore file")."""

from __future__ import annotations

import posixpath
import re


def translate(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's `filepath.Match`, with `**` for any number of directories, as a regular expression."""
    out, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        if pattern.startswith("**", position):
            position += 2
            if pattern.startswith("/", position):
                position += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", position + 2)
            if end < 0:
                out += re.escape(char)
            else:
                inner = pattern[position + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
                out += f"[{inner}]"
                position = end
        elif char == "\\" and position + 1 < len(pattern):
            position += 1
            out += re.escape(pattern[position])
        else:
            out += re.escape(char)
        position += 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern))


class Patterns:
    """The rules of one file: later ones win, `!` lets a path in again."""

    def __init__(self, text: str = "") -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in text.removeprefix("\ufeff").splitlines():
            rule = line.strip()
            if not rule or line.startswith("#"):
                continue
            excluded = not rule.startswith("!")
            cleaned = posixpath.normpath(rule.removeprefix("!").strip()).lstrip("/")
            if cleaned not in ("", "."):
                self._rules.append((excluded, translate(cleaned)))

    @property
    def has_exceptions(self) -> bool:
        return any(not excluded for excluded, _ in self._rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __contains__(self, path: object) -> bool:
        """Whether a path (relative, with slashes) is left out; a rule for a directory is one for all below it."""
        parts = str(path).split("/")
        prefixes = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        ignored = False
        for excluded, pattern in self._rules:
            if ignored != excluded and any(pattern.fullmatch(prefix) for prefix in prefixes):
                ignored = excluded
        return ignored
