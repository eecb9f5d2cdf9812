"""Registries that ask who is there: by password, and by the tokens of a server."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from tests.integration.registry.conftest import Authority, Home, NewHome, needs_peer, start_peer
from tests.integration.registry.pictures import tar_of

from boxship.errors import Denied, NotFound
from boxship.http.message import Request, Response, json_response
from boxship.http.server import Server
from boxship.registry.model import Credentials

pytestmark = needs_peer

LAYERS = (tar_of(a=b"a" * 5000), tar_of(b=b"b" * 70_000))
ALICE = Credentials("alice", "wonderland")
WRONG = Credentials("alice", "looking-glass")


# --- passwords ---


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    line = subprocess.run(["htpasswd", "-Bbn", "alice", "wonderland"], check=True, capture_output=True).stdout
    (directory / "htpasswd").write_bytes(line)
    with start_peer(directory, auth={"htpasswd": {"realm": "the tea party", "path": str(directory / "htpasswd")}}) as host:
        yield host


async def test_push_and_pull_with_a_password(guarded: str, new_home: NewHome) -> None:
    home, other = new_home(), new_home()
    image = home.make(*LAYERS, tag=f"{guarded}/box:1")
    await home.push(f"{guarded}/box:1", ALICE)
    assert (await other.pull(f"{guarded}/box:1", credentials=ALICE)).id == image.id


async def test_without_a_password_or_with_a_wrong_one(guarded: str, home: Home) -> None:
    home.make(*LAYERS, tag=f"{guarded}/box:1")
    for credentials in (None, WRONG):
        with pytest.raises(Denied) as denied:
            await home.push(f"{guarded}/box:1", credentials)
        assert "401" in denied.value.message or "unauthorized: authentication required" in denied.value.message
    with pytest.raises(NotFound) as caught:
        await home.pull(f"{guarded}/box:1")
    assert caught.value.message == (
        f"pull access denied for {guarded}/box, repository does not exist or may require 'docker login':"
        " unauthorized: authentication required"
    )
    with pytest.raises(Denied, match="unauthorized: authentication required"):
        await home.pull(f"{guarded}/box:1", credentials=WRONG)


async def test_logging_in(guarded: str, home: Home) -> None:
    assert await home.registries.login(Credentials("alice", "wonderland", server_address=guarded)) == ""
    with pytest.raises(Denied) as caught:
        await home.registries.login(Credentials("alice", "looking-glass", server_address=guarded))
    assert caught.value.message == f"login attempt to http://{guarded}/v2/ failed with status: 401 Unauthorized"


# --- tokens ---


@dataclass
class TokenServer:
    """Lets alice write below team/, and anybody read below public/."""

    authority: Authority
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    lifetime: int = 300

    async def handle(self, request: Request) -> Response:
        if request.method == "POST":
            form = dict(parse_qsl((await request.read()).decode()))
            user = "alice" if form.get("refresh_token") == "drink me" else None
            scopes = [form.get("scope", "")]
        else:
            user = self._user(request.headers.get("Authorization"))
            scopes = [part for scope in request.query.all("scope") for part in scope.split(" ")]
        self.asked.append((request.method, user or "-" if user != "" else ""))
        if user is None:
            return json_response({"details": "incorrect username or password"}, 401)
        token = self._sign(user, [scope for scope in scopes if scope])
        lasting = {"refresh_token": "drink me"} if request.query.flag("offline_token") else {}
        return json_response({"token": token, **lasting})

    @staticmethod
    def _user(header: str) -> str | None:
        if not header:
            return ""
        pair = base64.b64decode(header.partition(" ")[2]).decode()
        return "alice" if pair == "alice:wonderland" else None

    def _sign(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [
                action for action in actions.split(",")
                if (user == "alice" and name.startswith("team/")) or (name.startswith("public/") and action == "pull")
            ]  # fmt: skip
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": "test", "sub": user, "aud": "the registry", "nbf": now - 5, "iat": now, "jti": str(time.monotonic_ns()),
                  "exp": now + self.lifetime, "access": access}  # fmt: skip
        der = subprocess.run(["openssl", "x509", "-in", self.authority.certificate, "-outform", "DER"], check=True,
                             capture_output=True).stdout  # fmt: skip
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        body = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.authority.key], input=body.encode(),
                                   check=True, capture_output=True).stdout  # fmt: skip
        return f"{body}.{_base64(_plain(signature))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _plain(der: bytes) -> bytes:
    """An ECDSA signature as JWS has it (RFC 7518, section 3.4), of one as OpenSSL gives it."""
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(part.lstrip(b"\0").rjust(32, b"\0") for part in (first, second))


@pytest.fixture
async def tokens(authority: Authority) -> AsyncIterator[TokenServer]:
    made = TokenServer(authority)
    server = Server(made.handle)
    port = await server.serve_tcp("127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{port}/token"
    yield made
    await server.close()


@pytest.fixture
def tokened(tokens: TokenServer, authority: Authority, tmp_path: Path) -> Iterator[str]:
    auth = {"realm": tokens.url, "service": "the registry", "issuer": "test", "rootcertbundle": str(authority.ca)}
    with start_peer(tmp_path / "tokened", auth={"token": auth}) as host:
        yield host


async def test_push_and_pull_with_tokens(tokened: str, tokens: TokenServer, new_home: NewHome) -> None:
    home, other = new_home(), new_home()
    image = home.make(*LAYERS, tag=f"{tokened}/team/box:1")
    await home.push(f"{tokened}/team/box:1", ALICE)
    assert set(tokens.asked) == {("GET", "alice")}
    assert len(tokens.asked) == 1

    assert (await other.pull(f"{tokened}/team/box:1", credentials=ALICE)).id == image.id
    assert len(tokens.asked) == 2

    home.tag(image, f"{tokened}/team/copy:1")
    await home.push(f"{tokened}/team/copy:1", ALICE)
    assert {status for layer in image.layers for status in home.statuses(layer[7:19])} == {"Preparing", "Mounted from team/box"}


async def test_an_identity_token_stands_for_the_password(tokened: str, tokens: TokenServer, home: Home) -> None:
    identity = await home.registries.login(Credentials("alice", "wonderland", server_address=tokened))
    assert identity == "drink me"
    home.make(*LAYERS, tag=f"{tokened}/team/box:1")
    await home.push(f"{tokened}/team/box:1", Credentials(identity_token=identity))
    assert tokens.asked[-1] == ("POST", "alice")


async def test_a_ready_token_is_used_as_it_is(tokened: str, tokens: TokenServer, home: Home) -> None:
    ready = tokens._sign("alice", ["repository:team/box:pull,push"])
    home.make(*LAYERS, tag=f"{tokened}/team/box:1")
    await home.push(f"{tokened}/team/box:1", Credentials(registry_token=ready))
    assert tokens.asked == []


async def test_what_tokens_do_not_allow(tokened: str, tokens: TokenServer, home: Home) -> None:
    home.make(*LAYERS, tag=f"{tokened}/public/box:1")
    home.make(*LAYERS, tag=f"{tokened}/private/box:1")
    with pytest.raises(Denied, match=r"requested access to the resource is denied|authentication required"):
        await home.push(f"{tokened}/public/box:1")
    with pytest.raises(Denied):
        await home.push(f"{tokened}/private/box:1", ALICE)
    with pytest.raises(NotFound, match=r"pull access denied for .*/team/box, repository does not exist or may require"):
        await home.pull(f"{tokened}/team/box:1")
    with pytest.raises(NotFound, match=r"manifest for .*/public/none:1 not found: manifest unknown"):
        await home.pull(f"{tokened}/public/none:1")


async def test_a_wrong_password(tokened: str, home: Home) -> None:
    with pytest.raises(Denied) as caught:
        await home.registries.login(Credentials("alice", "looking-glass", server_address=tokened))
    assert caught.value.message == f'Get "http://{tokened}/v2/": unauthorized: incorrect username or password'
    with pytest.raises(Denied, match="unauthorized: incorrect username or password"):
        await home.pull(f"{tokened}/team/box:1", credentials=WRONG)


async def test_an_expired_token_is_renewed_in_the_middle(
    tokened: str, tokens: TokenServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.lifetime = -120  # beyond what the registry forgives
    home.make(*LAYERS, tag=f"{tokened}/team/box:1")
    sign = tokens._sign

    def sign_once(user: str, scopes: list[str]) -> str:
        token = sign(user, scopes)
        tokens.lifetime = 300
        return token

    monkeypatch.setattr(tokens, "_sign", sign_once)
    await home.push(f"{tokened}/team/box:1", ALICE)
    assert len(tokens.asked) == 2


async def test_no_secret_is_kept(guarded: str, new_home: NewHome) -> None:
    home = new_home()
    home.make(*LAYERS, tag=f"{guarded}/box:2")
    await home.push(f"{guarded}/box:2", ALICE)
    secrets = (b"wonderland", base64.b64encode(b"alice:wonderland"))
    for file in home.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(secret in content for secret in secrets), file
