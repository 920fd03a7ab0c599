"""What users do wrong and what outside sends: a clear error, or a dead letter; nothing else lost, nothing stops."""

import asyncio
from typing import Any

import pytest

import streamcore as sc
from streamcore.records.batch import seal
from streamcore.records.codec import encode
from streamcore.testing import AppTest
from streamcore.transport.base import RECORDS_AT_A_TIME
from streamcore.types import TP

from .faulty import FaultyAppTest

T0 = 1_767_225_600


def make_app(**settings: Any) -> sc.App:
    settings.setdefault("on_error", sc.retry(1, backoff=0.05))
    return sc.App("test", topic_partitions=1, **settings)


def put(test: FaultyAppTest, topic: sc.Topic, *values: bytes, key: bytes = b"k") -> None:
    test.put({TP(topic.name, 0): [(key, value, T0 * 1000, ()) for value in values]})


# -- agents that end, break off or wait their own way ------------------------------------------------------------------


def test_an_agent_that_returns_after_each_event_loses_and_doubles_nothing() -> None:
    app = make_app()
    source = app.topic("source")
    seen = app.Table("seen", default=int)

    @app.agent(source)
    async def one_by_one(stream: sc.Stream) -> None:
        async for value in stream:
            seen[str(value)] += 1
            if value == 3:
                raise ValueError("no threes")
            break

    with FaultyAppTest(app) as test:
        put(test, source, *(b"%d" % n for n in range(6)))
        test.settle()
        assert test.table(seen) == {str(n): 1 for n in (0, 1, 2, 4, 5)}
        assert [letter.value for letter in test.dead_letters()] == [b"3"]
        test.crash_and_restart(lose_tables=True)
        assert test.table(seen) == {str(n): 1 for n in (0, 1, 2, 4, 5)}


def test_an_agent_that_returns_after_a_list_is_given_the_next_list() -> None:
    app = make_app()
    source = app.topic("source")
    lists = []

    @app.agent(source)
    async def batches(stream: sc.Stream) -> None:
        async for values in stream.take(3):
            lists.append(values)
            return

    with FaultyAppTest(app) as test:
        put(test, source, *(b"%d" % n for n in range(9)))
        test.settle()
    assert lists == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_a_second_loop_over_the_stream_goes_on_where_the_first_one_left() -> None:
    app = make_app()
    source = app.topic("source")
    seen: list[Any] = []

    @app.agent(source)
    async def two_loops(stream: sc.Stream) -> None:
        async for value in stream:
            seen.append(("first", value))
            break
        seen.append(("next", await anext(stream)))
        async for values in stream.take(2):
            seen.append(("list", values))
            break
        async for value in stream.filter(lambda value: value != 5):
            seen.append(("last", value))

    with FaultyAppTest(app) as test:
        put(test, source, *(b"%d" % n for n in range(8)))
        test.settle()
    assert seen == [("first", 0), ("next", 1), ("list", [2, 3]), ("last", 4), ("last", 6), ("last", 7)]


