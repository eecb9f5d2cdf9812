"""Variables, quotes and escapes in an instruction's words (Dockerfile reference, "Environment replacement")."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable

from boxship.errors import Invalid

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]+|[@*#?$!-]")


def expand(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """A word with its variables replaced and its quotes removed; raises `Invalid` for a malformed one."""
    try:
        return _Expander(text, lookup, escape).run()
    except Invalid as error:
        raise Invalid(f"failed to process {json.dumps(text, ensure_ascii=False)}: {error.message}") from error


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words separated by white space outside quotes; quotes and escapes stay in them."""
    words: list[str] = []
    current, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'" and position + 1 < len(text):
            current += text[position : position + 2]
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
            current += char
        elif char in "'\"":
            quote = char
            current += char
        elif char.isspace():
            if current:
                words.append(current)
            current = ""
        else:
            current += char
        position += 1
    return [*words, current] if current else words


class _Expander:
    def __init__(self, text: str, lookup: Lookup, escape: str) -> None:
        self._text = text
        self._lookup = lookup
        self._escape = escape
        self._at = 0

    def run(self, end: str = "") -> str:
        """Up to the end of the text, or to the character `end` outside quotes, which is consumed."""
        out: list[str] = []
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if char == end:
                self._at += 1
                return "".join(out)
            if char == "'":
                out.append(self._single())
            elif char == '"':
                out.append(self._double())
            elif char == "$":
                out.append(self._variable())
            elif char == self._escape:
                self._at += 1
                out.append(text[self._at : self._at + 1])
                self._at += 1
            else:
                out.append(char)
                self._at += 1
        if end:
            raise Invalid(f"unexpected end of statement while looking for matching {end!r}")
        return "".join(out)

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise Invalid("unexpected end of statement while looking for matching single-quote")
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return found

    def _double(self) -> str:
        out: list[str] = []
        text = self._text
        self._at += 1
        while self._at < len(text):
            char = text[self._at]
            if char == '"':
                self._at += 1
                return "".join(out)
            if char == "$":
                out.append(self._variable())
            elif char == self._escape and text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                out.append(text[self._at + 1])
                self._at += 2
            else:
                out.append(char)
                self._at += 1
        raise Invalid("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        self._at += 1
        text = self._text
        if text[self._at : self._at + 1] != "{":
            match = _NAME.match(text, self._at)
            if match is None:
                return "$"
            self._at = match.end()
            return self._lookup(match[0]) or ""
        self._at += 1
        match = _NAME.match(text, self._at)
        if match is None:
            raise Invalid("bad substitution: a name must follow ${")
        self._at = match.end()
        value = self._lookup(match[0])
        operator = text[self._at : self._at + 1]
        if operator == "}":
            self._at += 1
            return value or ""
        return self._modified(match[0], value, operator)

    def _modified(self, name: str, value: str | None, operator: str) -> str:
        text = self._text
        self._at += 1
        if operator == ":":
            operator += text[self._at : self._at + 1]
            self._at += 1
            value = value or None  # an empty value counts as none
        if operator in ("#", "%", "/") and text[self._at : self._at + 1] == operator:
            operator *= 2
            self._at += 1
        if operator in ("/", "//"):
            pattern = self._until_slash()
            replacement = self.run("}")
            return _replace(value or "", pattern, replacement, everywhere=operator == "//")
        word = self.run("}")
        match operator:
            case ":-" | "-":
                return word if value is None else value
            case ":+" | "+":
                return "" if value is None else word
            case ":?" | "?":
                if value is None:
                    raise Invalid(f"{name}: {word or 'parameter is not set'}")
                return value
            case "#" | "##":
                return _without_prefix(value or "", word, longest=operator == "##")
            case "%" | "%%":
                return _without_prefix((value or "")[::-1], _reversed(word), longest=operator == "%%")[::-1]
        raise Invalid(f"unsupported modifier ({operator}) in substitution")

    def _until_slash(self) -> str:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] != "/":
            self._at += 2 if self._text[self._at] == self._escape else 1
        if self._at >= len(self._text):
            raise Invalid("bad substitution: a second / is missing")
        found = self._text[start : self._at]
        self._at += 1
        return found.replace(self._escape + "/", "/")


def _expression(pattern: str) -> str:
    return fnmatch.translate(pattern).removesuffix(r"\Z").removesuffix(r"\z")


def _reversed(pattern: str) -> str:
    """A pattern for reversed text; brackets are not turned inside out, so that they cannot be used there."""
    return pattern[::-1]


def _without_prefix(value: str, pattern: str, *, longest: bool) -> str:
    lengths = range(len(value), -1, -1) if longest else range(len(value) + 1)
    whole = re.compile(_expression(pattern))
    return next((value[n:] for n in lengths if whole.fullmatch(value[:n])), value)


def _replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """The longest match at each place is replaced: of all, or of the first only."""
    whole = re.compile(_expression(pattern))
    out, position = "", 0
    while position < len(value):
        end = next((n for n in range(len(value), position, -1) if whole.fullmatch(value[position:n])), 0)
        if end:
            out += replacement
            position = end
            if not everywhere:
                break
        else:
            out += value[position]
            position += 1
    return out + value[position:]
