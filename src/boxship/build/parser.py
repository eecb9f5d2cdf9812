"""From a Dockerfile's text to instructions with their lines; what they mean is decided elsewhere.

Grammar: Docker's Dockerfile reference ("Format", "Parser directives", "Escape").
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass

from boxship.errors import Invalid, Unsupported

INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_FLAG = re.compile(r"--([a-zA-Z0-9-]+)(?:=(.*))?")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?\s*['\"]?[a-zA-Z_]")
_JSON_FORMS = ("ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME")
_FLAGS = {
    "ADD": ("chown", "chmod"),
    "COPY": ("chown", "chmod", "from"),
    "FROM": ("platform",),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_BUILDKIT_FLAGS = {
    "ADD": ("checksum", "keep-git-dir", "link", "exclude", "unpack"),
    "COPY": ("link", "parents", "exclude"),
    "RUN": ("mount", "network", "security", "device"),
}


class ParseError(Invalid):
    """Raised for a Dockerfile that cannot be read; the message names the line."""

    def __init__(self, line: int, message: str) -> None:
        where = f" on line {line}" if line else ""  # a trigger's line is in another Dockerfile
        super().__init__(f"dockerfile parse error{where}: {message}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `text` is what follows the name and flags, `words` the JSON form where that was used."""

    name: str
    line: int
    flags: dict[str, str]
    text: str
    words: tuple[str, ...] | None = None
    original: str = ""


@dataclass(frozen=True, slots=True)
class Dockerfile:
    instructions: tuple[Instruction, ...]
    escape: str = "\\"


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile; raises `ParseError`, and `Unsupported` for what only BuildKit has."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape = _directives(lines)
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    found: list[Instruction] = []
    gathered, start = "", 0
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ParseError(number, "NUL characters cannot be part of an instruction")
        stripped = line.strip()
        if stripped.startswith("#") or not stripped:
            continue  # comments and empty lines disappear, inside a continuation too
        if not gathered:
            start = number
            line = line.lstrip()  # noqa: PLW2901
        match = continued.search(line)
        if match:
            gathered += line[: match.start()]
            continue
        found.append(parse_instruction(gathered + line, start))
        gathered = ""
    if gathered.strip():
        found.append(parse_instruction(gathered, start))
    if not found:
        raise Invalid("the Dockerfile cannot be empty")
    return Dockerfile(tuple(found), escape)


def _directives(lines: list[str]) -> str:
    escape, seen = "\\", set[str]()
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        name, value = match[1].lower(), match[2]
        if name not in ("escape", "syntax", "check"):
            break
        if name in seen:
            raise ParseError(number, f"only one {name} parser directive can be used")
        seen.add(name)
        if name == "escape":
            if value not in ("\\", "`"):
                raise ParseError(number, f"invalid ESCAPE {value!r}: must be ` or \\")
            escape = value
    return escape


def parse_instruction(text: str, line: int) -> Instruction:
    """Read one instruction, whole; raises `ParseError`, `Unsupported`."""
    name, _, rest = _partition(text.strip())
    upper = name.upper()
    if upper not in INSTRUCTIONS:
        close = difflib.get_close_matches(upper, INSTRUCTIONS, 1, 0.6)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ParseError(line, f"unknown instruction: {name}{hint}")
    flags, rest = _take_flags(upper, rest, line)
    if upper in ("RUN", "COPY", "ADD") and _HEREDOC.search(rest):
        raise Unsupported(f"dockerfile line {line}: here-documents are not supported")
    if not rest and upper not in ("CMD", "ENTRYPOINT"):
        raise ParseError(line, f"{upper} requires at least one argument")
    words = _json(rest) if upper in _JSON_FORMS or upper == "HEALTHCHECK" else None
    return Instruction(upper, line, flags, rest, words, text.strip())


def _partition(text: str) -> tuple[str, str, str]:
    match = re.search(r"\s", text)
    return (text, "", "") if match is None else (text[: match.start()], " ", text[match.end() :].strip())


def _take_flags(name: str, rest: str, line: int) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    while rest.startswith("--"):
        word, _, after = _partition(rest)
        if word == "--":
            return flags, after
        match = _FLAG.fullmatch(word)
        if match is None:
            raise ParseError(line, f"unknown flag: {word}")
        flag = match[1]
        if flag in _BUILDKIT_FLAGS.get(name, ()):
            raise Unsupported(f"dockerfile line {line}: {name} --{flag} is not supported")
        if flag not in _FLAGS.get(name, ()):
            raise ParseError(line, f"unknown flag: --{flag}")
        if match[2] is None:
            raise ParseError(line, f"missing a value on flag: --{flag}")
        if flag in flags:
            raise ParseError(line, f"duplicate flag specified: --{flag}")
        flags[flag] = match[2]
        rest = after
    return flags, rest


def _json(text: str) -> tuple[str, ...] | None:
    """The words of the JSON form; None where the text is no JSON list, which makes it the shell form."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None
