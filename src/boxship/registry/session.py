"""Requests to one registry: authentication, retries, and its errors as ours.

Protocol: OCI distribution-spec; tokens as in distribution's "token authentication" pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable
from boxship.registry.model import Credentials

ATTEMPTS = 5
_FIRST_DELAY = 0.3
_LONGEST_DELAY = 30.0
_PARAMETER = re.compile(r'(\w+)="([^"]*)"|(\w+)=([^\s,"]+)')
_CLIENT_ID = "boxship"


async def pause(attempt: int, asked: float | None = None) -> None:
    """Wait before another attempt (0 for the first): longer each time, or as long as the server asked, in seconds."""
    delay = asked if asked is not None else _FIRST_DELAY * 2**attempt * random.uniform(0.8, 1.2)  # noqa: S311
    await asyncio.sleep(min(delay, _LONGEST_DELAY))


class Session:
    """One registry as one user sees it."""

    def __init__(self, client: httpx.AsyncClient, base: str, credentials: Credentials | None) -> None:
        self._client = client
        self.base = base
        self._credentials = credentials
        self._basic = False
        self._realm: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._token_lock = asyncio.Lock()

    async def greet(self) -> None:
        """Ask whether a registry is there, and how it wants to be spoken to; raises `Unavailable`."""
        url = f"{self.base}/v2/"
        response = await self._send("GET", url)
        if response.status_code == 401:
            self._learn(response)
        elif response.status_code >= 500:
            raise Unavailable(f'Get "{url}": {_explain(response)}')

    def _learn(self, response: httpx.Response) -> None:
        """Read the challenges (RFC 7235): bearer is preferred."""
        for challenge in response.headers.get_list("WWW-Authenticate"):
            scheme, _, rest = challenge.partition(" ")
            parameters = {a or c: b or d for a, b, c, d in _PARAMETER.findall(rest)}
            if scheme.lower() == "bearer" and parameters.get("realm"):
                self._realm = parameters
            elif scheme.lower() == "basic":
                self._basic = True

    async def check_login(self) -> str:
        """Raises `Denied` unless the credentials are taken; the identity token, where there is one."""
        identity = ""
        if self._realm:
            answer = await self._fetch_token("", offline=True)
            identity = str(answer.get("refresh_token") or "")
        response = await self.request("GET", "/v2/", scope="", check=False)
        if response.status_code in (401, 403):
            raise Denied(f"login attempt to {self.base}/v2/ failed with status: {response.status_code} {response.reason_phrase}")
        return identity

    async def _authorization(self, scope: str) -> dict[str, str]:
        credentials = self._credentials
        if credentials is not None and credentials.registry_token:
            return {"Authorization": f"Bearer {credentials.registry_token}"}
        if self._realm:
            async with self._token_lock:
                if scope not in self._tokens:
                    answer = await self._fetch_token(scope)
                    self._tokens[scope] = str(answer.get("token") or answer.get("access_token") or "")
            return {"Authorization": f"Bearer {self._tokens[scope]}"}
        if self._basic and credentials is not None and credentials.username:
            return {"Authorization": httpx.BasicAuth(credentials.username, credentials.password)._auth_header}
        return {}

    async def _fetch_token(self, scope: str, *, offline: bool = False) -> dict[str, Any]:
        """A token from the realm that the registry named; raises `Denied`, `Unavailable`."""
        realm, credentials = self._realm["realm"], self._credentials
        parameters: list[tuple[str, str]] = []
        if self._realm.get("service"):
            parameters.append(("service", self._realm["service"]))
        parameters += [("scope", part) for part in scope.split(" ") if part]
        if credentials is not None and credentials.identity_token:
            form = dict(parameters) | {
                "grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": _CLIENT_ID,
                "scope": scope,
            }  # fmt: skip
            response = await self._send("POST", realm, data=form)
        else:
            if offline:
                parameters.append(("offline_token", "true"))
            parameters.append(("client_id", _CLIENT_ID))
            known = credentials is not None and credentials.username
            auth = httpx.BasicAuth(credentials.username, credentials.password) if known and credentials else None
            response = await self._send("GET", realm, params=parameters, auth=auth)
        if response.status_code in (401, 403):
            raise Denied("unauthorized: incorrect username or password")
        if response.status_code != 200:
            raise Unavailable(f"the token server {realm} answered {_explain(response)}")
        try:
            answer = response.json()
        except ValueError as error:
            raise Unavailable(f"the token server {realm} gave no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"the token server {realm} gave no token")
        return answer

    async def request(
        self, method: str, target: str, *, scope: str, headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None, body: bytes | None = None, check: bool = True,
    ) -> httpx.Response:  # fmt: skip
        """Ask, with retries where the server is busy; raises what the answer means unless `check` is off."""
        attempt = 0
        while True:
            response = await self._authorized(method, target, scope, headers, params=params, content=body)
            busy = response.status_code == 429 or response.status_code >= 500
            if not busy or attempt + 1 >= ATTEMPTS:
                break
            await pause(attempt, _asked(response))
            attempt += 1
        if check:
            raise_for(response)
        return response

    async def _authorized(
        self, method: str, target: str, scope: str, headers: Mapping[str, str] | None, **options: Any
    ) -> httpx.Response:
        url = target if "://" in target else self.base + target
        for renewed in (False, True):
            own = {**(headers or {}), **await self._authorization(scope)}
            response = await self._send(method, url, headers=own, **options)
            if response.status_code != 401 or renewed:
                break
            # a token that has expired, or the first challenge of a registry that greets everybody
            self._learn(response)
            self._tokens.pop(scope, None)
            if not self._realm and not self._basic:
                break
        return response

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            return await self._client.request(method, url, **options)
        except httpx.HTTPError as error:
            raise unreachable(method, url, error) from error

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, scope: str, headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None, body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:  # fmt: skip
        """The same, once, with the answer's body still to be read (or the request's streamed)."""
        url = target if "://" in target else self.base + target
        own = {**(headers or {}), **await self._authorization(scope)}
        try:
            async with self._client.stream(method, url, headers=own, params=params, content=body) as response:
                if response.status_code == 401:
                    self._tokens.pop(scope, None)
                if response.status_code >= 400:
                    await response.aread()
                yield response
        except httpx.HTTPError as error:
            raise unreachable(method, url, error) from error


def _asked(response: httpx.Response) -> float | None:
    with contextlib.suppress(ValueError):
        return float(response.headers.get("Retry-After", ""))
    return None


def unreachable(method: str, url: str, error: httpx.HTTPError) -> Unavailable:
    """A connection that failed, in the words users know."""
    host = httpx.URL(url).netloc.decode()
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        text = f"dial tcp {host}: i/o timeout"
    elif isinstance(error, httpx.ConnectError):
        if "All connection attempts failed" in text or "refused" in text:
            text = f"dial tcp {host}: connect: connection refused"
        elif "getaddrinfo" in text or "Name or service" in text or "name resolution" in text:
            text = f"dial tcp: lookup {host.partition(':')[0]}: no such host"
        elif "CERTIFICATE_VERIFY_FAILED" in text:
            text = f"tls: failed to verify certificate: {text.partition('CERTIFICATE_VERIFY_FAILED] ')[2] or text}"
    elif isinstance(error, httpx.ReadTimeout):
        text = "net/http: timeout awaiting response"
    return Unavailable(f'{method.capitalize()} "{url}": {text}')


def _documents(response: httpx.Response) -> list[dict[str, Any]]:
    with contextlib.suppress(ValueError, AttributeError):
        found = json.loads(response.content).get("errors")
        if isinstance(found, list):
            return [entry for entry in found if isinstance(entry, dict)]
    return []


def _explain(response: httpx.Response) -> str:
    """What an error answer says: the specification's code and message, or the status."""
    for entry in _documents(response):
        code = str(entry.get("code", "")).lower().replace("_", " ")
        message = str(entry.get("message") or "")
        return f"{code}: {message}" if message else code
    return f"{response.status_code} {response.reason_phrase}"


def raise_for(response: httpx.Response) -> None:
    """Raise what an answer's status means: `NotFound`, `Denied`, `Invalid`, `Unavailable`."""
    status = response.status_code
    if status < 400:
        return
    kind: type[BoxshipError] = Invalid
    if status == 404:
        kind = NotFound
    elif status in (401, 403):
        kind = Denied
    elif status == 429 or status >= 500:
        kind = Unavailable
    raise kind(_explain(response))
