"""Windowed tables through the engine: values, closing, lateness, crashes."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcore as sc
from streamcore.testing import AppTest

from .faulty import FaultyAppTest

T0 = 1_767_225_600  # the test kit's start, a multiple of a minute


def counting_app(**window: Any) -> tuple[sc.App, sc.Topic, sc.Topic]:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    closed = app.topic("closed", key_type=str)

    async def on_close(key: Any, value: int) -> None:
        await closed.send(key=key[0], value={"start": key[1][0] - T0, "end": key[1][1] - T0, "value": value})

    counts = app.Table("counts", default=int, on_window_close=on_close).tumbling(10, **window).relative_to_stream()

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    return app, source, closed


def put(
    test: AppTest, topic: sc.Topic, seconds: float, value: Any = 1, key: str = "k", *, settle: bool = False
) -> None:
    test.send(topic, key=key, value=value, timestamp=T0 + seconds, settle=settle)


def test_a_window_closes_once_when_the_watermark_passes_its_end_and_grace() -> None:
    app, source, closed = counting_app(grace=5)
    with AppTest(app) as test:
        for second in (1, 9, 12, 14):
            put(test, source, second)
        assert test.values(closed) == []
        put(test, source, 8)  # out of order, within grace
        put(test, source, 15)
        assert test.values(closed) == [{"start": 0, "end": 10, "value": 3}]
        put(test, source, 9)  # too late
        put(test, source, 26)
        assert test.values(closed) == [{"start": 10, "end": 20, "value": 3}]
        assert test.worker.runs[0].late_total == 1


def test_the_last_window_closes_by_the_clock_when_the_source_is_silent() -> None:
    app, source, closed = counting_app()
    with AppTest(app) as test:
        put(test, source, 3, settle=True)
        test.advance(5)
        assert test.values(closed) == []
        test.advance(4)
        assert test.values(closed) == [{"start": 0, "end": 10, "value": 1}]
        test.advance(1000)
        assert test.values(closed) == []


@pytest.mark.parametrize("in_lists", [False, True])
def test_windows_close_by_the_clock_also_where_the_agent_returns_in_between(in_lists: bool) -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    closed = app.topic("closed", key_type=str)

    async def on_close(key: Any, value: int) -> None:
        await closed.send(key=key[0], value=value)

    counts = app.Table("counts", default=int, on_window_close=on_close).tumbling(10).relative_to_stream()

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        if in_lists:
            async for values in stream.take(2):
                counts["k"] += sum(values)
                return
        async for value in stream:
            counts["k"] += value
            return

    with AppTest(app) as test:
        for second in (1, 2, 3, 4):
            put(test, source, second, settle=True)
        test.advance(60)
        assert test.values(closed) == [4]
        assert test.worker.runs[0].events_total == 4


def test_a_late_event_goes_to_the_late_topic_as_it_was() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    late = app.topic("late", key_type=str)
    counts = app.Table("counts", default=int).tumbling(10, late=late)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    with AppTest(app) as test:
        put(test, source, 5)
        put(test, source, 30)
        test.send(source, key="k", value=7, timestamp=T0 + 4, headers={"a": "b"})
        (event,) = test.events(late)
    assert (event.key, event.value, event.timestamp) == ("k", 7, (T0 + 4) * 1000)
    assert event.headers["a"] == b"b"


def test_a_window_that_was_open_at_a_crash_closes_after_it_even_without_another_event() -> None:
    app, source, closed = counting_app()
    with AppTest(app) as test:
        put(test, source, 3, settle=True)
        test.crash()
        test.lose_tables()
        test.restart()
        assert test.values(closed) == []
        test.advance(10)
        assert test.values(closed) == [{"start": 0, "end": 10, "value": 1}]


def test_hopping_windows_count_an_event_in_each_window_that_holds_it() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    seen = []
    counts = app.Table("counts", default=int).hopping(10, 5, expires=100)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value
            seen.append((counts[key].current(), counts[key].delta(5)))

    with AppTest(app) as test:
        for second in (1, 6, 7, 12):
            put(test, source, second)
        rows = {start - T0: value for (_, start), value in test.table(counts).items()}
    assert rows == {-5: 1, 0: 3, 5: 3, 10: 1} or rows == {5: 3, 10: 1}  # closed ones are no longer open
    assert seen == [(1, 1), (1, 3 - 1), (2, 3), (1, 3)]


def test_the_field_and_the_clock_choose_the_window() -> None:
    class At(sc.Record):
        time: float

    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str, value_type=At)
    by_field = app.Table("by_field", default=int).tumbling(10).relative_to_field(At.time)
    by_clock = app.Table("by_clock", default=int).tumbling(10).relative_to_now()
    seen = []

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            by_field[key] += 1
            by_clock[key] += 1
            seen.append((by_field[key].value(), by_clock[key].value(), by_clock[key].now()))

    with AppTest(app) as test:
        test.send(source, key="k", value=At(T0 + 1))
        test.advance(10)
        test.send(source, key="k", value=At(T0 + 2))
    assert [row[1:] for row in seen] == [(1, 1), (1, 1)]


def test_a_failing_window_callback_is_retried_and_its_row_is_dead_lettered_alone() -> None:
    app = sc.App("test", topic_partitions=1, on_error=sc.retry(1, backoff=0.1))
    source = app.topic("source", key_type=str)
    closed: list[Any] = []

    def on_close(key: Any, value: int) -> None:
        if key[0] == "bad":
            raise ValueError("cannot")
        closed.append((key[0], value))

    counts = app.Table("counts", default=int, on_window_close=on_close).tumbling(10)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    with AppTest(app) as test:
        for key in ("good", "bad", "zebra"):
            put(test, source, 1, key=key)
        put(test, source, 11, key="good")
        test.settle()
        (letter,) = test.dead_letters()
    assert letter.value == b"1"
    assert b"on_window_close of counts" in letter.headers["streamcore.detail"]
    assert {key for key, _ in closed} >= {"good", "zebra"}


def expected_windows(records: list[tuple[int, str]], size: int, grace: int) -> tuple[dict[tuple[str, int], int], int]:
    """The offline computation: windows by key and start, and how many events were late."""
    counts: dict[tuple[str, int], int] = defaultdict(int)
    watermark, late = -1, 0
    for second, key in records:
        watermark = max(watermark, second)
        start = second - second % size
        if start + size + grace <= watermark:
            late += 1
        else:
            counts[(key, start)] += 1
    return dict(counts), late


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), min_size=1, max_size=40),
    crashes=st.lists(st.integers(0, 39), max_size=3),
    grace=st.sampled_from([0, 7]),
)
def test_final_results_are_those_of_an_offline_computation_whatever_crashes(
    records: list[tuple[int, str]], crashes: list[int], grace: int
) -> None:
    app, source, closed = counting_app(grace=grace)
    with AppTest(app) as test:
        for n, (second, key) in enumerate(records):
            put(test, source, second, key=key, settle=n % 3 == 0)
            if n in crashes:
                test.pass_time(0.003 if n % 2 else 0.02)
                test.crash()
                test.restart()
        put(test, source, 1000, key="end", settle=True)
        finals: dict[tuple[str, int], set[int]] = defaultdict(set)
        for event in test.all_events(closed):
            finals[(event.key, round(event.value["start"]))].add(event.value["value"])
    expected, _ = expected_windows(records, 10, grace)
    assert {window: {value} for window, value in expected.items()} == dict(finals)


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": "soon"}, {"size": 10, "grace": -1}])
def test_a_window_that_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(sc.UsageError):
        sc.App("test").Table("counts").tumbling(**bad)


@pytest.mark.parametrize("cut", range(16))
@pytest.mark.parametrize("lose_tables", [False, True])
def test_a_window_that_stays_readable_closes_once_whatever_crashes_around_its_close(
    cut: int, lose_tables: bool
) -> None:
    app, source, closed = counting_app(expires=30)
    with FaultyAppTest(app) as test:
        put(test, source, 3, settle=True)
        test.faults.reset()
        test.faults.cut_at = cut
        test.pass_time(20)  # it closes by the clock
        test.crash_and_restart(lose_tables=lose_tables)
        test.advance(60)
        values = test.values(closed)
        assert values
        assert all(value == {"start": 0, "end": 10, "value": 1} for value in values)
        test.assert_changelogs_equal_stores()
        assert not test.replay("test-counts-changelog")


def test_windows_that_two_agents_write_close_when_both_have_come_so_far_and_never_twice() -> None:
    app, source, closed = counting_app(expires=20)
    other = app.topic("other", key_type=str)
    windows = next(iter(app.tables.values()))
    assert windows.window is not None
    counts = sc.WindowedTable(windows, windows.window)

    @app.agent(other)
    async def count_too(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    with FaultyAppTest(app, idle_after=1000) as test:
        put(test, source, 1)
        put(test, other, 2, settle=True)
        put(test, source, 25, settle=True)
        assert test.values(closed) == []
        test.crash_and_restart()
        put(test, other, 8, settle=True)  # not late: its own topic has not come further
        assert test.values(closed) == []
        test.crash_and_restart(lose_tables=True)
        put(test, other, 24, settle=True)
        assert test.values(closed) == [{"start": 0, "end": 10, "value": 3}]
        put(test, other, 50)
        put(test, source, 51, settle=True)
        assert test.values(closed) == [{"start": 20, "end": 30, "value": 2}]


def test_an_agent_that_comes_late_to_a_table_does_not_open_its_closed_windows_again() -> None:
    app, source, closed = counting_app()
    other = app.topic("other", key_type=str)
    windows = next(iter(app.tables.values()))
    assert windows.window is not None
    counts = sc.WindowedTable(windows, windows.window)

    @app.agent(other)
    async def count_too(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    with FaultyAppTest(app) as test:
        put(test, source, 1)
        put(test, source, 25, settle=True)
        assert test.values(closed) == [{"start": 0, "end": 10, "value": 1}]
        put(test, other, 2, settle=True)
        put(test, other, 40)
        put(test, source, 40, settle=True)
        test.advance(30)
        assert {value["start"] for value in test.values(closed)} == {20, 40}


def test_what_a_closing_window_writes_belongs_into_its_own_time() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    per_minute = app.Table("per_minute", default=int).tumbling(60)

    def add_up(key: Any, value: int) -> None:
        per_minute[key[0]] += value

    counts = app.Table("counts", default=int, on_window_close=add_up).tumbling(10)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            counts[key] += value

    with AppTest(app) as test:
        for second in (1, 55, 58, 61, 62):
            put(test, source, second)
        test.settle()
        assert {start - T0: value for (_, start), value in test.table(per_minute).items()} in ({0: 3}, {})
        assert test.worker.runs[0].late_total == 0


def test_a_replay_of_old_data_counts_in_the_windows_of_its_field() -> None:
    class Old(sc.Record):
        at: str
        n: int

    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str, value_type=Old, event_time=Old.at)
    finals: list[Any] = []
    counts = app.Table("counts", default=int, on_window_close=lambda key, value: finals.append((key, value)))
    windows = counts.tumbling(3600).relative_to_field(Old.at)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for old in stream:
            windows["all"] += old.n

    with AppTest(app) as test:
        for hour in (1, 1, 2, 3):
            test.send(source, key="k", value=Old(f"2014-04-0{hour}T00:30:00", 1), settle=False)
        test.settle()
    assert [value for _, value in finals] == [2, 1]


def test_a_late_topic_that_cannot_take_the_event_is_the_events_fault() -> None:
    app = sc.App("test", topic_partitions=1, on_error="dead_letter")
    source = app.topic("source", key_type=str, config={"max.message.bytes": "5000000"})
    late = app.topic("late")
    counts = app.Table("counts", default=int).tumbling(10, late=late)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            counts[key] += 1

    with AppTest(app) as test:
        put(test, source, 30)
        put(test, source, 1, value="x" * 2_000_000)
        put(test, source, 2)
        assert len(test.events(late)) == 1
        (letter,) = test.dead_letters()
        assert b"RecordTooLargeError" in letter.headers["streamcore.error"]


def test_a_window_closes_between_the_lists_of_take_and_not_at_the_end_of_what_was_fetched() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    order: list[Any] = []

    def on_close(key: Any, value: int) -> None:
        order.append(("closed", key[1][0] - T0, value))

    counts = app.Table("counts", default=int, on_window_close=on_close).tumbling(10)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for values in stream.take(1):
            counts["k"] += sum(values)
            order.append(("taken", values[0]))

    with AppTest(app) as test:
        for second in (1, 2, 12, 13, 25):
            put(test, source, second, second)
        test.settle()
    assert order[:7] == [
        ("taken", 1), ("taken", 2), ("closed", 0.0, 3),
        ("taken", 12), ("taken", 13), ("closed", 10.0, 25), ("taken", 25),
    ]  # fmt: skip
