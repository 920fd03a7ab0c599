"""The test kit itself: time, crashes, and what it tells when an app does not finish."""

import asyncio
from typing import Any

import pytest

import streamcore as sc
from streamcore.testing import AppTest


def test_an_hour_passes_at_once_and_everything_happens_in_its_order() -> None:
    app = sc.App("test", topic_partitions=1)
    seen: list[tuple[str, float]] = []

    @app.timer("20m")
    async def tick() -> None:
        seen.append(("tick", test.now))

    @app.task
    async def sleeper() -> None:
        await asyncio.sleep(1800)
        seen.append(("slept", test.now))

    with AppTest(app, start="2026-06-01T12:00:00") as test:
        begin = test.now
        test.advance(3700)
        assert [(what, round(at - begin)) for what, at in seen] == [
            ("tick", 1200), ("slept", 1800), ("tick", 2400), ("tick", 3600),
        ]  # fmt: skip


def test_two_apps_under_test_share_nothing() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")
    with AppTest(app) as test:
        test.send(source, value=1)
        assert test.values(source) == [1]
    with AppTest(app) as test:
        assert test.values(source) == []


def test_an_app_that_does_not_finish_is_told_with_where_it_stands() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")

    @app.agent(source)
    async def hang(stream: sc.Stream) -> None:
        async for _ in stream:
            await asyncio.sleep(10_000)

    with AppTest(app) as test:
        with pytest.raises(TimeoutError, match=r"agent hang\[0\]: 1 records to read"):
            test.send(source, value=1)
        test.crash()
        test._worker = None


def test_a_crash_loses_what_was_not_committed_and_a_restart_finds_what_was() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")
    memory: list[Any] = []

    @app.agent(source)
    async def remember(stream: sc.Stream) -> None:
        async for value in stream:
            memory.append(value)
            await asyncio.sleep(1)

    with AppTest(app) as test:
        test.send(source, value="a", settle=False)
        test.send(source, value="b", settle=False)
        test.pass_time(1.5)
        test.crash()
        with pytest.raises(AssertionError, match="restart it"):
            _ = test.worker
        test.restart()
        assert memory == ["a", "b", "a", "b"] or memory == ["a", "b", "b"]
        assert test.committed(source) == {0: 2}


def test_an_app_that_cannot_start_says_why() -> None:
    app = sc.App("test", topic_partitions=1)
    app.topic("bad name!")
    with pytest.raises(sc.StreamcoreError, match="bad name!"), AppTest(app):
        pass


def test_new_events_are_returned_once_and_all_events_always() -> None:
    app = sc.App("test", topic_partitions=2)
    source = app.topic("source", key_type=str)
    with AppTest(app) as test:
        for key in "abc":
            test.send(source, key=key, value=key)
        assert sorted(test.values(source)) == ["a", "b", "c"]
        assert test.values(source) == []
        test.send(source, key="d", value="d")
        assert test.values(source) == ["d"]
        assert len(test.all_events(source)) == 4
        assert test.events("nothing of that name") == []
