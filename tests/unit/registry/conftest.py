"""A registry that is a function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import httpx
import pytest

from boxship.registry.model import Credentials
from boxship.registry.session import Session

Answering = Callable[[httpx.Request], httpx.Response]


class NewSession(Protocol):
    def __call__(
        self, answering: Answering, credentials: Credentials | None = None, base: str = "https://registry.example"
    ) -> Session: ...


@pytest.fixture
async def new_session() -> AsyncIterator[NewSession]:
    clients: list[httpx.AsyncClient] = []

    def make(answering: Answering, credentials: Credentials | None = None, base: str = "https://registry.example") -> Session:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answering))
        clients.append(client)
        return Session(client, base, credentials, verified=base.startswith("https:"), delay=0)

    yield make
    for client in clients:
        await client.aclose()
