"""One blob from the store into a repository (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlencode

import httpx

from boxship.content.store import ContentStore
from boxship.errors import BoxshipError, Invalid, NotFound, Unavailable
from boxship.oci.descriptor import Descriptor
from boxship.registry.failures import Answer, Passing, raise_for
from boxship.registry.session import ATTEMPTS, Session, read_answer

_CHUNK = 1 << 20
_REPORT_SECONDS = 0.1

Report = Callable[[int], None]
"""Told how many bytes have been sent."""


class Uploads:
    """Blobs on their way to one repository."""

    def __init__(self, content: ContentStore, session: Session, repository: str) -> None:
        self._content = content
        self._session = session
        self._uploads = f"/v2/{repository}/blobs/uploads/"
        self._blobs = f"/v2/{repository}/blobs/"
        self.scope = f"repository:{repository}:pull,push"

    async def exists(self, blob: Descriptor) -> bool:
        """Whether the repository has it; raises `Denied`, `Unavailable`."""
        answer = await self._session.request("HEAD", f"{self._blobs}{blob.digest}", scope=self.scope, check=False)
        if answer.status in (401, 403):
            raise_for(answer)
        return answer.status == 200

    async def mount(self, blob: Descriptor, sources: Sequence[str]) -> tuple[str | None, str | None]:
        """Ask the registry to take a blob over from another repository of its own (distribution-spec, "Mounting a blob").

        The source that it took it from, if any; otherwise, where it began an upload instead, if it did.
        """
        location: str | None = None
        for source in sources:
            target = f"{self._uploads}?{urlencode({'mount': blob.digest, 'from': source})}"
            try:
                answer = await self._session.request("POST", target, scope=f"{self.scope} repository:{source}:pull", check=False)
            except BoxshipError:
                continue  # what the other repository has to say; how this one is, is seen soon enough
            if answer.status == 201:
                return source, None
            if answer.status == 202:
                if location is not None:
                    await self._session.request("DELETE", location, scope=self.scope, check=False)
                location = _location(answer)
        return None, location

    async def send(self, blob: Descriptor, report: Report | None, location: str | None = None) -> None:
        """Upload in one piece, from the beginning after each failure; raises `Denied`, `Invalid`, `Unavailable`."""
        attempt = 0
        while True:
            try:
                await self._send(blob, report, location or await self._begin())
                return
            except Passing as trouble:
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
                asked = trouble.after
            except NotFound as error:
                # the upload has expired, or is of a registry that has been started anew
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise Unavailable(f"the registry loses the uploads of blob {blob.digest}: {error.message}") from error
                asked = None
            location = None
            await self._session.pause(attempt - 1, asked)

    async def _begin(self) -> str:
        return _location(await self._session.request("POST", self._uploads, scope=self.scope))

    async def _send(self, blob: Descriptor, report: Report | None, location: str) -> None:
        # appended, for what stands there may be signed as it is
        target = f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': blob.digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        async with self._session.stream(
            "PUT", target, scope=self.scope, headers=headers, body=lambda: self._pieces(blob, report)
        ) as response:
            raise_for(await read_answer(response))

    async def _pieces(self, blob: Descriptor, report: Report | None) -> AsyncIterator[bytes]:
        sent, reported = 0, 0.0
        with self._content.open(blob.digest) as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk
                sent += len(chunk)
                now = time.monotonic()
                if report is not None and now - reported >= _REPORT_SECONDS:
                    reported = now
                    report(sent)


def _location(answer: Answer) -> str:
    location = answer.headers.get("Location", "")
    if not location:
        raise Invalid("the registry began an upload without saying where")
    try:
        return str(answer.url.join(location))
    except httpx.InvalidURL:
        raise Invalid(f"the registry began an upload at an address that is not sound: {location[:200]!r}") from None
