"""What a registry's refusals and broken connections mean: our errors, in the words users know."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable

_TEXT_LIMIT = 500
_NEXT = re.compile(r'<([^>]*)>\s*(?:;[^,]*)?;\s*rel\s*=\s*"?next"?')


class Passing(Unavailable):
    """Raised for what may be over soon; `after` is how many seconds the server asked to be left alone."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Unauthorized(Denied):
    """Raised where a registry does not know who asks, or does not take the credentials."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer read whole."""

    status: int
    reason: str
    headers: httpx.Headers
    content: bytes
    url: httpx.URL

    def texts(self, key: str) -> list[str]:
        """A list of texts in the answer's JSON object; raises `Unavailable` for anything else."""
        try:
            found = json.loads(self.content).get(key) or []
        except (ValueError, AttributeError, RecursionError):
            found = [None]
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise Unavailable(f"{self.url} answers with something else than a list of {key}")
        return found

    def next_page(self) -> str:
        """Where a list goes on (RFC 8288, relation "next"); empty at its end."""
        match = _NEXT.search(self.headers.get("Link", ""))
        try:
            return str(self.url.join(match[1])) if match else ""
        except httpx.InvalidURL:
            raise Unavailable(f"{self.url} names a next page that has no sound address") from None


def raise_for(answer: Answer) -> None:
    """Raise what an answer's status means: `NotFound`, `Denied`, `Invalid`, `Unavailable`."""
    status = answer.status
    if status < 300:
        return
    text = explain(answer)
    if status < 400:
        raise Unavailable(f"the registry sends elsewhere where that is not followed: {answer.headers.get('Location', '')}")
    if status == 429 or (status >= 500 and status != 501):
        raise Passing(text, after=retry_after(answer.headers))
    kinds: dict[int, type[BoxshipError]] = {401: Unauthorized, 403: Denied, 404: NotFound, 501: Unavailable}
    raise kinds.get(status, Invalid)(text)


def explain(answer: Answer) -> str:
    """What an error answer says: the specification's code and message, or the status."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, IndexError, KeyError):
        document = json.loads(answer.content)
        if document.get("errors"):
            entry = document["errors"][0]
            code = str(entry.get("code") or "").lower().replace("_", " ")
            message = str(entry.get("message") or "")
            return ": ".join(part for part in (code, message) if part)[:_TEXT_LIMIT]
        if answer.status == 401 and document.get("details"):
            return f"unauthorized: {document['details']}"[:_TEXT_LIMIT]
    if answer.status == 401 and not answer.content:  # as to HEAD
        return "unauthorized: authentication required"
    return f"received unexpected HTTP status: {answer.status} {answer.reason}".rstrip()[:_TEXT_LIMIT]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a server asks to be left alone (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


_LASTING = (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.ProxyError)


def unreachable(method: str, url: httpx.URL, error: Exception) -> Unavailable:
    """A connection that failed; `Passing` where another attempt may do better."""
    host = url.netloc.decode("ascii", "replace")
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    text = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLError):
        text = f"tls: {(error.reason or text).lower().replace('_', ' ')}"
    lasting = not isinstance(error, httpx.HTTPError) or isinstance(error, _LASTING)
    if isinstance(error, httpx.ConnectTimeout):
        text = f"dial tcp {host}: i/o timeout"
    elif isinstance(error, httpx.ConnectError):
        if "CERTIFICATE_VERIFY_FAILED" in text:
            lasting = True
            text = f"tls: failed to verify certificate: {text.partition('CERTIFICATE_VERIFY_FAILED] ')[2] or text}"
        elif "[Errno -" in text or "getaddrinfo" in text:
            text = f"dial tcp: lookup {url.host}: no such host"
        elif "All connection attempts failed" in text or "refused" in text:
            text = f"dial tcp {host}: connect: connection refused"
    elif isinstance(error, httpx.ReadTimeout):
        text = "net/http: timeout awaiting response"
    elif isinstance(error, (httpx.ReadError, httpx.WriteError)) and not str(error):
        text = "connection reset by peer"
    elif isinstance(error, httpx.RemoteProtocolError) and "without sending" in text:
        text = "EOF"
    kind = Unavailable if lasting else Passing
    return kind(f'{method.capitalize()} "{url}": {text}'[: 2 * _TEXT_LIMIT])
