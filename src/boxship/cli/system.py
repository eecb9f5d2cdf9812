"""The verbs of the engine itself."""

from __future__ import annotations

import json
import time

import click

from boxship.cli import formatting as f
from boxship.cli import stdio
from boxship.cli.containers import confirm
from boxship.cli.session import Session, pass_session
from boxship.cli.values import filters, moment
from boxship.cli.verb import command


@command("events")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as type=container.")
@click.option("--format", "form", help="A Go template, or json.")
@click.option("--since", default="", help="From this time on.")
@click.option("--until", default="", help="Up to this time.")
@pass_session
def events(session: Session, chosen: tuple[str, ...], form: str | None, since: str, until: str) -> None:
    """Show what happens, as it happens."""
    query = {"filters": filters(chosen), "since": moment(since), "until": moment(until)}
    for line in session.call("GET", "/events", query=query).iter_lines():
        event = json.loads(line)
        if form:
            f.print_document(event, form)
            continue
        attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
        whole, nano = divmod(event["timeNano"], 10**9)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(whole)) + f".{nano:09d}"
        click.echo(f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})")


@command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container uses.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, volumes: bool, force: bool) -> None:
    """Remove stopped containers, unused networks, unused images and the build cache."""
    confirm("This will remove all stopped containers, unused networks, dangling images and the build cache.", force=force)
    wanted = json.loads(filters(chosen) or "{}")
    freed = 0
    kinds = [("containers", {}), ("networks", {}), *([("volumes", {})] if volumes else []),
             ("images", {"dangling": ["false"]} if everything else {})]  # fmt: skip
    for kind, extra in kinds:
        both = {**wanted, **extra}
        answer = session.post(f"/{kind}/prune", filters=json.dumps(both) if both else "")
        freed += int(answer.get("SpaceReclaimed") or 0)
        for field, gone in answer.items():
            if field.endswith("Deleted") and gone:
                click.echo(f"Deleted {kind.capitalize()}:")
                for each in gone:
                    click.echo(each if isinstance(each, str) else next(iter(each.values())))
    freed += int(session.post("/build/prune").get("SpaceReclaimed") or 0)
    click.echo(f"Total reclaimed space: {f.size(freed)}")


@command("dial-stdio")
@pass_session
def dial_stdio(session: Session) -> None:
    """Carry the engine's socket over stdin and stdout: what the docker command runs at the other end of ssh."""
    stdio.relay(session.client.connect(), b"", stdin=True, framed=False)


@command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="What is still of use, too (Boxship's own engine forgets all of it anyway)."
)
@pass_session
def builder_prune(session: Session, *, everything: bool, force: bool) -> None:
    """Forget the build cache."""
    confirm(
        "This will remove all build cache." if everything else "This will remove the build cache that no image uses.", force=force
    )
    click.echo(f"Total reclaimed space: {f.size(int(session.post('/build/prune', all=everything).get('SpaceReclaimed') or 0))}")
