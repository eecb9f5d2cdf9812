"""`exec` and `attach`."""

from __future__ import annotations

import contextlib
import sys

import click

from boxship.cli import stdio
from boxship.cli.flags import environment
from boxship.cli.session import API, Failed, Session, pass_session, raise_for

_CONTEXT = {"allow_interspersed_args": False}


@click.command("exec", context_settings=_CONTEXT, short_help="Run a command in a running container")
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option("-e", "--env", multiple=True, help="Set an environment variable.")
@click.option("--env-file", multiple=True, help="Read environment variables from a file.")
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-u", "--user", default="", help="The user: name or number, and group.")
@click.option("-w", "--workdir", default="", help="The working directory.")
@click.option("--privileged", is_flag=True, help="Give it every capability.")
@click.option("--detach-keys", default="", help="The keys that detach.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True)
@pass_session
def exec_(
    session: Session, container: str, command: tuple[str, ...], *, detach: bool, env: tuple[str, ...],
    env_file: tuple[str, ...], interactive: bool, tty: bool, user: str, workdir: str, privileged: bool, detach_keys: str,
) -> None:  # fmt: skip
    """Run a command in a running container; the exit code is the command's."""
    if tty and interactive and not sys.stdin.isatty():
        raise Failed("the input device is not a TTY", 1)
    body = {
        "AttachStdin": interactive and not detach, "AttachStdout": not detach, "AttachStderr": not detach, "Tty": tty,
        "Env": environment(env, env_file), "Cmd": list(command), "User": user, "WorkingDir": workdir,
        "Privileged": privileged, "DetachKeys": detach_keys,
    }  # fmt: skip
    identity = session.post(f"/containers/{container}/exec", body)["Id"]
    if detach:
        session.post(f"/exec/{identity}/start", {"Detach": True, "Tty": tty})
        return
    columns, rows = stdio.terminal_size()
    start = {"Detach": False, "Tty": tty, **({"ConsoleSize": [rows, columns]} if tty else {})}
    response, connection, early = session.client.hijack("POST", f"{API}/exec/{identity}/start", json_body=start)
    raise_for(response)

    def resize(width: int, height: int) -> None:
        session.post(f"/exec/{identity}/resize", w=width, h=height)

    with stdio.raw_terminal(tty and interactive), stdio.on_resize(resize) if tty else contextlib.nullcontext():
        stdio.relay(connection, early, stdin=interactive, framed=not tty)
    sys.exit(session.get(f"/exec/{identity}/json")["ExitCode"] or 0)


@click.command("attach", short_help="Join the stdio of a running container")
@click.option("--no-stdin", is_flag=True, help="Do not pass stdin on.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process.")
@click.option("--detach-keys", default="", help="The keys that detach.")
@click.argument("container")
@pass_session
def attach(session: Session, container: str, *, no_stdin: bool, sig_proxy: bool, detach_keys: str) -> None:
    """Join the stdio of a running container; the exit code is its, where it ends."""
    found = session.get(f"/containers/{container}/json")
    if not found["State"]["Running"]:
        raise Failed("You cannot attach to a stopped container, start it first", 1)
    terminal, stdin = found["Config"]["Tty"], found["Config"]["OpenStdin"] and not no_stdin
    query = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(stdin), "detachKeys": detach_keys}
    response, connection, early = session.client.hijack("POST", f"{API}/containers/{container}/attach", query=query)
    raise_for(response)

    def send(name: str) -> None:
        session.post(f"/containers/{container}/kill", signal=name)

    def resize(width: int, height: int) -> None:
        session.post(f"/containers/{container}/resize", w=width, h=height)

    raw = terminal and stdin and sys.stdin.isatty()
    with stdio.forwarded_signals(send, enabled=sig_proxy and not terminal), stdio.raw_terminal(raw):
        with stdio.on_resize(resize) if terminal else contextlib.nullcontext():
            stdio.relay(connection, early, stdin=stdin, framed=not terminal)
    state = session.get(f"/containers/{container}/json")["State"]
    sys.exit(0 if state["Running"] else state["ExitCode"])
