"""Archives of images read back: docker-archives old and new, and OCI layouts, in one pass.

Layers go straight into the stores as they stream by, before it is known which image they belong to; the
documents that tell come anywhere in the archive and are small.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from boxship.errors import BoxshipError, Invalid
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.image_config import parse_image_config
from boxship.oci.platform import Platform, choose
from boxship.oci.reference import Reference
from boxship.snapshots.compression import Decompressor, decompressed, detect
from boxship.snapshots.streaming import fed

Progress = Callable[[dict[str, object]], None]

_CHUNK = 1 << 20
_BLOB = re.compile(r"blobs/(sha256)/([0-9a-f]{64})")
_REPORT_EVERY = 8 << 20


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer taken in: its diff id, and its blob where it came compressed."""

    diff_id: str
    blob: Descriptor | None


@dataclass(slots=True)
class _Contents:
    """What an archive holds, by normalised path."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, _Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def resolve(self, path: str) -> str:
        path = posixpath.normpath(path)
        for _ in range(8):
            if path not in self.links:
                break
            path = self.links[path]
        return path

    def document(self, path: str) -> bytes:
        found = self.documents.get(self.resolve(path))
        if found is None:
            raise Invalid(f"the archive names {path}, but does not hold it")
        return found

    def layer(self, path: str) -> _Layer:
        found = self.layers.get(self.resolve(path))
        if found is None:
            raise Invalid(f"the archive names the layer {path}, but does not hold it")
        return found


async def load(images: Images, stream: AsyncIterator[bytes], progress: Progress) -> list[str]:
    """Take in an archive: a line for each image. Raises `Invalid` for an unsound one, of which nothing stays."""
    loop = asyncio.get_running_loop()
    contents = _Contents()
    with images.pinned() as pin:

        def report(message: dict[str, object]) -> None:
            loop.call_soon_threadsafe(progress, message)

        def keep(digest: str) -> None:
            loop.call_soon_threadsafe(pin, digest)

        try:
            await fed(stream, lambda source: _read(images, source, contents, report, keep))
            lines = _register(images, contents)
        finally:
            await asyncio.sleep(0)  # what the thread has pinned is pinned now
            taken = [layer.diff_id for layer in contents.layers.values()]
            blobs = [layer.blob.digest for layer in contents.layers.values() if layer.blob]
    images.collect(taken, blobs)
    return lines


def _read(images: Images, source: BinaryIO, contents: _Contents, report: Progress, keep: Callable[[str], None]) -> None:
    try:
        with tarfile.open(fileobj=decompressed(source), mode="r|", bufsize=_CHUNK) as tar:
            for entry in tar:
                path = posixpath.normpath(entry.name)
                if entry.issym():
                    contents.links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.linkname))
                elif entry.islnk():
                    contents.links[path] = posixpath.normpath(entry.linkname)
                elif entry.isreg():
                    file = tar.extractfile(entry)
                    assert file is not None
                    _take(images, path, entry.size, cast(BinaryIO, file), contents, report, keep)
    except tarfile.TarError as error:
        raise Invalid(f"the archive is no tar of images: {error}") from error


def _take(
    images: Images, path: str, size: int, file: BinaryIO, contents: _Contents, report: Progress, keep: Callable[[str], None]
) -> None:  # fmt: skip
    head = file.read(min(_CHUNK, size))
    if not _is_layer(head):
        if size <= MANIFEST_LIMIT:
            contents.documents[path] = head + file.read()
        return
    named = _BLOB.fullmatch(path)
    if named and images.snapshotter.has_layer(f"sha256:{named[2]}"):
        contents.layers[path] = _Layer(f"sha256:{named[2]}", None)
        return
    short = (named[2] if named else path.partition("/")[0])[:12]
    layer = _unpack(images, head, size, file, f"sha256:{named[2]}" if named else None, short, report)
    keep(layer.diff_id)
    contents.layers[path] = layer


def _is_layer(head: bytes) -> bool:
    """Whether a file begins as a tar or as a compressed stream does; an empty tar is zeros alone."""
    return detect(head[:6]) != "none" or head[257:262] == b"ustar" or (len(head) >= tarfile.BLOCKSIZE and _old_tar(head))


def _old_tar(head: bytes) -> bool:
    block = head[: tarfile.BLOCKSIZE]
    if not any(head):
        return True
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + sum(block[156:]) + 8 * 0x20


def _unpack(images: Images, head: bytes, size: int, file: BinaryIO, expected: str | None, short: str, report: Progress) -> _Layer:
    compressed = detect(head[:6])
    done = reported = 0
    with images.snapshotter.writer(keep=compressed == "none") as writer:
        if compressed == "none":
            data = head
            while data:
                writer.write(data)
                done += len(data)
                if done - reported >= _REPORT_EVERY or done == size:
                    reported = done
                    report({"status": "Loading layer", "progressDetail": {"current": done, "total": size}, "id": short})
                data = file.read(_CHUNK)
            return _Layer(writer.commit(expected), None)
        decompressor = Decompressor()
        with images.content.ingest(f"load-{expected or id(file)}", expected=expected, size=size) as ingest:
            ingest.restart()
            data = head
            while data:
                ingest.write(data)
                for piece in decompressor.feed(data):
                    writer.write(piece)
                done += len(data)
                if done - reported >= _REPORT_EVERY or done == size:
                    reported = done
                    report({"status": "Loading layer", "progressDetail": {"current": done, "total": size}, "id": short})
                data = file.read(_CHUNK)
            writer.write(decompressor.finish())
            digest = ingest.commit()
        media_type = media_types.OCI_LAYER_ZSTD if compressed == "zstd" else media_types.OCI_LAYER_GZIP
        blob = Descriptor(media_type, digest, size) if compressed in ("gzip", "zstd") else None
        return _Layer(writer.commit(), blob)


# --- what the documents say ---


def _register(images: Images, contents: _Contents) -> list[str]:
    if "manifest.json" in contents.documents:
        return [line for entry in _docker_entries(contents) for line in _docker_image(images, contents, entry)]
    if "index.json" in contents.documents:
        return _oci_images(images, contents)
    raise Invalid("the archive has neither a manifest.json nor an index.json: it holds no image")


def _docker_entries(contents: _Contents) -> list[dict[str, Any]]:
    try:
        entries = json.loads(contents.documents["manifest.json"])
        if not isinstance(entries, list):
            raise TypeError("expected a list")
        for entry in entries:
            if not isinstance(entry["Config"], str) or not all(isinstance(n, str) for n in entry.get("Layers") or []):
                raise ValueError("Config and Layers must be paths")
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"the archive's manifest.json is malformed: {error}") from error
    return entries


def _docker_image(images: Images, contents: _Contents, entry: dict[str, Any]) -> list[str]:
    layers = [contents.layer(path) for path in entry.get("Layers") or []]
    tags = [Reference.parse(name) for name in entry.get("RepoTags") or []]
    return _lines(_create(images, contents.document(entry["Config"]), layers, tags, _manifest_of(contents, entry)), tags)


def _manifest_of(contents: _Contents, entry: dict[str, Any]) -> bytes | None:
    """The OCI manifest beside a docker-archive's entry, where the archive is both."""
    config = _BLOB.fullmatch(posixpath.normpath(entry["Config"]))
    if config is None or "index.json" not in contents.documents:
        return None
    for path, raw in contents.documents.items():
        if _BLOB.fullmatch(path) and b'"layers"' in raw:
            try:
                manifest = parse_manifest(raw)
            except BoxshipError:
                continue
            if isinstance(manifest, Manifest) and manifest.config.digest == f"sha256:{config[2]}":
                return raw
    return None


