"""A root filesystem's tar becomes an image of one layer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

from boxship.errors import BoxshipError, Invalid
from boxship.images.changes import apply_changes
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci.digest import Digest
from boxship.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.snapshots.compression import decompressed
from boxship.snapshots.streaming import fed

_CHUNK = 1 << 20


async def import_tar(
    images: Images, stream: AsyncIterator[bytes], reference: Reference | None, changes: Sequence[str], message: str,
    platform: Platform | None,
) -> Image:  # fmt: skip
    """Make an image of a tar, compressed or not; `changes` are Dockerfile instructions.

    Raises `Invalid`, and `Unavailable` where the disk is full; nothing stays then.
    """
    config = apply_changes(ExecutionConfig(), list(changes))

    def unpack(source: BinaryIO) -> Digest:
        with images.snapshotter.writer(keep=True) as writer:
            plain = decompressed(source)
            if not (data := plain.read(_CHUNK)):
                raise Invalid("the root filesystem's tar is empty")
            while data:
                writer.write(data)
                data = plain.read(_CHUNK)
            return writer.commit()

    layer = await fed(stream, unpack)
    own = platform or Platform.host()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document = ImageConfig(
        own.architecture, own.os, RootFS("layers", [layer]), created=now, config=config,
        history=[History(created=now, comment=message or "Imported from -")], variant=own.variant or "",
    )  # fmt: skip
    try:
        return images.create(document.encode(), tags=[reference] if reference else [], action="import")
    except BoxshipError:
        images.collect([layer], [])
        raise
