"""Steps done before: found again by what they stood on and what they did."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import msgspec

from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci.image_config import History
from boxship.state.database import Database

_TOUCH_NS = 60 * 1_000_000_000


class CacheEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's result: its layer (empty for none) and when it was made (RFC 3339); times in nanoseconds since 1970."""

    layer: str
    created: str
    description: str
    last_used: int
    uses: int = 1


class BuildCache:
    """Results by key. A key covers the image a step stands on, the instruction, and the contents it copies."""

    def __init__(self, images: Images, database: Database) -> None:
        self._images = images
        self._entries = database.collection("build cache", CacheEntry)

    @staticmethod
    def key(parent: str, *parts: str) -> str:
        return hashlib.sha256("\0".join((parent, *parts)).encode("utf-8", "surrogateescape")).hexdigest()

    def find(self, key: str) -> CacheEntry | None:
        """The result of a step; None where there is none, or its layer has gone."""
        entry = self._entries.get(key)
        if entry is None or (entry.layer and not self._images.snapshotter.has_layer(entry.layer)):
            return None
        now = time.time_ns()
        if now - entry.last_used > _TOUCH_NS:
            self._entries.put(key, msgspec.structs.replace(entry, last_used=now, uses=entry.uses + 1))
        return entry

    def put(self, key: str, layer: str, created: str, description: str) -> None:
        self._entries.put(key, CacheEntry(layer, created, description, time.time_ns()))

    def layers(self) -> set[str]:
        """The layers that are kept for later builds."""
        return {entry.layer for entry in self._entries.all.values() if entry.layer}

    def entries(self) -> list[tuple[str, CacheEntry]]:
        return list(self._entries.all.items())

    def forget(self, keys: Sequence[str]) -> list[str]:
        """Drop these entries; the layers that they kept."""
        layers = {entry.layer for key in keys if (entry := self._entries.get(key)) is not None and entry.layer}
        for key in keys:
            self._entries.delete(key)
        return list(layers)


def in_image(images: Sequence[Image], layers: list[str], history: list[History], created_by: str) -> CacheEntry | None:
    """The result of a step in one of the images given as cache: one that was made in the same way up to there."""
    for image in images:
        steps = image.config.history or []
        if len(steps) <= len(history) or list(image.layers[: len(layers)]) != layers:
            continue
        same = all(a.created_by == b.created_by for a, b in zip(history, steps, strict=False))
        step = steps[len(history)]
        if same and step.created_by == created_by:
            layer = "" if step.empty_layer else str(image.layers[len(layers)])
            return CacheEntry(layer, step.created or image.created, created_by, time.time_ns())
    return None
