"""The interval join against an offline computation: every pair and every unmatched row once, also after restarts."""

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.joins import IntervalJoinSpec
from streamcore.operators.collecting_join import CollectingJoin
from streamcore.operators.interval_join import LEFT, RIGHT, IntervalJoin, Row
from streamcore.operators.pairing_join import PairingJoin
from streamcore.topics import Topic
from streamcore.types import TP

TPS = (TP("left", 0), TP("right", 0))
END = 1 << 40


@dataclass
class Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None = None
    headers: tuple[()] = ()


Input = tuple[int, bytes | None, int]  # side, key, time


def spec_of(how: Any, collect: bool, before: int, after: int, grace: int) -> IntervalJoinSpec:
    return IntervalJoinSpec(Topic("right"), before, after, grace, how, collect)


def new_join(spec: IntervalJoinSpec) -> IntervalJoin:
    return CollectingJoin(spec) if spec.waits else PairingJoin(spec)


class Driver:
    """Feeds a join as the engine does, and can begin again from what the engine would have kept."""

    def __init__(self, spec: IntervalJoinSpec) -> None:
        self.spec = spec
        self.join = new_join(spec)
        self.inputs: tuple[list[Input], list[Input]] = ([], [])
        self.watermark = -END
        self.out: list[Any] = []
        self.late: list[tuple[int, int]] = []
        self.restart_at: set[int] = set()  # counts of rows given out

    def move(self, watermark: int) -> None:
        self.watermark = max(self.watermark, watermark)
        rows = self.join.close(self.watermark)
        while (row := next(rows, None)) is not None:
            self.out.append(row[1])
            if len(self.out) in self.restart_at:
                self.restart()
                rows = self.join.close(self.watermark)

    def put(self, side: int, key: bytes | None, time: int) -> None:
        self.inputs[side].append((side, key, time))
        row = self.row(side, len(self.inputs[side]) - 1)
        if self.join.is_late(side, time, self.watermark):
            self.join.refuse(side, row.offset)
            self.late.append((side, row.offset))
        else:
            self.out += [value for _, value in self.join.add(side, row)]

    def row(self, side: int, offset: int) -> Row:
        _, key, time = self.inputs[side][offset]
        return Row(TPS[side], Record(offset, time, key), key, (side, key, time, offset), time, key)

    def values(self, side: int) -> list[Any]:
        return [self.row(side, offset).value for offset in range(len(self.inputs[side]))]

    def restart(self) -> None:
        old = self.join
        late = (old.late_offsets(LEFT), old.late_offsets(RIGHT))
        closed_to = tuple(old.closed_to)
        rows = []
        for side in (LEFT, RIGHT):
            low = old.low_offset(side)
            if low is not None:
                rows += [(side, self.row(side, offset)) for offset in range(low, len(self.inputs[side]))]
        self.join = new_join(self.spec)
        self.join.rebuild(rows, closed_to, late)


def offline(spec: IntervalJoinSpec, lefts: list[Any], rights: list[Any]) -> list[Any]:
    """Every row that the join owes, in any order."""
    rows: list[Any] = []
    matched = set()
    for left in lefts:
        mine = [
            right
            for right in rights
            if left[1] is not None
            and right[1] == left[1]
            and left[2] - spec.before_ms <= right[2] <= left[2] + spec.after_ms
        ]
        matched.update(mine)
        if spec.collect:
            if mine or spec.how != "inner":
                rows.append((left, sorted(mine, key=lambda right: (right[2], right[3]))))
        else:
            rows += [(left, right) for right in mine]
            if not mine and spec.how != "inner":
                rows.append((left, None))
    if spec.how == "outer":
        rows += [(None, [right] if spec.collect else right) for right in rights if right not in matched]
    return rows


def ordered(rows: list[Any]) -> list[str]:
    return sorted(map(repr, rows))


specs = st.builds(
    spec_of,
    st.sampled_from(["inner", "left", "outer"]),
    st.booleans(),
    st.sampled_from([0, 1, 3, 10]),
    st.sampled_from([0, 1, 3, 10]),
    st.sampled_from([0, 2, 7]),
)
keys = st.sampled_from([b"a", b"b", None])
inputs = st.lists(st.tuples(st.sampled_from([LEFT, RIGHT]), keys, st.integers(0, 30)), max_size=30)


# Dense enough for rows that came too late for one partner and in time for another.
crowded = st.lists(
    st.tuples(st.sampled_from([LEFT, RIGHT]), st.sampled_from([b"a", b"b"]), st.integers(0, 15)), max_size=25
)


def in_grace(rows: list[Input], grace: int) -> list[Input]:
    """The rows with their times raised, so that none is more than `grace` behind the newest one before it."""
    newest = -END
    result = []
    for side, key, time in rows:
        time = max(time, newest - grace)
        newest = max(newest, time)
        result.append((side, key, time))
    return result


