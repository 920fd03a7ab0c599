"""Tables as mappings, through an agent."""

from typing import Any

import pytest

import streamcore as sc
from streamcore.engine.cursor import Cursor
from streamcore.testing import AppTest
from streamcore.types import TP


def within(body: Any, **table: Any) -> AppTest:
    """Run `body(table)` at one event of an agent."""
    app = sc.App("test", topic_partitions=1, on_error="stop")
    source = app.topic("source")
    declared = app.Table("table", **table)
    errors: list[BaseException] = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for _ in stream:
            try:
                body(declared)
            except BaseException as error:
                errors.append(error)

    with AppTest(app) as test:
        test.send(source, value=1)
        if errors:
            raise errors[0]
    return test


def test_a_table_without_a_default_is_a_dictionary() -> None:
    def body(table: sc.Table) -> None:
        with pytest.raises(KeyError):
            _ = table["a"]
        with pytest.raises(KeyError):
            del table["a"]
        table["a"] = 1
        table.update(b=2, c=3)
        assert "a" in table
        assert "x" not in table
        assert table.get("x") is None
        assert table.get("x", 5) == 5
        assert sorted(table) == ["a", "b", "c"]
        assert len(table) == 3
        assert table.pop("a") == 1
        assert table.pop("a", None) is None
        with pytest.raises(KeyError):
            table.pop("a")
        assert table.setdefault("d", 4) == 4
        assert table.setdefault("d", 5) == 4
        assert dict(table.items()) == {"b": 2, "c": 3, "d": 4}
        assert sorted(table.values()) == [2, 3, 4]
        table.clear()
        assert len(table) == 0
        table["again"] = None
        assert table["again"] is None
        assert "again" in table

    within(body)


def test_a_default_is_given_and_not_kept() -> None:
    def body(table: sc.Table) -> None:
        assert table["a"] == 0
        assert "a" not in table
        table["a"] += 1
        assert table["a"] == 1
        assert table.pop("x", None) is None
        with pytest.raises(KeyError):
            table.pop("x")
        assert table.setdefault("y", 7) == 7
        assert table["y"] == 7

    within(body, default=int)


def test_keys_are_what_json_can_hold_and_tuples() -> None:
    def body(table: sc.Table) -> None:
        for key in ("a", 1, ("a", 1), None, True, 2.5):
            table[key] = 1
        with pytest.raises(TypeError):
            table[{1, 2}] = 1
        with pytest.raises(TypeError):
            _ = table[object()]

    within(body)


def test_the_bytes_of_an_untyped_key_find_their_row_again() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")
    counts = app.Table("counts", default=int)
    totals = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            counts[key] += 1
            totals.append((counts[key], len(counts)))

    with AppTest(app) as test:
        for _ in range(2):
            test.send(source, key=b"a", value=1)
            test.crash()
            test.restart()
            test.send(source, key=b"a", value=1)
    assert totals == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_model_as_default_types_the_values() -> None:
    class Stats(sc.Record):
        count: int = 0

    app = sc.App("test", topic_partitions=1)
    source = app.topic("source", key_type=str)
    stats = app.Table("stats", default=Stats)

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            row = stats[key]
            row.count += 1
            stats[key] = row

    with AppTest(app) as test:
        for _ in range(3):
            test.send(source, key="a", value=1)
        test.crash()
        test.restart()
        test.send(source, key="a", value=1)
        assert test.table(stats) == {"a": Stats(4)}


def test_a_table_that_the_key_places_can_be_written_outside_of_agents_and_is_kept() -> None:
    app = sc.App("test", topic_partitions=2)
    source = app.topic("source", key_type=str)
    table = app.Table("table", default=int, use_partitioner=True)

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for key, _ in stream.items():
            table[key] += 1

    with AppTest(app) as test:
        for key in "abcd":
            test.send(source, key=key, value=1)
        for key in "abcd":
            table[key] += 10
        assert {key: table[key] for key in "abcd"} == dict.fromkeys("abcd", 11)
        test.advance(1)
        test.crash()
        test.lose_tables()
        test.restart()
        assert test.table(table) == dict.fromkeys("abcd", 11)


def test_a_table_that_only_a_task_writes_is_kept() -> None:
    app = sc.App("test", topic_partitions=2)
    source = app.topic("source", key_type=str)
    table = app.Table("table", use_partitioner=True)

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for _ in stream:
            pass

    @app.task
    async def write() -> None:
        for key in "abcdef":
            table.setdefault(key, 1)

    with AppTest(app) as test:
        test.advance(1)
        for lose_tables in (False, True):
            test.crash()
            if lose_tables:
                test.lose_tables()
            test.restart()
            assert test.table(table) == dict.fromkeys("abcdef", 1)


def test_a_table_that_nobody_could_commit_is_refused() -> None:
    app = sc.App("test", topic_partitions=1)
    table = app.Table("table", use_partitioner=True, partitions=3)
    app.topic("source")

    @app.agent("source")
    async def work(stream: sc.Stream) -> None: ...

    with AppTest(app), pytest.raises(sc.UsageError, match="nothing would commit its rows"):
        table["a"] = 1


def test_cursors_say_where_they_are() -> None:
    assert {"partition", "value", "event", "time_ms", "watermark_ms", "now_ms"} <= set(dir(Cursor))
    assert str(TP("a", 3)) == "a-3"
