"""From the kinds of errors to the Engine API's status codes; every response body is `{"message": …}`."""

from __future__ import annotations

from boxship.errors import (
    AlreadyExists,
    BoxshipError,
    Conflict,
    Denied,
    Internal,
    Invalid,
    NotFound,
    Unavailable,
    Unsupported,
)
from boxship.http.message import Response, json_response

STATUS: dict[type[BoxshipError], int] = {
    NotFound: 404,
    AlreadyExists: 409,
    Invalid: 400,
    Conflict: 409,
    Denied: 403,
    Unavailable: 500,
    Unsupported: 400,
    Internal: 500,
}
"""dockerd answers 500 where something outside failed, and its clients know that."""


def status_of(error: BoxshipError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def error_response(error: BoxshipError) -> Response:
    return json_response({"message": str(error)}, status_of(error))
