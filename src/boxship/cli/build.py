"""`build`: a context sent to the engine."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import click

from boxship.cli import context, credentials
from boxship.cli.progress import show_progress
from boxship.cli.session import Failed, Session, messages, pass_session
from boxship.cli.values import labels, parse_size, ulimit
from boxship.cli.verb import command, unsupported
from boxship.errors import Invalid

_REMOTE = re.compile(r"(https?://|git://|git@|github\.com/)")
_BUILDKIT = unsupported(
    "--secret", "--ssh", "--output", "-o", "--progress", "--build-context", "--cache-to", "--attest", "--provenance", "--sbom",
    "--allow", "--metadata-file", "--builder", flags=("--load", "--push", "--check"), why=": it is BuildKit's",
)  # fmt: skip


@command("build")
@click.option("-t", "--tag", "tags", multiple=True, help="The image's name.")
@click.option("-f", "--file", "dockerfile", help="The Dockerfile (default PATH/Dockerfile; - for stdin).")
@click.option("--build-arg", multiple=True, help="Set a build argument; a name alone takes its value from the environment.")
@click.option("--label", multiple=True, help="Set a label.")
@click.option("--target", default="", help="The stage to build.")
@click.option("--platform", default="", help="The platform to build for.")
@click.option("--network", default="default", help="The network of RUN.")
@click.option("--add-host", multiple=True, help="Add a name and its address: host:ip.")
@click.option("--cache-from", multiple=True, help="An image whose steps may be used.")
@click.option("--ulimit", "limits", multiple=True, help="Set a limit: name=soft[:hard].")
@click.option("--shm-size", default="", help="The size of /dev/shm.")
@click.option("-m", "--memory", default="", help="The most memory.")
@click.option("--memory-swap", default="", help="The most memory and swap together; -1 for any.")
@click.option("-c", "--cpu-shares", type=int, default=0, help="Its weight for CPU time.")
@click.option("--cpu-period", type=int, default=0, help="The period of its quota, in microseconds.")
@click.option("--cpu-quota", type=int, default=0, help="CPU time in each period, in microseconds.")
@click.option("--cpuset-cpus", default="", help="On which CPUs it may run.")
@click.option("--cpuset-mems", default="", help="On which memory nodes.")
@click.option("--rm/--no-rm", "remove", default=True, help="Remove the containers of steps (the default).")
@click.option("--force-rm", is_flag=True, help="Remove them though a step failed.")
@click.option("--squash", is_flag=True, help="Make one layer of all that is new.")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--pull", is_flag=True, help="Pull base images although they are here.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@click.option("--iidfile", help="Write the image's id to a file.")
@unsupported("--cgroup-parent", "--isolation", "--security-opt", flags=("--compress", "--disable-content-trust"))
@_BUILDKIT
@click.argument("path")
@pass_session
def build(session: Session, /, path: str, tags: tuple[str, ...], dockerfile: str | None, **given: Any) -> None:
    """Build an image from PATH, a URL, or - (a tar or a Dockerfile on stdin)."""
    if path == "-" and dockerfile == "-":
        raise Failed("invalid argument: can't use stdin for both build context and dockerfile")
    query = {"t": list(tags), **_query(given)}
    stream = None
    if _REMOTE.match(path) and not os.path.exists(path):
        query |= {"remote": path, "dockerfile": dockerfile or "Dockerfile"}
    else:
        found = context.from_stdin(dockerfile) if path == "-" else context.from_directory(path, dockerfile)
        query["dockerfile"], stream = found.dockerfile, found.parts
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": credentials.encoded(credentials.find_all())}
    response = session.call("POST", "/build", query=query, headers=headers, stream=stream)
    answers = messages(response)
    made = _quietly(answers) if given["quiet"] else show_progress(answers, sys.stdout)
    if given["iidfile"] and made:
        with open(given["iidfile"], "w") as file:
            file.write(str(made[-1]["ID"]))


def _query(given: dict[str, Any]) -> dict[str, Any]:
    """The options as the API takes them; raises `Invalid`."""
    sizes = {"shmsize": "shm_size", "memory": "memory", "memswap": "memory_swap"}
    numbers = {"cpushares": "cpu_shares", "cpuperiod": "cpu_period", "cpuquota": "cpu_quota"}
    return {
        "q": given["quiet"], "nocache": given["no_cache"], "pull": given["pull"], "rm": "1" if given["remove"] else "0",
        "forcerm": given["force_rm"], "squash": given["squash"], "target": given["target"], "platform": given["platform"],
        "networkmode": given["network"], "extrahosts": list(given["add_host"]),
        "cpusetcpus": given["cpuset_cpus"], "cpusetmems": given["cpuset_mems"],
        "buildargs": json.dumps(_build_arguments(given["build_arg"])), "labels": json.dumps(labels(given["label"])),
        "cachefrom": json.dumps(list(given["cache_from"])), "ulimits": json.dumps([ulimit(text) for text in given["limits"]]),
        **{name: parse_size(given[option]) for name, option in sizes.items() if given[option]},
        **{name: given[option] for name, option in numbers.items() if given[option]},
    }  # fmt: skip


def _build_arguments(values: tuple[str, ...]) -> dict[str, str | None]:
    if any(value.startswith("=") or not value for value in values):
        raise Invalid("invalid value for --build-arg: a name is needed", hint="use name=value")
    return {name: value if equals else os.environ.get(name) for name, equals, value in (each.partition("=") for each in values)}


def _quietly(found: Any) -> list[dict[str, Any]]:
    """Print the id alone."""
    made = []
    for message in found:
        if "aux" in message:
            made.append(message["aux"])
        elif "stream" in message:
            click.echo(message["stream"], nl=False)
    return made
