"""Joins through the engine: against an offline computation, idle sides, poison, crashes."""

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamcore as sc
from streamcore.engine.run_state import state_of
from streamcore.errors import PartitionsMismatchError
from streamcore.types import TP, OutRecord

from .faulty import FaultyAppTest

T0 = 1_767_225_600


class Joining:
    """An app that joins two topics and writes down what it is given."""

    def __init__(self, *, filtered: bool = False, on_error: Any = None, **options: Any) -> None:
        app = self.app = sc.App(
            "test",
            topic_partitions=1,
            on_error=on_error or sc.retry(1, backoff=0.05),
            idle_after=1,
            commit_interval=0.05,
        )
        self.left, self.right = app.topic("left", key_type=str), app.topic("right", key_type=str)
        self.late = app.topic("late")
        self.out = app.topic("out", key_type=str)
        self.poison: list[Any] = []
        totals = self.totals = app.Table("totals", default=int)
        self.windows: list[Any] = []

        def closed(key: Any, value: int) -> None:
            self.windows.append((key[0], key[1][0] - T0, value))

        per_window = app.Table("per_window", default=int, on_window_close=closed).tumbling(10)

        @app.agent(self.left, sink=[self.out])
        async def join(stream: sc.Stream) -> Any:
            if filtered:
                stream = stream.filter(lambda value: 1 / value > 0)
            async for left, right in stream.join(self.right, **options):
                event = sc.current_event()
                assert event is not None
                totals["rows"] += 1
                per_window["rows"] += 1
                if [left, right] in self.poison:
                    raise ValueError("poison")
                yield {"left": left, "right": right, "at": event.timestamp // 1000 - T0}

    def rows(self, test: FaultyAppTest) -> list[Any]:
        """What came out; repeats once."""
        return [orjson.loads(row) for row in dict.fromkeys(orjson.dumps(v) for v in test.values(self.out))]


def record(second: float, value: Any, key: str | None = "k") -> OutRecord:
    return (None if key is None else key.encode(), orjson.dumps(value), int((T0 + second) * 1000), ())


def put(test: FaultyAppTest, topic: str, *records: OutRecord) -> None:
    test.put({TP(topic, 0): list(records)})


def test_an_inner_join_gives_pairs_at_once() -> None:
    joining = Joining(before=5, after=5)
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(10, 1), record(20, 2), record(11, 3, "other"))
        put(test, "right", record(15, "a"), record(15.001, "b"), record(25.001, "c"))
        test.settle()
        assert joining.rows(test) == [
            {"left": 1, "right": "a", "at": 10},
            {"left": 2, "right": "a", "at": 20},
            {"left": 2, "right": "b", "at": 20},
        ]


def test_a_left_join_gives_the_unmatched_when_nothing_can_match_them_any_more() -> None:
    joining = Joining(before=5, after=5, grace=2, how="left")
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(10, 1))
        put(test, "right", record(17, "later"))
        put(test, "left", record(17, 2))
        test.settle()
        assert joining.rows(test) == [{"left": 2, "right": "later", "at": 17}]
        put(test, "left", record(17.001, 3))
        put(test, "right", record(17.001, "x"))
        test.settle()
        assert {"left": 1, "right": None, "at": 10} in joining.rows(test)


def test_an_outer_join_with_lists_gives_both_kinds_of_unmatched_once_by_the_clock() -> None:
    joining = Joining(before=5, after=5, how="outer", collect=True)
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(10, 1), record(40, 2))
        put(test, "right", record(9, "b"), record(12, "c"), record(25, "alone"))
        test.settle()
        assert joining.rows(test) == [{"left": 1, "right": ["b", "c"], "at": 10}]
        test.advance(60)
        rows = joining.rows(test)
        assert {"left": 2, "right": [], "at": 40} in rows
        assert {"left": None, "right": ["alone"], "at": 25} in rows
        test.advance(60)
        assert joining.rows(test) == []


def test_an_idle_right_side_does_not_hold_back_the_left_one() -> None:
    joining = Joining(before=5, after=5, how="left", collect=True)
    with FaultyAppTest(joining.app) as test:
        for second in range(0, 60, 2):
            put(test, "left", record(second, second))
            test.pass_time(2)
        test.settle()
        assert len(joining.rows(test)) >= 25


