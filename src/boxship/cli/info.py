"""`version` and `info`."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from boxship import __version__
from boxship.cli import formatting as f
from boxship.cli.session import API_VERSION, Session, pass_session
from boxship.cli.verb import command


@command("version")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def version(session: Session, form: str | None) -> None:
    """Show the versions of this command and of the engine."""
    client = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": os.uname().machine,
    }
    document = {"Client": client, "Server": session.get("/version")}
    if form:
        f.print_document(document, form)
        return
    for name, part in document.items():
        click.echo(f"{name}:")
        for key in ("Version", "ApiVersion", "MinAPIVersion", "PythonVersion", "KernelVersion", "Os", "Arch"):
            if part.get(key):
                click.echo(f" {key + ':':<16} {part[key]}")


@command("info")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@pass_session
def info(session: Session, form: str | None) -> None:
    """Show the engine's state."""
    document = session.get("/info")
    if form:
        f.print_document(document, form)
        return
    shown: list[tuple[str, Any]] = [
        ("Containers", document["Containers"]), (" Running", document["ContainersRunning"]),
        (" Paused", document["ContainersPaused"]), (" Stopped", document["ContainersStopped"]), ("Images", document["Images"]),
        ("Server Version", document["ServerVersion"]), ("Storage Driver", document["Driver"]),
        *((f" {key}", value) for key, value in document["DriverStatus"]), ("Logging Driver", document["LoggingDriver"]),
        ("Cgroup Version", document["CgroupVersion"]), ("Security Options", ", ".join(document["SecurityOptions"])),
        ("Kernel Version", document["KernelVersion"]), ("Operating System", document["OperatingSystem"]),
        ("CPUs", document["NCPU"]), ("Total Memory", f.binary_size(document["MemTotal"])), ("Name", document["Name"]),
        ("ID", document["ID"]), ("Root Dir", document["DockerRootDir"]),
    ]  # fmt: skip
    for key, value in shown:
        click.echo(f"{key}: {value}")
    for warning in document.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
