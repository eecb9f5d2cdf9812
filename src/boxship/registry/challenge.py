"""What a registry wants to see before it answers (RFC 9110, section 11.6.1, "WWW-Authenticate")."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(rf'[\s,]*(?P<name>{_WORD})(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*)))?')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(slots=True)
class Challenge:
    """One way to prove oneself: the scheme in lower case, and what it asks for."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(fields: Iterable[str]) -> list[Challenge]:
    """The challenges of an answer's header fields, several of which may stand in one; what is none is passed over."""
    found: list[Challenge] = []
    for text in fields:
        position = 0
        while match := _ITEM.match(text, position):
            position = match.end()
            name, quoted, plain = match["name"], match["quoted"], match["plain"]
            if quoted is None and plain is None:
                found.append(Challenge(name.lower()))
            elif found:
                value = _ESCAPE.sub(r"\1", quoted) if quoted is not None else plain
                found[-1].parameters.setdefault(name.lower(), value)
    return found
