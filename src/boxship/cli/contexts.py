"""`context`: which engine to speak to, kept where the docker command keeps it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.containers import for_each
from boxship.cli.credentials import write_config
from boxship.cli.endpoint import DEFAULT_HOST, config_directory, docker_config
from boxship.cli.session import Session, pass_session
from boxship.cli.values import csv_fields
from boxship.cli.verb import command
from boxship.errors import AlreadyExists, Conflict, Invalid, NotFound, Unsupported

_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}

Document = dict[str, Any]


def _identity(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _root() -> Path:
    return Path(config_directory(), "contexts")


def _meta(name: str) -> Path:
    return _root() / "meta" / _identity(name) / "meta.json"


def _tls(name: str) -> Path:
    return _root() / "tls" / _identity(name)


def _read(name: str) -> Document:
    if name == "default":
        return {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": os.environ.get("DOCKER_HOST") or DEFAULT_HOST}}}
    try:
        return dict(json.loads(_meta(name).read_text()))
    except (OSError, ValueError, TypeError):
        raise NotFound(f'context "{name}" does not exist') from None


def _all() -> list[Document]:
    found = [json.loads(path.read_text()) for path in (_root() / "meta").glob("*/meta.json")]
    return sorted([_read("default"), *found], key=lambda document: f.natural(str(document["Name"])))


def current(session: Session) -> str:
    """The name of the context in use."""
    given = session.options
    if given.context:
        return given.context
    if given.host or os.environ.get("DOCKER_HOST"):
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or str(docker_config().get("currentContext") or "default")


def _write(name: str, document: Document, settings: Document) -> None:
    directory = _meta(name).parent
    directory.mkdir(parents=True, exist_ok=True)
    _meta(name).write_text(json.dumps(document))
    for key, file in _FILES.items():
        if key in settings:
            target = _tls(name) / "docker"
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            (target / file).write_bytes(Path(settings[key]).read_bytes())
            (target / file).chmod(0o600)


def _settings(text: str) -> Document:
    found = {name: value for name, value, _ in csv_fields(text)} if text else {}
    unknown = set(found) - {"host", "skip-tls-verify", "from", *_FILES}
    if unknown:
        raise Invalid(f"unrecognized config keys: {', '.join(sorted(unknown))}")
    return found


def _endpoint(settings: Document, before: Document) -> Document:
    source = _read(settings["from"])["Endpoints"]["docker"] if settings.get("from") else before
    return {
        "Host": settings.get("host", source.get("Host", DEFAULT_HOST)),
        "SkipTLSVerify": settings.get("skip-tls-verify", str(source.get("SkipTLSVerify", False))).lower() in ("true", "1"),
    }


@command("create")
@click.option("--description", default="", help="What it is for.")
@click.option("--docker", "docker_", default="", help="The engine: host=…,ca=…,cert=…,key=…,skip-tls-verify=….")
@click.option("--from", "source", default="", help="Copy another context.")
@click.argument("name")
def create(name: str, description: str, docker_: str, source: str) -> None:
    """Make a context."""
    if name == "default" or not name.replace("_", "").replace("-", "").replace(".", "").replace("+", "").isalnum():
        raise Invalid(f'context name "{name}" is invalid', hint="letters, digits, and _.+- only; not default")
    if _meta(name).exists():
        raise AlreadyExists(f'context "{name}" already exists')
    settings = _settings(docker_)
    if source:
        settings.setdefault("from", source)
    endpoint = _endpoint(settings, {})
    _write(name, {"Name": name, "Metadata": {"Description": description}, "Endpoints": {"docker": endpoint}}, settings)
    if settings.get("from") and _tls(settings["from"]).exists():
        shutil.copytree(_tls(settings["from"]), _tls(name), dirs_exist_ok=True)
    click.echo(name)
    click.echo(f'Successfully created context "{name}"', err=True)


@command("update")
@click.option("--description", help="What it is for.")
@click.option("--docker", "docker_", default="", help="The engine: host=…,ca=…,cert=…,key=…,skip-tls-verify=….")
@click.argument("name")
def update(name: str, description: str | None, docker_: str) -> None:
    """Change a context."""
    if name == "default":
        raise Invalid("the default context cannot be changed")
    document, settings = _read(name), _settings(docker_)
    if description is not None:
        document.setdefault("Metadata", {})["Description"] = description
    if settings:
        document["Endpoints"]["docker"] = _endpoint(settings, document["Endpoints"]["docker"])
    _write(name, document, settings)
    click.echo(name)
    click.echo(f'Successfully updated context "{name}"', err=True)


_COLUMNS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "DockerEndpoint": "DOCKER ENDPOINT",
    "Error": "ERROR",
    "Current": "CURRENT",
}


@command("ls")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@pass_session
def ls(session: Session, form: str | None, *, quiet: bool) -> None:
    """List contexts; a star marks the one in use."""
    chosen = current(session)
    rows = []
    for document in _all():
        name, metadata = document["Name"], document.get("Metadata") or {}
        text = "Boxship's own socket, or DOCKER_HOST" if name == "default" else metadata.get("Description", "")
        star = " *" if name == chosen and not quiet and not form else ""
        rows.append({"Name": f"{name}{star}", "Description": text, "DockerEndpoint": document["Endpoints"]["docker"]["Host"],
                     "Error": "", "Current": name == chosen})  # fmt: skip
    f.print_rows(rows, _COLUMNS, "{{.Name}}" if quiet else form, ["Name", "Description", "DockerEndpoint", "Error"])


@command("inspect")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@click.argument("names", metavar="[CONTEXT]...", nargs=-1)
@pass_session
def inspect(session: Session, names: tuple[str, ...], form: str | None) -> None:
    """Show everything about contexts; about the one in use where none is named."""
    f.print_inspected([_read(name) for name in names or (current(session),)], form)


@command("rm")
@click.option("-f", "--force", is_flag=True, help="Although it is in use.")
@click.argument("names", metavar="CONTEXT...", nargs=-1, required=True)
def rm(names: tuple[str, ...], *, force: bool) -> None:
    """Remove contexts."""

    def remove(name: str) -> None:
        if name == "default":
            raise Invalid('context "default" cannot be removed')
        _read(name)
        if docker_config().get("currentContext") == name:
            if not force:
                raise Conflict(f'context "{name}" is in use, set -f flag to force remove')
            _choose("default")
        shutil.rmtree(_meta(name).parent)
        shutil.rmtree(_tls(name), ignore_errors=True)

    for_each(names, remove)


@command("show")
@pass_session
def show(session: Session) -> None:
    """Print the name of the context in use."""
    click.echo(current(session))


@command("use")
@click.argument("name")
def use(name: str) -> None:
    """Set the context to use."""
    _read(name)
    _choose(name)
    click.echo(name)
    click.echo(f'Current context is now "{name}"', err=True)
    if os.environ.get("DOCKER_HOST"):
        click.echo("Warning: DOCKER_HOST environment variable overrides the active context", err=True)


def _choose(name: str) -> None:
    config = docker_config()
    config.pop("currentContext", None)
    write_config({**config, **({"currentContext": name} if name != "default" else {})})


@command("export", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def export(arguments: tuple[str, ...]) -> None:
    """Write a context to a file."""
    raise Unsupported("context export is not supported")


@command("import", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def import_(arguments: tuple[str, ...]) -> None:
    """Read a context from a file."""
    raise Unsupported("context import is not supported")
