"""`daemon` and `registry serve`: processes that take this one's place."""

from __future__ import annotations

import os
import sys

import click

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": [], "allow_interspersed_args": False}


@click.command("daemon", context_settings=_PASSED_ON, add_help_option=False, short_help="Run the engine, or install it")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def daemon(arguments: tuple[str, ...]) -> None:
    """Run the engine in the foreground; `daemon install` makes it a service of systemd."""
    if arguments[:1] == ("install",):
        _replace("boxship.daemon.install", arguments[1:])
    _replace("boxship.daemon", arguments)


@click.group("registry")
def registry() -> None:
    """Serve a registry."""


@registry.command("serve", context_settings=_PASSED_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve a registry by itself; see `registry serve --help`."""
    _replace("boxship.daemon.registry", arguments)


def _replace(module: str, arguments: tuple[str, ...]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
