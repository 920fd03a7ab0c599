"""Agents over the memory log: what comes out, what is committed, what errors do."""

from typing import Any

import pytest

import streamcore as sc
from streamcore.testing import AppTest


class Reading(sc.Record):
    host: str
    value: float


def make_app(**settings: Any) -> sc.App:
    return sc.App("test", topic_partitions=2, **settings)


def test_yielded_values_go_to_the_sink_under_the_events_key() -> None:
    app = make_app()
    source = app.topic("source", key_type=str, value_type=Reading)
    sink = app.topic("sink", key_type=str, value_type=Reading)

    @app.agent(source, sink=[sink])
    async def double(stream: sc.Stream) -> Any:
        async for reading in stream:
            yield Reading(reading.host, reading.value * 2)

    with AppTest(app) as test:
        for n in range(10):
            test.send(source, key=f"h{n % 3}", value=Reading(f"h{n % 3}", n), settle=False)
        events = test.events(sink)
    assert sorted(event.value.value for event in events) == [n * 2.0 for n in range(10)]
    assert all(event.key == event.value.host for event in events)


def test_a_function_sink_and_a_coroutine_sink_get_every_value() -> None:
    app = make_app()
    source = app.topic("source")
    plain: list[Any] = []
    waited: list[Any] = []

    async def coroutine(value: Any) -> None:
        waited.append(value)

    @app.agent(source, sink=[plain.append, coroutine])
    async def pass_on(stream: sc.Stream) -> Any:
        async for value in stream:
            yield value

    with AppTest(app) as test:
        test.send(source, value=1)
        test.send(source, value={"a": 2})
    assert plain == waited == [1, {"a": 2}]


def test_items_events_filter_and_enumerate() -> None:
    app = make_app()
    source = app.topic("source", key_type=str, partitions=1)
    seen: dict[str, list[Any]] = {"items": [], "events": [], "filter": [], "enumerate": []}

    @app.agent(source)
    async def items(stream: sc.Stream) -> None:
        async for key, value in stream.items():
            seen["items"].append((key, value))

    @app.agent(source)
    async def events(stream: sc.Stream) -> None:
        async for event in stream.events():
            assert sc.current_event() is not None
            seen["events"].append((event.message.offset, event.headers))

    @app.agent(source)
    async def filtered(stream: sc.Stream) -> None:
        async def is_small(value: int) -> bool:
            return value < 5

        async for value in stream.filter(lambda value: value % 2 == 0).filter(is_small):
            seen["filter"].append(value)

    @app.agent(source)
    async def enumerated(stream: sc.Stream) -> None:
        async for n, value in stream.enumerate(10):
            seen["enumerate"].append((n, value))

    with AppTest(app) as test:
        for n in range(6):
            test.send(source, key="k", value=n, headers={"n": str(n)})
    assert seen["items"] == [("k", n) for n in range(6)]
    assert seen["events"] == [(n, {"n": str(n).encode()}) for n in range(6)]
    assert seen["filter"] == [0, 2, 4]
    assert seen["enumerate"] == [(10 + n, n) for n in range(6)]


def test_take_gives_full_lists_and_a_short_one_when_its_time_is_up() -> None:
    app = make_app()
    source = app.topic("source", partitions=1)
    lists: list[list[int]] = []

    @app.agent(source)
    async def batch(stream: sc.Stream) -> None:
        async for values in stream.take(3, within=10):
            lists.append(values)

    with AppTest(app) as test:
        for n in range(7):
            test.send(source, value=n, settle=False)
        test.pass_time(5)
        assert lists == [[0, 1, 2], [3, 4, 5]]
        test.advance(6)
    assert lists == [[0, 1, 2], [3, 4, 5], [6]]


def test_events_held_by_take_are_read_again_after_a_crash() -> None:
    app = make_app()
    source = app.topic("source", partitions=1)
    lists: list[list[int]] = []

    @app.agent(source)
    async def batch(stream: sc.Stream) -> None:
        async for values in stream.take(3, within=1000):
            lists.append(values)

    with AppTest(app) as test:
        for n in range(4):
            test.send(source, value=n, settle=False)
        test.pass_time(1)
        test.crash()
        test.restart()
        for n in range(4, 6):
            test.send(source, value=n, settle=False)
        test.settle()
    assert [0, 1, 2] in lists
    assert lists[-1] == [3, 4, 5]


def test_a_failing_event_is_retried_and_then_dead_lettered_and_the_others_are_done_once() -> None:
    app = make_app(on_error=sc.retry(2, backoff=0.1))
    source = app.topic("source", key_type=str, partitions=1)
    sink = app.topic("sink", partitions=1)
    totals = app.Table("totals", default=int)
    tries = []

    @app.agent(source, sink=[sink])
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            totals["sum"] += value
            if value == 3:
                tries.append(value)
                raise ValueError("three is too many")
            yield value

    with AppTest(app) as test:
        for n in range(6):
            test.send(source, key="k", value=n, headers={"mine": "yes"}, settle=False)
        test.settle()
        letters = test.dead_letters()
        assert test.table(totals) == {"sum": 0 + 1 + 2 + 4 + 5}
        assert test.values(sink) == [0, 1, 2, 4, 5]
    assert len(tries) == 3
    (letter,) = letters
    assert letter.value == b"3"
    assert letter.headers["mine"] == b"yes"
    assert letter.headers["streamcore.topic"] == b"source"
    assert letter.headers["streamcore.offset"] == b"3"
    assert letter.headers["streamcore.attempts"] == b"3"
    assert b"three is too many" in letter.headers["streamcore.traceback"]


