"""What the image store keeps and tells."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from boxship.oci.descriptor import Descriptor
from boxship.oci.digest import Digest
from boxship.oci.image_config import ImageConfig
from boxship.oci.reference import Reference


class ImageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image as it is journalled; its configuration's bytes are in the content store under the id."""

    id: str
    layers: list[str]
    manifest: Descriptor | None = None
    parent: str = ""
    built: bool = False
    tagged_at: int = 0


class LayerBlob(msgspec.Struct, frozen=True):
    """The compressed form of a layer, for pushing."""

    descriptor: Descriptor


class Name(msgspec.Struct, frozen=True):
    """What a reference names."""

    image: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image: `layers` are diff ids, lowest first; `size` counts the bytes of their tars."""

    id: Digest
    config: ImageConfig
    raw: bytes
    layers: tuple[Digest, ...]
    tags: tuple[Reference, ...]
    digests: tuple[Reference, ...]
    size: int
    manifest: Descriptor | None
    parent: str

    @property
    def created(self) -> str:
        return self.config.created or "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Removed:
    """One step of a removal: a name taken away, or an image deleted."""

    untagged: str | None = None
    deleted: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    id: str
    created: str
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...]
