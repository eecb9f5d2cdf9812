"""How one user proves itself to one registry: Basic, or tokens from the server that the registry names.

Protocol: distribution's "token authentication" pages (scope, JWT, OAuth 2).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import httpx

from boxship.errors import Denied, Unavailable
from boxship.registry import challenge
from boxship.registry.failures import Answer, Unauthorized, explain, raise_for
from boxship.registry.model import Credentials

_CLIENT_ID = "boxship"

Send = Callable[..., Awaitable[Answer]]


class Authentication:
    """What the registry asks for, and the tokens there are so far."""

    def __init__(self, base: httpx.URL, credentials: Credentials | None, send: Send, *, verified: bool) -> None:
        self._base = base
        self._credentials = credentials
        self._send = send
        self._verified = verified
        self._basic = False
        self._realm: Mapping[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._lock = asyncio.Lock()

    def learn(self, fields: Iterable[str]) -> None:
        """Read the challenges of an answer; tokens are preferred."""
        for found in challenge.parse(fields):
            if found.scheme == "bearer" and found.parameters.get("realm"):
                self._realm = found.parameters
            elif found.scheme == "basic":
                self._basic = True

    async def header(self, scope: str) -> dict[str, str]:
        """What goes with a request for a scope; raises `Denied`, `Unavailable`."""
        credentials = self._credentials
        if credentials is not None and credentials.registry_token:
            return {"Authorization": f"Bearer {credentials.registry_token}"}
        if self._realm:
            async with self._lock:
                if scope not in self._tokens:
                    self._tokens[scope], _ = await self._fetch(scope)
            return {"Authorization": f"Bearer {self._tokens[scope]}"}
        if self._basic:
            return self._basic_header()
        return {}

    def renew(self, scope: str, used: str) -> bool:
        """After a refusal: forget the token that was used; whether another attempt would differ from that one."""
        token = self._tokens.get(scope)
        if token is not None and used == f"Bearer {token}":
            del self._tokens[scope]
        if self._credentials is not None and self._credentials.registry_token:
            return False
        return bool(self._realm) or (self._basic and self._basic_header().get("Authorization", "") != used)

    async def log_in(self) -> str:
        """The identity token that the token server gives, if any; raises `Denied` where it does not take the credentials."""
        if not self._realm:
            return ""
        try:
            self._tokens[""], identity = await self._fetch("", offline=True)
        except Unauthorized as error:
            raise Unauthorized(f'Get "{self._base}v2/": {error.message}') from error
        return identity

    def _basic_header(self) -> dict[str, str]:
        if self._credentials is None or not self._credentials.username:
            return {}
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    async def _fetch(self, scope: str, *, offline: bool = False) -> tuple[str, str]:
        """A token, and the identity token that came with it; raises `Denied`, `Unavailable`."""
        credentials = self._credentials
        realm = self._check_realm()
        parameters = [("client_id", _CLIENT_ID)]
        if self._realm.get("service"):
            parameters.append(("service", self._realm["service"]))
        if credentials is not None and credentials.identity_token:
            parameters += [("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token), ("scope", scope)]
            answer = await self._send("POST", realm, data=dict(parameters))
        else:
            parameters += [("scope", part) for part in scope.split(" ") if part]
            if offline:
                parameters.append(("offline_token", "true"))
            answer = await self._send("GET", realm.copy_merge_params(tuple(parameters)), headers=self._basic_header())
        if answer.status == 401:
            raise Unauthorized(explain(answer) if b"{" in answer.content else "unauthorized: incorrect username or password")
        raise_for(answer)
        return _token(answer, realm)

    def _check_realm(self) -> httpx.URL:
        text = self._realm["realm"]
        try:
            realm = self._base.join(text)
        except httpx.InvalidURL:
            raise Unavailable(f"the registry names a token server that has no sound address: {text[:200]!r}") from None
        if self._credentials is not None and self._verified and self._base.scheme == "https" and realm.scheme != "https":
            raise Denied(
                f"the registry asks for credentials to be sent in the clear, to {realm}",
                hint="a registry that may do so has to be named with --insecure-registry",
            )
        return realm


def _token(answer: Answer, realm: httpx.URL) -> tuple[str, str]:
    try:
        document: Any = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"the token server {realm.host} gave no JSON: {error}") from error
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token")
        if isinstance(token, str) and token.isascii() and token.isprintable():
            return token, str(document.get("refresh_token") or "")
    raise Unavailable("authorization server did not include a token in the response")
