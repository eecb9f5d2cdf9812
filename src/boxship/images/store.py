"""Images by name and id."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from boxship.content.store import STALE_SECONDS, ContentStore
from boxship.errors import Conflict, Invalid, NotFound
from boxship.events.bus import Events
from boxship.images.model import HistoryEntry, Image, ImageRecord, LayerBlob, Name, Removed
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor
from boxship.oci.digest import Digest
from boxship.oci.image_config import parse_image_config
from boxship.oci.reference import Reference
from boxship.snapshots.compression import decompressed, gzip_compressor
from boxship.snapshots.contract import Snapshotter
from boxship.state.database import Database

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_COPY = 1 << 20

InUse = Callable[[str], list[tuple[str, bool]]]


class Images:
    """Names, images, and the layers they stand on. An id is the digest of the configuration."""

    def __init__(self, content: ContentStore, snapshotter: Snapshotter, database: Database, events: Events) -> None:
        self.content = content
        self.snapshotter = snapshotter
        self._events = events
        self._database = database
        self._records = database.collection("images", ImageRecord)
        self._tags = database.collection("tags", Name)
        self._digests = database.collection("repository digests", Name)
        self._blobs = database.collection("layer blobs", LayerBlob)
        self._cache: dict[str, Image] = {}
        self._pinned: Counter[str] = Counter()
        self.in_use: InUse = lambda _: []
        self.protected: Callable[[], set[str]] = set
        """The blobs and layers that others keep in the same stores."""

    # --- finding ---

    def find(self, name: str) -> Image | None:
        """The image of that reference, id or unique prefix of an id; raises `Invalid` for an ambiguous one."""
        with contextlib.suppress(Invalid):
            reference = Reference.parse(name)
            if reference.digest is not None:
                named = self._digests.get(str(reference.with_digest(reference.digest)))
            else:
                named = self._tags.get(str(reference.with_default_tag()))
            if named is not None:
                return self._image(named.image)
        match = _ID.fullmatch(name)
        if match is None:
            return None
        full = f"sha256:{match[1]}"
        if full in self._records:
            return self._image(full)
        found = [image_id for image_id in self._records.all if image_id.startswith(full)]
        if len(found) > 1:
            raise Invalid(f"ambiguous image id prefix {name!r}: it fits {len(found)} images")
        return self._image(found[0]) if found else None

    def get(self, name: str) -> Image:
        """The same; raises `NotFound`."""
        image = self.find(name)
        if image is None:
            shown = name
            with contextlib.suppress(Invalid):
                if not _ID.fullmatch(name):
                    shown = Reference.parse(name).with_default_tag().familiar
            raise NotFound(f"No such image: {shown}")
        return image

    def all(self) -> list[Image]:
        """Every image, newest first."""
        images = [self._image(image_id) for image_id in self._records.all]
        return sorted(images, key=lambda image: image.created, reverse=True)

    def _image(self, image_id: str) -> Image:
        image = self._cache.get(image_id)
        if image is None:
            record = self._records.get(image_id)
            if record is None:
                raise NotFound(f"No such image: {image_id}")
            raw = self.content.read(image_id)
            image = self._cache[image_id] = Image(
                Digest(record.id),
                parse_image_config(raw),
                raw,
                tuple(Digest(layer) for layer in record.layers),
                tuple(Reference.parse(name) for name in sorted(name for name, n in self._tags.all.items() if n.image == image_id)),
                tuple(
                    Reference.parse(name) for name in sorted(name for name, n in self._digests.all.items() if n.image == image_id)
                ),
                sum(self.snapshotter.layer_size(layer) for layer in record.layers),
                record.manifest,
                record.parent,
            )
        return image

    # --- making ---

    def create(
        self, raw_config: bytes, *, parent: str = "", tags: Sequence[Reference] = (), manifest: Descriptor | None = None,
        action: str | None = None, built: bool = False,
    ) -> Image:  # fmt: skip
        """Make an image of a configuration whose layers are in the snapshotter; raises `NotFound`, `Invalid`."""
        config = parse_image_config(raw_config)
        for layer in config.rootfs.diff_ids:
            if not self.snapshotter.has_layer(layer):
                raise NotFound(f"layer {layer} is not here")
        image_id = self.content.put(raw_config)
        existing = self._records.get(image_id)
        with self._database.transaction():
            if existing is None or (manifest is not None and existing.manifest is None):
                record = ImageRecord(
                    image_id, config.rootfs.diff_ids, manifest, parent or (existing.parent if existing else ""), built
                )
                self._records.put(image_id, record)
                self._cache.pop(image_id, None)
            for reference in tags:
                self._name(image_id, reference)
        image = self._image(image_id)
        if action:
            self._events.publish("image", action, image_id, name=tags[0].familiar if tags else image_id)
        return image

    def register(self, manifest: Descriptor, config: bytes, reference: Reference, digest: str | None) -> Image:
        """Make the image of a manifest that was pulled; `digest` is what the reference resolved to."""
        names = [reference.with_default_tag()] if reference.digest is None else []
        image = self.create(config, tags=names, manifest=manifest)
        if digest is not None:
            self._digests.put(str(reference.with_digest(Digest(digest))), Name(image.id))
            self._cache.pop(image.id, None)
        return self._image(image.id)

    def record_digest(self, image: Image, reference: Reference, manifest: Descriptor) -> None:
        """Note under which digest an image stands in a repository to which it was pushed."""
        self._digests.put(str(reference.with_digest(Digest(manifest.digest))), Name(image.id))
        self._cache.pop(image.id, None)

    def tag(self, image: Image, reference: Reference) -> None:
        """Name an image; raises `Invalid` for a reference with a digest."""
        if reference.digest is not None:
            raise Invalid("refusing to create a tag with a digest reference")
        self._name(image.id, reference)
        self._events.publish("image", "tag", image.id, name=reference.with_default_tag().familiar)

    def _name(self, image_id: str, reference: Reference) -> None:
        name = str(reference.with_default_tag())
        before = self._tags.get(name)
        if before is not None and before.image != image_id:
            self._cache.pop(before.image, None)
        self._tags.put(name, Name(image_id))
        record = self._records.get(image_id)
        if record is not None:
            self._records.put(
                image_id,
                ImageRecord(record.id, record.layers, record.manifest, record.parent, record.built, time.time_ns()),
            )
        self._cache.pop(image_id, None)

    def last_tagged(self, image: Image) -> int:
        """When it was last named, in nanoseconds since 1970; 0 for never."""
        record = self._records.get(image.id)
        return record.tagged_at if record else 0

    # --- layers ---

    @contextmanager
    def pinned(self) -> Iterator[Callable[[str], None]]:
        """Keep blobs and layers from being collected while they have no image yet: call it with each digest."""
        mine: list[str] = []

        def pin(digest: str) -> None:
            mine.append(digest)
            self._pinned[digest] += 1

        try:
            yield pin
        finally:
            for digest in mine:
                self._pinned[digest] -= 1
                if not self._pinned[digest]:
                    del self._pinned[digest]

    def remember_blob(self, diff_id: str, descriptor: Descriptor) -> None:
        """Note which compressed blob a layer came from, or was compressed to."""
        self._blobs.put(diff_id, LayerBlob(descriptor))

    def known_blob(self, diff_id: str) -> Descriptor | None:
        blob = self._blobs.get(diff_id)
        return blob.descriptor if blob is not None else None

    def layer_tar(self, diff_id: str) -> BinaryIO:
        """A layer's exact tar, whatever the storage driver; raises `NotFound`."""
        try:
            return self.snapshotter.open_layer(diff_id)
        except NotFound:
            blob = self._blobs.get(diff_id)
            if blob is None:
                raise
            return decompressed(self.content.open(blob.descriptor.digest), owned=True)

    def compress_layer(self, diff_id: str) -> Descriptor:
        """The compressed blob of a layer, made where there is none yet: gzip, the same bytes each time.

        May run on any thread; `remember_blob` is the caller's.
        """
        known = self.known_blob(diff_id)
        if known is not None and known.digest in self.content:
            return known
        compressor = gzip_compressor()
        with self.layer_tar(diff_id) as tar, self.content.ingest(f"gzip-{diff_id}-{time.monotonic_ns()}") as ingest:
            while chunk := tar.read(_COPY):
                ingest.write(compressor.compress(chunk))
            ingest.write(compressor.flush())
            digest = ingest.commit()
        return Descriptor(media_types.DOCKER_LAYER_GZIP, digest, self.content.size(digest))

    def history(self, image: Image) -> list[HistoryEntry]:
        """The steps of an image's making, latest first."""
        sizes = iter([self.snapshotter.layer_size(layer) for layer in image.layers])
        entries: list[HistoryEntry] = []
        steps = image.config.history or []
        missing = len(image.layers) - sum(1 for step in steps if not step.empty_layer)
        for _ in range(missing):
            entries.append(HistoryEntry("<missing>", image.created, "", "", next(sizes, 0), ()))
        for step in steps:
            size = 0 if step.empty_layer else next(sizes, 0)
            entries.append(HistoryEntry("<missing>", step.created or "", step.created_by, step.comment, size, ()))
        entries.reverse()
        ancestor: Image | None = image
        for index, entry in enumerate(entries):
            if ancestor is None:
                break
            names = tuple(reference.familiar for reference in ancestor.tags)
            entries[index] = HistoryEntry(ancestor.id, entry.created, entry.created_by, entry.comment, entry.size, names)
            ancestor = self._image(ancestor.parent) if ancestor.parent in self._records else None
        return entries

    # --- removing ---

    def remove(self, name: str, *, force: bool = False, prune_parents: bool = True) -> list[Removed]:
        """Take a name away, and the image where it was the last; raises `NotFound`, `Conflict` in Docker's words."""
        image = self.get(name)
        by_id = bool(_ID.fullmatch(name)) and self._named_exactly(name) is None
        names = [str(reference) for reference in image.tags]
        if not by_id:
            reference = self._named_exactly(name)
            assert reference is not None
            if reference.digest is not None:
                return self._remove_digest(image, reference, force=force, prune_parents=prune_parents)
            if len(names) > 1:
                return self._untag(image, reference)
            users = self.in_use(image.id)
            if users and not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force)'
                    f" - container {users[0][0][:12]} is using its referenced image {image.id.short}"
                )
            if users:
                return self._untag(image, reference)
        elif len({reference.name for reference in image.tags}) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {image.id.short} (must be forced) - image is referenced in multiple repositories"
            )
        self._refuse_in_use(image, force=force)
        removed = [gone for reference in image.tags for gone in self._untag(image, reference)]
        return removed + self._delete(image, prune_parents=prune_parents)

    def _named_exactly(self, name: str) -> Reference | None:
        with contextlib.suppress(Invalid):
            reference = Reference.parse(name)
            if reference.digest is not None:
                return reference if str(reference.with_digest(reference.digest)) in self._digests else None
            reference = reference.with_default_tag()
            return reference if str(reference) in self._tags else None
        return None

    def _remove_digest(self, image: Image, reference: Reference, *, force: bool, prune_parents: bool) -> list[Removed]:
        if not image.tags and len(image.digests) == 1:
            self._refuse_in_use(image, force=force)
            return self._delete(image, prune_parents=prune_parents)
        assert reference.digest is not None
        self._digests.delete(str(reference.with_digest(reference.digest)))
        self._cache.pop(image.id, None)
        return [Removed(untagged=reference.familiar)]

    def _refuse_in_use(self, image: Image, *, force: bool) -> None:
        for container, running in self.in_use(image.id):
            if running:
                raise Conflict(
                    f"conflict: unable to delete {image.id.short} (cannot be forced)"
                    f" - image is being used by running container {container[:12]}"
                )
            if not force:
                raise Conflict(
                    f"conflict: unable to delete {image.id.short} (must be forced)"
                    f" - image is being used by stopped container {container[:12]}"
                )
        if any(record.parent == image.id for record in self._records.all.values()) and not image.tags:
            raise Conflict(f"conflict: unable to delete {image.id.short} (cannot be forced) - image has dependent child images")

    def _untag(self, image: Image, reference: Reference) -> list[Removed]:
        """Take a tag away, and with a repository's last tag what it is called there by digest."""
        self._tags.delete(str(reference.with_default_tag()))
        gone = [Removed(untagged=reference.with_default_tag().familiar)]
        if not any(name.startswith(f"{reference.name}:") and n.image == image.id for name, n in self._tags.all.items()):
            for digest in image.digests:
                if digest.name == reference.name and str(digest) in self._digests:
                    self._digests.delete(str(digest))
                    gone.append(Removed(untagged=digest.familiar))
        self._cache.pop(image.id, None)
        self._events.publish("image", "untag", image.id, name=image.id)
        return gone

    def _delete(self, image: Image, *, prune_parents: bool) -> list[Removed]:
        if any(record.parent == image.id for record in self._records.all.values()) or self.in_use(image.id):
            return []  # it lives on without a name, for those who stand on it
        removed: list[Removed] = []
        with self._database.transaction():
            for reference in image.digests:
                if str(reference) in self._digests:
                    self._digests.delete(str(reference))
                    removed.append(Removed(untagged=reference.familiar))
            self._records.delete(image.id)
        self._cache.pop(image.id, None)
        self._events.publish("image", "delete", image.id, name=image.id)
        removed.append(Removed(deleted=image.id))
        if prune_parents and image.parent in self._records:
            parent = self._image(image.parent)
            if not parent.tags and not self.in_use(parent.id):
                removed += self._delete(parent, prune_parents=True)
        self.collect([*image.layers], [image.id, *([image.manifest.digest] if image.manifest else [])])
        return removed

    def prune(self, accept: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        """Remove the unused images that `accept` takes; what was removed, and the bytes freed."""
        before = self.disk_usage()
        removed: list[Removed] = []
        for image in self.all():
            parent_of = any(record.parent == image.id for record in self._records.all.values())
            if not self.in_use(image.id) and not (parent_of and not image.tags) and accept(image):
                removed += [gone for reference in image.tags for gone in self._untag(image, reference)]
                removed += self._delete(self._image(image.id), prune_parents=True)
        return removed, max(0, before - self.disk_usage())

    def collect(self, layers: Sequence[str], blobs: Sequence[str]) -> None:
        """Drop those of the layers and blobs named that no image has any more."""
        used = {layer for record in self._records.all.values() for layer in record.layers}
        protected = self.protected()
        kept = {record.manifest.digest for record in self._records.all.values() if record.manifest} | protected
        kept |= {blob.descriptor.digest for layer in used if (blob := self._blobs.get(layer)) is not None}
        for layer in layers:
            if layer not in used and layer not in protected and layer not in self._pinned:
                self.snapshotter.remove_layer(layer)
                blob = self._blobs.get(layer)
                self._blobs.delete(layer)
                if blob is not None and blob.descriptor.digest not in kept and blob.descriptor.digest not in self._pinned:
                    self.content.delete(blob.descriptor.digest)
        for digest in blobs:
            if digest not in kept and digest not in self._records and digest not in self._pinned:
                self.content.delete(digest)

    def collect_stale(self) -> None:
        """Drop the layers that no image came to have, a week after their pull or build broke off; only where none goes on."""
        self.collect(self.snapshotter.layers(older_than=STALE_SECONDS), [])

    def disk_usage(self) -> int:
        """Bytes of every layer that an image has, each counted once."""
        layers = {layer for record in self._records.all.values() for layer in record.layers}
        return sum(self.snapshotter.layer_size(layer) for layer in layers)

    def shared_by(self) -> Counter[str]:
        """How many images stand on each layer."""
        return Counter(layer for record in self._records.all.values() for layer in set(record.layers))

    def containers_of(self, image: Image) -> int:
        return len(self.in_use(image.id))
