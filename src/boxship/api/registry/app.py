"""The distribution API (OCI distribution-spec 1.1) over repositories."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from boxship.errors import BoxshipError, Conflict, Denied, Invalid, NotFound, Unavailable, Unsupported
from boxship.http.message import FileRange, Request, Response, json_response
from boxship.oci import media_types
from boxship.oci.descriptor import MANIFEST_LIMIT
from boxship.oci.digest import Digest
from boxship.registry.repositories import Repositories, Upload

log = logging.getLogger(__name__)

_NAME = r"(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
_REFERENCE = r"(?P<reference>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|[a-z0-9]+:[0-9a-f]{64,128})"
_DIGEST = r"(?P<digest>[a-z0-9]+:[0-9a-fA-F]{32,})"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d+)-(\d+)(?:/.*)?")
_BATCH = 1 << 20
_PAGE = 1000

Handler = Callable[[Request], Awaitable[Response]]


class RegistryAPI:
    """One handler for every request to a registry."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._content = repositories.content
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("GET", r"/v2/?", self._hello),
            ("GET", r"/v2/_catalog", self._catalog),
            ("GET", rf"/v2/{_NAME}/tags/list", self._tags),
            ("GET", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._manifest),
            ("PUT", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._put_manifest),
            ("DELETE", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._delete_manifest),
            ("GET", rf"/v2/{_NAME}/blobs/{_DIGEST}", self._blob),
            ("DELETE", rf"/v2/{_NAME}/blobs/{_DIGEST}", self._delete_blob),
            ("POST", rf"/v2/{_NAME}/blobs/uploads/?", self._begin),
            ("GET", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]+)", self._status),
            ("PATCH", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]+)", self._append),
            ("PUT", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]+)", self._finish),
            ("DELETE", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]+)", self._cancel),
            ("GET", rf"/v2/{_NAME}/referrers/{_DIGEST}", self._referrers),
        )
        self._routes = [(method, re.compile(pattern), handler) for method, pattern, handler in routes]

    async def handle(self, request: Request) -> Response:
        """Answer one request; every `BoxshipError` becomes its status and the specification's code."""
        try:
            response = await self._dispatch(request)
        except BoxshipError as error:
            log.debug("%s %s: %s", request.method, request.path, error)
            response = _failure(error)
        response.headers = {"Docker-Distribution-Api-Version": "registry/2.0", **response.headers}
        return response

    async def _dispatch(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        known = False
        for own, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            known = True
            if own == method:
                request.parameters = match.groupdict()
                return await handler(request)
        if known:
            raise Unsupported(f"the operation is unsupported: {request.method} {request.path}")
        raise NotFound(f"page not found: {request.path}")

    async def _hello(self, request: Request) -> Response:
        return json_response({})

    # --- lists ---

    async def _catalog(self, request: Request) -> Response:
        page, link = _page(request, self._repositories.names(), "/v2/_catalog")
        return _linked(json_response({"repositories": page}), link)

    async def _tags(self, request: Request) -> Response:
        name = request.parameters["name"]
        tags = sorted(self._repositories.get(name).tags)
        page, link = _page(request, tags, f"/v2/{name}/tags/list")
        return _linked(json_response({"name": name, "tags": page}), link)

    async def _referrers(self, request: Request) -> Response:
        kind = request.query.get("artifactType")
        manifests = [
            {
                "mediaType": record.media_type,
                "digest": digest,
                "size": record.size,
                **({"artifactType": record.artifact_type} if record.artifact_type else {}),
                **({"annotations": record.annotations} if record.annotations else {}),
            }
            for digest, record in self._repositories.referrers(request.parameters["name"], str(Digest(request.parameters["digest"])))
            if not kind or record.artifact_type == kind
        ]
        response = json_response({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests})
        response.headers["Content-Type"] = media_types.OCI_INDEX
        if kind:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        return response

    # --- manifests ---

    async def _manifest(self, request: Request) -> Response:
        digest, record = self._repositories.manifest(request.parameters["name"], request.parameters["reference"])
        headers = {"Content-Type": record.media_type, "Docker-Content-Digest": digest, "Etag": f'"{digest}"'}
        if request.headers.get("If-None-Match").strip('"') == digest:
            return Response(304, b"", headers)
        return Response(200, self._content.read(digest), headers)

    async def _put_manifest(self, request: Request) -> Response:
        name = request.parameters["name"]
        raw = await request.read(MANIFEST_LIMIT)
        media_type = request.headers.get("Content-Type").partition(";")[0].strip()
        digest, subject = self._repositories.put_manifest(name, request.parameters["reference"], raw, media_type)
        await self._repositories.committed()
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if subject:
            headers["OCI-Subject"] = subject
        return Response(201, b"", headers)

    async def _delete_manifest(self, request: Request) -> Response:
        self._repositories.remove_manifest(request.parameters["name"], request.parameters["reference"])
        await self._repositories.committed()
        return Response(202)

    # --- blobs ---

    async def _blob(self, request: Request) -> Response:
        digest = str(Digest(request.parameters["digest"]))
        size = self._repositories.blob(request.parameters["name"], digest)
        headers = {
            "Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, "Accept-Ranges": "bytes",
            "Etag": f'"{digest}"',
        }  # fmt: skip
        match = _RANGE.fullmatch(request.headers.get("Range"))
        if match is None:
            return Response(200, FileRange(str(self._content.path(digest)), 0, size), headers)
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first > last:
            return Response(416, b"", {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Response(206, FileRange(str(self._content.path(digest)), first, last - first + 1), headers)

    async def _delete_blob(self, request: Request) -> Response:
        self._repositories.remove_blob(request.parameters["name"], str(Digest(request.parameters["digest"])))
        await self._repositories.committed()
        return Response(202)

    # --- uploads ---

    async def _begin(self, request: Request) -> Response:
        name, mount = request.parameters["name"], request.query.get("mount")
        if mount and self._repositories.mount(name, request.query.get("from"), str(Digest(mount))):
            await self._repositories.committed()
            return self._created(name, mount)
        upload = self._repositories.begin(name)
        if request.query.get("digest"):
            await self._receive(request, upload)
            return await self._complete(upload, request.query.get("digest"))
        return self._progress(upload, 202)

    async def _status(self, request: Request) -> Response:
        return self._progress(self._upload(request), 204)

    async def _append(self, request: Request) -> Response:
        upload = self._upload(request)
        self._check_range(request, upload)
        await self._receive(request, upload)
        return self._progress(upload, 202)

    async def _finish(self, request: Request) -> Response:
        upload = self._upload(request)
        digest = request.query.get("digest")
        if not digest:
            raise Invalid("digest invalid: the parameter digest is missing")
        self._check_range(request, upload)
        await self._receive(request, upload)
        return await self._complete(upload, digest)

    async def _cancel(self, request: Request) -> Response:
        self._repositories.cancel(self._upload(request))
        return Response(204)

    def _upload(self, request: Request) -> Upload:
        return self._repositories.upload(request.parameters["name"], request.parameters["upload"])

    @staticmethod
    def _check_range(request: Request, upload: Upload) -> None:
        text = request.headers.get("Content-Range")
        if not text:
            return
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None or int(match[1]) != upload.ingest.offset:
            raise _OutOfOrder(f"blob upload invalid: expected the range to begin at {upload.ingest.offset}", upload)

    @staticmethod
    async def _receive(request: Request, upload: Upload) -> None:
        batch = bytearray()
        async for part in request.stream():
            batch += part
            if len(batch) >= _BATCH:
                await asyncio.to_thread(upload.ingest.write, bytes(batch))
                batch.clear()
        if batch:
            upload.ingest.write(bytes(batch))

    async def _complete(self, upload: Upload, digest: str) -> Response:
        self._repositories.finish(upload, str(Digest(digest)))
        await self._repositories.committed()
        return self._created(upload.repository, digest)

    @staticmethod
    def _created(name: str, digest: str) -> Response:
        return Response(201, b"", {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    @staticmethod
    def _progress(upload: Upload, status: int) -> Response:
        return Response(status, b"", _upload_headers(upload))


class _OutOfOrder(Invalid):
    """Raised for a piece of an upload that does not follow the ones before."""

    def __init__(self, message: str, upload: Upload) -> None:
        super().__init__(message)
        self.upload = upload


def _upload_headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Docker-Upload-Uuid": upload.id,
        "Range": f"0-{max(0, upload.ingest.offset - 1)}",
    }


def _page(request: Request, items: list[str], path: str) -> tuple[list[str], str]:
    """The part of a list that was asked for, and the address of the next one."""
    last, count = request.query.get("last"), request.query.number("n", _PAGE)
    if count is None or count < 0:
        raise Invalid("invalid number of results requested: n must not be negative")
    rest = [item for item in items if item > last]
    page = rest[:count]
    more = len(rest) > len(page) and page
    return page, f"{path}?last={quote(page[-1])}&n={count}" if more else ""


def _linked(response: Response, link: str) -> Response:
    if link:
        response.headers["Link"] = f'<{link}>; rel="next"'
    return response


def _failure(error: BoxshipError) -> Response:
    if isinstance(error, _OutOfOrder):
        return Response(416, b"", _upload_headers(error.upload))
    code, status = "UNKNOWN", 500
    text = error.message
    if isinstance(error, NotFound):
        status = 404
        words = {"repository": "NAME_UNKNOWN", "manifest": "MANIFEST_UNKNOWN", "blob upload": "BLOB_UPLOAD_UNKNOWN",
                 "blob": "BLOB_UNKNOWN"}  # fmt: skip
        code = next((code for prefix, code in words.items() if text.startswith(prefix)), "NAME_UNKNOWN")
    elif isinstance(error, Invalid):
        status = 400
        code = "DIGEST_INVALID" if "digest" in text else "SIZE_INVALID" if "larger" in text else "MANIFEST_INVALID"
    elif isinstance(error, Unsupported):
        code, status = "UNSUPPORTED", 405
    elif isinstance(error, Denied):
        code, status = "DENIED", 403
    elif isinstance(error, Conflict):
        code, status = "DENIED", 409
    elif isinstance(error, Unavailable):
        code, status = "UNAVAILABLE", 503
    return json_response({"errors": [{"code": code, "message": str(error), "detail": None}]}, status)
