"""`boxship`: Docker's verbs. Each command's module is imported only when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from boxship import __version__
from boxship.cli.session import Session
from boxship.errors import BoxshipError

_CONTAINERS, _IMAGES = "boxship.cli.containers", "boxship.cli.images"

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("boxship.cli.run", "Run a command in a new container"),
    "create": ("boxship.cli.run", "Make a container without starting it"),
    "exec": ("boxship.cli.exec", "Run a command in a running container"),
    "attach": ("boxship.cli.exec", "Join the stdio of a running container"),
    "start": (_CONTAINERS, "Start containers"),
    "stop": (_CONTAINERS, "Stop containers"),
    "restart": (_CONTAINERS, "Restart containers"),
    "kill": (_CONTAINERS, "Send a signal to containers"),
    "pause": (_CONTAINERS, "Freeze containers"),
    "unpause": (_CONTAINERS, "Let frozen containers go on"),
    "rename": (_CONTAINERS, "Rename a container"),
    "rm": (_CONTAINERS, "Remove containers"),
    "wait": (_CONTAINERS, "Wait for containers to end and print their exit codes"),
    "update": (_CONTAINERS, "Change limits of containers"),
    "ps": ("boxship.cli.inspection", "List containers"),
    "logs": ("boxship.cli.inspection", "Show a container's log"),
    "inspect": ("boxship.cli.inspection", "Show everything about containers, images, networks, volumes"),
    "top": ("boxship.cli.inspection", "List the processes of a container"),
    "stats": ("boxship.cli.inspection", "Show what containers use"),
    "port": ("boxship.cli.inspection", "List a container's published ports"),
    "diff": ("boxship.cli.files", "List what a container changed in its files"),
    "cp": ("boxship.cli.files", "Copy files between a container and the host"),
    "export": ("boxship.cli.files", "Write a container's files as a tar"),
    "commit": ("boxship.cli.files", "Make an image of a container"),
    "images": (_IMAGES, "List images"),
    "pull": (_IMAGES, "Fetch an image from a registry"),
    "push": (_IMAGES, "Send an image to a registry"),
    "tag": (_IMAGES, "Give an image another name"),
    "rmi": (_IMAGES, "Remove images"),
    "history": (_IMAGES, "Show how an image was made"),
    "save": (_IMAGES, "Write images as a tar"),
    "load": (_IMAGES, "Read images from a tar"),
    "import": (_IMAGES, "Make an image of a root filesystem's tar"),
    "build": ("boxship.cli.build", "Build an image from a Dockerfile"),
    "login": ("boxship.cli.registry", "Log in to a registry"),
    "logout": ("boxship.cli.registry", "Log out of a registry"),
    "events": ("boxship.cli.system", "Show what happens, as it happens"),
    "info": ("boxship.cli.system", "Show the engine's state"),
    "version": ("boxship.cli.system", "Show versions"),
    "container": ("boxship.cli.groups", "Containers"),
    "image": ("boxship.cli.groups", "Images"),
    "network": ("boxship.cli.networks", "Networks"),
    "volume": ("boxship.cli.volumes", "Volumes"),
    "system": ("boxship.cli.groups", "The engine"),
    "builder": ("boxship.cli.groups", "The build cache"),
    "daemon": ("boxship.cli.daemon", "Run the engine in the foreground, or install it as a service"),
    "registry": ("boxship.cli.daemon", "Serve a registry"),
}


def load(name: str) -> click.Command:
    """The command of that name."""
    module = importlib.import_module(COMMANDS[name][0])
    command = getattr(module, {"import": "import_", "exec": "exec_", "system": "system_"}.get(name, name))
    assert isinstance(command, click.Command)
    return command


class _Lazy(click.Group):
    """Knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["--help", "-h"]})
@click.option("-H", "--host", metavar="ADDRESS", help="The engine's socket (default: DOCKER_HOST, or Boxship's own).")
@click.option("-c", "--context", "context_name", metavar="NAME", help="A context of the docker command to use.")
@click.option("--tls", is_flag=True, help="Use TLS.")
@click.option("--tlsverify", is_flag=True, help="Use TLS and verify the engine.")
@click.option("--tlscacert", metavar="FILE", help="The authority that signed the engine's certificate.")
@click.option("--tlscert", metavar="FILE", help="Our certificate.")
@click.option("--tlskey", metavar="FILE", help="Our key.")
@click.version_option(__version__, "-v", "--version", message="Boxship version %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, host: str | None, context_name: str | None, tls: bool, tlsverify: bool, tlscacert: str | None,
    tlscert: str | None, tlskey: str | None,
) -> None:  # fmt: skip
    """Build, push, pull and run containers."""
    ctx.obj = Session(host, context_name, tls=tls, tlsverify=tlsverify, files=(tlscacert, tlscert, tlskey))


def main() -> None:
    """Run the command line; every failure is one line, and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.ClickException as error:
        error.show()
        code = 125 if sys.argv[1:2] == ["run"] else error.exit_code
    except click.Abort:
        code = 130
    except BoxshipError as error:
        click.echo(f"boxship: {error}", err=True)
        code = getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"boxship: {where}{(error.strerror or str(error)).lower()}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
