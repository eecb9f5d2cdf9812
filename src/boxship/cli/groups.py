"""The management commands `container`, `image`, `system` and `builder`: the same verbs, by what they are about."""

from __future__ import annotations

import click

from boxship.cli import bootstrap, containers, images, system
from boxship.cli.main import load

_CONTAINER = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename", "restart", "rm",
    "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip


def _inspector(kind: str) -> click.Command:
    from boxship.cli.inspection import print_found
    from boxship.cli.session import Session, pass_session

    @click.command("inspect", short_help=f"Show everything about {kind}s")
    @click.option("-f", "--format", "form", help="A Go template, or json.")
    @click.argument("names", metavar="NAME...", nargs=-1, required=True)
    @pass_session
    def inspect(session: Session, names: tuple[str, ...], form: str | None) -> None:
        """Show everything that the engine knows."""
        print_found(session, names, [f"/{kind}s/{{}}/json"], form, kind)

    return inspect


container = click.Group("container", help="Containers.")
for _name in _CONTAINER:
    container.add_command(load(_name), _name)
container.add_command(load("ps"), "ls")
container.add_command(_inspector("container"))
container.add_command(containers.prune)

image = click.Group("image", help="Images.")
for _name in ("build", "history", "import", "load", "pull", "push", "save", "tag"):
    image.add_command(load(_name), _name)
image.add_command(images.images, "ls")
image.add_command(images.rmi, "rm")
image.add_command(_inspector("image"))
image.add_command(images.prune)
image.add_command(bootstrap.bootstrap)

system_ = click.Group("system", help="The engine.")
for _command in (system.df, system.events, system.info, system.prune):
    system_.add_command(_command)

builder = click.Group("builder", help="The build cache.")
builder.add_command(load("build"), "build")
builder.add_command(system.builder_prune)
