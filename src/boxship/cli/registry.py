"""`login` and `logout`: credentials in the docker command's own file."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

import click

from boxship.cli.session import Failed, Session, config_directory, docker_config, pass_session

_HUB = "https://index.docker.io/v1/"


def _write(document: dict[str, Any]) -> None:
    directory = config_directory()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = directory / f"config.json.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(document, file, indent="\t")
    temporary.replace(directory / "config.json")


@click.command("login", short_help="Log in to a registry")
@click.option("-u", "--username", help="Who.")
@click.option("-p", "--password", help="The password (it stays in the shell's history; rather use --password-stdin).")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.argument("server", default=_HUB)
@pass_session
def login(session: Session, server: str, username: str | None, password: str | None, *, password_stdin: bool) -> None:
    """Log in to a registry; Docker Hub where none is named."""
    if password and password_stdin:
        raise Failed("--password and --password-stdin are mutually exclusive", 1)
    username = username or click.prompt("Username")
    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    password = password or click.prompt("Password", hide_input=True)
    server = server if server == _HUB else server.partition("://")[2] or server
    answer = session.post("/auth", {"username": username, "password": password, "serveraddress": server})
    document = docker_config()
    auths = document.setdefault("auths", {})
    auths[server] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    if answer.get("IdentityToken"):
        auths[server] = {"auth": base64.b64encode(f"{username}:".encode()).decode(), "identitytoken": answer["IdentityToken"]}
    _write(document)
    click.echo(answer["Status"])


@click.command("logout", short_help="Log out of a registry")
@click.argument("server", default=_HUB)
def logout(server: str) -> None:
    """Forget the credentials of a registry."""
    server = server if server == _HUB else server.partition("://")[2] or server
    document = docker_config()
    if server not in (document.get("auths") or {}):
        click.echo(f"Not logged in to {server}")
        return
    del document["auths"][server]
    _write(document)
    click.echo(f"Removing login credentials for {server}")