def test_rows_too_late_for_any_match_go_to_the_late_topic_as_they_were() -> None:
    joining = Joining(before=5, after=5, how="left", late="drop")
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(100, 1))
        put(test, "right", record(100, "a"), record(80, "late"))
        test.settle()
        assert test.worker.runs[0].late_total == 1

    app = sc.App("test", topic_partitions=1)
    left, right, late = app.topic("left"), app.topic("right"), app.topic("late", key_type=str)

    @app.agent(left)
    async def join(stream: sc.Stream) -> None:
        async for _ in stream.join(right, before=5, after=5, late=late):
            pass

    with FaultyAppTest(app) as test:
        put(test, "left", record(100, 1))
        put(test, "right", record(100, "a"), record(80, "late"))
        put(test, "left", record(70, "late too"))
        (one, two) = test.events(late)
        assert [(e.key, e.value, e.timestamp) for e in (one, two)] == [
            ("k", "late", (T0 + 80) * 1000), ("k", "late too", (T0 + 70) * 1000),
        ]  # fmt: skip
        test.crash_and_restart(lose_tables=True)
        assert test.events(late) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"how": "right"}, "how"),
        ({"before": -1}, "join before"),
        ({"late": "ignore"}, "late"),
        ({"other": "right"}, "a stream joins a topic"),
    ],
)
def test_a_join_that_cannot_be_stops_the_worker_with_the_reason(wrong: dict[str, Any], message: str) -> None:
    app = sc.App("test", topic_partitions=1)
    left, right = app.topic("left"), app.topic("right")

    @app.agent(left)
    async def join(stream: sc.Stream) -> None:
        async for _ in stream.join(wrong.pop("other", right), **wrong):
            pass

    with FaultyAppTest(app) as test:
        test.pass_time(1)
        failed = test.worker.runs[0].failed
        assert failed is not None
        assert isinstance(failed.exception(), sc.UsageError)
        assert message in str(failed.exception())


def test_topics_with_different_partitions_and_a_second_join_are_refused() -> None:
    app = sc.App("test", topic_partitions=1)
    left, right, other = app.topic("left"), app.topic("right", partitions=2), app.topic("other")

    @app.agent(left)
    async def mismatched(stream: sc.Stream) -> None:
        async for _ in stream.join(right):
            pass

    with FaultyAppTest(app) as test:
        test.pass_time(1)
        error = test.worker.runs[0].failed.exception()  # type: ignore[union-attr]
        assert isinstance(error, PartitionsMismatchError)
        assert "left with 1" in str(error)
        assert "right with 2" in str(error)

    app = sc.App("test", topic_partitions=1)
    left, other = app.topic("left"), app.topic("other")

    @app.agent(left)
    async def twice(stream: sc.Stream) -> None:
        async for _ in stream.join(other):
            break
        async for _ in stream.join(other):
            pass

    with FaultyAppTest(app) as test:
        put(test, "left", record(0, 1))
        put(test, "other", record(0, 1))
        test.pass_time(1)
        assert "joins twice" in test.worker.healthy()[1] or "in the middle of a join" in test.worker.healthy()[1]


# -- poison ------------------------------------------------------------------------------------------------------------


def test_a_poison_pair_is_dead_lettered_alone() -> None:
    joining = Joining(before=5, after=5, how="left")
    joining.poison = [[2, "a"]]
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(1, 1), record(2, 2), record(3, 3))
        put(test, "right", record(4, "a"), record(5, "b"))
        test.advance(60)
        pairs = {(row["left"], row["right"]) for row in joining.rows(test)}
        assert pairs == {(left, right) for left in (1, 2, 3) for right in ("a", "b")} - {(2, "a")}
        (letter,) = test.dead_letters()
        assert letter.value == b'"a"'
        assert letter.headers["streamcore.topic"] == b"right"
        assert b"joined row" in letter.headers["streamcore.detail"]
        assert test.table(joining.totals) == {"rows": 5}
        assert test.worker.runs[0].failures.known == {}
        test.crash_and_restart(lose_tables=True)
        test.advance(60)
        assert test.dead_letters() == []
        assert test.table(joining.totals) == {"rows": 5}


def test_a_poison_row_at_a_close_is_dead_lettered_alone() -> None:
    joining = Joining(before=5, after=5, how="outer", collect=True)
    joining.poison = [[2, ["a"]], [None, ["alone"]]]
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(10, 1), record(11, 2, "z"), record(12, 3))
        put(test, "right", record(11, "a", "z"), record(12, "b"), record(30, "alone"), record(31, "fine"))
        test.advance(60)
        rows = [(row["left"], row["right"]) for row in joining.rows(test)]
        assert sorted(rows, key=repr) == [(1, ["b"]), (3, ["b"]), (None, ["fine"])]
        letters = test.dead_letters()
        assert sorted(letter.value for letter in letters) == [b'"alone"', b"2"]
        assert test.table(joining.totals) == {"rows": 3}
        assert test.worker.runs[0].failures.known == {}