def test_an_event_that_recovers_on_retry_counts_once() -> None:
    app = make_app(on_error=sc.retry(3, backoff=0.1))
    source = app.topic("source", partitions=1)
    totals = app.Table("totals", default=int)
    failures = [True, True]

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            totals["sum"] += value
            if value == 2 and failures:
                failures.pop()
                raise OSError("the other side is away")

    with AppTest(app) as test:
        for n in range(4):
            test.send(source, value=n, settle=False)
        assert test.table(totals) == {"sum": 6}
        assert test.dead_letters() == []


@pytest.mark.parametrize(("policy", "letters"), [("skip", 0), ("dead_letter", 1)])
def test_policies_that_do_not_retry(policy: str, letters: int) -> None:
    app = make_app()
    source = app.topic("source", partitions=1)
    sink = app.topic("sink", partitions=1)

    @app.agent(source, sink=[sink], on_error=policy)
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            yield 10 // value

    with AppTest(app) as test:
        for n in (1, 0, 2):
            test.send(source, value=n, settle=False)
        assert test.values(sink) == [10, 5]
        assert len(test.dead_letters()) == letters


def test_bytes_that_are_no_value_go_to_the_dead_letters_and_nothing_stops() -> None:
    app = make_app()
    source = app.topic("source", key_type=str, value_type=Reading, partitions=1)
    raw = sc.Topic("source", value_type=bytes)
    sink = app.topic("sink", partitions=1)

    @app.agent(source, sink=[sink])
    async def work(stream: sc.Stream) -> Any:
        async for reading in stream:
            yield None if reading is None else reading.value

    good = Reading("h", 1.0).dumps()
    with AppTest(app) as test:
        for value in (b"\xff\x00", good, b'{"host": 3}', good, None, b"{", good):
            test.send(raw, key=b"k", value=value, settle=False)
        assert test.values(sink) == [1.0, 1.0, None, 1.0]
        assert [letter.value for letter in test.dead_letters()] == [b"\xff\x00", b'{"host": 3}', b"{"]


def test_tables_and_positions_survive_a_crash_without_doubling() -> None:
    app = make_app()
    source = app.topic("source", key_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(source)
    async def count(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            counts[key] += 1

    with AppTest(app) as test:
        for n in range(20):
            test.send(source, key=f"k{n % 4}", value=n, settle=False)
            if n % 5 == 4:
                test.pass_time(0.003)  # on the log, and not yet committed
                test.crash()
                test.restart()
        assert test.table(counts) == {f"k{n}": 5 for n in range(4)}
        test.crash()
        test.lose_tables()
        test.restart()
        assert test.table(counts) == {f"k{n}": 5 for n in range(4)}
        test.send(source, key="k0", value=0)
        assert test.table(counts)["k0"] == 6


def test_an_agent_sends_to_another_agent_and_waits_for_an_acknowledgement() -> None:
    app = make_app()
    source = app.topic("source", partitions=1)
    other = app.topic("other", partitions=1)
    places = []

    @app.agent(source)
    async def first(stream: sc.Stream) -> None:
        async for value in stream:
            acknowledged = await (await other.send(value=value))
            places.append((acknowledged.topic, acknowledged.offset))

    seen = []

    @app.agent(other)
    async def second(stream: sc.Stream) -> None:
        async for value in stream:
            seen.append(value)

    with AppTest(app) as test:
        test.send(source, value="a")
        test.send(source, value="b")
    assert places == [("other", 0), ("other", 1)]
    assert seen == ["a", "b"]


def test_concurrent_instances_never_commit_past_an_event_in_flight() -> None:
    import asyncio

    app = make_app()
    source = app.topic("source", partitions=1)
    gates = {n: asyncio.Event() for n in range(4)}
    done: list[int] = []

    @app.agent(source, concurrency=3)
    async def work(stream: sc.Stream) -> None:
        async for value in stream:
            await gates[value].wait()
            done.append(value)

    with AppTest(app) as test:
        for n in range(4):
            test.send(source, value=n, settle=False)
        test.run_ready()
        gates[1].set()
        gates[2].set()
        test.pass_time(1)
        assert done == [1, 2]
        assert test.committed(source) == {0: 0}
        gates[0].set()
        test.pass_time(1)
        assert test.committed(source) == {0: 3}
        gates[3].set()
        test.settle()
        assert test.committed(source) == {0: 4}


def test_timers_and_tasks_run_and_a_failing_one_is_tried_again() -> None:
    app = make_app()
    sink = app.topic("sink", partitions=1)
    starts = []

    @app.timer(10)
    async def tick() -> None:
        await sink.send(value="tick")

    @app.task
    async def once(given: sc.App) -> None:
        starts.append(given)
        if len(starts) == 1:
            raise OSError("not yet")

    with AppTest(app) as test:
        test.advance(35)
        assert test.values(sink) == ["tick"] * 3
    assert starts == [app, app]
