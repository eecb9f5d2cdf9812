"""Answers and broken connections, and the errors that they become."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable
from boxship.registry.failures import Answer, Passing, Unauthorized, raise_for, retry_after, unreachable

URL = httpx.URL("https://registry.example/v2/box/manifests/1")


def answer(status: int, body: object = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, "Reason", httpx.Headers(headers), content, URL)


def error(code: str, message: str = "") -> dict[str, object]:
    return {"errors": [{"code": code, "message": message, "detail": None}]}


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (answer(404, error("MANIFEST_UNKNOWN", "manifest unknown")), NotFound, "manifest unknown: manifest unknown"),
        (answer(404, b"<html>"), NotFound, "received unexpected HTTP status: 404 Reason"),
        (answer(401, error("UNAUTHORIZED", "authentication required")), Unauthorized, "unauthorized: authentication required"),
        (answer(401, {"details": "incorrect username or password"}), Unauthorized,
         "unauthorized: incorrect username or password"),
        (answer(403, error("DENIED")), Denied, "denied"),
        (answer(429, error("TOOMANYREQUESTS", "slow down")), Passing, "toomanyrequests: slow down"),
        (answer(503, b""), Passing, "received unexpected HTTP status: 503 Reason"),
        (answer(501, b""), Unavailable, "received unexpected HTTP status: 501 Reason"),
        (answer(400, {"errors": "none"}), Invalid, "received unexpected HTTP status: 400 Reason"),
        (answer(400, [1]), Invalid, "received unexpected HTTP status: 400 Reason"),
        (answer(413, {"errors": [{"code": None, "message": None}]}), Invalid, ""),
        (answer(307, b"", location="/there"), Unavailable,
         "the registry sends elsewhere where that is not followed: /there"),
    ],
)  # fmt: skip
def test_a_status_becomes_an_error(given: Answer, kind: type[BoxshipError], text: str) -> None:
    with pytest.raises(kind) as caught:
        raise_for(given)
    assert type(caught.value) is kind
    assert caught.value.message == text


def test_a_good_answer_is_none() -> None:
    raise_for(answer(202))


def test_a_long_explanation_is_cut() -> None:
    with pytest.raises(Invalid) as caught:
        raise_for(answer(400, error("X", "y" * 100_000)))
    assert len(caught.value.message) == 500


def test_how_long_a_server_wants_to_be_left_alone() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": "-7"}) == 0
    assert 80 < (retry_after({"Retry-After": later}) or 0) <= 90
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("trouble", "text", "passing"),
    [
        (httpx.ConnectError("All connection attempts failed"), "dial tcp registry.example: connect: connection refused", True),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "dial tcp: lookup registry.example: no such host", True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"),
         "tls: failed to verify certificate: certificate verify failed: self-signed certificate", False),
        (httpx.ConnectTimeout(""), "dial tcp registry.example: i/o timeout", True),
        (httpx.ReadTimeout(""), "net/http: timeout awaiting response", True),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), "EOF", True),
        (httpx.ReadError(""), "connection reset by peer", True),
        (httpx.TooManyRedirects("Exceeded maximum allowed redirects."), "Exceeded maximum allowed redirects.", False),
    ],
)  # fmt: skip
def test_a_broken_connection_is_told_in_known_words(trouble: Exception, text: str, passing: bool) -> None:
    found = unreachable("GET", URL, trouble)
    assert found.message == f'Get "{URL}": {text}'
    assert isinstance(found, Passing) == passing


def test_lists_and_next_pages() -> None:
    given = answer(200, {"tags": ["a", "b"]}, link='<https://x/>; rel="prev", </v2/box/tags/list?last=b&n=2>; rel="next"')
    assert given.texts("tags") == ["a", "b"]
    assert given.next_page() == "https://registry.example/v2/box/tags/list?last=b&n=2"
    assert answer(200, {"tags": None}).texts("tags") == []
    assert answer(200).next_page() == ""


@pytest.mark.parametrize("body", [b"<html>", [1], {"tags": [1]}, {"tags": "a"}])
def test_a_list_that_is_none_is_refused(body: object) -> None:
    with pytest.raises(Unavailable, match="something else than a list of tags"):
        answer(200, body).texts("tags")
