"""Blobs that are being pushed to us, piece by piece, over any number of requests."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from boxship.content.store import ContentStore, Ingest
from boxship.errors import Invalid, Unavailable
from boxship.oci.digest import Digest
from boxship.registry.faults import DigestInvalid, TooManyRequests, UploadInvalid, UploadUnknown
from boxship.registry.threads import Behind, begin, settled

EXPIRY_SECONDS = 3600.0
"""How long an upload is kept on which nothing comes."""

_MOST = 256
"""How many uploads may be open: each holds a file."""


@dataclass(slots=True)
class Upload:
    """A blob being pushed."""

    id: str
    repository: str
    ingest: Ingest
    touched: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def offset(self) -> int:
        """How many bytes are here."""
        return self.ingest.offset


class OutOfOrder(UploadInvalid):
    """Raised for a piece of an upload that does not follow the ones before."""

    def __init__(self, upload: Upload, start: int) -> None:
        super().__init__(f"the piece begins at byte {start}, the upload goes on at byte {upload.offset}")
        self.upload = upload


class Receiving:
    """The uploads that are open."""

    def __init__(self, content: ContentStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._content = content
        self._clock = clock
        self._uploads: dict[str, Upload] = {}

    def open(self, repository: str) -> Upload:
        """Begin an upload; raises `TooManyRequests`, `Unavailable`."""
        self._expire()
        if len(self._uploads) >= _MOST:
            raise TooManyRequests(f"{_MOST} uploads are open already")
        identity = secrets.token_hex(16)
        upload = Upload(identity, repository, self._content.ingest(f"upload-{identity}"), self._clock())
        self._uploads[identity] = upload
        return upload

    def get(self, repository: str, identity: str) -> Upload:
        """Raises `UploadUnknown` for one that is not, or has expired."""
        self._expire()
        upload = self._uploads.get(identity)
        if upload is None or upload.repository != repository:
            raise UploadUnknown(f"blob upload unknown to registry: {identity}")
        upload.touched = self._clock()
        return upload

    async def append(self, upload: Upload, stream: AsyncIterator[bytes], start: int | None = None) -> None:
        """Take in what comes; `start` is where its sender believes to be.

        What has come of a piece that breaks off is kept. Raises `OutOfOrder`, `UploadUnknown`, `Unavailable`.
        """
        async with self._held(upload):
            if start is not None and start != upload.offset:
                raise OutOfOrder(upload, start)
            try:
                async with Behind(upload.ingest.write) as writer:
                    async for part in stream:
                        await writer.take(part)
            except Unavailable:
                self._drop(upload)  # there is no room for it: that of others is not to be held
                raise
            finally:
                upload.touched = self._clock()

    async def finish(self, upload: Upload, digest: Digest) -> None:
        """Verify and keep it; raises `DigestInvalid`, `UploadUnknown`, `Unavailable`. The upload is over in any case."""
        async with self._held(upload):
            del self._uploads[upload.id]
            try:
                await settled(begin(_commit, upload.ingest, digest))
            except Invalid as error:
                raise DigestInvalid(f"provided digest did not match uploaded content: {error.message}") from error

    async def cancel(self, upload: Upload) -> None:
        """Drop it; raises `UploadUnknown`."""
        async with self._held(upload):
            self._drop(upload)

    def forget(self, upload: Upload) -> None:
        """Drop it, where it is still there."""
        if upload.id in self._uploads:
            self._drop(upload)

    def close(self) -> None:
        """Drop all that is unfinished."""
        for upload in list(self._uploads.values()):
            self._drop(upload)

    def _held(self, upload: Upload) -> _Held:
        return _Held(self._uploads, upload)

    def _drop(self, upload: Upload) -> None:
        self._uploads.pop(upload.id, None)
        with upload.ingest as ingest:
            ingest.abort()

    def _expire(self) -> None:
        old = self._clock() - EXPIRY_SECONDS
        for upload in [upload for upload in self._uploads.values() if upload.touched < old and not upload.lock.locked()]:
            self._drop(upload)


class _Held:
    """An upload for one request alone: two that write at once would mix their bytes."""

    def __init__(self, uploads: dict[str, Upload], upload: Upload) -> None:
        self._uploads = uploads
        self._upload = upload

    async def __aenter__(self) -> None:
        await self._upload.lock.acquire()
        if self._upload.id not in self._uploads:
            self._upload.lock.release()
            raise UploadUnknown(f"blob upload unknown to registry: {self._upload.id}")

    async def __aexit__(self, *_: object) -> None:
        self._upload.lock.release()


def _commit(ingest: Ingest, digest: Digest) -> None:
    with ingest:
        ingest.expect(digest)
        ingest.commit()
