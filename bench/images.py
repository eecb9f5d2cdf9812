"""The images that every engine gets, made from Debian's packages and kept in the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

NAMES = ("busybox", "debian", "python", "iperf")
_SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "var/cache/apt",
         "var/lib/apt/lists", "var/log")  # fmt: skip
_SUITE = "bookworm"


def make() -> dict[str, Path]:
    """A docker archive of each image by its name; debootstrap is run only where the cache has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxship-bench"
    cache.mkdir(parents=True, exist_ok=True)
    archives = {name: cache / f"{name}.tar" for name in NAMES}
    if all(archive.exists() for archive in archives.values()):
        return archives
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        work = Path(temporary)
        _bootstrap(work / "debian")
        _bootstrap(work / "python", "python3")
        base = _layer(work / "debian", work / "debian.tar")
        above = _layer(work / "python", work / "python.tar", below=work / "debian")
        made = {
            "busybox": [_busybox(work)],
            "debian": [base],
            "python": [base, above],
            "iperf": [_programs(work, "/usr/bin/iperf3")],
        }
        for name, layers in made.items():
            _archive(name, layers, work / f"{name}.done")
            os.replace(work / f"{name}.done", archives[name])
    return archives


def _bootstrap(root: Path, *packages: str) -> None:
    include = [f"--include={','.join(packages)}"] if packages else []
    subprocess.run(["debootstrap", "--variant=minbase", *include, _SUITE, str(root)], check=True, stdout=subprocess.DEVNULL)
    for path in _SLIM:
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).mkdir(parents=True)
    for path in ("dev", "proc", "sys"):
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).mkdir()


def _layer(root: Path, target: Path, below: Path | None = None) -> Path:
    """A tree as a layer; with `below` only what differs from that tree."""

    def wanted(path: Path) -> bool:
        other = below / path.relative_to(root) if below else None
        if other is None or not os.path.lexists(other) or path.is_dir():
            return True
        ours, theirs = path.lstat(), other.lstat()
        if path.is_symlink() or not path.is_file():
            return ours.st_mode != theirs.st_mode
        return ours.st_size != theirs.st_size or path.read_bytes() != other.read_bytes()

    with tarfile.open(target, "w") as tar:
        for path in sorted(root.rglob("*")):
            if (path.is_symlink() or path.is_dir() or path.is_file()) and wanted(path):
                tar.add(path, str(path.relative_to(root)), recursive=False)
    return target


def _busybox(work: Path) -> Path:
    root = work / "busybox"
    for path in ("bin", "etc", "tmp", "root"):
        (root / path).mkdir(parents=True)
    binary = shutil.which("busybox") or "/bin/busybox"
    shutil.copy(binary, root / "bin/busybox")
    for applet in subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return _layer(root, work / "busybox.tar")


def _programs(work: Path, program: str) -> Path:
    """One dynamic program with its libraries, and busybox's shell beside it."""
    root = work / "programs"
    (root / "tmp").mkdir(parents=True)
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    for path in [program, *(word for word in listed if word.startswith("/"))]:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return _layer(root, work / "programs.tar")


def _archive(name: str, layers: list[Path], target: Path) -> None:
    diff_ids = []
    for layer in layers:
        with layer.open("rb") as file:
            diff_ids.append("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
    created = "2026-01-01T00:00:00Z"
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine), "os": "linux",
        "created": created, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "history": [{"created": created, "created_by": "bench"} for _ in layers],
    }).encode()  # fmt: skip
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest.removeprefix('sha256:')}/layer.tar" for digest in diff_ids]
    manifest = [{"Config": config_name, "RepoTags": [f"docker.io/library/{name}:latest"], "Layers": names}]
    with tarfile.open(target, "w") as tar:
        for path, data in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for path, layer in zip(names, layers, strict=True):
            tar.add(layer, path)


def facts(archive: Path) -> str:
    """How large an image is, plain and as gzip, in MB."""
    with tarfile.open(archive) as tar:
        layers = [tar.extractfile(member) for member in tar if member.name.endswith("layer.tar")]
        data = b"".join(layer.read() for layer in layers if layer is not None)
    return f"{len(data) / 1e6:.0f} MB, {len(gzip.compress(data, 6)) / 1e6:.0f} MB gzip"