def test_an_agent_with_a_timeout_of_its_own_is_not_committed_in_the_middle_of_an_event() -> None:
    app = make_app(commit_interval=0.01)
    source = app.topic("source")
    counts = app.Table("counts", default=int)

    @app.agent(source)
    async def impatient(stream: sc.Stream) -> None:
        while True:
            try:
                value = await asyncio.wait_for(anext(aiter(stream)), 1)
            except TimeoutError:
                counts["timeouts"] += 1
                continue
            counts["begun"] += 1
            await asyncio.sleep(0.5)
            counts["done"] += 1
            assert value is not None

    with FaultyAppTest(app) as test:
        test.pass_time(2.5)
        for n in range(3):
            put(test, source, b"%d" % n)
            test.pass_time(0.3)
            test.crash_and_restart()
            test.pass_time(1.1)
        test.pass_time(3)
        rows = {key: value for task in test.worker.tasks for key, value in task.tables["counts"].items()}
        assert rows["begun"] == rows["done"] == 3


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_an_event_that_fails_in_one_of_several_instances_is_dead_lettered_and_the_table_is_exact() -> None:
    app = make_app()
    source = app.topic("source")
    counts = app.Table("counts", default=int)

    @app.agent(source, concurrency=3)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            await asyncio.sleep(0.01 * (value % 3))
            if value == 4:
                raise ValueError("no fours")
            counts[str(value)] += 1

    with FaultyAppTest(app) as test:
        put(test, source, *(b"%d" % n for n in range(9)))
        test.settle()
        assert test.table(counts) == {str(n): 1 for n in range(9) if n != 4}
        assert [letter.value for letter in test.dead_letters()] == [b"4"]
        assert test.committed(source) == {0: 9}
        assert test.worker.runs[0].failures.known == {}


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_stop_policy_stops_the_worker_and_the_event_is_read_again(concurrency: int) -> None:
    app = make_app()
    source = app.topic("source", value_type=int)
    seen = []

    @app.agent(source, concurrency=concurrency, on_error="stop")
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            seen.append(value)

    with FaultyAppTest(app) as test:
        put(test, source, b"1", b"nonsense", b"3")
        test.pass_time(1)
        (run,) = test.worker.runs
        assert run.failed is not None
        assert isinstance(run.failed.exception(), sc.StreamcoreError)
        healthy, reason = test.worker.healthy()
        assert not healthy
        assert "nonsense" in reason
        test._run(test.worker.stop())
        assert test.committed(source) == {0: 1}
    assert seen == [1]


# -- what a table or a topic cannot hold -------------------------------------------------------------------------------


@pytest.mark.parametrize("windowed", [False, True], ids=["plain", "windowed"])
@pytest.mark.parametrize("bad", [object(), "x" * 1_100_000], ids=["no JSON", "too large"])
def test_a_value_that_a_table_cannot_hold_is_its_events_fault(bad: Any, windowed: bool) -> None:
    app = make_app()
    source = app.topic("source")
    table: Any = app.Table("things")
    if windowed:
        table = table.tumbling(60)
    counts = app.Table("counts", default=int)

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            counts["all"] += 1
            table[str(value)] = bad if value == 2 else value

    with FaultyAppTest(app) as test:
        put(test, source, *(b"%d" % n for n in range(5)))
        test.settle()
        (letter,) = test.dead_letters()
        assert letter.value == b"2"
        assert b"table things" in letter.headers["streamcore.error"]
        assert test.table(counts) == {"all": 4}
        assert len(test.table(table)) == 4
        assert test.worker.healthy() == (True, "ok")
        test.assert_changelogs_equal_stores()


def test_a_value_that_is_spoiled_in_place_stops_the_worker_with_its_name() -> None:
    app = make_app()
    source = app.topic("source")
    table = app.Table("things")

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for _ in stream:
            rows: list[Any] = []
            table["rows"] = rows
            rows.append(object())

    with FaultyAppTest(app) as test:
        put(test, source, b"1")
        test.pass_time(2)
        healthy, reason = test.worker.healthy()
        assert not healthy
        assert "table things" in reason
        assert test.committed(source) in ({}, {0: 0})


def test_an_output_that_is_too_large_goes_to_the_dead_letters_at_once() -> None:
    app = make_app()
    source = app.topic("source")
    sink = app.topic("sink")

    @app.agent(source, sink=[sink])
    async def grow(stream: sc.Stream) -> Any:
        async for value in stream:
            yield "x" * value

    with FaultyAppTest(app) as test:
        put(test, source, b"1", b"1100000", b"2")
        assert test.values(sink) == ["x", "xx"]
        (letter,) = test.dead_letters()
        assert b"RecordTooLargeError" in letter.headers["streamcore.error"]


