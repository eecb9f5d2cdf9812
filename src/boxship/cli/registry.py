"""`login` and `logout`: credentials for registries."""

from __future__ import annotations

import sys

import click

from boxship.cli import credentials
from boxship.cli.endpoint import config_directory
from boxship.cli.session import Failed, Session, pass_session
from boxship.cli.verb import command


@command("login")
@click.option("-u", "--username", help="Who.")
@click.option("-p", "--password", help="The password (it stays in the shell's history; rather use --password-stdin).")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.argument("server", default=credentials.HUB)
@pass_session
def login(session: Session, server: str, username: str | None, password: str | None, *, password_stdin: bool) -> None:
    """Log in to a registry; Docker Hub where none is named."""
    server = _server(server)
    if password and password_stdin:
        raise Failed("--password and --password-stdin are mutually exclusive")
    if password_stdin and not username:
        raise Failed("the --password-stdin option requires --username to be set")
    if password:
        click.echo("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", err=True)
    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    known = {} if username or password_stdin else credentials.find(server)
    if known.get("username") and known.get("password") and not password:
        username, password = known["username"], known["password"]
        click.echo("Authenticating with existing credentials...", err=True)
    if not (username and password) and not sys.stdin.isatty():
        raise Failed("cannot perform an interactive login from a non TTY device")
    username = username or click.prompt("Username")
    password = password or click.prompt("Password", hide_input=True)
    answer = session.post("/auth", {"username": username, "password": password, "serveraddress": server})
    if credentials.keep(server, username, password, answer.get("IdentityToken") or ""):
        click.echo(f"\nWARNING! Your credentials are stored unencrypted in '{config_directory()}/config.json'.", err=True)
    click.echo(answer["Status"])


@command("logout")
@click.argument("server", default=credentials.HUB)
def logout(server: str) -> None:
    """Forget the credentials of a registry."""
    server = _server(server)
    if credentials.forget(server):
        click.echo(f"Removing login credentials for {server}")
    else:
        click.echo(f"Not logged in to {server}")


def _server(text: str) -> str:
    """The key for a registry: its host; Docker Hub's is a URL."""
    if text in (credentials.HUB, "docker.io", "index.docker.io", "registry-1.docker.io"):
        return credentials.HUB
    host = text.partition("://")[2] or text
    return host.partition("/")[0]
