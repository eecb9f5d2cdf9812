"""What a session tells whom, and how it takes what it is told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import httpx
import pytest
from tests.unit.registry.conftest import NewSession

from boxship.errors import Denied, Invalid, NotFound, Unavailable
from boxship.registry.failures import Passing, Unauthorized
from boxship.registry.model import Credentials
from boxship.registry.session import ATTEMPTS, read_answer

ALICE = Credentials("alice", "secret")
BASIC = "Basic " + base64.b64encode(b"alice:secret").decode()
SCOPE = "repository:box:pull"
CHALLENGE = 'Bearer realm="https://auth.example/token?fixed=1",service="the registry"'


def unauthorized(challenge: str) -> httpx.Response:
    return httpx.Response(401, headers={"WWW-Authenticate": challenge}, content=b"no")


class Tokens:
    """A registry with a token server, and what each was asked."""

    def __init__(self, realm: str = CHALLENGE) -> None:
        self.realm = realm
        self.asked: list[httpx.Request] = []
        self.seen: list[str] = []
        self.valid = ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.example":
            self.asked.append(request)
            self.valid = f"token{len(self.asked)}"
            return httpx.Response(200, json={"token": self.valid, "refresh_token": "lasting"})
        self.seen.append(request.headers.get("Authorization", ""))
        if self.valid and self.seen[-1] == f"Bearer {self.valid}":
            return httpx.Response(200, json={})
        return unauthorized(self.realm)


async def test_a_token_is_fetched_with_the_users_name_and_kept(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry, ALICE)
    await session.greet()

    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    await session.request("GET", "/v2/box/manifests/2", scope=SCOPE)

    (asked,) = registry.asked
    assert asked.headers["Authorization"] == BASIC
    assert parse_qs(asked.url.query.decode()) == {
        "fixed": ["1"], "client_id": ["boxship"], "service": ["the registry"], "scope": [SCOPE],
    }  # fmt: skip
    assert registry.seen == ["", "Bearer token1", "Bearer token1"]


async def test_each_scope_has_its_token(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry)
    await session.greet()
    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    await session.request("GET", "/v2/box/manifests/1", scope="repository:box:pull,push repository:other:pull")
    assert "Authorization" not in registry.asked[0].headers
    assert parse_qs(registry.asked[1].url.query.decode())["scope"] == ["repository:box:pull,push", "repository:other:pull"]


async def test_an_expired_token_is_renewed(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry, ALICE)
    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    registry.valid = "another"
    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    async with session.stream("GET", "/v2/box/blobs/1", scope=SCOPE) as response:
        assert response.status_code == 200
    assert registry.seen == ["", "Bearer token1", "Bearer token1", "Bearer token2", "Bearer token2"]


async def test_a_token_that_is_not_taken_is_tried_once(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(lambda r: unauthorized(CHALLENGE) if r.url.host == "registry.example" else registry(r), ALICE)
    with pytest.raises(Unauthorized, match="401"):
        await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert len(registry.asked) == 1


async def test_an_identity_token_is_exchanged(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry, Credentials(identity_token="lasting"))
    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    (asked,) = registry.asked
    assert (asked.method, "Authorization" in asked.headers) == ("POST", False)
    assert parse_qs(asked.content.decode()) == {
        "grant_type": ["refresh_token"], "refresh_token": ["lasting"], "service": ["the registry"],
        "client_id": ["boxship"], "scope": [SCOPE],
    }  # fmt: skip


async def test_a_registry_token_is_used_as_it_is(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry, Credentials(registry_token="given"))
    with pytest.raises(Unauthorized):
        await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert (registry.seen, registry.asked) == (["Bearer given"], [])


async def test_basic_credentials_wait_until_they_are_asked_for(new_session: NewSession) -> None:
    seen: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization", ""))
        return httpx.Response(200) if seen[-1] else unauthorized('Basic realm="x"')

    session = new_session(answering, ALICE)
    await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert seen == ["", BASIC]


async def test_whoever_has_no_credentials_is_refused_at_once(new_session: NewSession) -> None:
    seen: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return unauthorized('Basic realm="x"')

    with pytest.raises(Unauthorized):
        await new_session(answering).request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert len(seen) == 1


async def test_login_gives_the_identity_token(new_session: NewSession) -> None:
    registry = Tokens()
    session = new_session(registry, ALICE)
    await session.greet()
    assert await session.log_in() == "lasting"
    assert parse_qs(registry.asked[0].url.query.decode())["offline_token"] == ["true"]
    assert len(registry.asked) == 1


async def test_a_login_with_a_wrong_password_is_denied(new_session: NewSession) -> None:
    def answering(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.example":
            return httpx.Response(401, json={"details": "incorrect username or password"})
        return unauthorized(CHALLENGE)

    session = new_session(answering, ALICE)
    await session.greet()
    with pytest.raises(Denied) as caught:
        await session.log_in()
    assert caught.value.message == 'Get "https://registry.example/v2/": unauthorized: incorrect username or password'


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b'{"token": "\\u00e9"}', b'{"token": ""}']
)
async def test_a_token_server_without_a_sound_token_is_an_error(new_session: NewSession, body: bytes) -> None:
    def answering(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body) if request.url.host == "auth.example" else unauthorized(CHALLENGE)

    with pytest.raises(Unavailable):
        await new_session(answering).request("GET", "/v2/box/manifests/1", scope=SCOPE)


# --- who is told what ---


async def test_a_password_never_goes_to_a_token_server_in_the_clear(new_session: NewSession) -> None:
    registry = Tokens('Bearer realm="http://auth.example/token"')
    with pytest.raises(Denied, match=r"in the clear, to http://auth\.example/token"):
        await new_session(registry, ALICE).request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert registry.asked == []
    # nobody's secret: an anonymous one may be fetched, and an insecure registry was said to be so
    await new_session(registry).request("GET", "/v2/box/manifests/1", scope=SCOPE)
    await new_session(registry, ALICE, "http://registry.example").request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert len(registry.asked) == 2


async def test_neither_password_nor_token_follow_a_redirect_elsewhere(new_session: NewSession) -> None:
    elsewhere: list[httpx.Request] = []
    tokens = Tokens()

    def answering(request: httpx.Request) -> httpx.Response:
        if request.url.host == "storage.example":
            elsewhere.append(request)
            return unauthorized('Bearer realm="https://thief.example/token", Basic realm="x"')
        if request.url.host == "thief.example":
            raise AssertionError("the thief was asked for a token")
        answer = tokens(request)
        if answer.status_code == 200 and request.url.host == "registry.example":
            return httpx.Response(307, headers={"Location": "https://storage.example/blob"})
        return answer

    session = new_session(answering, ALICE)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await session.request("GET", "/v2/box/blobs/1", scope=SCOPE)
    assert [request.headers.get("Authorization") for request in elsewhere] == [None, None]


async def test_an_upload_elsewhere_goes_without_credentials(new_session: NewSession) -> None:
    seen: list[tuple[str, str | None, bytes]] = []

    def answering(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers.get("Authorization"), b""))
        return httpx.Response(201) if "Authorization" in request.headers or request.method == "PUT" else unauthorized("Basic")

    session = new_session(answering, ALICE)
    await session.request("GET", "/v2/", scope="")
    await session.request("PUT", "https://storage.example/u?sig=a%2Fb+c", scope=SCOPE, body=b"x")
    assert seen[-1][:2] == ("https://storage.example/u?sig=a%2Fb+c", None)


async def test_a_registry_behind_a_proxy_that_ends_tls_keeps_its_scheme(new_session: NewSession) -> None:
    seen: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200)

    session = new_session(answering)
    await session.request("GET", "http://registry.example/v2/box/blobs/uploads/1?_state=x", scope=SCOPE)
    await session.request("GET", "http://other.example/v2/", scope=SCOPE)
    assert seen == ["https://registry.example/v2/box/blobs/uploads/1?_state=x", "http://other.example/v2/"]


async def test_an_unsound_address_is_an_error(new_session: NewSession) -> None:
    session = new_session(lambda _: httpx.Response(200))
    for target in ("https://[::1/", "http://x:99999999/", "ftp://registry.example/"):
        with pytest.raises(Unavailable):
            await session.request("GET", target, scope=SCOPE)


# --- patience ---


async def test_a_busy_registry_is_asked_again(new_session: NewSession, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []
    answers = iter([httpx.Response(429, headers={"Retry-After": "3"}), httpx.Response(503), httpx.Response(200, content=b"ok")])
    session = new_session(lambda _: next(answers))

    async def pause(attempt: int, asked: float | None = None) -> None:
        pauses.append(asked)

    monkeypatch.setattr(session, "pause", pause)
    assert (await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)).content == b"ok"
    assert pauses == [3.0, None]


async def test_a_broken_connection_is_tried_again(new_session: NewSession) -> None:
    attempts: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        attempts.append(request.method)
        if len(attempts) < 3:
            raise httpx.ReadError("", request=request)
        return httpx.Response(201)

    assert (await new_session(answering).request("PUT", "/v2/box/manifests/1", scope=SCOPE, body=b"{}")).status == 201
    assert len(attempts) == 3


async def test_patience_ends(new_session: NewSession) -> None:
    attempts: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        attempts.append(request.method)
        return httpx.Response(500, json={"errors": [{"code": "UNKNOWN", "message": "on fire"}]})

    with pytest.raises(Passing, match="unknown: on fire"):
        await new_session(answering).request("GET", "/v2/box/manifests/1", scope=SCOPE)
    with pytest.raises(Unavailable, match=r'Get "https://registry\.example/v2/": unknown: on fire'):
        await new_session(answering).greet()
    assert len(attempts) == 2 * ATTEMPTS


async def test_what_is_not_there_is_asked_for_once(new_session: NewSession) -> None:
    attempts: list[str] = []

    def answering(request: httpx.Request) -> httpx.Response:
        attempts.append(request.method)
        return httpx.Response(404)

    session = new_session(answering)
    with pytest.raises(NotFound):
        await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert (await session.request("GET", "/v2/box/manifests/1", scope=SCOPE, check=False)).status == 404
    assert len(attempts) == 2


async def test_no_pause_is_longer_than_half_a_minute(new_session: NewSession, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("boxship.registry.session.asyncio.sleep", sleep)
    await new_session(lambda _: httpx.Response(200)).pause(0, 86_400)
    assert slept == [30.0]


# --- bounds ---


async def test_an_answer_beyond_the_limit_is_not_read(new_session: NewSession) -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1 << 20)
            yield bytes(1 << 20)

    session = new_session(lambda _: httpx.Response(200, content=endless()))
    with pytest.raises(Invalid, match="more than the limit of 4194304 bytes"):
        await session.request("GET", "/v2/box/manifests/1", scope=SCOPE)
    assert len(read) == 5


async def test_an_endless_explanation_is_cut(new_session: NewSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    session = new_session(lambda _: httpx.Response(400, content=endless()))
    async with session.stream("GET", "/v2/box/blobs/1", scope=SCOPE) as response:
        assert len((await read_answer(response)).content) == 64 << 10


async def test_a_redirected_upload_is_refused(new_session: NewSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    session = new_session(lambda _: httpx.Response(307, headers={"Location": "https://storage.example/"}))
    async with session.stream("PUT", "/v2/box/blobs/uploads/1", scope=SCOPE, body=pieces) as response:
        assert response.status_code == 307
