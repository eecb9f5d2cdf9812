from __future__ import annotations

import asyncio

from boxship.events.bus import BACKLOG, HISTORY, Event, Events


async def test_subscribers_get_what_is_published_from_then_on() -> None:
    events = Events()
    events.publish("image", "before", "x")
    with events.subscribe() as first, events.subscribe() as second:
        told = events.publish("container", "start", "abc", name="web")
        assert await first.next() == told
        assert await second.next() == told
    assert told == Event("container", "start", "abc", {"name": "web"}, told.time_ns)


async def test_a_subscriber_waits_for_the_next_one() -> None:
    events = Events()
    with events.subscribe() as subscription:
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        events.publish("volume", "create", "v")
        assert (await asyncio.wait_for(waiting, 1)).actor == "v"


async def test_order_is_kept_while_iterating() -> None:
    events = Events()
    with events.subscribe() as subscription:
        for number in range(5):
            events.publish("a", "b", str(number))
        seen = []
        async for event in subscription:
            seen.append(event.actor)
            if len(seen) == 5:
                break
    assert seen == ["0", "1", "2", "3", "4"]


async def test_history_is_bounded_and_keeps_the_latest() -> None:
    events = Events()
    for number in range(HISTORY + 10):
        events.publish("a", "b", str(number))
    assert [event.actor for event in events.history()] == [str(number) for number in range(10, HISTORY + 10)]


async def test_one_that_lags_loses_the_oldest() -> None:
    events = Events()
    with events.subscribe() as subscription:
        for number in range(BACKLOG + 3):
            events.publish("a", "b", str(number))
        assert (await subscription.next()).actor == "3"


async def test_who_has_gone_gets_nothing() -> None:
    events = Events()
    with events.subscribe() as subscription:
        pass
    events.publish("a", "b", "c")
    waiting = asyncio.ensure_future(subscription.next())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    waiting.cancel()
    assert not done
