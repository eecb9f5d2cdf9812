"""`boxship`: Docker's verbs. Each command's module is imported only when it is used."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from boxship import __version__
from boxship.cli.endpoint import Options
from boxship.cli.session import Session
from boxship.cli.verb import Entry, Verbs
from boxship.errors import BoxshipError, Unsupported

COMMANDS: dict[str, Entry] = {
    "run": Entry("run:run", "Run a command in a new container"),
    "create": Entry("run:create", "Make a container without starting it"),
    "exec": Entry("exec:exec_", "Run a command in a running container"),
    "attach": Entry("exec:attach", "Join the stdio of a running container"),
    "start": Entry("containers:start", "Start containers"),
    "stop": Entry("containers:stop", "Stop containers"),
    "restart": Entry("containers:restart", "Restart containers"),
    "kill": Entry("containers:kill", "Send a signal to containers"),
    "pause": Entry("containers:pause", "Freeze containers"),
    "unpause": Entry("containers:unpause", "Let frozen containers go on"),
    "rename": Entry("containers:rename", "Rename a container"),
    "rm": Entry("containers:rm", "Remove containers"),
    "wait": Entry("containers:wait", "Wait for containers to end and print their exit codes"),
    "update": Entry("containers:update", "Change limits of containers"),
    "ps": Entry("ps:ps", "List containers"),
    "logs": Entry("inspection:logs", "Show a container's log"),
    "inspect": Entry("inspection:inspect", "Show everything about containers, images, networks, volumes"),
    "top": Entry("inspection:top", "List the processes of a container"),
    "stats": Entry("stats:stats", "Show what containers use"),
    "port": Entry("inspection:port", "List a container's published ports"),
    "diff": Entry("files:diff", "List what a container changed in its files"),
    "cp": Entry("cp:cp", "Copy files between a container and the host"),
    "export": Entry("files:export", "Write a container's files as a tar"),
    "commit": Entry("files:commit", "Make an image of a container"),
    "images": Entry("images:images", "List images"),
    "pull": Entry("images:pull", "Fetch an image from a registry"),
    "push": Entry("images:push", "Send an image to a registry"),
    "tag": Entry("images:tag", "Give an image another name"),
    "rmi": Entry("images:rmi", "Remove images"),
    "history": Entry("images:history", "Show how an image was made"),
    "save": Entry("archives:save", "Write images as a tar"),
    "load": Entry("archives:load", "Read images from a tar"),
    "import": Entry("archives:import_", "Make an image of a root filesystem's tar"),
    "build": Entry("build:build", "Build an image from a Dockerfile"),
    "login": Entry("registry:login", "Log in to a registry"),
    "logout": Entry("registry:logout", "Log out of a registry"),
    "events": Entry("system:events", "Show what happens, as it happens"),
    "info": Entry("info:info", "Show the engine's state"),
    "version": Entry("info:version", "Show versions"),
    "container": Entry("groups:container", "Containers"),
    "image": Entry("groups:image", "Images"),
    "network": Entry("groups:network", "Networks"),
    "volume": Entry("groups:volume", "Volumes"),
    "system": Entry("groups:system", "The engine"),
    "builder": Entry("groups:builder", "The build cache"),
    "context": Entry("groups:context", "Engines to speak to"),
    "daemon": Entry("daemon:daemon", "Run the engine in the foreground, or install it as a service"),
    "registry": Entry("daemon:registry", "Serve a registry"),
}

_NOT_SUPPORTED = (
    "buildx", "checkpoint", "compose", "config", "manifest", "node", "plugin", "search", "secret", "service", "stack", "swarm",
    "trust",
)  # fmt: skip
"""What the docker command has and we have not."""

_USAGE = 125
"""The exit code for a wrong option, as the docker command has it."""

LOST_OUTPUT = 141
"""The exit code where whoever read our output has gone: as a shell tells of SIGPIPE."""


class _Boxship(Verbs):
    """The command of all commands."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _NOT_SUPPORTED:
            raise Unsupported(f"{args[0]} is not supported")
        return super().resolve_command(ctx, args)


@click.command("boxship", cls=_Boxship, entries=COMMANDS, invoke_without_command=True)
@click.option("-H", "--host", metavar="ADDRESS", help="The engine's socket (default: DOCKER_HOST, or Boxship's own).")
@click.option("-c", "--context", metavar="NAME", help="A context of the docker command to use.")
@click.option("--tls", is_flag=True, help="Use TLS.")
@click.option("--tlsverify", is_flag=True, help="Use TLS and verify the engine.")
@click.option("--tlscacert", metavar="FILE", help="The authority that signed the engine's certificate.")
@click.option("--tlscert", metavar="FILE", help="Our certificate.")
@click.option("--tlskey", metavar="FILE", help="Our key.")
@click.version_option(__version__, "-v", "--version", message="Boxship version %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, host: str | None, context: str | None, tls: bool, tlsverify: bool, tlscacert: str | None,
    tlscert: str | None, tlskey: str | None,
) -> None:  # fmt: skip
    """Build, push, pull and run containers."""
    ctx.obj = Session(Options(host, context, tls, tlsverify, tlscacert, tlscert, tlskey))
    ctx.call_on_close(ctx.obj.close)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command line: its exit code. Every failure is one line on stderr."""
    try:
        result = cli.main(list(arguments), prog_name="boxship", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        return _say(_one_line(error), 1 if isinstance(error, click.MissingParameter) else _USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BoxshipError as error:
        return _say(str(error), getattr(error, "exit_code", 1))
    except BrokenPipeError:
        return LOST_OUTPUT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{(error.strerror or str(error)).lower()}", 1)
    except Exception as error:
        if os.environ.get("BOXSHIP_TRACEBACK"):
            raise
        hint = "BOXSHIP_TRACEBACK=1 shows where"
        return _say(f"internal error: {type(error).__name__}: {error} ({hint})", 1)
    return result if isinstance(result, int) else 0


def _say(message: str, code: int) -> int:
    click.echo(f"boxship: {message}", err=True)
    return code


def _one_line(error: click.UsageError) -> str:
    message = error.format_message().rstrip(".").replace("\n", " ")
    path = error.ctx.command_path if error.ctx else "boxship"
    return f"{message[:1].lower()}{message[1:]} (see '{path} --help')"
