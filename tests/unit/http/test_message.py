from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from boxship.errors import Invalid
from boxship.http.message import Headers, Query, Request, Stream, json_response
from boxship.http.router import Router
from boxship.oci.digest import Digest


class Body:
    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def body(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part

    async def hijack(self, head: bytes) -> Stream:
        raise AssertionError


class Thing(msgspec.Struct):
    name: str
    number: int = 0


def request(*parts: bytes) -> Request:
    return Request("POST", "/", Query(""), Headers([(b"Content-Type", b"application/json")]), Body(*parts))


def test_headers_by_name_in_any_case() -> None:
    headers = Headers([(b"Content-Type", b"a"), (b"accept", b"b"), (b"ACCEPT", b"c")])
    assert headers.get("content-type") == "a"
    assert headers.get("Accept") == "b, c"
    assert headers.get("absent", "d") == "d"
    assert "CONTENT-TYPE" in headers
    assert "absent" not in headers


@pytest.mark.parametrize(
    ("text", "value"),
    [("f=1", True), ("f=true", True), ("f=yes", True), ("f=", False), ("f", False), ("f=0", False), ("f=no", False),
     ("f=False", False), ("f=none", False), ("f=%20", False), ("g=1", None)],
)  # fmt: skip
def test_flags_as_docker_reads_them(text: str, value: bool | None) -> None:
    assert Query(text).flag("f") is bool(value)
    assert Query(text).flag("f", default=True) is (True if value is None else value)


def test_numbers_and_lists() -> None:
    query = Query("n=12&m=x&l=a&l=b&e=&n=13&p=%2Fa%20b+c")
    assert query.number("n") == 12
    assert query.number("absent", 3) == 3
    assert query.number("e") is None
    assert query.all("l") == ["a", "b"]
    assert query.get("p") == "/a b c"
    with pytest.raises(Invalid, match='parsing "x"'):
        query.number("m")


def test_a_thousand_parameters_are_enough() -> None:
    assert Query("&".join(["a=1"] * 1000)).all("a") == ["1"] * 1000
    with pytest.raises(Invalid):
        Query("&".join(["a=1"] * 1001))


async def test_bodies_as_structures() -> None:
    assert await request(b'{"name"', b': "x", "more": 1}').json(Thing) == Thing("x")
    assert await request(b'{"name": "x", "number": "7"}').json(Thing) == Thing("x", 7)
    assert await request(b" \n").json(Thing, default=Thing("d")) == Thing("d")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"name": 1}', b"{}", b"[" * 50_000, b'{"name":"x"}x'])
async def test_malformed_bodies_are_invalid(body: bytes) -> None:
    with pytest.raises(Invalid, match="invalid JSON"):
        await request(body).json(Thing)


async def test_a_body_is_bounded() -> None:
    assert await request(b"12", b"34").read(limit=4) == b"1234"
    with pytest.raises(Invalid, match="larger than the limit of 3 bytes"):
        await request(b"12", b"34").read(limit=3)


def test_answers_hold_digests_as_text() -> None:
    response = json_response({"Id": Digest.of(b"")}, 201, {"X": "y"})
    assert response.status == 201
    assert response.headers == {"Content-Type": "application/json", "X": "y"}
    assert response.body == b'{"Id":"' + Digest.of(b"").encode() + b'"}\n'


@pytest.fixture
def router() -> Router[str]:
    made: Router[str] = Router()
    for method, pattern in (
        ("GET", "/_ping"), ("GET", "/images/json"), ("GET", "/images/{name:path}/json"), ("DELETE", "/images/{name:path}"),
        ("GET", "/containers/{id}/json"), ("POST", "/containers/{id}/start"), ("GET", "/{anything}"),
        ("GET", "/v2/{name:path}/blobs/{digest}"),
    ):  # fmt: skip
        made.add(method, pattern, f"{method} {pattern}")
    return made


@pytest.mark.parametrize(
    ("method", "path", "found", "parameters"),
    [
        ("GET", "/_ping", "GET /_ping", {}),
        ("GET", "/images/json", "GET /images/json", {}),
        ("GET", "/images/a/b:c/json", "GET /images/{name:path}/json", {"name": "a/b:c"}),
        ("GET", "/images/json/json", "GET /images/{name:path}/json", {"name": "json"}),
        ("GET", "/images/a%2Fb%20c/json", "GET /images/{name:path}/json", {"name": "a/b c"}),
        ("DELETE", "/images/x/y", "DELETE /images/{name:path}", {"name": "x/y"}),
        ("POST", "/containers/abc/start", "POST /containers/{id}/start", {"id": "abc"}),
        (
            "GET",
            "/v2/a/blobs/b/blobs/sha256:1",
            "GET /v2/{name:path}/blobs/{digest}",
            {"name": "a/blobs/b", "digest": "sha256:1"},
        ),
        ("GET", "/else", "GET /{anything}", {"anything": "else"}),
    ],
)
def test_routes(router: Router[str], method: str, path: str, found: str, parameters: dict[str, str]) -> None:
    assert router.find(method, path) == (found, parameters)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/_ping"), ("GET", "/containers//json"), ("GET", "/containers/a/b/json"), ("GET", "//images/json"), ("GET", "/"),
     ("GET", ""), ("GET", "images/json"), ("DELETE", "/images/"), ("GET", "/images/a/json\n")],
)  # fmt: skip
def test_what_has_no_route(router: Router[str], method: str, path: str) -> None:
    assert router.find(method, path) is None


def test_a_path_is_known_under_any_method(router: Router[str]) -> None:
    assert router.knows("/containers/x/start")
    assert not router.knows("/containers/x/stop")