@settings(max_examples=200, deadline=None)
@given(specs, inputs, st.data())
def test_every_row_comes_exactly_once_and_unmatched_ones_only_at_their_close(
    spec: IntervalJoinSpec, rows: list[Input], data: st.DataObject
) -> None:
    rows = in_grace(rows, spec.grace_ms)
    driver = Driver(spec)
    for side, key, time in rows:
        before = len(driver.out)
        driver.move(time)
        for left, right in driver.out[before:]:
            if left is None:
                assert driver.watermark > (right[0] if spec.collect else right)[2] + spec.before_ms + spec.grace_ms
            elif right is None or spec.collect:
                assert driver.watermark > left[2] + spec.after_ms + spec.grace_ms
        driver.put(side, key, time)
        if data.draw(st.integers(0, 9)) == 0:
            driver.restart()
    assert driver.late == []
    driver.move(END)
    lefts, rights = (driver.values(side) for side in (LEFT, RIGHT))
    assert ordered(driver.out) == ordered(offline(spec, lefts, rights))
    assert driver.join.row_count == 0
    assert driver.join.deadline_ms() is None
    assert [driver.join.low_offset(side) for side in (LEFT, RIGHT)] == [None, None]
    assert [driver.join.late_offsets(side) for side in (LEFT, RIGHT)] == [[], []]


@settings(max_examples=200, deadline=None)
@given(
    specs,
    st.one_of(inputs, crowded),
    st.sets(st.integers(0, 30), min_size=1),
    st.lists(st.integers(-3, 3), max_size=30),
)
def test_a_restart_at_any_moment_changes_nothing_however_late_rows_are(
    spec: IntervalJoinSpec, rows: list[Input], restarts: set[int], lags: list[int]
) -> None:
    through, restarted = Driver(spec), Driver(spec)
    restarted.restart_at = restarts
    for n, (side, key, time) in enumerate(rows):
        lag = lags[n] if n < len(lags) else 0
        for driver in (through, restarted):
            if driver is restarted and n in restarts:
                driver.restart()
            driver.move(time + lag)
            driver.put(side, key, time)
        assert restarted.out == through.out
        assert restarted.late == through.late
        assert restarted.join.deadline_ms() == through.join.deadline_ms()
    for driver in (through, restarted):
        driver.move(END)
    assert restarted.out == through.out


@settings(max_examples=200, deadline=None)
@given(specs, st.one_of(inputs, crowded), st.lists(st.integers(-3, 3), max_size=30))
def test_rows_out_of_order_beyond_grace_never_make_a_pair_twice_nor_contradict_what_was_said(
    spec: IntervalJoinSpec, rows: list[Input], lags: list[int]
) -> None:
    driver = Driver(spec)
    for n, (side, key, time) in enumerate(rows):
        driver.move(time + (lags[n] if n < len(lags) else 0))
        driver.put(side, key, time)
    driver.move(END)
    assert len(ordered(driver.out)) == len(set(ordered(driver.out)))
    lefts, rights = (driver.values(side) for side in (LEFT, RIGHT))
    possible = {repr((left, right)) for left in lefts for right in rights}
    alone: list[Any] = [left for left, right in driver.out if left is not None and not right]
    paired = [left for left, right in driver.out if left is not None and right]
    assert not [left for left in alone if left in paired], "given out as unmatched, and then with a match"
    unmatched_rights = [right for left, right in driver.out if left is None]
    if spec.collect:
        unmatched_rights = [right for (right,) in unmatched_rights]
        paired_rights = [right for left, list_ in driver.out if left is not None for right in list_]
    else:
        assert {repr(row) for row in driver.out if None not in row} <= possible
        paired_rights = [right for left, right in driver.out if left is not None and right is not None]
    assert not [right for right in unmatched_rights if right in paired_rights]


def test_memory_is_bounded_by_the_interval_and_not_by_the_input() -> None:
    driver = Driver(spec_of("outer", True, 5, 5, 2))
    most = 0
    for time in range(5000):
        driver.move(time)
        driver.put(LEFT, b"%d" % (time % 7), time)
        driver.put(RIGHT, b"%d" % (time % 11), time)
        most = max(most, driver.join.row_count)
    assert most <= 2 * (5 + 5 + 2 + 3)
    assert sum(len(of_key.rows) for side in driver.join._rows for of_key in side.values()) <= most


def test_late_rows_are_remembered_only_as_long_as_a_restart_would_read_them_again() -> None:
    driver = Driver(spec_of("left", False, 5, 5, 0))
    for time in range(0, 1000, 2):
        driver.move(time)
        driver.put(LEFT, b"a", time)
        driver.put(LEFT, b"a", time - 50)
        assert len(driver.join.late_offsets(LEFT)) <= 10
    assert len(driver.late) == 499 or len(driver.late) == 500