def test_a_poison_record_that_is_too_large_for_the_dead_letters_leaves_its_place_there() -> None:
    app = make_app()
    source = app.topic("source", config={"max.message.bytes": "10000000"})
    seen = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            if len(value) > 1:
                raise ValueError("too long for me")
            seen.append(value)

    with FaultyAppTest(app) as test:
        put(test, source, b'"a"', b'"%b"' % (b"x" * 5_000_000), b'"b"')
        test.settle()
        (letter,) = test.dead_letters()
        assert letter.value is None
        assert letter.headers["streamcore.offset"] == b"1"
        assert b"5000" in letter.headers["streamcore.left-out"]
    assert dict.fromkeys(seen) == {"a": None, "b": None}


def test_an_event_whose_clock_is_far_ahead_does_not_block_what_follows() -> None:
    app = make_app()
    source = app.topic("source", event_time="at")
    sink = app.topic("sink")

    @app.agent(source, sink=[sink])
    async def pass_on(stream: sc.Stream) -> Any:
        async for value in stream:
            yield value["n"]

    with FaultyAppTest(app) as test:
        put(test, source, b'{"n": 1, "at": %d}' % T0, b'{"n": 2, "at": %d}' % (T0 + 90_000_000),
            b'{"n": 3, "at": 1e300}', b'{"n": 4}', b'{"n": 5, "at": "soon"}', b'{"n": 6, "at": %d}' % T0)  # fmt: skip
        assert test.values(sink) == [1, 6]
        letters = test.dead_letters()
        assert [letter.headers["streamcore.offset"] for letter in letters] == [b"1", b"2", b"3", b"4"]
        assert b"future" in letters[0].headers["streamcore.error"]


def test_a_topic_that_nobody_declared_is_refused_with_its_name() -> None:
    app = make_app()
    source = app.topic("source")
    stranger = sc.Topic("stranger")

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            await stranger.send(value=value)

    with FaultyAppTest(app) as test:
        put(test, source, b"1")
        test.settle()
        (letter,) = test.dead_letters()
    assert b"topic stranger is not on the log: declare it" in letter.headers["streamcore.error"]


def test_topics_made_elsewhere_are_declared_by_the_agent_that_uses_them() -> None:
    app = make_app()
    source, sink = sc.Topic("source", partitions=1), sc.Topic("sink", partitions=1)

    @app.agent(source, sink=[sink])
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            yield value

    with AppTest(app) as test:
        test.send(source, value=1)
        assert test.values(sink) == [1]


# -- bytes from outside ------------------------------------------------------------------------------------------------


class Strict(sc.Record):
    n: int
    rest: Any = None

    def __post_init__(self) -> None:
        if self.n == 13:
            raise KeyError("thirteen")


def test_whatever_decoding_raises_is_a_dead_letter() -> None:
    app = make_app()
    source = app.topic("source", key_type=str, value_type=Strict)
    seen = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            seen.append((key, value.n))

    deep = b'{"n": 1, "rest": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with FaultyAppTest(app) as test:
        put(test, source, b'{"n": 1}', deep, b'{"n": 13}', b"\x00\xff", b"", b'{"n": NaN}', b'{"n": 2}')
        put(test, source, b'{"n": 3}', key=b"\xff\xfe")
        put(test, source, b'{"n": 4}')
        test.settle()
        letters = test.dead_letters()
    assert list(dict.fromkeys(seen)) == [("k", 1), ("k", 2), ("k", 4)]
    assert [letter.headers["streamcore.offset"] for letter in letters] == [b"1", b"2", b"3", b"4", b"5", b"7"]


def test_a_filter_that_raises_on_one_value_buries_that_one_alone() -> None:
    app = make_app()
    source = app.topic("source")
    lists, single = [], []

    @app.agent(source)
    async def batches(stream: sc.Stream) -> None:
        async for values in stream.filter(lambda value: 10 / value > 0).take(3, within=1):
            lists.extend(values)

    @app.agent(source)
    async def values(stream: sc.Stream) -> None:
        async for value in stream.filter(lambda value: 10 / value > 0):
            single.append(value)

    with FaultyAppTest(app) as test:
        put(test, source, b"1", b"2", b"0", b"4", b"5")
        test.pass_time(5)
        test.settle()
        letters = test.dead_letters()
    assert sorted((letter.headers["streamcore.agent"], letter.value) for letter in letters) == [
        (b"batches", b"0"), (b"values", b"0"),
    ]  # fmt: skip
    assert set(lists) == {1, 2, 4, 5}
    assert set(single) == {1, 2, 4, 5}