def test_unreadable_rows_of_both_sides_and_a_filter_that_raises_are_dead_lettered_alone() -> None:
    joining = Joining(filtered=True, before=5, after=5)
    with FaultyAppTest(joining.app) as test:
        bad_key: OutRecord = (b"\xff", b"1", T0 * 1000, ())
        bad_value: OutRecord = (b"k", b"\xff", T0 * 1000, ())
        put(test, "left", record(0, 1), bad_key, bad_value, record(0, 0), record(1, 2))
        put(test, "right", bad_key, bad_value, record(1, "a"))
        test.settle()
        assert [(row["left"], row["right"]) for row in joining.rows(test)] == [(1, "a"), (2, "a")]
        assert len(test.dead_letters()) == 5
        test.crash_and_restart()
        put(test, "right", record(1.5, "b"))
        test.settle()
        assert [(row["left"], row["right"]) for row in joining.rows(test)] == [(1, "b"), (2, "b")]
        assert test.dead_letters() == []


@pytest.mark.parametrize("poison", [[2, "a"], [2, None]])
def test_the_stop_policy_stops_a_join_before_the_row_and_it_comes_again(poison: Any) -> None:
    joining = Joining(before=5, after=5, how="left", on_error="stop")
    joining.poison = [poison]
    with FaultyAppTest(joining.app) as test:
        put(test, "left", record(1, 1), record(2, 2), record(30, 3))
        put(test, "right", record(3, "a", "k" if poison[1] else "other"), record(29, "b"))
        test.pass_time(30)
        assert not test.worker.healthy()[0]
        test._run(test.worker.stop())
        joining.poison = []
        test.crash_and_restart()
        test.advance(60)
        rows = {(row["left"], row["right"]) for row in joining.rows(test)}
        assert rows == ({(1, "a"), (2, "a")} if poison[1] else {(1, None), (2, None)}) | {(3, "b")}
        assert test.table(joining.totals) == {"rows": 3}


# -- crashes -----------------------------------------------------------------------------------------------------------


def offline(rows: list[tuple[str, int]], how: str, collect: bool, reach: int) -> Counter[str]:
    lefts = [(second, n) for n, (side, second) in enumerate(rows) if side == "left"]
    rights = [(second, n) for n, (side, second) in enumerate(rows) if side == "right"]
    result: list[Any] = []
    matched = set()
    for second, n in lefts:
        mine = sorted((r for r in rights if abs(r[0] - second) <= reach), key=lambda r: r[0])
        matched.update(mine)
        if collect:
            if mine or how != "inner":
                result.append((n, sorted(m for _, m in mine)))
        else:
            result += [(n, m) for _, m in mine]
            if not mine and how != "inner":
                result.append((n, None))
    if how == "outer":
        result += [(None, [m] if collect else m) for second, m in rights if (second, m) not in matched]
    return Counter(map(repr, result))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["left", "right"]), st.integers(0, 6)), min_size=1, max_size=24),
    how=st.sampled_from(["inner", "left", "outer"]),
    collect=st.booleans(),
    crashes=st.dictionaries(st.integers(0, 23), st.tuples(st.integers(0, 8), st.booleans()), max_size=3),
)
def test_outputs_equal_an_offline_computation_whatever_crashes(
    steps: list[tuple[str, int]], how: str, collect: bool, crashes: dict[int, tuple[int, bool]]
) -> None:
    joining = Joining(before=5, after=5, how=how, collect=collect)
    second = 0
    rows = []
    with FaultyAppTest(joining.app) as test:
        for n, (side, step) in enumerate(steps):
            second += step
            rows.append((side, second))
            test.faults.reset()
            if n in crashes:
                test.faults.cut_at = crashes[n][0]
            put(test, side, record(second, n))
            if n in crashes:
                test.pass_time(0.1)
                test.crash_and_restart(lose_tables=crashes[n][1])
            elif n % 3 == 0:
                test.settle()
        test.advance(100)
        found: Counter[str] = Counter()
        for row in joining.rows(test):
            right = sorted(row["right"]) if isinstance(row["right"], list) else row["right"]
            found[repr((row["left"], right))] += 1
        assert found == offline(rows, how, collect, 5)
        assert test.table(joining.totals) == ({"rows": found.total()} if found else {})
        assert sum(value for _, _, value in set(joining.windows)) == found.total()
        assert test.worker.runs[0].late_total == 0
        test.assert_changelogs_equal_stores()


def test_rows_that_wait_do_not_grow_with_the_input() -> None:
    joining = Joining(before=5, after=5, how="left", collect=True)
    most = 0
    with FaultyAppTest(joining.app) as test:
        for second in range(0, 1000, 4):
            put(test, "left", record(second, second))
            put(test, "right", record(second, second))
            test.settle()
            run = test.worker.runs[0]
            assert run.join is not None
            most = max(most, run.join.row_count)
        assert most < 20
        assert len(state_of(run)["join"]["late"][0]) == 0
