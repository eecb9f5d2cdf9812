"""Commands that read their switches as Docker's do: `--rm=false` and `-e=NAME=value` are fine too."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from boxship.errors import Unsupported

_TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class Entry(NamedTuple):
    """Where a command is, `module:attribute`, and its one line of help; none hides it."""

    place: str
    help: str


class Verb(click.Command):
    """A command of the command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises `click.UsageError`."""
        return super().parse_args(ctx, spelled_out(args, self._options(), interspersed=ctx.allow_interspersed_args))

    def _options(self) -> dict[str, click.Option]:
        options = [each for each in self.params if isinstance(each, click.Option)]
        return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


class Verbs(click.Group):
    """A command of commands: it knows their names and helps, and imports the module of the one that is used."""

    def __init__(self, name: str, entries: Mapping[str, Entry] | None = None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.entries = dict(entries or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.entries:
            return None
        module, _, attribute = self.entries[cmd_name].place.partition(":")
        found = getattr(importlib.import_module(f"boxship.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items() if entry.help])


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Verb]:
    """A decorator: the function becomes a command."""
    return click.command(name, cls=Verb, **settings)


def unsupported(*names: str, flags: Sequence[str] = (), why: str = "") -> Callable[[Any], Any]:
    """A decorator: options of the docker command's that a command has not, told apart from unknown ones."""

    def refuse(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        if value not in (None, False, ()):
            raise Unsupported(f"{option.opts[0]} is not supported{why}")

    def add(function: Any) -> Any:
        for name in (*names, *flags):
            settings: dict[str, Any] = {"is_flag": True} if name in flags else {"multiple": True}
            function = click.option(name, hidden=True, expose_value=False, callback=refuse, **settings)(function)
        return function

    return add


def spelled_out(arguments: Sequence[str], options: dict[str, click.Option], *, interspersed: bool) -> list[str]:
    """The same arguments without Go's `--switch=true` and `-x=value`; what follows the options stays untouched."""
    result: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or (not word.startswith("-") and not interspersed):
            return [*result, word, *rest]
        if word.startswith("--"):
            words, takes_next = _long(word, options)
        elif word.startswith("-") and len(word) > 1:
            words, takes_next = _short(word, options)
        else:
            words, takes_next = [word], False
        result += words
        if takes_next and rest:
            result.append(rest.pop(0))
    return result


def _long(word: str, options: dict[str, click.Option]) -> tuple[list[str], bool]:
    name, equals, value = word.partition("=")
    option = options.get(name)
    if option is None:
        return [word], False
    if option.is_flag:
        return (_switched(option, name, value) if equals else [word]), False
    return [word], not equals


def _short(word: str, options: dict[str, click.Option]) -> tuple[list[str], bool]:
    for index, letter in enumerate(word[1:], 1):
        option = options.get(f"-{letter}")
        if option is None:
            break
        before = [word[:index]] if index > 1 else []
        value = word[index + 1 :]
        if option.is_flag and value.startswith("="):
            return before + _switched(option, f"-{letter}", value[1:]), False
        if not option.is_flag:
            if value.startswith("="):
                return [*before, f"-{letter}", value[1:]], False
            return [word], not value
    return [word], False


def _switched(option: click.Option, name: str, value: str) -> list[str]:
    truth = _TRUTH.get(value.lower())
    if truth is None:
        raise click.BadParameter(f'invalid argument "{value}" for "{name}" flag: expected true or false', param_hint="")
    if truth:
        return [option.opts[0]]
    return option.secondary_opts[:1]
