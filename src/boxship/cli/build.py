"""`build`: a context sent to the engine."""

from __future__ import annotations

import base64
import io
import json
import os
import posixpath
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from boxship.cli.flags import ulimit
from boxship.cli.formatting import parse_size
from boxship.cli.progress import show_progress
from boxship.cli.session import Failed, Session, docker_config, messages, pass_session
from boxship.oci.ignore import Patterns

_CHUNK = 1 << 20
_REMOTE = re.compile(r"(https?://|git://|git@|github\.com/)")


@click.command("build", short_help="Build an image from a Dockerfile")
@click.option("-t", "--tag", "tags", multiple=True, help="The image's name.")
@click.option("-f", "--file", "dockerfile", help="The Dockerfile (default PATH/Dockerfile; - for stdin).")
@click.option("--build-arg", multiple=True, help="Set a build argument.")
@click.option("--label", multiple=True, help="Set a label.")
@click.option("--target", default="", help="The stage to build.")
@click.option("--platform", default="", help="The platform to build for.")
@click.option("--network", default="default", help="The network of RUN.")
@click.option("--add-host", multiple=True, help="Add a name and its address: host:ip.")
@click.option("--cache-from", multiple=True, help="An image whose steps may be used.")
@click.option("--ulimit", "limits", multiple=True, help="Set a limit: name=soft[:hard].")
@click.option("--shm-size", default="", help="The size of /dev/shm.")
@click.option("-m", "--memory", default="", help="The most memory.")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--pull", is_flag=True, help="Pull base images although they are here.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@click.option("--iidfile", help="Write the image's id to a file.")
@click.argument("path")
@pass_session
def build(session: Session, /, path: str, tags: tuple[str, ...], dockerfile: str | None, **given: Any) -> None:
    """Build an image from PATH, a URL, or - (a tar or a Dockerfile on stdin)."""
    remote = path if _REMOTE.match(path) and not Path(path).exists() else ""
    name = dockerfile or "Dockerfile"
    stream: Iterator[bytes] | None = None
    if not remote:
        name, stream = _context(path, dockerfile)
    query = {
        "t": list(tags), "dockerfile": name, "remote": remote, "q": given["quiet"], "nocache": given["no_cache"],
        "pull": given["pull"], "target": given["target"], "platform": given["platform"], "networkmode": given["network"],
        "extrahosts": list(given["add_host"]), "rm": 1,
        "buildargs": json.dumps({n: v if s else os.environ.get(n) for n, s, v in (a.partition("=") for a in given["build_arg"])}),
        "labels": json.dumps(dict(label.partition("=")[::2] for label in given["label"])),
        "cachefrom": json.dumps(list(given["cache_from"])), "ulimits": json.dumps([ulimit(text) for text in given["limits"]]),
        "shmsize": parse_size(given["shm_size"]) if given["shm_size"] else 0,
        "memory": parse_size(given["memory"]) if given["memory"] else 0,
    }  # fmt: skip
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _credentials()}
    response = session.call("POST", "/build", query=query, headers=headers, stream=stream)
    aux = show_progress(messages(response), sys.stdout)
    if given["iidfile"] and aux:
        Path(given["iidfile"]).write_text(str(aux[-1]["ID"]))


def _credentials() -> str:
    found = {}
    for registry, entry in (docker_config().get("auths") or {}).items():
        name, _, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
        found[registry] = {"username": name, "password": password, "identitytoken": entry.get("identitytoken", "")}
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()


def _context(path: str, dockerfile: str | None) -> tuple[str, Iterator[bytes]]:
    """The Dockerfile's name inside the context, and the context's tar."""
    if path == "-":
        head = sys.stdin.buffer.peek(6)[:6] if hasattr(sys.stdin.buffer, "peek") else b""
        text = head[:1] in (b"#", b"F", b"f", b"A", b"a") and not head.startswith(b"\x1f\x8b")
        if text:
            return "Dockerfile", iter([_single("Dockerfile", sys.stdin.buffer.read())])
        return dockerfile or "Dockerfile", iter(lambda: sys.stdin.buffer.read(_CHUNK), b"")
    root = Path(path)
    if not root.is_dir():
        raise Failed(f'unable to prepare context: path "{path}" not found', 1)
    root = root.resolve()
    extra: tuple[str, bytes] | None = None
    name = "Dockerfile"
    if dockerfile == "-":
        extra = name, sys.stdin.buffer.read()
        name = extra[0]
    elif dockerfile:
        file = Path(dockerfile)
        file = (file if file.exists() else root / dockerfile).resolve()
        if not file.is_file():
            raise Failed(f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}: no such file", 1)
        if file.is_relative_to(root):
            name = file.relative_to(root).as_posix()
        else:
            name = ".dockerfile.outside"
            extra = name, file.read_bytes()
    elif not (root / name).exists() and (root / "dockerfile").exists():
        name = "dockerfile"
    return name, _tar(root, name, extra)


def _single(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _tar(root: Path, dockerfile: str, extra: tuple[str, bytes] | None) -> Iterator[bytes]:
    """The context without what `.dockerignore` leaves out; the Dockerfile always travels."""
    ignore = root / ".dockerignore"
    patterns = Patterns(ignore.read_text() if ignore.exists() else "")
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=cast(BinaryIO, spool), mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, root, "", patterns, {dockerfile, ".dockerignore"})
            if extra is not None:
                entry = tarfile.TarInfo(extra[0])
                entry.size = len(extra[1])
                tar.addfile(entry, io.BytesIO(extra[1]))
        spool.seek(0)
        while data := spool.read(_CHUNK):
            yield data


def _add(tar: tarfile.TarFile, root: Path, below: str, patterns: Patterns, always: set[str]) -> None:
    for entry in sorted(os.scandir(root / below), key=lambda each: each.name):
        path = posixpath.join(below, entry.name)
        ignored = path in patterns and path not in always
        if entry.is_dir(follow_symlinks=False):
            if ignored and not patterns.has_exceptions and not any(name.startswith(path + "/") for name in always):
                continue
            if not ignored:
                tar.add(entry.path, arcname=path, recursive=False, filter=_anonymous)
            _add(tar, root, path, patterns, always)
        elif not ignored:
            tar.add(entry.path, arcname=path, recursive=False, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
