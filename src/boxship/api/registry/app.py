"""The distribution API (OCI distribution-spec 1.1) over repositories."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

from boxship.api.registry import lists
from boxship.api.registry.uploads import UploadAPI, created, digest_of
from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable, Unsupported
from boxship.http.message import FileRange, Request, Response, json_response
from boxship.oci.descriptor import MANIFEST_LIMIT
from boxship.registry.faults import CODES, NameInvalid, SizeInvalid
from boxship.registry.receiving import OutOfOrder, Receiving
from boxship.registry.repositories import Repositories

log = logging.getLogger(__name__)

_NAME = r"(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
_NAME_LIMIT = 255
_REFERENCE = r"(?P<reference>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|[a-z0-9]+:[0-9a-f]{64,128})"
_DIGEST = r"(?P<digest>[^/]+:[^/]+)"
_UPLOAD = r"(?P<upload>[0-9a-f]+)"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

Handler = Callable[[Request], Awaitable[Response]]

_STATUS: tuple[tuple[type[BoxshipError], str, int], ...] = (
    *CODES,
    (NotFound, "NAME_UNKNOWN", 404),
    (Unsupported, "UNSUPPORTED", 405),
    (Denied, "DENIED", 403),
    (Unavailable, "UNAVAILABLE", 503),
    (Invalid, "UNSUPPORTED", 400),
)


class RegistryAPI:
    """One handler for every request to a registry."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._receiving = Receiving(repositories.content)
        uploads = UploadAPI(repositories, self._receiving)
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("GET", r"/v2/?", self._hello),
            ("GET", r"/v2/_catalog", self._catalog),
            ("GET", rf"/v2/{_NAME}/tags/list", self._tags),
            ("GET", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._manifest),
            ("PUT", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._put_manifest),
            ("DELETE", rf"/v2/{_NAME}/manifests/{_REFERENCE}", self._delete_manifest),
            ("GET", rf"/v2/{_NAME}/blobs/{_DIGEST}", self._blob),
            ("DELETE", rf"/v2/{_NAME}/blobs/{_DIGEST}", self._delete_blob),
            ("POST", rf"/v2/{_NAME}/blobs/uploads/?", uploads.begin),
            ("GET", rf"/v2/{_NAME}/blobs/uploads/{_UPLOAD}", uploads.status),
            ("PATCH", rf"/v2/{_NAME}/blobs/uploads/{_UPLOAD}", uploads.append),
            ("PUT", rf"/v2/{_NAME}/blobs/uploads/{_UPLOAD}", uploads.finish),
            ("DELETE", rf"/v2/{_NAME}/blobs/uploads/{_UPLOAD}", uploads.cancel),
            ("GET", rf"/v2/{_NAME}/referrers/{_DIGEST}", self._referrers),
        )
        self._routes = [(method, re.compile(pattern), handler) for method, pattern, handler in routes]

    def close(self) -> None:
        """Drop what is being pushed."""
        self._receiving.close()

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
        known: set[str] = set()
        for own, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            known.add(own)
            if own == method:
                request.parameters = match.groupdict()
                if len(request.parameters.get("name", "")) > _NAME_LIMIT:
                    raise NameInvalid(f"the repository's name is longer than {_NAME_LIMIT} characters")
                return await handler(request)
        if not known:
            raise NotFound(f"page not found: {request.path}")
        response = _failure(Unsupported(f"the operation is unsupported: {request.method} {request.path}"))
        response.headers["Allow"] = ", ".join(sorted(known | ({"HEAD"} if "GET" in known else set())))
        return response

    async def _hello(self, request: Request) -> Response:
        return json_response({})

    # --- lists ---

    async def _catalog(self, request: Request) -> Response:
        return lists.page(request, "repositories", self._repositories.names(), {})

    async def _tags(self, request: Request) -> Response:
        name = request.parameters["name"]
        return lists.page(request, "tags", list(self._repositories.get(name).tags), {"name": name})

    async def _referrers(self, request: Request) -> Response:
        found = self._repositories.referrers(request.parameters["name"], digest_of(request.parameters["digest"]))
        return lists.referrers(found, request.query.get("artifactType"))

    # --- manifests ---

    async def _manifest(self, request: Request) -> Response:
        digest, record = self._repositories.manifest(request.parameters["name"], request.parameters["reference"])
        headers = {"Content-Type": record.media_type, "Docker-Content-Digest": digest, "Etag": f'"{digest}"'}
        if digest in request.headers.get("If-None-Match"):
            return Response(304, b"", headers)
        return Response(200, self._repositories.content.read(digest), headers)

    async def _put_manifest(self, request: Request) -> Response:
        name = request.parameters["name"]
        try:
            raw = await request.read(MANIFEST_LIMIT)
        except Invalid as error:
            raise SizeInvalid(f"the manifest is larger than the limit of {MANIFEST_LIMIT} bytes") from error
        media_type = request.headers.get("Content-Type").partition(";")[0].strip()
        digest, subject = self._repositories.put_manifest(name, request.parameters["reference"], raw, media_type)
        await self._repositories.committed()
        response = created(f"/v2/{name}/manifests/{digest}", digest)
        if subject:
            response.headers["OCI-Subject"] = subject
        return response

    async def _delete_manifest(self, request: Request) -> Response:
        self._repositories.remove_manifest(request.parameters["name"], request.parameters["reference"])
        await self._repositories.committed()
        return Response(202)

    # --- blobs ---

    async def _blob(self, request: Request) -> Response:
        digest = digest_of(request.parameters["digest"])
        size = self._repositories.blob(request.parameters["name"], digest)
        path = str(self._repositories.content.path(digest))
        headers = {
            "Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, "Accept-Ranges": "bytes",
            "Etag": f'"{digest}"',
        }  # fmt: skip
        wanted = _wanted(request.headers.get("Range"), size)
        if wanted is None:
            return Response(200, FileRange(path, 0, size), headers)
        if not wanted:
            return Response(416, b"", {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        return Response(206, FileRange(path, wanted.start, len(wanted)), headers)

    async def _delete_blob(self, request: Request) -> Response:
        self._repositories.remove_blob(request.parameters["name"], digest_of(request.parameters["digest"]))
        await self._repositories.committed()
        return Response(202)


def _wanted(header: str, size: int) -> range | None:
    """The bytes that a Range field asks for (RFC 9110, section 14.1.2): none of them here is an empty range.

    None for a field that is to be passed over: malformed, of another unit, or of several ranges.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1 if last else size, size))


def _failure(error: BoxshipError) -> Response:
    code, status = next(((code, status) for kind, code, status in _STATUS if isinstance(error, kind)), ("UNKNOWN", 500))
    response = json_response({"errors": [{"code": code, "message": str(error), "detail": None}]}, status)
    if isinstance(error, OutOfOrder):
        response.status = 416
        response.headers.update(UploadAPI.headers(error.upload))
    return response
