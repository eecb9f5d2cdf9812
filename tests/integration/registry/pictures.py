"""Images made by hand, and put into registries by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import Any

import httpx
import zstandard

from boxship.oci import media_types

_OCI = {"gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD, "none": media_types.OCI_LAYER}
_DOCKER = {"gzip": media_types.DOCKER_LAYER_GZIP, "zstd": media_types.DOCKER_LAYER_ZSTD, "none": media_types.DOCKER_LAYER}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def large_layer(size: int = 5 << 20) -> bytes:
    """One that does not compress, so that a blob of it can be cut in many places."""
    return tar_of(noise=os.urandom(size))


def compress(data: bytes, kind: str) -> bytes:
    if kind == "gzip":
        return gzip.compress(data, 1)
    return zstandard.ZstdCompressor().compress(data) if kind == "zstd" else data


def described(data: bytes, media_type: str, **extra: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **extra}


@dataclass(frozen=True)
class Picture:
    """An image as a registry has it."""

    config: bytes
    blobs: tuple[bytes, ...]
    manifest: bytes
    media_type: str
    diff_ids: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def id(self) -> str:
        return digest(self.config)


def picture(
    *tars: bytes, compression: str = "gzip", docker: bool = False, architecture: str = "amd64", variant: str = "",
    config_extra: dict[str, Any] | None = None, **extra: Any,
) -> Picture:  # fmt: skip
    """An image of these layers; `extra` goes into its manifest."""
    diff_ids = [digest(tar) for tar in tars]
    platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
    document = {**platform, "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = json.dumps({**document, **(config_extra or {})}).encode()
    blobs = tuple(compress(tar, compression) for tar in tars)
    media_type = media_types.DOCKER_MANIFEST if docker else media_types.OCI_MANIFEST
    manifest = {
        "schemaVersion": 2, "mediaType": media_type,
        "config": described(config, media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG),
        "layers": [described(blob, (_DOCKER if docker else _OCI)[compression]) for blob in blobs], **extra,
    }  # fmt: skip
    return Picture(config, blobs, json.dumps(manifest, indent=1).encode(), media_type, tuple(diff_ids))


def index_of(*children: Picture, docker: bool = False, **extra: Any) -> bytes:
    entries = []
    for child in children:
        config = json.loads(child.config)
        platform = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
        entries.append(described(child.manifest, child.media_type, platform=platform))
    media_type = media_types.DOCKER_INDEX if docker else media_types.OCI_INDEX
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **extra}).encode()


class Putter:
    """Puts images into a registry with nothing but HTTP."""

    def __init__(self, base: str, **options: Any) -> None:
        self.http = httpx.AsyncClient(base_url=base, trust_env=False, **options)

    async def blob(self, name: str, data: bytes) -> None:
        begun = await self.http.post(f"/v2/{name}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        done = await self.http.put(begun.headers["Location"] + ("&" if "?" in begun.headers["Location"] else "?")
                                   + f"digest={digest(data)}", content=data)  # fmt: skip
        assert done.status_code == 201, done.text

    async def manifest(self, name: str, tag: str, raw: bytes, media_type: str) -> str:
        done = await self.http.put(f"/v2/{name}/manifests/{tag}", content=raw, headers={"Content-Type": media_type})
        assert done.status_code == 201, done.text
        return done.headers["Docker-Content-Digest"]

    async def image(self, name: str, tag: str, image: Picture) -> str:
        for data in (*image.blobs, image.config):
            await self.blob(name, data)
        return await self.manifest(name, tag, image.manifest, image.media_type)

    async def index(self, name: str, tag: str, *children: Picture, docker: bool = False) -> str:
        for child in children:
            await self.image(name, child.digest, child)
        media_type = media_types.DOCKER_INDEX if docker else media_types.OCI_INDEX
        return await self.manifest(name, tag, index_of(*children, docker=docker), media_type)
