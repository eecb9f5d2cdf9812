"""`image bootstrap`: base images made from this host's own packages, where no registry can be reached."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from boxship.cli.apt import Mirror, mirror_of
from boxship.cli.session import Failed, Session, messages, pass_session
from boxship.cli.verb import command
from boxship.oci.platform import Platform

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CREATED = "1970-01-01T00:00:00Z"
_CHUNK = 1 << 20
_ACCOUNTS = (("root", 0, "/root", "/bin/sh"), ("daemon", 1, "/usr/sbin", "/bin/false"), ("bin", 2, "/bin", "/bin/false"),
             ("sys", 3, "/dev", "/bin/false"), ("mail", 8, "/var/spool/mail", "/bin/false"),
             ("www-data", 33, "/var/www", "/bin/false"), ("nobody", 65534, "/home", "/bin/false"))  # fmt: skip


@command("bootstrap")
@click.option("--mirror", default="", help="For debian: where packages are fetched from (default: apt's source of the suite).")
@click.option("-t", "--tag", default="", help="Another name for the image.")
@click.argument("base", metavar="busybox|debian:SUITE")
@pass_session
def bootstrap(session: Session, base: str, mirror: str, tag: str) -> None:
    """Make a base image without any registry.

    busybox is made from the host's static busybox (Debian's package busybox-static), debian:SUITE by the host's
    debootstrap, in its smallest variant.
    """
    name, _, suite = base.partition(":")
    with tempfile.TemporaryDirectory(prefix="boxship-bootstrap-") as directory:
        layer = Path(directory) / "layer.tar"
        if name == "busybox" and suite in ("", "latest"):
            _busybox(layer)
            command, created_by = ["sh"], "busybox-static of the host"
        elif name == "debian" and suite:
            _debian(Path(directory), layer, suite, mirror)
            command, created_by = ["bash"], f"debootstrap --variant=minbase {suite}"
        else:
            raise Failed(f"cannot bootstrap {base!r}: expected busybox, or debian:SUITE such as debian:bookworm")
        reference = tag or (base if suite else f"{base}:latest")
        archive = _archive(layer, reference, command, created_by)
        response = session.call("POST", "/images/load", query={"quiet": 1}, stream=archive)
        for message in messages(response):
            if "stream" in message:
                click.echo(message["stream"], nl=False)


def _busybox(layer: Path) -> None:
    binary = next((path for path in map(Path, ("/bin/busybox", "/usr/bin/busybox")) if path.exists()), None)
    if binary is None or _is_dynamic(binary):
        raise Failed("a static busybox is needed to make this image: apt-get install busybox-static")
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var",
                     "var/spool", "var/spool/mail", "var/www"):  # fmt: skip
            _add(tar, path, kind=tarfile.DIRTYPE, mode={"tmp": 0o1777, "root": 0o700}.get(path, 0o755))
        data = binary.read_bytes()
        _add(tar, "bin/busybox", data, mode=0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            _add(tar, f"bin/{applet}", kind=tarfile.LNKTYPE, target="bin/busybox", mode=0o755)
        _add(tar, "usr/bin/env", kind=tarfile.SYMTYPE, target="/bin/env")
        passwd = "".join(f"{user}:x:{number}:{number}:{user}:{home}:{shell}\n" for user, number, home, shell in _ACCOUNTS)
        group = "".join(f"{user}:x:{number}:\n" for user, number, _, _ in _ACCOUNTS)
        _add(tar, "etc/passwd", passwd.encode())
        _add(tar, "etc/group", (group + "users:x:100:\n").encode())
        _add(tar, "etc/shadow", b"root:*:10933:0:99999:7:::\n", mode=0o640)
        _add(tar, "etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")


def _is_dynamic(binary: Path) -> bool:
    """Whether an ELF file asks for a dynamic loader (a program header of type PT_INTERP)."""
    data = binary.read_bytes()
    if data[:4] != b"\x7fELF":
        return True
    wide = data[4] == 2
    order = "little" if data[5] == 1 else "big"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], order)  # type: ignore[arg-type]

    table, size, count = (number(32, 8), number(54, 2), number(56, 2)) if wide else (number(28, 4), number(42, 2), number(44, 2))
    return any(number(table + index * size, 4) == 3 for index in range(count))


def _add(
    tar: tarfile.TarFile, path: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(data)
    tar.addfile(entry, io.BytesIO(data))


def _debian(directory: Path, layer: Path, suite: str, mirror: str) -> None:
    tool = shutil.which("debootstrap")
    if tool is None:
        raise Failed("debootstrap is needed to make this image: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise Failed("debootstrap needs root")
    root = directory / "root"
    source = Mirror(mirror, "") if mirror else mirror_of(suite)
    keyring = [f"--keyring={source.keyring}"] if source and source.keyring else []
    arguments = [tool, "--variant=minbase", *keyring, suite, str(root), *([source.url] if source else [])]
    done = subprocess.run(arguments, stdout=sys.stderr, stderr=sys.stderr, check=False)
    if done.returncode:
        raise Failed(f"debootstrap failed with exit code {done.returncode}")
    for path in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for file in (root / path).rglob("*"):
            if file.is_file():
                file.unlink()
    for path in ("etc/hostname", "etc/resolv.conf", "etc/machine-id"):
        (root / path).write_text("")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        _add_tree(tar, root, "")


def _add_tree(tar: tarfile.TarFile, root: Path, below: str) -> None:
    for entry in sorted(os.scandir(root / below), key=lambda each: each.name):
        path = f"{below}/{entry.name}" if below else entry.name
        if path.startswith(("proc/", "sys/", "dev/")):
            continue
        tar.add(entry.path, arcname=path, recursive=False)
        if entry.is_dir(follow_symlinks=False):
            _add_tree(tar, root, path)


def _archive(layer: Path, reference: str, command: list[str], created_by: str) -> Iterator[bytes]:
    """A docker-archive of one layer."""
    with layer.open("rb") as file:
        diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    host = Platform.host()
    config: dict[str, Any] = {
        "architecture": host.architecture, "os": "linux", "created": _CREATED,
        "config": {"Env": [_PATH], "Cmd": command}, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": _CREATED, "created_by": created_by}],
    }  # fmt: skip
    if host.variant:
        config["variant"] = host.variant
    raw = json.dumps(config).encode()
    name = hashlib.sha256(raw).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=cast(BinaryIO, spool), mode="w") as tar:
            _add(tar, name, raw)
            _add(tar, "manifest.json", manifest)
            tar.add(layer, arcname="layer.tar")
        spool.seek(0)
        yield from iter(lambda: spool.read(_CHUNK), b"")
