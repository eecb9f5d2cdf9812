"""Requests to one registry: authentication, retries, bounds, and its errors as ours.

Protocol: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from boxship.errors import Denied, Invalid, Unavailable
from boxship.oci.descriptor import MANIFEST_LIMIT
from boxship.registry.authentication import Authentication
from boxship.registry.failures import Answer, Passing, explain, raise_for, retry_after, unreachable
from boxship.registry.model import Credentials

ATTEMPTS = 5
FIRST_DELAY = 0.3
_LONGEST_DELAY = 30.0
_ERROR_LIMIT = 64 << 10
_TROUBLE = (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError)

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""What a request carries: bytes, or what makes a stream of them, anew for each attempt."""


class Session:
    """One registry as one user sees it."""

    def __init__(
        self, client: httpx.AsyncClient, base: str, credentials: Credentials | None, *, verified: bool = True,
        delay: float = FIRST_DELAY,
    ) -> None:  # fmt: skip
        """`delay` is how many seconds pass before a second attempt."""
        self._client = client
        self._base = httpx.URL(base + "/")
        self._delay = delay
        self._authentication = Authentication(self._base, credentials, self._send, verified=verified)
        self.anonymous = credentials is None

    async def greet(self) -> None:
        """Ask whether a registry is there, and how it wants to be spoken to; raises `Unavailable`."""
        url = self._base.join("v2/")
        for attempt in range(ATTEMPTS):
            answer = await self._send("GET", url)
            if answer.status == 401 and _same_origin(answer.url, self._base):
                self._authentication.learn(answer.headers.get_list("WWW-Authenticate"))
            if answer.status == 400:
                break  # so servers of TLS answer one who speaks without
            if answer.status != 429 and answer.status < 500:
                return
            if attempt + 1 < ATTEMPTS:
                await self.pause(attempt, retry_after(answer.headers))
        raise Unavailable(f'Get "{url}": {explain(answer)}')

    async def log_in(self) -> str:
        """Raises `Denied` unless the credentials are taken; the identity token, where there is one."""
        identity = await self._authentication.log_in()
        answer = await self.request("GET", "/v2/", scope="", check=False)
        if answer.status != 200:
            raise Denied(f"login attempt to {self._base}v2/ failed with status: {answer.status} {answer.reason}")
        return identity

    async def pause(self, attempt: int, asked: float | None = None) -> None:
        """Wait before another attempt (0 for the first): longer each time, or as long as the server asked, in seconds."""
        delay = asked if asked is not None else self._delay * 2**attempt * random.uniform(0.8, 1.2)  # noqa: S311
        await asyncio.sleep(min(delay, _LONGEST_DELAY))

    async def request(
        self, method: str, target: str, *, scope: str, headers: Mapping[str, str] | None = None, body: bytes | None = None,
        check: bool = True, limit: int = MANIFEST_LIMIT,
    ) -> Answer:  # fmt: skip
        """Ask, again where the connection breaks or the server is busy; the answer, of at most `limit` bytes.

        Raises `Unavailable`, and what the answer's status means unless `check` is off.
        """
        attempt = 0
        while True:
            try:
                async with self.stream(method, target, scope=scope, headers=headers, body=body) as response:
                    answer = await read_answer(response, limit)
                if answer.status == 429 or answer.status >= 500:
                    raise_for(answer)
                break
            except Passing as trouble:
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
                asked = trouble.after
            await self.pause(attempt - 1, asked)
        if check:
            raise_for(answer)
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, scope: str, headers: Mapping[str, str] | None = None, body: Body = None
    ) -> AsyncIterator[httpx.Response]:
        """Ask once: the answer with its body still to be read. A token that has expired is renewed.

        Raises `Denied` and `Unavailable`; also inside the context, for a connection that breaks.
        """
        url, own = self._resolve(target)
        used: str | None = None
        while True:
            # whoever else an answer names has no business with the credentials
            proof = await self._authentication.header(scope) if own else {}
            request = self._client.build_request(
                method, url, headers={**(headers or {}), **proof}, content=body() if callable(body) else body
            )
            async with self._sent(request, follow=method in ("GET", "HEAD")) as response:
                retry = response.status_code == 401 and own and used is None and _same_origin(response.url, self._base)
                if retry:
                    used = proof.get("Authorization", "")
                    self._authentication.learn(response.headers.get_list("WWW-Authenticate"))
                    retry = self._authentication.renew(scope, used)
                if not retry:
                    yield response
                    return
                await read_answer(response)  # the connection can be used again then

    @asynccontextmanager
    async def _sent(self, request: httpx.Request, *, follow: bool) -> AsyncIterator[httpx.Response]:
        try:
            response = await self._client.send(request, stream=True, follow_redirects=follow)
        except (*_TROUBLE, ValueError, ExceptionGroup) as error:  # the last two for addresses that no socket takes
            raise unreachable(request.method, request.url, error) from error
        try:
            yield response
        except _TROUBLE as error:
            raise unreachable(request.method, request.url, error) from error
        finally:
            await response.aclose()

    async def _send(self, method: str, url: httpx.URL, **options: Any) -> Answer:
        """Ask anybody, without credentials of ours."""
        request = self._client.build_request(method, url, **options)
        async with self._sent(request, follow=method == "GET") as response:
            return await read_answer(response, MANIFEST_LIMIT)

    def _resolve(self, target: str) -> tuple[httpx.URL, bool]:
        """An address that the registry may have named, in full, and whether it is the registry itself."""
        try:
            url = self._base.join(target)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535:
            raise Unavailable(f"the registry names an address that is not sound: {target[:200]!r}")
        if url.scheme == "http" and self._base.scheme == "https" and url.host == self._base.host and url.port is None:
            # it stands behind something that speaks TLS for it, and does not know
            url = url.copy_with(scheme="https", port=self._base.port)
        return url, _same_origin(url, self._base)


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


async def read_answer(response: httpx.Response, limit: int = _ERROR_LIMIT) -> Answer:
    """Read a short answer whole; raises `Invalid` beyond `limit` bytes. Of an error's text, the beginning is enough."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            if response.status_code >= 400:
                break
            raise Invalid(f"{response.url} answers with more than the limit of {limit} bytes")
    reason = response.reason_phrase or httpx.codes.get_reason_phrase(response.status_code)
    return Answer(response.status_code, reason, response.headers, bytes(content[:limit]), response.url)
