"""The part of Go's text/template that `--format` needs: fields, variables, range, if, with, pipelines, functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from boxship.cli.template_functions import FUNCTIONS, Null, TemplateError, null_of, show, truth
from boxship.errors import Invalid

_ACTION = re.compile(r"\{\{(-\s)?((?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|(?!\}\}).)*?)(\s-)?\}\}", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|\s*(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|\s*(?P<mark>:=|[()|,=])"""
    r"""|\s*(?P<variable>\$\w*(?:\.\w+)*)|(?P<glued>(?<=\))(?:\.\w+)+)|\s*(?P<field>(?:\.\w+)+|\.)|\s*(?P<name>\w+)"""
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}
_NAMED = {"true": True, "false": False, "nil": None}
_BLOCKS = ("range", "if", "with")

Scope = dict[str, Any]
Evaluate = Callable[[Any, Scope], Any]
Node = Callable[[Any, Scope], str]


class Word(NamedTuple):
    kind: str
    text: str


def compile_template(text: str) -> Callable[[Any], str]:
    """A function that renders a value; raises `Invalid` for a template it cannot read. Rendering raises `Invalid` too."""
    text = re.sub(r"\\[ntr]", lambda match: _ESCAPES[match[0]], text)
    try:
        nodes, ended = _nodes(_pieces(text))
    except TemplateError as error:
        raise Invalid(f"template parsing error: template: {error}") from error
    if ended:
        raise Invalid(f"template parsing error: template: unexpected {{{{{ended}}}}}")

    def render(value: Any) -> str:
        try:
            return _join(nodes, value, {"$": value})
        except TemplateError as error:
            raise Invalid(f"template parsing error: template: {error}") from error

    return render


def _join(nodes: list[Node], dot: Any, scope: Scope) -> str:
    return "".join(node(dot, scope) for node in nodes)


def _pieces(text: str) -> Iterator[Word]:
    """Texts and actions, one after the other; `{{-` and `-}}` take the white space beside them away."""
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        yield Word("text", before.rstrip() if match[1] else before)
        action = match[2].strip()
        if not action.startswith("/*"):
            yield Word("action", action)
        position, trim = match.end(), bool(match[3])
    rest = text[position:]
    if "{{" in rest:
        raise TemplateError("unclosed action")
    yield Word("text", rest.lstrip() if trim else rest)


def _nodes(pieces: Iterator[Word]) -> tuple[list[Node], str]:
    """Nodes up to an `end` or `else`, and which it was."""
    nodes: list[Node] = []
    for piece in pieces:
        if piece.kind == "text":
            if piece.text:
                nodes.append(_literal(piece.text))
            continue
        word, _, rest = piece.text.partition(" ")
        if word in ("end", "else"):
            return nodes, piece.text if rest else word
        nodes.append(_block(word, rest, pieces) if word in _BLOCKS else _action(piece.text))
    return nodes, ""


def _literal(text: str) -> Node:
    return lambda dot, scope: text


def _action(text: str) -> Node:
    names, evaluate = _statement(text)

    def run(dot: Any, scope: Scope) -> str:
        value = evaluate(dot, scope)
        if names:
            scope[names[0]] = value
            return ""
        return show(value)

    return run


def _block(word: str, expression: str, pieces: Iterator[Word]) -> Node:
    names, evaluate = _statement(expression)
    body, ended = _nodes(pieces)
    other: list[Node] = []
    if ended.startswith("else "):
        keyword, _, rest = ended.removeprefix("else ").partition(" ")
        other, ended = [_block(keyword, rest, pieces)], "end"
    elif ended == "else":
        other, ended = _nodes(pieces)
    if ended != "end":
        raise TemplateError("unexpected EOF")

    def run(dot: Any, scope: Scope) -> str:
        value = evaluate(dot, scope)
        if not truth(value):
            return _join(other, dot, dict(scope))
        if word == "range":
            return "".join(_each(body, names, key, item, scope) for key, item in _items(value))
        inner = {**scope, **({names[0]: value} if names else {})}
        return _join(body, value if word == "with" else dot, inner)

    return run


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list):
        return list(enumerate(value))
    raise TemplateError(f"range can't iterate over {show(value)}")


def _each(body: list[Node], names: list[str], key: Any, item: Any, scope: Scope) -> str:
    inner = dict(scope)
    if len(names) == 2:
        inner[names[0]] = key
    if names:
        inner[names[-1]] = item
    return _join(body, item, inner)


