"""The verbs of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, report_pruned
from boxship.cli.credentials import auth_header
from boxship.cli.progress import show_progress
from boxship.cli.run import split_reference
from boxship.cli.session import Failed, Session, at, messages, pass_session
from boxship.cli.values import filters
from boxship.cli.verb import command
from boxship.errors import BoxshipError

COLUMNS = {
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "VIRTUAL SIZE",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}  # fmt: skip


@command("images")
@click.option("-a", "--all", "everything", is_flag=True, help="Intermediate ones, too.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit, such as dangling=true.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.argument("reference", required=False)
@pass_session
def images(
    session: Session, reference: str | None, chosen: tuple[str, ...], form: str | None, *, everything: bool, digests: bool,
    no_trunc: bool, quiet: bool,
) -> None:  # fmt: skip
    """List images."""
    wanted = [*chosen, *([f"reference={reference}"] if reference else [])]
    digests = digests or (form is not None and ".Digest" in form)
    shared = form is not None and ("SharedSize" in form or "UniqueSize" in form)
    query = {"digests": digests, "filters": filters(wanted), "shared-size": shared}
    found = session.get("/images/json", all=everything, **query)
    rows = [row for entry in found for row in rows_of(entry, full=no_trunc, digests=digests)]
    if quiet and not form:
        for row in rows:
            click.echo(row["ID"])
        return
    default = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    f.print_rows(rows, COLUMNS, form, default)


def rows_of(entry: dict[str, Any], *, full: bool, digests: bool) -> Iterator[dict[str, Any]]:
    """One image's fields, once for each of its names."""
    identity, shared = entry["Id"], entry.get("SharedSize", -1)
    common = {
        "ID": identity if full else identity.partition(":")[2][:12],
        "CreatedSince": f.ago(entry["Created"]),
        "CreatedAt": f.local_time(entry["Created"]),
        "Size": f.size(entry["Size"]),
        "VirtualSize": f.size(entry["Size"]),
        "SharedSize": f.size(shared) if shared >= 0 else "N/A",
        "UniqueSize": f.size(entry["Size"] - shared, 4) if shared >= 0 else "N/A",
        "Containers": str(entry["Containers"]) if entry.get("Containers", -1) >= 0 else "N/A",
    }
    by_name = dict(digest.split("@", 1) for digest in entry.get("RepoDigests") or [])
    for tag in entry.get("RepoTags") or []:
        name, _, suffix = tag.rpartition(":")
        yield {"Repository": name, "Tag": suffix, "Digest": by_name.get(name, "<none>"), **common}
    if not entry.get("RepoTags"):
        names = by_name or {"<none>": "<none>"}
        for name, digest in names.items() if digests else [next(iter(names.items()))]:
            yield {"Repository": name, "Tag": "<none>", "Digest": digest, **common}


@command("pull")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("--platform", help="The platform, such as linux/arm64.")
@click.option("-q", "--quiet", is_flag=True, help="Only the name.")
@click.argument("image")
@pass_session
def pull(session: Session, image: str, platform: str | None, *, all_tags: bool, quiet: bool) -> None:
    """Fetch an image from a registry."""
    name, tag = split_reference(image)
    if all_tags and (tag != "latest" or image.endswith(":latest")):
        raise Failed("tag can't be used with --all-tags/-a")
    if not all_tags and not quiet and image == name:
        click.echo("Using default tag: latest")
    # an empty tag asks for all of them; in a list it is not left out
    query = {"fromImage": name, "tag": [""] if all_tags else tag, "platform": platform}
    response = session.call("POST", "/images/create", query=query, headers=auth_header(image))
    _follow(messages(response), quiet=quiet)
    full = whole_name(name)
    click.echo(full if all_tags else f"{full}{'@' if ':' in tag else ':'}{tag}")


def _follow(found: Iterator[dict[str, Any]], *, quiet: bool) -> None:
    if quiet:
        for _ in found:
            pass
    else:
        show_progress(found, sys.stdout)


def whole_name(name: str) -> str:
    """A repository with its registry: `busybox` is `docker.io/library/busybox`."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


@command("push")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("-q", "--quiet", is_flag=True, help="Only the name.")
@click.argument("image")
@pass_session
def push(session: Session, image: str, *, all_tags: bool, quiet: bool) -> None:
    """Send an image to a registry."""
    name, tag = split_reference(image)
    if all_tags and image != name:
        raise Failed("tag can't be used with --all-tags/-a")
    if not all_tags and not quiet and image == name:
        click.echo("Using default tag: latest")
    headers = auth_header(image) or {"X-Registry-Auth": "e30="}
    response = session.call("POST", at("images", name, "push"), query={} if all_tags else {"tag": tag}, headers=headers)
    _follow(messages(response), quiet=quiet)
    if quiet:
        click.echo(f"{whole_name(name)}:{tag}" if not all_tags else whole_name(name))


@command("tag")
@click.argument("source")
@click.argument("target")
@pass_session
def tag(session: Session, source: str, target: str) -> None:
    """Give an image another name."""
    name, suffix = split_reference(target)
    session.post(at("images", source, "tag"), repo=name, tag=suffix)


@command("rmi")
@click.option("-f", "--force", is_flag=True, help="Although stopped containers use it, or it has several names.")
@click.option("--no-prune", is_flag=True, help="Leave its untagged parents.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def rmi(session: Session, names: tuple[str, ...], *, force: bool, no_prune: bool) -> None:
    """Remove images, or names of them."""
    failed = False
    for name in names:
        try:
            for gone in session.delete(at("images", name), force=force, noprune=no_prune):
                for word, value in gone.items():
                    click.echo(f"{word}: {value}")
        except BoxshipError as error:
            click.echo(f"boxship: {error}", err=True)
            failed = True
    if failed:
        raise click.exceptions.Exit(1)


_HISTORY = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
            "Comment": "COMMENT"}  # fmt: skip
_STEP_WIDTH = 45


@command("history")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("-H", "--human/--no-human", default=True, help="Sizes and times as people read them.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.argument("image")
@pass_session
def history(session: Session, image: str, form: str | None, *, human: bool, no_trunc: bool, quiet: bool) -> None:
    """Show how an image was made, latest step first."""
    rows = []
    for entry in session.get(at("images", image, "history")):
        made, identity = entry["CreatedBy"].replace("\t", " "), entry["Id"]
        rows.append({
            "ID": identity if no_trunc else identity.removeprefix("sha256:")[:12],
            "CreatedSince": f.ago(entry["Created"]) if human else f.rfc3339(entry["Created"]),
            "CreatedAt": f.rfc3339(entry["Created"]),
            "CreatedBy": made if no_trunc else f.shortened(made, _STEP_WIDTH),
            "Size": f.size(entry["Size"]) if human else str(entry["Size"]), "Comment": entry["Comment"],
        })  # fmt: skip
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    f.print_rows(rows, _HISTORY, form, ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"])


@command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="All that no container uses, not only those without a name.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, force: bool) -> None:
    """Remove unused images."""
    kind = "images without at least one container associated to them" if everything else "dangling images"
    confirm(f"This will remove all {kind}.", force=force)
    wanted = json.loads(filters(chosen) or "{}") | ({"dangling": ["false"]} if everything else {})
    answer = session.post("/images/prune", filters=json.dumps(wanted) if wanted else "")
    report_pruned(answer, "Images", "ImagesDeleted")
