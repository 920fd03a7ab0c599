"""What is left after a crash, a lost store, a lost changelog; and errors of log and store that pass."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcore as sc
from streamcore.errors import DiskError, StateError, StreamcoreError
from streamcore.types import TP

from .faulty import FaultyAppTest

T0 = 1_767_225_600
KEYS = "abcdefgh"


def counting_app(**settings_: Any) -> tuple[sc.App, sc.Topic, sc.Topic, sc.Table]:
    settings_.setdefault("on_error", sc.retry(1, backoff=0.05))
    app = sc.App("test", topic_partitions=1, **settings_)
    source, sink = app.topic("source", key_type=str), app.topic("sink", key_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(source, sink=[sink])
    async def count(stream: sc.Stream) -> Any:
        async for event in stream.events():
            counts[event.key] += 1
            yield {"offset": event.offset, "count": counts[event.key]}

    return app, source, sink, counts


def put(test: FaultyAppTest, source: sc.Topic, keys: str) -> None:
    test.put({TP(source.name, 0): [(key.encode(), b"1", T0 * 1000, ()) for key in keys]})


def assert_exact(test: FaultyAppTest, sink: sc.Topic, counts: sc.Table, keys: str) -> None:
    """The table is a count of the input, every output is there, repeats are identical."""
    assert test.table(counts) == Counter(keys)
    test.assert_changelogs_equal_stores()
    seen: dict[int, int] = {}
    for event in test.all_events(sink):
        assert seen.setdefault(event.value["offset"], event.value["count"]) == event.value["count"]
    assert seen == {n: keys[: n + 1].count(key) for n, key in enumerate(keys)}


@pytest.mark.parametrize("lose_tables", [False, True])
def test_rows_that_a_crash_left_in_a_changelog_are_set_right(lose_tables: bool) -> None:
    app, source, _, counts = counting_app()
    changelog = TP("test-counts-changelog", 0)
    with FaultyAppTest(app) as test:
        put(test, source, "ab")
        test.settle()
        test.put({changelog: [(b'"a"', b"100", T0 * 1000, ()), (b'"zombie"', b"1", T0 * 1000, ())]})
        test.crash_and_restart(lose_tables=lose_tables)
        assert test.table(counts) == {"a": 1, "b": 1}
        test.assert_changelogs_equal_stores()
        put(test, source, "b")
        test.crash_and_restart(lose_tables=True)
        assert test.table(counts) == {"a": 1, "b": 2}


def test_a_changelog_that_was_deleted_is_written_again_from_the_store() -> None:
    app, source, _, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "aab")
        test.settle()
        test.crash()
        test.now_of(test.log.delete_topic("test-counts-changelog"))
        test.restart()
        test.assert_changelogs_equal_stores()
        put(test, source, "b")
        test.crash_and_restart(lose_tables=True)
        assert test.table(counts) == {"a": 2, "b": 2}


def test_a_changelog_that_is_deleted_under_a_running_worker_is_made_again() -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "aab")
        test.settle()
        test.now_of(test.log.delete_topic("test-counts-changelog"))
        put(test, source, "a")
        test.settle()
        assert test.worker.healthy() == (True, "ok")
        test.crash_and_restart()
        assert_exact(test, sink, counts, "aaba")
        test.crash_and_restart(lose_tables=True)
        assert test.table(counts) == {"a": 3, "b": 1}


def test_a_lost_store_and_a_lost_changelog_together_are_told_and_the_app_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, source, _, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "aab")
        test.settle()
        test.crash()
        test.lose_tables()
        test.now_of(test.log.delete_topic("test-counts-changelog"))
        test.restart()
        assert "rows are lost" in caplog.text
        put(test, source, "a")
        test.settle()
        assert test.table(counts) == {"a": 1}
        test.assert_changelogs_equal_stores()


def test_input_that_retention_has_deleted_is_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    app, source, _, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "aa")
        test.settle()
        test.crash()
        put(test, source, "bbb")
        test.now_of(test.log.delete_records(TP("source", 0), 4))
        test.restart()
        test.settle()
        assert "has no offset 2 any more" in caplog.text
        assert test.table(counts) == {"a": 2, "b": 1}
        assert test.committed(source) == {0: 5}


@settings(max_examples=40, deadline=None)
@given(
    waves=st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 12), min_size=5, max_size=5),
    losses=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_power_cuts_in_a_row_leave_every_table_exact(waves: list[str], cuts: list[int], losses: list[bool]) -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        for keys, cut, loses in zip(waves, cuts, losses, strict=False):
            test.faults.reset()
            test.faults.cut_at = cut
            put(test, source, keys)
            test.pass_time(0.01 * (cut + 1))
            test.crash_and_restart(lose_tables=loses)
        assert_exact(test, sink, counts, "".join(waves))


# -- errors that pass --------------------------------------------------------------------------------------------------

FULL = DiskError("no space left on device")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("produce sink-0", FULL),
        ("produce test-counts-changelog-0", FULL),
        ("commit", FULL),
        ("write", StateError("the table store does not take a write")),
    ],
)
def test_an_error_of_log_or_store_that_passes_loses_and_doubles_nothing(step: str, error: StreamcoreError) -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "ab")
        test.settle()
        test.faults.answer = lambda name: error if name == step else None
        put(test, source, "abc")
        test.pass_time(1)
        healthy, reason = test.worker.healthy()
        assert not healthy
        assert str(error) in reason
        put(test, source, "ca")
        test.pass_time(3)
        test.faults.answer = lambda name: None
        test.settle()
        assert test.worker.healthy() == (True, "ok")
        assert_exact(test, sink, counts, "ababcca")
        assert [event.value["offset"] for event in test.all_events(sink)] == list(range(7))


@pytest.mark.parametrize("step", ["produce sink-0", "produce test-counts-changelog-0", "commit", "write"])
def test_a_crash_while_a_commit_is_tried_again_is_exact(step: str) -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "ab")
        test.settle()
        test.faults.answer = lambda name: StateError("not now") if name == step else None
        put(test, source, "abc")
        test.pass_time(1)
        test.faults.answer = lambda name: None
        test.crash_and_restart()
        assert_exact(test, sink, counts, "ababc")


def test_an_agent_that_awaits_its_output_gets_its_place_when_the_log_takes_it_again() -> None:
    app = sc.App("test", topic_partitions=1)
    source, sink = app.topic("source"), app.topic("sink")
    places = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            await sink.send(value=f"before {value}")
            places.append((await (await sink.send(value=value))).offset)

    with FaultyAppTest(app) as test:
        test.faults.answer = lambda name: FULL if name == "produce sink-0" else None
        put(test, source, "ab")
        test.pass_time(1)
        assert places == []
        assert FULL.args[0] in test.worker.healthy()[1]
        test.faults.answer = lambda name: None
        test.settle()
        assert places == [1, 3]
        assert test.values(sink) == ["before 1", 1, "before 1", 1]
        assert test.worker.healthy() == (True, "ok")


def test_records_of_sources_wait_for_a_log_that_does_not_take_them_and_keep_their_order() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")

    with FaultyAppTest(app) as test:
        test.faults.answer = lambda name: FULL if name == "produce source-0" else None
        for n in range(5):
            test.send(source, value=n, settle=False)
            test.pass_time(0.3)
        assert FULL.args[0] in test.worker.healthy()[1]
        test.faults.answer = lambda name: None
        assert test.values(source) == [0, 1, 2, 3, 4]
        assert test.worker.healthy() == (True, "ok")


def test_one_bad_record_of_a_source_is_dead_lettered_and_its_neighbours_are_not() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for _ in stream:
            pass

    with FaultyAppTest(app) as test:
        for n in range(4):
            test.send(source, value=n, timestamp=T0 + (10**9 if n == 2 else 0), settle=False)
        assert test.values(source) == [0, 1, 3]
        (letter,) = test.dead_letters()
        assert letter.value == b"2"
        assert b"InvalidTimestampError" in letter.headers["streamcore.error"]


def test_a_deleted_source_topic_is_told_by_healthy_and_the_watchdog_lives_on() -> None:
    app, source, _, counts = counting_app(watchdog_after=3)
    other = app.topic("other")

    @app.agent(other)
    async def hang(stream: sc.Stream) -> None:
        import asyncio

        async for _ in stream:
            await asyncio.sleep(30)

    with FaultyAppTest(app) as test:
        put(test, source, "a")
        test.settle()
        test.now_of(test.log.delete_topic("source"))
        test.pass_time(5)
        healthy, reason = test.worker.healthy()
        assert not healthy
        assert "source" in reason
        test.now_of(test.worker.refresh_metrics())
        test.now_of(test.worker.status())
        test.now_of(test.log.create_topic("source", partitions=1))
        put(test, source, "bbb")
        test.settle()
        assert test.table(counts)["a"] == 1
        assert test.committed(source) == {0: 3}
        put(test, other, "x")
        test.pass_time(10)
        assert "has not moved" in test.worker.healthy()[1]
        test.pass_time(40)
        test.settle()
        assert test.worker.healthy() == (True, "ok")


def test_many_agents_and_tables_fit_beside_an_offset() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    tables = [app.Table(f"a_table_with_a_rather_long_name_{n}", default=int) for n in range(60)]

    def declare(number: int) -> None:
        @app.agent(source, name=f"agent_{number}")
        async def count(stream: sc.Stream) -> None:
            async for key, _ in stream.items():
                for table in tables[number::6]:
                    table[key] += 1

    for number in range(6):
        declare(number)
    with FaultyAppTest(app) as test:
        put(test, source, "aab")
        test.settle()
        assert test.worker.healthy() == (True, "ok")
        test.crash_and_restart(lose_tables=True)
        for table in tables:
            assert test.table(table) == {"a": 2, "b": 1}
        put(test, source, "b")
        for table in tables:
            assert test.table(table) == {"a": 2, "b": 2}


# -- compaction --------------------------------------------------------------------------------------------------------

COUNTS_LOG = TP("test-counts-changelog", 0)


def compact(test: FaultyAppTest) -> int:
    """What a node does in the background, as far as it is due; how many bytes went."""
    node = test.log.node  # type: ignore[attr-defined]
    test.result_of(node.flush())
    test.result_of(node.compact())
    return int(node.counters.compaction_bytes)


def keep_segments_small(test: FaultyAppTest) -> None:
    settings = {"segment.bytes": "400", "min.compaction.lag.ms": "0", "min.cleanable.dirty.ratio": "0"}
    test.now_of(test.log.alter_config(COUNTS_LOG.topic, settings))


def test_a_store_is_rebuilt_exactly_from_a_compacted_changelog() -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "a")
        test.settle()
        keep_segments_small(test)
        for _ in range(30):
            put(test, source, KEYS)
            test.settle()
        assert compact(test) > 1000
        test.crash_and_restart(lose_tables=True)
        assert_exact(test, sink, counts, "a" + KEYS * 30)


@pytest.mark.parametrize("lose_tables", [False, True])
def test_rows_without_a_commit_do_not_make_older_ones_disappear(lose_tables: bool) -> None:
    """Invariant 42, for whoever reads a log only up to an offset."""
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, KEYS)
        test.settle()
        keep_segments_small(test)
        for _ in range(10):
            put(test, source, KEYS[:4])
            test.settle()
        # The rows of commits that the group never hears of, in segments that are closed and cleaned while it is down.
        test.faults.answer = lambda name: FULL if name == "commit" else None
        put(test, source, KEYS * 2)
        test.pass_time(20)
        test.crash()
        test.faults.answer = lambda name: None
        log = test.log.node.directory.log(*COUNTS_LOG)  # type: ignore[attr-defined]
        limit = test.now_of(test.log.committed("test"))[COUNTS_LOG].offset
        assert log.segments[-1].base_offset > limit, "closed segments hold rows without a commit"
        assert compact(test) > 0
        assert log.cleaned_offset <= limit
        if lose_tables:
            test.lose_tables()
        test.restart()
        assert_exact(test, sink, counts, KEYS + KEYS[:4] * 10 + KEYS * 2)
        # The next commit sets the limit free.
        put(test, source, "a")
        test.settle()
        compact(test)
        assert log.cleaned_offset > limit
        test.crash_and_restart(lose_tables=True)
        assert_exact(test, sink, counts, KEYS + KEYS[:4] * 10 + KEYS * 2 + "a")


@settings(max_examples=30, deadline=None)
@given(
    waves=st.lists(st.text("abc", min_size=1, max_size=8), min_size=2, max_size=5),
    cuts=st.lists(st.integers(0, 12), min_size=5, max_size=5),
    losses=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_power_cuts_and_compaction_leave_every_table_exact(
    waves: list[str], cuts: list[int], losses: list[bool]
) -> None:
    app, source, sink, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "abc")
        test.settle()
        keep_segments_small(test)
        for keys, cut, loses in zip(waves, cuts, losses, strict=False):
            test.faults.reset()
            test.faults.cut_at = cut
            put(test, source, keys)
            test.pass_time(0.01 * (cut + 1))
            test.crash()
            compact(test)
            # Even with a segment of its own for every row.
            test.log.node.directory.log(*COUNTS_LOG).roll()  # type: ignore[attr-defined]
            compact(test)
            if loses:
                test.lose_tables()
            test.faults.reset()
            test.restart()
        assert_exact(test, sink, counts, "abc" + "".join(waves))


def test_an_app_without_input_commits_again_before_a_broker_forgets_it() -> None:
    app, source, _, counts = counting_app()
    with FaultyAppTest(app) as test:
        put(test, source, "ab")
        test.settle()
        node = test.log.node  # type: ignore[attr-defined]
        before = node.committed("test", None)
        assert {tp.topic for tp in before} == {"source", COUNTS_LOG.topic}
        test.pass_time(90_000)
        after = node.committed("test", None)
        assert {tp: value[:2] for tp, value in after.items()} == {tp: value[:2] for tp, value in before.items()}
        assert all(after[tp].timestamp_ms >= value.timestamp_ms + 86_000_000 for tp, value in before.items())
        test.crash_and_restart(lose_tables=True)
        assert test.table(counts) == {"a": 1, "b": 1}