def _statement(text: str) -> tuple[list[str], Evaluate]:
    """The variables that an action declares, and its pipeline."""
    words = _words(text)
    names: list[str] = []
    marks = [index for index, word in enumerate(words) if word.kind == "mark" and word.text in (":=", "=")]
    if marks:
        names = [word.text for word in words[: marks[0]] if word.kind == "variable"]
        words = words[marks[0] + 1 :]
    if not words:
        raise TemplateError("missing value for command")
    evaluate = _pipeline(words)
    if words:
        raise TemplateError(f"unexpected {words[0].text!r} in {text!r}")
    return names, evaluate


def _words(text: str) -> list[Word]:
    words: list[Word] = []
    position = 0
    while position < len(text.rstrip()):
        match = _WORD.match(text, position)
        if match is None:
            raise TemplateError(f"unexpected {text[position:].strip()[:20]!r} in command")
        kind = str(match.lastgroup)
        words.append(Word(kind, match[kind]))
        position = match.end()
    return words


def _pipeline(words: list[Word]) -> Evaluate:
    """Takes its words off the list, up to a closing parenthesis."""
    evaluate = _command(words, None)
    while words and words[0].text == "|" and words[0].kind == "mark":
        words.pop(0)
        evaluate = _command(words, evaluate)
    return evaluate


def _command(words: list[Word], piped: Evaluate | None) -> Evaluate:
    name = ""
    if words and words[0].kind == "name" and words[0].text not in _NAMED:
        name = words.pop(0).text
        if name not in FUNCTIONS:
            raise TemplateError(f'function "{name}" not defined')
    operands: list[Evaluate] = []
    while words and not (words[0].kind == "mark" and words[0].text in ("|", ")")):
        operands.append(_operand(words))
    if piped is not None:
        operands.append(piped)
    if name:
        return lambda dot, scope: _call(name, FUNCTIONS[name], [operand(dot, scope) for operand in operands])
    if not operands:
        raise TemplateError("missing value for command")

    def run(dot: Any, scope: Scope) -> Any:
        value, *arguments = [operand(dot, scope) for operand in operands]
        if callable(value):
            return _call("method", value, arguments)
        if arguments:
            raise TemplateError("can't give argument to non-function")
        return value

    return run


def _call(name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise TemplateError(f"error calling {name}: {error}") from error


def _operand(words: list[Word]) -> Evaluate:
    word = words.pop(0)
    if word.kind == "mark":
        if word.text != "(":
            raise TemplateError(f"unexpected {word.text!r} in operand")
        inner = _pipeline(words)
        if not words or words.pop(0).text != ")":
            raise TemplateError("unclosed left paren")
        if words and words[0].kind == "glued":
            path = words.pop(0).text.split(".")[1:]
            return lambda dot, scope: _walk(inner(dot, scope), path)
        return inner
    if word.kind in ("field", "glued"):
        path = [part for part in word.text.split(".") if part]
        return lambda dot, scope: _walk(dot, path)
    if word.kind == "variable":
        name, *path = word.text.split(".")
        return lambda dot, scope: _walk(_variable(scope, name), path)
    value = _constant(word)
    return lambda dot, scope: value


def _constant(word: Word) -> Any:
    if word.kind == "number":
        return float(word.text) if "." in word.text else int(word.text)
    if word.kind == "text":
        if word.text.startswith("`"):
            return word.text[1:-1]
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[0], match[1]), word.text[1:-1])
    if word.text not in _NAMED:
        raise TemplateError(
            f'function "{word.text}" not defined' if word.text not in FUNCTIONS else f"{word.text} needs parentheses"
        )
    return _NAMED[word.text]


def _variable(scope: Scope, name: str) -> Any:
    if name not in scope:
        raise TemplateError(f'undefined variable "{name}"')
    return scope[name]


def _walk(value: Any, path: list[str]) -> Any:
    for name in path:
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Null) and value.text == "map[]":
        return null_of("")
    if not isinstance(value, dict):
        raise TemplateError(f'executing "" at <.{name}>: can\'t evaluate field {name} in {show(value)[:60]}')
    if name in value:
        found = value[name]
        return null_of(name) if found is None else found
    if value and all(str(key)[:1].isupper() for key in value):
        raise TemplateError(f'executing "" at <.{name}>: map has no entry for key "{name}"')
    return null_of("")
