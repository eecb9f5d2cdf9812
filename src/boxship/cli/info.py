"""`version` and `info`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import click

from boxship import __version__
from boxship.cli import formatting as f
from boxship.cli.contexts import current
from boxship.cli.session import API_VERSION, Session, pass_session
from boxship.cli.verb import command
from boxship.errors import BoxshipError
from boxship.oci.platform import Platform

Document = dict[str, Any]

_COLUMN = 18


@command("version")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def version(session: Session, form: str | None) -> None:
    """Show the versions of this command and of the engine."""
    client = {
        "Version": __version__, "ApiVersion": API_VERSION, "PythonVersion": platform.python_version(), "Os": "linux",
        "Arch": Platform.host().architecture, "Context": current(session),
    }  # fmt: skip
    try:
        server: Document | None = session.get("/version")
    except BoxshipError:
        if not form:
            _show("Client:", client, indent=1)
        raise
    if form:
        f.print_document({"Client": client, "Server": server}, form)
        return
    _show("Client:", client, indent=1)
    assert server is not None
    click.echo(f"\nServer: {(server.get('Platform') or {}).get('Name', '')}".rstrip())
    _show(" Engine:", server, indent=2)


def _show(title: str, part: Document, *, indent: int) -> None:
    least = part.get("MinAPIVersion")
    shown = {
        "Version": part["Version"],
        "API version": f"{part['ApiVersion']} (minimum version {least})" if least else part["ApiVersion"],
        "Python version": part.get("PythonVersion"),
        "Go version": part.get("GoVersion"),
        "Git commit": part.get("GitCommit"),
        "Built": part.get("BuildTime"),
        "OS/Arch": f"{part['Os']}/{part['Arch']}",
        "Kernel version": part.get("KernelVersion"),
        "Context": part.get("Context"),
    }
    click.echo(title)
    for name, value in shown.items():
        if value:
            click.echo(f"{' ' * indent}{name + ':':<{_COLUMN}} {value}")


@command("info")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def info(session: Session, form: str | None) -> None:
    """Show the engine's state."""
    document = session.get("/info")
    client = {"Version": __version__, "Context": current(session), "Debug": False}
    if form:
        f.print_document({**document, "ClientInfo": client}, form)
        return
    click.echo(f"Client:\n Version:    {__version__}\n Context:    {client['Context']}\n\nServer:")
    for line in _lines(document):
        click.echo(f" {line}")
    for warning in document.get("Warnings") or []:
        click.echo(warning, err=True)


def _lines(found: Document) -> Iterator[str]:
    """As the docker command lists it; what an engine does not tell is left out."""
    for name, key in (("Containers", "Containers"), (" Running", "ContainersRunning"), (" Paused", "ContainersPaused"),
                      (" Stopped", "ContainersStopped"), ("Images", "Images"), ("Server Version", "ServerVersion"),
                      ("Storage Driver", "Driver")):  # fmt: skip
        yield f"{name}: {found[key]}"
    yield from (f" {name}: {value}" for name, value in found.get("DriverStatus") or [])
    yield from _told(found, ("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"),
                     ("Cgroup Version", "CgroupVersion"))  # fmt: skip
    yield "Plugins:"
    yield from (
        f" {name}: {' '.join(found['Plugins'][name])}" for name in ("Volume", "Network", "Log") if found["Plugins"].get(name)
    )
    yield f"Runtimes: {' '.join(found.get('Runtimes') or {})}"
    yield from _told(found, ("Default Runtime", "DefaultRuntime"), ("Init Binary", "InitBinary"))
    yield "Security Options:"
    for option in found.get("SecurityOptions") or []:
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        yield f" {fields.pop('name', option)}"
        yield from (f"  {name.capitalize()}: {value}" for name, value in fields.items())
    yield from _told(found, ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
                     ("Architecture", "Architecture"), ("CPUs", "NCPU"))  # fmt: skip
    yield f"Total Memory: {f.binary_size(found['MemTotal'])}"
    yield from _told(found, ("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    yield f"Debug Mode: {_word(found.get('Debug'))}"
    yield from _told(found, ("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))
    if found.get("Labels"):
        yield from ("Labels:", *(f" {label}" for label in found["Labels"]))
    yield f"Experimental: {_word(found.get('ExperimentalBuild'))}"
    registries = found.get("RegistryConfig") or {}
    insecure = [name for name, entry in (registries.get("IndexConfigs") or {}).items() if not entry["Secure"]]
    yield from ("Insecure Registries:", *(f" {name}" for name in [*insecure, *(registries.get("InsecureRegistryCIDRs") or [])]))
    if registries.get("Mirrors"):
        yield from ("Registry Mirrors:", *(f" {mirror}" for mirror in registries["Mirrors"]))
    yield f"Live Restore Enabled: {_word(found.get('LiveRestoreEnabled'))}"
    yield from _told(found, ("Product License", "ProductLicense"))


def _told(found: Document, *rows: tuple[str, str]) -> Iterator[str]:
    return (f"{name}: {found[key]}" for name, key in rows if found.get(key))


def _word(value: object) -> str:
    return "true" if value else "false"
