"""Descriptors, manifests and indexes (OCI image-spec: descriptor.md, manifest.md, image-index.md).

A manifest keeps its raw bytes beside it: a digest is never computed from re-encoded JSON.
"""

from __future__ import annotations

import msgspec

from boxship.errors import Invalid
from boxship.oci import media_types
from boxship.oci.digest import Digest
from boxship.oci.platform import Platform

MANIFEST_LIMIT = 4 * 1024 * 1024
"""The largest manifest or index accepted, in bytes (distribution-spec, "Pushing manifests")."""


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What a blob is, how large, and its digest."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        Digest(self.digest)
        if self.size < 0:
            raise Invalid(f"descriptor {self.digest} has a negative size {self.size}")


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One image of one platform: its configuration and its layers, lowest first."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The same image for several platforms."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index; raises `Invalid` for schema 1, oversized or malformed documents."""
    if len(raw) > MANIFEST_LIMIT:
        raise Invalid(f"manifest of {len(raw)} bytes is larger than the limit of {MANIFEST_LIMIT}")
    try:
        probe = msgspec.json.decode(raw, type=_Probe)
        if probe.schema_version != 2:
            raise Invalid(
                f"manifest has schema version {probe.schema_version}, which is not supported",
                hint="push the image again with a current client, as schema 2 or OCI",
            )
        is_index = (media_type or probe.media_type) in media_types.INDEXES or probe.manifests is not None
        if is_index:
            return msgspec.json.decode(raw, type=Index)
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"malformed manifest: {error}") from error


class _Probe(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str | None = None
    manifests: list[msgspec.Raw] | None = None
