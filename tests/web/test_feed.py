"""The live feed: computed once per tick for everybody, only while somebody listens."""

import asyncio
import json
from collections.abc import AsyncIterator

from streamcore.clock import ManualClock
from streamcore.web.feed import LISTENERS_MAX, Feed
from tests.web.fake_worker import FakeWorker


def events(raw: bytes) -> list[tuple[str, object]]:
    found = []
    for block in raw.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def next_status(stream: AsyncIterator[bytes]) -> dict[str, object]:
    while True:
        for name, data in events(await anext(stream)):
            if name == "status":
                assert isinstance(data, dict)
                return data


def test_nothing_is_computed_while_nobody_listens() -> None:
    worker = FakeWorker(ManualClock())

    async def idle() -> None:
        Feed(worker, worker.clock, tick_s=0.001)
        await asyncio.sleep(0)

    asyncio.run(idle())
    assert worker.status_calls == 0


def test_all_listeners_of_a_tick_share_one_computation() -> None:
    worker = FakeWorker(ManualClock())

    async def listen() -> None:
        feed = Feed(worker, worker.clock, tick_s=1000)  # one tick for the whole test
        streams = [feed.stream() for _ in range(20)]
        statuses = await asyncio.gather(*(next_status(stream) for stream in streams))
        assert feed.listeners == 20
        assert all(status["app"] == "health-monitoring" for status in statuses)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        assert feed.listeners == 0

    asyncio.run(listen())
    assert worker.status_calls == 1


def test_a_new_tick_brings_a_new_status() -> None:
    clock = ManualClock()
    worker = FakeWorker(clock)

    async def listen() -> None:
        feed = Feed(worker, clock, tick_s=0.01)
        stream = feed.stream()
        first = await next_status(stream)
        clock.advance(1000)
        second = await next_status(stream)
        while second["now_ms"] == first["now_ms"]:
            second = await next_status(stream)
        assert second["now_ms"] == first["now_ms"] + 1000  # type: ignore[operator]
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_a_listener_that_does_not_read_is_owed_nothing() -> None:
    """A slow browser gets the newest status when it reads again, not those it missed."""
    clock = ManualClock()
    worker = FakeWorker(clock)

    async def listen() -> None:
        feed = Feed(worker, clock, tick_s=0.001)
        slow, quick = feed.stream(), feed.stream()
        await next_status(slow)
        for _ in range(50):
            clock.advance(1000)
            await next_status(quick)
        newest = clock.now_ms()
        late = await next_status(slow)
        assert late["now_ms"] == newest
        for stream in (slow, quick):
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_a_worker_that_fails_is_shown_and_the_stream_goes_on() -> None:
    worker = FakeWorker(ManualClock())

    async def listen() -> None:
        feed = Feed(worker, worker.clock, tick_s=0.001)
        stream = feed.stream()
        await next_status(stream)
        worker.failure = OSError("the disk is gone")
        found: list[tuple[str, object]] = []
        while not any(name == "problem" for name, _ in found):
            found = events(await anext(stream))
        assert found == [("problem", {"reason": "OSError: the disk is gone"})]
        worker.failure = None
        await next_status(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_what_a_page_adds_comes_before_a_brief_status() -> None:
    worker = FakeWorker(ManualClock())

    async def more() -> list[tuple[str, bytes]]:
        return [("health", b'{"hosts":[]}')]

    async def listen() -> None:
        feed = Feed(worker, worker.clock, tick_s=0.001)
        stream = feed.stream(more)
        found: list[tuple[str, object]] = []
        while not found:
            found = events(await anext(stream))
        assert [name for name, _ in found] == ["health", "status"]
        brief = found[1][1]
        assert isinstance(brief, dict)
        assert "topics" not in brief
        assert brief["summary"]["partitions"] > 0
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_streams_end_when_the_feed_stops() -> None:
    worker = FakeWorker(ManualClock())

    async def listen() -> list[bytes]:
        feed = Feed(worker, worker.clock, tick_s=1000)
        stream = feed.stream()
        await next_status(stream)
        feed.stop()
        return [chunk async for chunk in stream]

    assert asyncio.run(listen()) == []


def test_there_is_a_bound_on_listeners() -> None:
    worker = FakeWorker(ManualClock())

    async def ask() -> int:
        feed = Feed(worker, worker.clock)
        feed.listeners = LISTENERS_MAX
        return feed.response().status_code

    assert asyncio.run(ask()) == 503