# -- declarations ------------------------------------------------------------------------------------------------------


def test_declarations_that_cannot_be_say_why() -> None:
    app = make_app()
    source = app.topic("source", value_type=int)

    async def agent(stream: sc.Stream) -> None: ...

    def not_async(stream: sc.Stream) -> None: ...

    with pytest.raises(sc.UsageError, match="parentheses"):
        app.agent(agent)  # type: ignore[arg-type]
    with pytest.raises(sc.UsageError, match="async def not_async"):
        app.agent(source)(not_async)  # type: ignore[arg-type]
    with pytest.raises(sc.UsageError, match="concurrency"):
        app.agent(source, concurrency=0)(agent)
    with pytest.raises(sc.UsageError, match="source"):
        app.agent(app.Table("t"))(agent)  # type: ignore[arg-type]
    with pytest.raises(sc.UsageError, match="no policy"):
        app.agent(source, on_error="ignore")(agent)
    with pytest.raises(sc.UsageError, match="sink"):
        app.agent(source, sink=[3])(agent)
    with pytest.raises(sc.UsageError, match="different types"):
        app.topic("source", value_type=str)
    with pytest.raises(sc.UsageError, match="twice"):
        app.Table("t")
    with pytest.raises(sc.UsageError, match="did you mean web_port"):
        sc.App("x", webport=1)
    with pytest.raises(sc.UsageError, match="more than 0"):
        app.timer(0)
    app.agent(source)(agent)
    with pytest.raises(sc.UsageError, match="two agents"):
        app.agent(source)(agent)


def test_tables_and_topics_outside_of_a_worker_say_what_is_missing() -> None:
    app = make_app()
    table, windows, topic = app.Table("t"), app.Table("w").tumbling(10), app.topic("topic")
    with pytest.raises(TypeError, match="outside of stream iteration"):
        table["a"] = 1
    with pytest.raises(TypeError, match="outside of stream iteration"):
        windows["a"] += 1
    with pytest.raises(sc.UsageError, match="worker"):
        _ = table["a"]
    with pytest.raises(sc.UsageError, match="start the app's worker"):
        topic.send_soon(value=1)


def test_a_batch_whose_records_cannot_be_read_stops_its_partition_and_no_other() -> None:
    app = sc.App("test", topic_partitions=2)
    source = app.topic("source", value_type=bytes)
    seen: dict[int, list[bytes]] = {0: [], 1: []}

    @app.agent(source)
    async def note(stream: sc.Stream) -> None:
        async for event in stream.events():
            seen[event.tp.partition].append(event.value)

    count, broken = 2 * RECORDS_AT_A_TIME, RECORDS_AT_A_TIME + 22
    batch = bytearray(encode([(None, b"%04d" % n, T0 * 1000, ()) for n in range(count)]))
    batch[batch.index(b"%04d" % broken) - 1] = 0xFE  # the value's length, under a right checksum
    seal(batch, 0, len(batch))
    with FaultyAppTest(app) as test:
        tp = TP("source", 0)
        log: Any = test.log
        test.now_of(log.node.append({tp: [bytes(batch)]}, records={tp: count}, durable=False))
        test.pass_time(5)
        test.put({TP("source", 1): [(None, b"fine", T0 * 1000, ())]})
        test.pass_time(5)
        assert seen[0] == [b"%04d" % n for n in range(broken)]
        assert seen[1] == [b"fine"]
        run = next(run for run in test.worker.runs if run.task.partition == 0)
        assert "records of a batch cannot be read" in str(run.failing)
        assert test.committed(source)[0] == broken
