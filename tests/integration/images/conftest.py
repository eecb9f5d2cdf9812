"""Image stores over both snapshot drivers, and archives made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boxship.content.store import ContentStore
from boxship.events.bus import Events
from boxship.images.load import load
from boxship.images.save import save
from boxship.images.store import Images
from boxship.snapshots.directories import DirectorySnapshotter
from boxship.snapshots.erofs import ErofsSnapshotter
from boxship.snapshots.overlay import OverlaySnapshotter
from boxship.state.database import Database

_KINDS: dict[str, type[OverlaySnapshotter]] = {"erofs": ErofsSnapshotter, "overlay2": DirectorySnapshotter}


@dataclass
class Store:
    """An image store and what the tests ask of it."""

    root: Path
    images: Images
    messages: list[dict[str, object]] = field(default_factory=list)

    async def load(self, archive: bytes, step: int = 100_000) -> list[str]:
        return await load(self.images, pieces(archive, step), self.messages.append)

    async def save(self, *names: str) -> bytes:
        return b"".join([part async for part in save(self.images, names)])

    def layer(self, diff_id: str) -> bytes:
        with self.images.layer_tar(diff_id) as tar:
            return tar.read()

    def held(self) -> tuple[list[str], list[str], list[str]]:
        """Layers, blobs, and what is still on its way."""
        ingests = [path.name for path in (self.root / "content" / "ingest").iterdir()]
        layers = [path.name for path in (self.root / "snapshots" / "layers").iterdir()]
        return sorted(layers), sorted(digest for digest, _ in self.images.content.walk()), ingests


async def pieces(data: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


NewStore = Callable[..., Store]


@pytest.fixture(params=list(_KINDS))
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Opens a store at a new root each time it is called."""
    opened: list[tuple[Database, OverlaySnapshotter]] = []

    def open_store(root: Path | None = None) -> Store:
        root = root or tmp_path / f"store{len(opened)}"
        root.mkdir(exist_ok=True)
        snapshotter = _KINDS[request.param](root / "snapshots", root / "mounts")
        database = Database(root / "state.db")
        opened.append((database, snapshotter))
        return Store(root, Images(ContentStore(root / "content"), snapshotter, database, Events()))

    yield open_store
    for database, snapshotter in opened:
        database.close()
        snapshotter.close()


@pytest.fixture
def store(new_store: NewStore) -> Store:
    return new_store()


@pytest.fixture(scope="session")
def odd_layer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tar as GNU tar writes it, with everything that is easily lost on the way."""
    root = tmp_path_factory.mktemp("odd")
    deep = root.joinpath(*["d" * 60] * 5)
    deep.mkdir(parents=True)
    (deep / ("n" * 200)).write_bytes(b"deep")
    (root / "file").write_bytes(os.urandom(70_000))
    os.link(root / "file", root / "hard")
    os.symlink("../etc/" + "t" * 150, root / "soft")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 5000)
        file.truncate((3 << 20) + 7)
    os.setxattr(root / "file", "user.colour", b"blue\0green")
    os.setxattr(root / "file", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    os.chown(root / "pipe", 70_000, 3_000_000)
    (root / ".wh.gone").touch()
    arguments = ["tar", "-C", str(root), "--sparse", "--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", "."]
    return subprocess.run(arguments, check=True, capture_output=True).stdout


def tar_of(files: dict[str, bytes | tuple[bytes, str]]) -> bytes:
    """A tar of files by name; a pair is a link: its type and its target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                entry.type, entry.linkname = content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def small_layer(text: str) -> bytes:
    return tar_of({f"{text}.txt": text.encode()})


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(*layers: bytes, **extra: Any) -> bytes:
    """The configuration of an image of these plain layers."""
    document = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}, **extra}  # fmt: skip
    return json.dumps(document).encode()


def docker_archive(*layers: bytes, tags: tuple[str, ...] = ("box:1",), stored: tuple[bytes, ...] = ()) -> dict[str, Any]:
    """The files of a docker-archive as engines before 25 wrote it; `stored` are the layers as the archive has them."""
    config = config_of(*layers)
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    paths = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    files: dict[str, Any] = {}
    for path, layer in zip(paths, stored or layers, strict=True):
        files[path.replace("layer.tar", "VERSION")] = b"1.0"
        files[path.replace("layer.tar", "json")] = b"{}"
        files[path] = layer
    files[name] = config
    files["manifest.json"] = json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": paths}]).encode()
    files["repositories"] = b"{}"
    return files


def oci_layout(
    config: bytes, *stored: bytes, annotations: dict[str, str] | None = None,
    media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip",
) -> dict[str, Any]:  # fmt: skip
    """The files of an OCI layout of one image."""

    def described(data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(layer, media_type) for layer in stored],
    }).encode()  # fmt: skip
    entry = described(manifest, "application/vnd.oci.image.manifest.v1+json")
    if annotations:
        entry["annotations"] = annotations
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files |= {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data for data in (*stored, config, manifest)}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return files