def _create(images: Images, config: bytes, layers: list[_Layer], tags: list[Reference], manifest: bytes | None) -> Image:
    stated = parse_image_config(config).rootfs.diff_ids
    if stated != [layer.diff_id for layer in layers]:
        raise Invalid("invalid manifest, layers length mismatch" if len(stated) != len(layers) else
                      "the layers of the archive are not those of the image's configuration")  # fmt: skip
    descriptor = None
    if manifest is not None and layers and all(layer.blob for layer in layers):
        parsed = parse_manifest(manifest)
        if isinstance(parsed, Manifest) and [d.digest for d in parsed.layers] == [x.blob.digest for x in layers if x.blob]:
            digest = images.content.put(manifest)
            descriptor = Descriptor(parsed.media_type or media_types.OCI_MANIFEST, digest, len(manifest))
    for layer in layers:
        if layer.blob is not None:
            images.remember_blob(layer.diff_id, layer.blob)
    return images.create(config, tags=tags, manifest=descriptor, action="load")


def _lines(image: Image, tags: list[Reference]) -> list[str]:
    return [f"Loaded image: {tag.with_default_tag().familiar}" for tag in tags] or [f"Loaded image ID: {image.id}"]


def _oci_images(images: Images, contents: _Contents) -> list[str]:
    index = parse_manifest(contents.documents["index.json"], media_types.OCI_INDEX)
    assert isinstance(index, Index)
    lines: list[str] = []
    for descriptor in index.manifests:
        raw = _chosen(contents, descriptor)
        manifest = parse_manifest(raw)
        assert isinstance(manifest, Manifest)
        layers = [contents.layer(f"blobs/{layer.digest.replace(':', '/')}") for layer in manifest.layers]
        tags = _oci_names(descriptor.annotations or {})
        config = contents.document(f"blobs/{manifest.config.digest.replace(':', '/')}")
        lines += _lines(_create(images, config, layers, tags, raw), tags)
    return list(dict.fromkeys(lines))


def _chosen(contents: _Contents, descriptor: Descriptor) -> bytes:
    """The manifest behind a descriptor: of an index, the one for this platform."""
    raw = contents.document(f"blobs/{descriptor.digest.replace(':', '/')}")
    if Digest.of(raw) != descriptor.digest:
        raise Invalid(f"digest mismatch: expected {descriptor.digest}, got {Digest.of(raw)}")
    manifest = parse_manifest(raw, descriptor.media_type)
    if isinstance(manifest, Manifest):
        return raw
    offered = [each for each in manifest.manifests if f"blobs/{each.digest.replace(':', '/')}" in contents.documents]
    found = choose(Platform.host(), [each.platform for each in offered])
    if found is None:
        raise Invalid(f"no matching manifest for {Platform.host()} in the archive")
    return _chosen(contents, offered[found])


def _oci_names(annotations: dict[str, str]) -> list[Reference]:
    name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
    if not name or ("/" not in name and ":" not in name and "io.containerd.image.name" not in annotations):
        return []  # a bare tag names no repository
    try:
        return [Reference.parse(name).with_default_tag()]
    except Invalid:
        return []
