"""What a registry lists, page by page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from boxship.errors import Invalid
from boxship.http.message import Request, Response, json_response
from boxship.oci import media_types
from boxship.registry.faults import PaginationInvalid
from boxship.registry.repositories import ManifestRecord

_PAGE = 1000


def page(request: Request, key: str, items: Iterable[str], document: dict[str, Any]) -> Response:
    """The part of a list that `n` and `last` ask for, in the specification's order: whatever the case of letters."""
    try:
        count = request.query.number("n", _PAGE)
    except Invalid as error:
        raise PaginationInvalid(error.message) from error
    if count is None or count < 0:
        raise PaginationInvalid("invalid number of results requested: n must not be negative")
    order = sorted(items, key=_order)
    if request.query.get("last"):
        last = _order(request.query.get("last"))
        order = [item for item in order if _order(item) > last]
    shown = order[: min(count, _PAGE)]
    response = json_response({**document, key: shown})
    if shown and len(shown) < len(order):
        query = urlencode({"last": shown[-1], "n": len(shown)})
        response.headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return response


def _order(item: str) -> tuple[str, str]:
    return item.lower(), item


def referrers(found: Iterable[tuple[str, ManifestRecord]], kind: str) -> Response:
    """The manifests that refer to another, those of one artifact type alone where it is given."""
    manifests = [
        {
            "mediaType": record.media_type,
            "digest": digest,
            "size": record.size,
            **({"artifactType": record.artifact_type} if record.artifact_type else {}),
            **({"annotations": record.annotations} if record.annotations else {}),
        }
        for digest, record in found
        if not kind or record.artifact_type == kind
    ]
    response = json_response({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests})
    response.headers["Content-Type"] = media_types.OCI_INDEX
    if kind:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response
