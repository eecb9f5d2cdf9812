"""Work on threads whose files must not be closed below it: a cancellation waits for it, then takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def begin(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Start a function on a thread."""
    return asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **kwargs))


async def settled(work: asyncio.Future[T]) -> T:
    """Wait for it: its result, or what it raises. Whoever is cancelled meanwhile is so once it is done."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # has been asked for: it is not reported as never retrieved
        raise cancelled
    return work.result()


class Behind:
    """Hands what comes to a function on a thread, one batch behind; leaving the context waits for it, whatever happens."""

    def __init__(self, consume: Callable[[bytes], object], batch: int = 1 << 20) -> None:
        """`batch` is how many bytes are handed over at once."""
        self._consume = consume
        self._size = batch
        self._batch = bytearray()
        self._running: asyncio.Future[object] | None = None

    async def __aenter__(self) -> Behind:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # what has come is handed over even where the rest will not: a transfer can go on from there
        await self._wait()
        self._hand_over()
        await self._wait()

    async def take(self, data: bytes) -> None:
        """Raises what the function raised for earlier data."""
        self._batch += data
        if len(self._batch) >= self._size:
            await self._wait()
            self._hand_over()

    def _hand_over(self) -> None:
        if self._batch:
            batch, self._batch = bytes(self._batch), bytearray()
            self._running = begin(self._consume, batch)

    async def _wait(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            try:
                await settled(running)
            finally:
                if running.exception() is not None:
                    self._batch.clear()  # what follows must not be taken for what has failed
