"""The engine's events: published by the services, read by `docker events` and by whoever reconciles."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HISTORY = 256
"""How many past events are kept (Docker keeps as many)."""

BACKLOG = 4096
"""How many events a slow subscriber may be behind before the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: (`container`, `start`, id, labels and name); time in nanoseconds since 1970."""

    kind: str
    action: str
    actor: str
    attributes: dict[str, str] = field(default_factory=dict)
    time_ns: int = field(default_factory=time.time_ns)


class Events:
    """The bus. `publish` never blocks; a subscriber that lags loses the oldest, never the publisher's time."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscribers: set[Subscription] = set()

    def publish(self, kind: str, action: str, actor: str, **attributes: str) -> Event:
        event = Event(kind, action, actor, attributes)
        self._history.append(event)
        for subscriber in self._subscribers:
            subscriber.offer(event)
        return event

    def history(self) -> list[Event]:
        return list(self._history)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """What is published from now until the block ends."""
        subscription = Subscription()
        self._subscribers.add(subscription)
        try:
            yield subscription
        finally:
            self._subscribers.discard(subscription)


class Subscription:
    """One reader's queue, iterated asynchronously."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque(maxlen=BACKLOG)
        self._ready = asyncio.Event()

    def offer(self, event: Event) -> None:
        self._queue.append(event)
        self._ready.set()

    async def next(self) -> Event:
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.next()
