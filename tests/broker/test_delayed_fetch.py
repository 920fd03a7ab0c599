import asyncio

import pytest

from streamcore.broker.delayed_fetch import DelayedFetches, Watch
from streamcore.types import TP

A, B = TP("a", 0), TP("b", 0)
FOREVER_MS = 3_600_000


def test_a_wait_ends_when_any_of_its_partitions_is_woken() -> None:
    async def run() -> None:
        delayed = DelayedFetches()
        waits = [asyncio.create_task(delayed.wait([A, B], FOREVER_MS)) for _ in range(3)]
        await asyncio.sleep(0)
        delayed.wake(TP("c", 0))
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        delayed.wake(B)
        assert await asyncio.gather(*waits) == [True, True, True]

    asyncio.run(run())


def test_a_wait_ends_by_itself_when_its_time_is_up() -> None:
    assert asyncio.run(DelayedFetches().wait([A], 1)) is False


def test_nothing_is_kept_of_a_wait_that_has_ended_or_was_cancelled() -> None:
    async def run() -> None:
        delayed = DelayedFetches()
        await delayed.wait([A, B], 0)
        cancelled = asyncio.create_task(delayed.wait([A, B], FOREVER_MS))
        woken = asyncio.create_task(delayed.wait([A, B], FOREVER_MS))
        await asyncio.sleep(0)
        cancelled.cancel()
        delayed.wake(A)
        await woken
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert delayed._waiting == {}

    asyncio.run(run())


def test_waking_a_topic_wakes_all_of_its_partitions() -> None:
    async def run() -> None:
        delayed = DelayedFetches()
        waits = [asyncio.create_task(delayed.wait([TP("a", n)], FOREVER_MS)) for n in range(3)]
        other = asyncio.create_task(delayed.wait([B], FOREVER_MS))
        await asyncio.sleep(0)
        delayed.wake_topic("a")
        assert await asyncio.gather(*waits) == [True, True, True]
        assert not other.done()
        delayed.wake_all()
        assert await other

    asyncio.run(run())


def test_a_watch_tells_what_has_changed_since_it_was_looked_at() -> None:
    async def run() -> None:
        delayed, watch = DelayedFetches(), Watch()
        delayed.watch(A, watch, "first")
        delayed.watch(B, watch, "second")
        assert await watch.wait(0) is False
        delayed.wake(B)
        delayed.wake(A)
        delayed.wake(B)
        assert await watch.wait(FOREVER_MS) is True
        assert watch.take() == ["second", "first"]
        assert watch.take() == []
        waiting = asyncio.create_task(watch.wait(FOREVER_MS))
        await asyncio.sleep(0)
        delayed.wake_topic("a")
        assert await waiting is True
        assert watch.take() == ["first"]

    asyncio.run(run())


def test_nothing_is_kept_of_a_watch_that_watches_nothing() -> None:
    delayed, watch, other = DelayedFetches(), Watch(), Watch()
    delayed.watch(A, watch, "a")
    delayed.watch(A, other, "a")
    delayed.unwatch(watch, A)
    delayed.unwatch(watch, A)
    delayed.unwatch(watch, B)
    delayed.wake(A)
    assert (watch.take(), other.take()) == ([], ["a"])
    delayed.unwatch(other, A)
    assert delayed._watches == {}
