"""Archives of images read back: docker-archives old and new (manifest.json), and OCI layouts (image-layout.md)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from boxship.errors import BoxshipError, Invalid
from boxship.images.archive import BLOB, Contents, Layer, Progress, read
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.image_config import parse_image_config
from boxship.oci.platform import Platform, choose
from boxship.oci.reference import Reference
from boxship.snapshots.streaming import fed

_INDEXES_DEEP = 4
"""How many indexes may stand inside each other."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """An image of the archive, checked; nothing is made before all of them are."""

    config: bytes
    layers: list[Layer]
    tags: list[Reference]
    manifest: bytes | None
    descriptor: Descriptor | None

    def blobs(self) -> set[str]:
        """What the image keeps in the content store beside its configuration."""
        found = {layer.blob.digest for layer in self.layers if layer.blob}
        return found | ({self.descriptor.digest} if self.descriptor else set())


async def load(images: Images, stream: AsyncIterator[bytes], progress: Progress) -> list[str]:
    """Take in an archive, in one pass: a line for each image.

    Raises `Invalid` for an unsound archive and `Unavailable` where the disk is full; nothing of it stays then.
    """
    loop = asyncio.get_running_loop()
    contents = Contents()
    wanted: set[str] = set()
    lines: list[str] = []
    try:
        with images.pinned() as pin:

            async def pin_here(digest: str) -> None:
                pin(digest)

            def pin_from_thread(digest: str) -> None:
                asyncio.run_coroutine_threadsafe(pin_here(digest), loop).result()

            def report(message: dict[str, object]) -> None:
                loop.call_soon_threadsafe(progress, message)

            await fed(stream, lambda source: read(images, source, contents, pin_from_thread, report))
            for plan in _plans(contents):
                lines += _create(images, plan, contents)
                wanted |= plan.blobs()
    finally:
        # what no image has come to need: of a failure all, else what the archive held beside its images
        layers = [layer.diff_id for layer in contents.layers.values()]
        images.collect(layers, [digest for digest in contents.blobs if digest not in wanted])
    return list(dict.fromkeys(lines))


def _create(images: Images, plan: _Plan, contents: Contents) -> list[str]:
    if plan.manifest is not None:
        contents.blobs.append(images.content.put(plan.manifest))
    for layer in plan.layers:
        if layer.blob is not None:
            images.remember_blob(layer.diff_id, layer.blob)
    image = images.create(plan.config, tags=plan.tags, manifest=plan.descriptor, action="load")
    return [f"Loaded image: {tag.familiar}" for tag in plan.tags] or [f"Loaded image ID: {image.id}"]


def _plans(contents: Contents) -> list[_Plan]:
    if "manifest.json" in contents.documents:
        return [_docker_plan(contents, entry) for entry in _docker_entries(contents)]
    if "index.json" in contents.documents:
        return _oci_plans(contents)
    raise Invalid("the archive has neither a manifest.json nor an index.json: it holds no image")


def _plan(config: bytes, layers: list[Layer], tags: list[Reference], manifest: bytes | None) -> _Plan:
    stated = parse_image_config(config).rootfs.diff_ids
    if len(stated) != len(layers):
        raise Invalid("invalid manifest, layers length mismatch: "
                      f"the archive gives {len(layers)} layers, the image's configuration {len(stated)}")  # fmt: skip
    for diff_id, layer in zip(stated, layers, strict=True):
        if diff_id != layer.diff_id:
            raise Invalid(f"invalid diffID for a layer of the archive: expected {diff_id}, got {layer.diff_id}")
    tags = [tag.with_default_tag() for tag in tags]
    parsed = parse_manifest(manifest) if manifest is not None else None
    if (
        isinstance(parsed, Manifest) and layers and all(layer.blob for layer in layers)
        and [each.digest for each in parsed.layers] == [layer.blob.digest for layer in layers if layer.blob]
    ):  # fmt: skip
        # the image came with the blobs that its manifest names: it can go out again as the same manifest
        assert manifest is not None
        descriptor = Descriptor(parsed.media_type or media_types.OCI_MANIFEST, Digest.of(manifest), len(manifest))
        return _Plan(config, layers, tags, manifest, descriptor)
    return _Plan(config, layers, tags, None, None)


# --- docker-archive ---


def _docker_entries(contents: Contents) -> list[dict[str, Any]]:
    try:
        entries = json.loads(contents.documents["manifest.json"])
        if not isinstance(entries, list):
            raise TypeError("expected a list")
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
                raise TypeError("Config must be a path")
            for key in ("Layers", "RepoTags"):
                if not all(isinstance(each, str) for each in entry.get(key) or []):
                    raise TypeError(f"{key} must be texts")
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the archive's manifest.json is malformed: {error}") from error
    return entries


def _docker_plan(contents: Contents, entry: dict[str, Any]) -> _Plan:
    layers = [contents.layer(path) for path in entry.get("Layers") or []]
    tags = [_tag(name) for name in entry.get("RepoTags") or []]
    config = contents.document(entry["Config"])
    named = BLOB.fullmatch(posixpath.normpath(entry["Config"]))
    if named and Digest.of(config).hex != named[2]:
        raise Invalid(f"digest mismatch: expected sha256:{named[2]}, got {Digest.of(config)}")
    return _plan(config, layers, tags, _manifest_of(contents, Digest.of(config)))


def _tag(name: str) -> Reference:
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise Invalid(f'invalid tag "{name}"')
    return reference


def _manifest_of(contents: Contents, config: str) -> bytes | None:
    """The OCI manifest beside a docker-archive's entry, where the archive is both."""
    for path, raw in contents.documents.items():
        if BLOB.fullmatch(path) and b'"layers"' in raw and config.encode() in raw:
            try:
                manifest = parse_manifest(raw)
            except BoxshipError:
                continue
            if isinstance(manifest, Manifest) and manifest.config.digest == config:
                return raw
    return None


