"""Images as one tar: an OCI image layout (image-layout.md) that is also a docker-archive (manifest.json)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from boxship.errors import Invalid, NotFound
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference

_CHUNK = 1 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(slots=True)
class _Saved:
    """One image in the archive."""

    image: Image
    layers: list[Descriptor]
    manifest: bytes
    descriptor: Descriptor
    names: list[Reference] = field(default_factory=list)

    def pairs(self) -> Iterator[tuple[str, Descriptor]]:
        """Each layer's diff id and what is saved of it."""
        return zip(self.image.layers, self.layers, strict=True)


def save(images: Images, names: Sequence[str], platform: Platform | None = None) -> AsyncIterator[bytes]:
    """The archive of the images named, piece by piece; raises `NotFound`, `Invalid` before the first piece.

    A name is a tag, an id, or a repository, which stands for all its tags. A pulled image goes out with the very
    manifest and blobs it came with; of others the layers are plain tars.
    """
    return _write(images, _choose(images, names, platform))


async def _write(images: Images, chosen: list[_Saved]) -> AsyncIterator[bytes]:
    written: set[str] = set()
    with contextlib.ExitStack() as stack:
        # all are opened first: an image that is removed meanwhile goes out whole
        sources = {layer.digest: (layer, diff_id) for saved in chosen for diff_id, layer in saved.pairs()}
        opened = {digest: stack.enter_context(_open(images, *source)) for digest, source in sources.items()}
        yield _directory("blobs/") + _directory("blobs/sha256/")
        for saved in chosen:
            for layer in saved.layers:
                if layer.digest in written:
                    continue
                written.add(layer.digest)
                yield _header(_blob(layer.digest), layer.size)
                async for part in _parts(opened[layer.digest]):
                    yield part
                yield _padding(layer.size)
            for digest, data in ((saved.image.id, saved.image.raw), (saved.descriptor.digest, saved.manifest)):
                if digest not in written:
                    written.add(digest)
                    yield _file(_blob(digest), data)
    yield _file("index.json", _index(chosen))
    yield _file("manifest.json", _docker_manifest(chosen))
    yield _file("oci-layout", _LAYOUT) + bytes(2 * tarfile.BLOCKSIZE)


def _open(images: Images, layer: Descriptor, diff_id: str) -> BinaryIO:
    return images.layer_tar(diff_id) if layer.digest == diff_id else images.content.open(layer.digest)


def _choose(images: Images, names: Sequence[str], platform: Platform | None) -> list[_Saved]:
    chosen: dict[str, _Saved] = {}
    for name in names:
        for image, reference in _named(images, name):
            if platform is not None and not image.config.platform.satisfies(platform):
                raise NotFound(f"image {name} was found but does not provide the specified platform ({platform})")
            saved = chosen.get(image.id)
            if saved is None:
                saved = chosen[image.id] = _saved(images, image)
            if reference is not None and reference not in saved.names:
                saved.names.append(reference)
    return list(chosen.values())


def _named(images: Images, name: str) -> list[tuple[Image, Reference | None]]:
    """The images that a name means, each with the tag that it is saved under; none for an id or a digest."""
    with contextlib.suppress(Invalid):
        reference = Reference.parse(name)
        if reference.tag is None and reference.digest is None:
            found = [(image, tag) for image in images.all() for tag in image.tags if tag.name == reference.name]
            if found:
                return sorted(found, key=lambda pair: str(pair[1]))
    image = images.get(name)
    with contextlib.suppress(Invalid):
        wanted = str(Reference.parse(name).with_default_tag())
        return [(image, next((tag for tag in image.tags if str(tag) == wanted), None))]
    return [(image, None)]


def _saved(images: Images, image: Image) -> _Saved:
    if image.manifest is not None and image.manifest.digest in images.content:
        raw = images.content.read(image.manifest.digest)
        manifest = parse_manifest(raw, image.manifest.media_type)
        if isinstance(manifest, Manifest) and all(layer.digest in images.content for layer in manifest.layers):
            return _Saved(image, manifest.layers, raw, image.manifest)
    layers = [Descriptor(media_types.OCI_LAYER, diff_id, images.snapshotter.layer_size(diff_id)) for diff_id in image.layers]
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": image.id, "size": len(image.raw)},
        "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers],
    }
    raw = json.dumps(document).encode()
    return _Saved(image, layers, raw, Descriptor(media_types.OCI_MANIFEST, Digest.of(raw), len(raw)))


def _index(chosen: list[_Saved]) -> bytes:
    entries = []
    for saved in chosen:
        plain = {
            "mediaType": saved.descriptor.media_type,
            "digest": saved.descriptor.digest,
            "size": saved.descriptor.size,
            "platform": {"architecture": saved.image.config.architecture, "os": saved.image.config.os},
        }
        entries += [
            {**plain, "annotations": {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag}}
            for name in saved.names
        ] or [plain]
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}).encode()


def _docker_manifest(chosen: list[_Saved]) -> bytes:
    return json.dumps(
        [
            {
                "Config": _blob(saved.image.id),
                "RepoTags": [name.familiar for name in saved.names] or None,
                "Layers": [_blob(layer.digest) for layer in saved.layers],
            }
            for saved in chosen
        ]
    ).encode()


async def _parts(source: BinaryIO) -> AsyncIterator[bytes]:
    while part := await asyncio.to_thread(source.read, _CHUNK):
        yield part


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> bytes:
    entry = tarfile.TarInfo(str(PurePosixPath(name)))
    entry.size, entry.type, entry.mode = size, kind, mode
    return entry.tobuf(tarfile.GNU_FORMAT)


def _directory(name: str) -> bytes:
    return _header(name, 0, tarfile.DIRTYPE, 0o755)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + _padding(len(data))
