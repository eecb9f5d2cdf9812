"""A root filesystem's tar becomes an image of one layer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

import httpx

from boxship.errors import BoxshipError, Invalid, Unavailable
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
_DOWNLOAD_SECONDS = 60


async def download(url: str, progress: Callable[[dict[str, object]], None]) -> AsyncIterator[bytes]:
    """What is at a URL, told as it comes; without a scheme it is HTTP. Raises `Invalid`, `Unavailable`."""
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"cannot import from {url!r}", hint="expected a URL of http or https, or - for standard input")
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=_DOWNLOAD_SECONDS) as client, client.stream("GET", url) as response
        ):  # fmt: skip
            if response.status_code >= 400:
                raise Invalid(f"failed to download {url}: {response.status_code} {response.reason_phrase}")
            progress({"status": f"Downloading from {url}"})
            current, total = 0, int(response.headers.get("Content-Length") or 0)
            async for part in response.aiter_raw(_CHUNK):
                current += len(part)
                progress({"status": "Importing", "progressDetail": {"current": current, "total": total}})
                yield part
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"failed to download {url}: {error}") from error


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
