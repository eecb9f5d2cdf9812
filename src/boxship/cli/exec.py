"""`exec` and `attach`."""

from __future__ import annotations

import sys

import click

from boxship.cli import stdio
from boxship.cli.attachment import Join, joined
from boxship.cli.session import Failed, Session, at, pass_session
from boxship.cli.values import environment
from boxship.cli.verb import command


@command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option("-e", "--env", multiple=True, help="Set an environment variable.")
@click.option("--env-file", multiple=True, help="Read environment variables from a file.")
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-u", "--user", default="", help="The user: name or number, and group.")
@click.option("-w", "--workdir", default="", help="The working directory.")
@click.option("--privileged", is_flag=True, help="Give it every capability.")
@click.option("--detach-keys", default="", help="The keys that detach (default ctrl-p,ctrl-q).")
@click.argument("container")
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def exec_(
    session: Session, container: str, arguments: tuple[str, ...], *, detach: bool, env: tuple[str, ...],
    env_file: tuple[str, ...], interactive: bool, tty: bool, user: str, workdir: str, privileged: bool, detach_keys: str,
) -> None:  # fmt: skip
    """Run a command in a running container; the exit code is the command's."""
    if tty and interactive and not detach and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY")
    body = {
        "AttachStdin": interactive and not detach, "AttachStdout": not detach, "AttachStderr": not detach, "Tty": tty,
        "Env": environment(env, env_file), "Cmd": list(arguments), "User": user, "WorkingDir": workdir,
        "Privileged": privileged, "DetachKeys": detach_keys,
    }  # fmt: skip
    identity = session.post(at("containers", container, "exec"), body)["Id"]
    if detach:
        session.post(at("exec", identity, "start"), {"Detach": True, "Tty": tty})
        return
    columns, rows = stdio.terminal_size()
    start = {"Detach": False, "Tty": tty, **({"ConsoleSize": [rows, columns]} if tty else {})}
    connection, early = session.hijack(at("exec", identity, "start"), body=start)
    resizing = session.beside()

    def resize(width: int, height: int) -> None:
        resizing.post(at("exec", identity, "resize"), w=str(width), h=str(height))

    with stdio.raw_terminal(tty and interactive), stdio.on_resize(resize, enabled=tty):
        stdio.relay(connection, early, stdin=interactive, framed=not tty)
    raise click.exceptions.Exit(session.get(at("exec", identity, "json"))["ExitCode"] or 0)


@command("attach")
@click.option("--no-stdin", is_flag=True, help="Do not pass stdin on.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@click.option("--detach-keys", default="", help="The keys that detach (default ctrl-p,ctrl-q).")
@click.argument("container")
@pass_session
def attach(session: Session, container: str, *, no_stdin: bool, sig_proxy: bool, detach_keys: str) -> None:
    """Join the stdio of a running container; the exit code is its, where it ends."""
    found = session.get(at("containers", container, "json"))
    state, config = found["State"], found["Config"]
    if not state["Running"]:
        raise Failed("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failed("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failed("You cannot attach to a restarting container, wait until it is running")
    stdin = config["OpenStdin"] and not no_stdin
    if stdin and config["Tty"] and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY")
    streams = [*(["stdin"] if stdin else []), "stdout", "stderr"]
    how = Join(streams, config["Tty"], sig_proxy, detach_keys, "not-running")
    raise click.exceptions.Exit(joined(session, found["Id"], how))
