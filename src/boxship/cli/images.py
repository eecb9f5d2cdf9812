"""The verbs of images."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, report_pruned
from boxship.cli.files import write_out
from boxship.cli.progress import show_progress
from boxship.cli.run import pull_image, split_reference
from boxship.cli.session import Failed, Session, messages, pass_session, registry_auth
from boxship.errors import BoxshipError

_CHUNK = 1 << 20
_COLUMNS = {
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE",
}  # fmt: skip


@click.command("images", short_help="List images")
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
    found = session.get("/images/json", all=everything, digests=digests, filters=f.filters(wanted))
    rows = [row for entry in found for row in _rows(entry, full=no_trunc, digests=digests)]
    if quiet:
        for identity in dict.fromkeys(row["ID"] for row in rows):
            click.echo(identity)
        return
    default = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    f.print_rows(rows, _COLUMNS, form, default)


def _rows(entry: dict[str, Any], *, full: bool, digests: bool) -> Iterator[dict[str, Any]]:
    identity = entry["Id"]
    common = {
        "ID": identity if full else identity.partition(":")[2][:12],
        "CreatedSince": f.ago(entry["Created"]),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(entry["Created"])),
        "Size": f.size(entry["Size"]),
    }
    by_name = dict(digest.split("@", 1) for digest in entry.get("RepoDigests") or [])
    for tag in entry.get("RepoTags") or []:
        name, _, suffix = tag.rpartition(":")
        yield {"Repository": name, "Tag": suffix, "Digest": by_name.get(name, "<none>"), **common}
    if not entry.get("RepoTags"):
        names = by_name or {"<none>": "<none>"}
        for name, digest in names.items() if digests else [next(iter(names.items()))]:
            yield {"Repository": name, "Tag": "<none>", "Digest": digest, **common}


@click.command("pull", short_help="Fetch an image from a registry")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("--platform", help="The platform, such as linux/arm64.")
@click.option("-q", "--quiet", is_flag=True, help="Only the name.")
@click.argument("image")
@pass_session
def pull(session: Session, image: str, platform: str | None, *, all_tags: bool, quiet: bool) -> None:
    """Fetch an image from a registry."""
    name, tag = split_reference(image)
    if not all_tags and not quiet and tag == "latest" and not image.endswith(":latest"):
        click.echo("Using default tag: latest")
    path = f"/images/create?fromImage={name}&tag=" if all_tags else "/images/create"
    query = {} if all_tags else {"fromImage": name, "tag": tag, "platform": platform}
    response = session.call("POST", path, query=query, headers=registry_auth(image))
    if quiet:
        for _ in messages(response):
            pass
    else:
        show_progress(messages(response), sys.stdout)
    click.echo(name if all_tags else f"{name}{'@' if ':' in tag else ':'}{tag}")


@click.command("push", short_help="Send an image to a registry")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("-q", "--quiet", is_flag=True, help="Only the name.")
@click.argument("image")
@pass_session
def push(session: Session, image: str, *, all_tags: bool, quiet: bool) -> None:
    """Send an image to a registry."""
    name, tag = split_reference(image)
    headers = registry_auth(image) or {"X-Registry-Auth": "e30="}
    response = session.call("POST", f"/images/{name}/push", query={} if all_tags else {"tag": tag}, headers=headers)
    if quiet:
        for _ in messages(response):
            pass
        click.echo(name)
    else:
        show_progress(messages(response), sys.stdout)


@click.command("tag", short_help="Give an image another name")
@click.argument("source")
@click.argument("target")
@pass_session
def tag(session: Session, source: str, target: str) -> None:
    """Give an image another name."""
    name, suffix = split_reference(target)
    session.post(f"/images/{source}/tag", repo=name, tag=suffix)


@click.command("rmi", short_help="Remove images")
@click.option("-f", "--force", is_flag=True, help="Although stopped containers use it, or it has several names.")
@click.option("--no-prune", is_flag=True, help="Leave its untagged parents.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def rmi(session: Session, names: tuple[str, ...], *, force: bool, no_prune: bool) -> None:
    """Remove images, or names of them."""
    failed = False
    for name in names:
        try:
            for gone in session.delete(f"/images/{name}", force=force, noprune=no_prune):
                for word, value in gone.items():
                    click.echo(f"{word}: {value}")
        except BoxshipError as error:
            click.echo(f"boxship: {error}", err=True)
            failed = True
    if failed:
        sys.exit(1)


_HISTORY = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
            "Comment": "COMMENT"}  # fmt: skip


@click.command("history", short_help="Show how an image was made")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@click.argument("image")
@pass_session
def history(session: Session, image: str, form: str | None, *, no_trunc: bool, quiet: bool) -> None:
    """Show how an image was made, latest step first."""
    rows = []
    for entry in session.get(f"/images/{image}/history"):
        made = entry["CreatedBy"].replace("\t", " ")
        identity = entry["Id"]
        rows.append({
            "ID": identity if no_trunc else identity.removeprefix("sha256:")[:12], "CreatedSince": f.ago(entry["Created"]),
            "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(entry["Created"])),
            "CreatedBy": made if no_trunc or len(made) <= 45 else made[:44] + "…", "Size": f.size(entry["Size"]),
            "Comment": entry["Comment"],
        })  # fmt: skip
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    f.print_rows(rows, _HISTORY, form, ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"])


@click.command("save", short_help="Write images as a tar")
@click.option("-o", "--output", help="A file instead of stdout.")
@click.option("--platform", help="The platform to save.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def save(session: Session, names: tuple[str, ...], output: str | None, platform: str | None) -> None:
    """Write images as a tar that any engine reads."""
    response = session.call("GET", "/images/get", query={"names": list(names), "platform": platform})
    write_out(response.iter_bytes(), output)


def _input(file: str | None) -> Iterator[bytes]:
    if file is None or file == "-":
        if sys.stdin.isatty():
            raise Failed("requested load from stdin, but stdin is empty", 1)
        yield from iter(lambda: sys.stdin.buffer.read(_CHUNK), b"")
        return
    with open(file, "rb") as source:
        yield from iter(lambda: source.read(_CHUNK), b"")


@click.command("load", short_help="Read images from a tar")
@click.option("-i", "--input", "file", help="A file instead of stdin.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def load(session: Session, file: str | None, *, quiet: bool) -> None:
    """Read images from a tar: of `save`, or an OCI layout."""
    response = session.call("POST", "/images/load", query={"quiet": quiet}, stream=_input(file))
    show_progress((m for m in messages(response) if "stream" in m or sys.stdout.isatty()), sys.stdout)


@click.command("import", short_help="Make an image of a root filesystem's tar")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction to apply.")
@click.option("-m", "--message", default="", help="What it is.")
@click.option("--platform", help="Its platform.")
@click.argument("file")
@click.argument("name", required=False)
@pass_session
def import_(session: Session, file: str, name: str | None, change: tuple[str, ...], message: str, platform: str | None) -> None:
    """Make an image of a root filesystem's tar; - is stdin."""
    repository, suffix = split_reference(name) if name else ("", "")
    query = {"fromSrc": "-", "repo": repository, "tag": suffix, "message": message, "changes": list(change), "platform": platform}
    response = session.call("POST", "/images/create", query=query, stream=_input(file))
    for entry in messages(response):
        click.echo(entry["status"])


@click.command("prune", short_help="Remove unused images")
@click.option("-a", "--all", "everything", is_flag=True, help="All that no container uses, not only those without a name.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, everything: bool, force: bool) -> None:
    """Remove unused images."""
    kind = "images without at least one container associated to them" if everything else "dangling images"
    confirm(f"This will remove all {kind}.", force=force)
    wanted = json.loads(f.filters(chosen) or "{}") | ({"dangling": ["false"]} if everything else {})
    answer = session.post("/images/prune", filters=json.dumps(wanted) if wanted else "")
    report_pruned(answer, "Images", "ImagesDeleted")


__all__ = ["history", "images", "import_", "load", "prune", "pull", "pull_image", "push", "rmi", "save", "tag"]
