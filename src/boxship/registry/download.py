"""One layer from a registry into the stores: unpacked as it comes, and continued where it was cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from boxship.errors import Invalid, Unavailable
from boxship.images.store import Images
from boxship.images.unpack import Unpacker
from boxship.oci.descriptor import Descriptor
from boxship.registry.failures import Passing, raise_for
from boxship.registry.manifests import pull_scope
from boxship.registry.session import ATTEMPTS, Session, read_answer
from boxship.registry.threads import Behind, begin, settled

_BATCH = 1 << 20
"""How many bytes are handed to the unpacking thread at once."""

_REPORT_SECONDS = 0.1

Report = Callable[[str, int], None]
"""Told a status and how many bytes of the blob are here."""


class Download:
    """A layer on its way from one repository."""

    def __init__(self, images: Images, session: Session, repository: str, layer: Descriptor, diff_id: str, report: Report) -> None:
        self._images = images
        self._session = session
        self._repository = repository
        self._layer = layer
        self._diff_id = diff_id
        self._report = report

    async def run(self) -> None:
        """Fetch and unpack. Raises `NotFound`, `Denied`, `Invalid`, `Unavailable`; what has come is kept where that helps."""
        attempt, restarted = 0, False
        while True:
            async with self._unpacker() as unpacker:
                before = unpacker.offset
                try:
                    await self._attempt(unpacker)
                    return
                except Passing as trouble:
                    attempt = 1 if unpacker.offset > before else attempt + 1
                    if attempt >= ATTEMPTS:
                        raise
                    asked = trouble.after
                except Unavailable:
                    unpacker.abandon()  # there may be no room for more of it
                    raise
                except Invalid:
                    unpacker.abandon()
                    if restarted or not before:
                        raise
                    # a remainder of long ago may be at fault: once more, from the beginning
                    attempt, asked, restarted = 1, 0.0, True
            await self._session.pause(attempt - 1, asked)

    @asynccontextmanager
    async def _unpacker(self) -> AsyncIterator[Unpacker]:
        opening = begin(Unpacker, self._images, self._layer, self._diff_id)
        try:
            unpacker = await settled(opening)
        except asyncio.CancelledError:
            if opening.done() and opening.exception() is None:
                opening.result().__exit__(None, None, None)
            raise
        with unpacker:
            yield unpacker

    async def _attempt(self, unpacker: Unpacker) -> None:
        if unpacker.offset:
            await settled(begin(unpacker.replay))
        if unpacker.offset < self._layer.size:
            if self._layer.digest in self._images.content:
                await settled(begin(self._copy, unpacker))
            else:
                await self._stream(unpacker)
        for status in ("Verifying Checksum", "Download complete", "Extracting"):
            self._report(status, self._layer.size)
        await settled(begin(unpacker.commit))
        unpacker.remember()

    def _copy(self, unpacker: Unpacker) -> None:
        """The blob is in the store already, for another's sake."""
        with self._images.content.open(self._layer.digest) as blob:
            blob.seek(unpacker.offset)
            while data := blob.read(_BATCH):
                unpacker.feed(data)

    async def _stream(self, unpacker: Unpacker) -> None:
        """Download what is missing; one batch is unpacked on a thread while the next one comes."""
        start = unpacker.offset
        headers = {"Range": f"bytes={start}-"} if start else {}
        target = f"/v2/{self._repository}/blobs/{self._layer.digest}"
        async with self._session.stream("GET", target, scope=pull_scope(self._repository), headers=headers) as response:
            if response.status_code >= 300:
                raise_for(await read_answer(response))
            async with Behind(unpacker.feed, _BATCH) as feeder:
                await self._receive(response, start, feeder)
        if unpacker.offset < self._layer.size:
            raise Passing(f"layer {self._layer.digest} was cut off after {unpacker.offset} of {self._layer.size} bytes")

    async def _receive(self, response: httpx.Response, start: int, feeder: Behind) -> None:
        # a registry that knows no ranges sends all: what is here already is passed over
        skip = start if response.status_code != 206 else 0
        if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise Unavailable(f"asked for layer {self._layer.digest} from byte {start} on, the registry sent another part of it")
        received, reported = start - skip, 0.0
        async for chunk in response.aiter_raw():
            received += len(chunk)
            if skip:
                cut = min(skip, len(chunk))
                skip -= cut
                chunk = chunk[cut:]  # noqa: PLW2901
            await feeder.take(chunk)
            now = time.monotonic()
            if now - reported >= _REPORT_SECONDS:
                reported = now
                self._report("Downloading", min(received, self._layer.size))
