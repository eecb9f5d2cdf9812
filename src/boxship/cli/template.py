"""The part of Go's text/template that `--format` needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from boxship.errors import Invalid

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||[^\s()|]+')

Node = Callable[[Any, Any], str]
"""Renders with the current value (dot) and the outermost one ($)."""


def compile_template(text: str) -> Callable[[Any], str]:
    """A function that renders a value; raises `Invalid` for a template it cannot read."""
    text = text.replace("\\n", "\n").replace("\\t", "\t")
    tokens: list[tuple[str, str]] = []
    position = 0
    for match in _ACTION.finditer(text):
        tokens.append(("text", text[position : match.start()]))
        tokens.append(("action", match[1]))
        position = match.end()
    tokens.append(("text", text[position:]))
    nodes, rest, _ = _parse(tokens)
    if rest:
        raise Invalid("template parsing error: unexpected {{end}}")
    return lambda value: "".join(node(value, value) for node in nodes)


def _parse(tokens: list[tuple[str, str]]) -> tuple[list[Node], list[tuple[str, str]], str]:
    """Nodes up to an `end` or `else`: the nodes, what is left, and which it was."""
    nodes: list[Node] = []
    while tokens:
        (kind, text), tokens = tokens[0], tokens[1:]
        if kind == "text":
            nodes.append(lambda _, __, text=text: text)  # type: ignore[misc]
            continue
        word, _, expression = text.partition(" ")
        if word in ("end", "else"):
            return nodes, tokens, word
        if word in ("range", "if", "with"):
            body, tokens, ended = _parse(tokens)
            other: list[Node] = []
            if ended == "else":
                other, tokens, ended = _parse(tokens)
            if ended != "end":
                raise Invalid(f"template parsing error: {{{{{word}}}}} without {{{{end}}}}")
            nodes.append(_block(word, _pipeline(expression.split(":=")[-1]), body, other))
        else:
            evaluate = _pipeline(text)
            nodes.append(lambda dot, root, evaluate=evaluate: show(evaluate(dot, root)))  # type: ignore[misc]
    return nodes, tokens, ""


def _block(word: str, evaluate: Callable[[Any, Any], Any], body: list[Node], other: list[Node]) -> Node:
    def render(nodes: list[Node], dot: Any, root: Any) -> str:
        return "".join(node(dot, root) for node in nodes)

    def run(dot: Any, root: Any) -> str:
        value = evaluate(dot, root)
        if not value:
            return render(other, dot, root)
        if word == "range":
            items = value.values() if isinstance(value, dict) else value
            return "".join(render(body, item, root) for item in items)
        return render(body, value if word == "with" else dot, root)

    return run


def show(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _pipeline(text: str) -> Callable[[Any, Any], Any]:
    words = _WORD.findall(text)

    def evaluate(dot: Any, root: Any) -> Any:
        value, rest = _stage(words, dot, root, ())
        while rest and rest[0] == "|":
            value, rest = _stage(rest[1:], dot, root, (value,))
        if rest:
            raise Invalid(f"template parsing error: unexpected {rest[0]!r} in {text!r}")
        return value

    if not words:
        raise Invalid("template parsing error: missing value for command")
    return evaluate


def _stage(words: list[str], dot: Any, root: Any, piped: tuple[Any, ...]) -> tuple[Any, list[str]]:
    operands: list[Any] = []
    name = ""
    while words and words[0] not in ("|", ")"):
        word, words = words[0], words[1:]
        if not operands and not name and word in _FUNCTIONS:
            name = word
        elif word == "(":
            value, words = _stage(words, dot, root, ())
            while words and words[0] == "|":
                value, words = _stage(words[1:], dot, root, (value,))
            if not words:
                raise Invalid("template parsing error: a parenthesis is not closed")
            words = words[1:]
            operands.append(value)
        else:
            operands.append(_value(word, dot, root))
    if name:
        try:
            return _FUNCTIONS[name](*operands, *piped), words
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise Invalid(f"template: error calling {name}: {error}") from error
    if len(operands) != 1:
        raise Invalid("template parsing error: expected one value")
    return operands[0], words


def _value(word: str, dot: Any, root: Any) -> Any:
    if word[0] == '"':
        return json.loads(word)
    if word[0] == "`":
        return word[1:-1]
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    base = dot
    if word.startswith("$"):
        base, word = root, word[1:] or "."
    if not word.startswith("."):
        raise Invalid(f"template parsing error: function {word!r} not defined")
    for part in word.strip(".").split("."):
        if not part:
            continue
        if not isinstance(base, dict):
            raise Invalid(f"template: can't evaluate field {part} in {show(base)[:60]}")
        found = base.get(part)
        if found is None and part not in base:
            found = next((value for key, value in base.items() if key.lower() == part.lower()), None)
        base = found
    return base


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _compact,
    "index": lambda value, *keys: _index(value, keys),
    "len": lambda value: len(value or ()),
    "join": lambda values, separator: separator.join(str(value) for value in values or ()),
    "split": lambda value, separator: str(value).split(separator),
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "title": lambda value: str(value).title(),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": lambda *values: "".join(show(value) for value in values),
    "printf": lambda form, *values: re.sub(r"%[vd]", "%s", form) % values,
    "not": lambda value: not value,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "gt": lambda value, other: value > other,
    "lt": lambda value, other: value < other,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}


def _index(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value
