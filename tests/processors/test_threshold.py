"""Crossings of a level."""

import asyncio
from typing import Any

import pytest

from processors.rules import RulesError
from processors.threshold import Crossing, threshold
from streamcore.events import Event
from tests.processors.fake_stream import FakeStream, Idle, Kept, event


def crossings(items: list[Event | Idle], metric: str, kept: Kept | None = None, **options: Any) -> list[Crossing]:
    async def run() -> list[Crossing]:
        return [crossing async for crossing in threshold(FakeStream(items, kept), metric, **options)]

    return asyncio.run(run())


def temperatures(*values: float) -> list[Event | Idle]:
    return [event("truck-1", number * 1000, {"temperature": value}, number) for number, value in enumerate(values)]


def test_a_crossing_comes_once_there_and_once_back() -> None:
    there, back = crossings(temperatures(5, 9, 12, 7, 9, 5, 4), "temperature", above=8, clear=6)
    assert (there.beyond, there.at_ms, there.value, there.record.offset) == (True, 1000, 9, 1)
    assert (back.beyond, back.at_ms, back.since_ms, back.value, back.peak) == (False, 5000, 1000, 5, 12)
    assert back.labels == {"key": "truck-1"}
    assert Crossing.loads(back.dumps()) == back


def test_a_condition_says_the_same_as_metric_and_level() -> None:
    items = temperatures(5, 9, 5, 1, 5)
    assert crossings(items, "temperature > 8") == crossings(items, "temperature", above=8)
    assert [one.at_ms for one in crossings(items, "temperature", below=2)] == [3000, 4000]


def test_each_source_crosses_for_itself_and_restarts_do_not_matter() -> None:
    kept = Kept()
    items: list[Event | Idle] = [event("ab"[n % 2], n, {"t": value}) for n, value in enumerate([9, 1, 9, 9, 1, 1])]
    found = [crossing for item in items for crossing in crossings([item], "t > 8", kept)]
    assert found == crossings(items, "t > 8")
    assert [(one.labels["key"], one.beyond) for one in found] == [("a", True), ("b", True), ("a", False), ("b", False)]


def test_a_source_that_is_never_heard_of_again_is_let_go() -> None:
    kept = Kept()
    found = crossings([*temperatures(9), Idle(7_200_000)], "temperature > 8", kept, forget_after="1h")
    assert [one.beyond for one in found] == [True, False]
    assert kept.rows == {}


def test_levels_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(RulesError, match="above and below"):
        crossings([], "temperature", above=8, below=2)