# --- OCI layout ---


def _blob(contents: Contents, descriptor: Descriptor) -> bytes:
    data = contents.document(_path(descriptor))
    digest = Digest(descriptor.digest)
    if hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
        raise Invalid(f"digest mismatch: {descriptor.digest} in the archive is not what its name says")
    return data


def _path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _oci_plans(contents: Contents) -> list[_Plan]:
    index = parse_manifest(contents.documents["index.json"], media_types.OCI_INDEX)
    assert isinstance(index, Index)
    plans: list[_Plan] = []
    for descriptor in index.manifests:
        if _is_attestation(descriptor):
            continue
        raw = _chosen(contents, descriptor)
        manifest = parse_manifest(raw)
        assert isinstance(manifest, Manifest)
        if manifest.config.media_type not in media_types.CONFIGS:
            continue  # an artifact
        layers = [contents.layer(_path(layer)) for layer in manifest.layers]
        plans.append(_plan(_blob(contents, manifest.config), layers, _oci_names(descriptor.annotations or {}), raw))
    if not plans:
        raise Invalid("the archive's index.json names no image")
    return plans


def _is_attestation(descriptor: Descriptor) -> bool:
    """What builders put beside an image (a platform of unknown/unknown marks it)."""
    marked = "vnd.docker.reference.type" in (descriptor.annotations or {})
    return marked or (descriptor.platform is not None and descriptor.platform.os == "unknown")


def _chosen(contents: Contents, descriptor: Descriptor, depth: int = 0) -> bytes:
    """The manifest behind a descriptor: of an index, the one for this platform."""
    raw = _blob(contents, descriptor)
    manifest = parse_manifest(raw, descriptor.media_type)
    if isinstance(manifest, Manifest):
        return raw
    if depth == _INDEXES_DEEP:
        raise Invalid(f"the archive has indexes more than {_INDEXES_DEEP} deep")
    offered = [each for each in manifest.manifests if not _is_attestation(each) and _path(each) in contents.documents]
    found = choose(Platform.host(), [each.platform for each in offered])
    if found is None:
        raise Invalid(f"no matching manifest for {Platform.host()} in the archive")
    return _chosen(contents, offered[found], depth + 1)


def _oci_names(annotations: dict[str, str]) -> list[Reference]:
    """The name that an archive gives an image; a bare tag, as `org.opencontainers.image.ref.name` may be, names none."""
    whole = annotations.get("io.containerd.image.name", "")
    name = whole or annotations.get("org.opencontainers.image.ref.name", "")
    if not whole and "/" not in name and ":" not in name:
        return []
    try:
        return [Reference.parse(name)]
    except Invalid:
        return []
