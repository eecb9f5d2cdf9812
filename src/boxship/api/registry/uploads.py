"""Blobs pushed: in one request, in two, or in any number (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

import re

from boxship.errors import Invalid
from boxship.http.message import Request, Response
from boxship.oci.digest import Digest
from boxship.registry.faults import DigestInvalid, SizeInvalid, UploadInvalid
from boxship.registry.receiving import Receiving, Upload
from boxship.registry.repositories import Repositories

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/.*)?")


def digest_of(text: str) -> Digest:
    """Raises `DigestInvalid`."""
    try:
        return Digest(text)
    except Invalid as error:
        raise DigestInvalid(error.message, hint=error.hint) from error


def created(location: str, digest: str) -> Response:
    """The answer to what has been kept."""
    return Response(201, b"", {"Location": location, "Docker-Content-Digest": digest})


class UploadAPI:
    """The handlers of uploads."""

    def __init__(self, repositories: Repositories, receiving: Receiving) -> None:
        self._repositories = repositories
        self._receiving = receiving

    async def begin(self, request: Request) -> Response:
        """Mount a blob, or take in one that comes with the request, or open an upload."""
        self._repositories.sweep()
        name, query = request.parameters["name"], request.query
        if query.get("mount"):
            digest = digest_of(query.get("mount"))
            if self._repositories.mount(name, query.get("from"), digest):
                await self._repositories.committed()
                return created(f"/v2/{name}/blobs/{digest}", digest)
        if query.get("digest"):
            digest = digest_of(query.get("digest"))
            upload = self._receiving.open(name)
            try:
                await self._receiving.append(upload, request.stream())
            except BaseException:
                self._receiving.forget(upload)  # its sender was not told of it, and cannot go on
                raise
            return await self._finish(upload, digest)
        return Response(202, b"", self.headers(self._receiving.open(name)))

    async def status(self, request: Request) -> Response:
        """How far an upload is."""
        return Response(204, b"", self.headers(self._upload(request)))

    async def append(self, request: Request) -> Response:
        """The next piece of an upload."""
        upload = self._upload(request)
        await self._receive(request, upload)
        return Response(202, b"", self.headers(upload))

    async def finish(self, request: Request) -> Response:
        """The end of an upload, perhaps with a last piece."""
        upload = self._upload(request)
        digest = digest_of(request.query.get("digest"))
        await self._receive(request, upload)
        return await self._finish(upload, digest)

    async def cancel(self, request: Request) -> Response:
        """Drop an upload."""
        await self._receiving.cancel(self._upload(request))
        return Response(204)

    def _upload(self, request: Request) -> Upload:
        return self._receiving.get(request.parameters["name"], request.parameters["upload"])

    async def _receive(self, request: Request, upload: Upload) -> None:
        start, length = _stated(request)
        before = upload.offset
        await self._receiving.append(upload, request.stream(), start)
        if length is not None and upload.offset - before != length:
            raise SizeInvalid(f"the piece states a range of {length} bytes and has {upload.offset - before}")

    async def _finish(self, upload: Upload, digest: Digest) -> Response:
        await self._receiving.finish(upload, digest)
        self._repositories.link(upload.repository, digest)
        await self._repositories.committed()
        return created(f"/v2/{upload.repository}/blobs/{digest}", digest)

    @staticmethod
    def headers(upload: Upload) -> dict[str, str]:
        """Where an upload goes on."""
        return {
            "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
            "Docker-Upload-Uuid": upload.id,
            "Range": f"0-{max(0, upload.offset - 1)}",
        }


def _stated(request: Request) -> tuple[int | None, int | None]:
    """Where a piece says that it begins, and how long it is; raises `UploadInvalid`."""
    text = request.headers.get("Content-Range")
    if not text:
        return None, None
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        raise UploadInvalid(f"malformed Content-Range {text[:100]!r}", hint="use <first byte>-<last byte>")
    start = int(match[1])
    return start, int(match[2]) + 1 - start
