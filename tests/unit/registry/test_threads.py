"""Work on threads that a cancellation waits for."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from boxship.registry.threads import Behind, begin, settled


async def test_results_and_failures_come_back() -> None:
    assert await settled(begin(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await settled(begin(divmod, 7, 0))


async def test_a_cancellation_waits_for_the_thread() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(5)
        ended.set()
        raise ValueError("nobody asks any more")

    task = asyncio.create_task(settled(begin(work)))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_batches_are_handed_over_in_order_and_nothing_is_left() -> None:
    seen: list[bytes] = []
    async with Behind(seen.append, 4) as behind:
        for data in (b"a", b"bc", b"defg", b"h"):
            await behind.take(data)
    assert b"".join(seen) == b"abcdefgh"
    assert [len(data) for data in seen] == [7, 1]


async def test_a_failure_of_the_function_ends_it() -> None:
    def consume(data: bytes) -> None:
        raise ValueError(data.decode())

    with pytest.raises(ValueError, match="first"):
        async with Behind(consume, 1) as behind:
            for data in (b"first", b"second", b"third"):
                await behind.take(data)


async def test_a_cancelled_transfer_hands_over_what_has_come() -> None:
    seen: list[bytes] = []

    def consume(data: bytes) -> None:
        time.sleep(0.05)
        seen.append(data)

    async def work() -> None:
        async with Behind(consume, 2) as behind:
            await behind.take(b"ab")
            await behind.take(b"c")
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [b"ab", b"c"]
