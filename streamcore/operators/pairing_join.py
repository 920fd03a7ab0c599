"""A join that gives out pairs as they come, and what stays without a partner when its window closes.

An outer join with `collect` is among them: its right rows must know whether a left row has had them.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from streamcore.joins import IntervalJoinSpec
from streamcore.operators.interval_join import FOREVER, LEFT, NOTHING_CLOSED, RIGHT, ClosedTo, IntervalJoin, Joined, Row


class _Rows:
    """One key's rows of one side, in the order of their times; the times apart, where a search is quick."""

    __slots__ = ("rows", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.rows: list[Row] = []


class PairingJoin(IntervalJoin):
    """Both sides find each other's rows, and both may have a close."""

    def __init__(self, spec: IntervalJoinSpec) -> None:
        super().__init__(spec)
        self._collect = spec.collect
        # A right row may miss the left rows that have closed and still belongs to those that have not. Where rows of
        # both sides are given out as unmatched, a row beyond grace could contradict one of them.
        self.late_after = (
            (spec.grace_ms + 1, spec.grace_ms + 1)
            if spec.how == "outer"
            else (self._close_after[LEFT], spec.retention_ms + 1)
        )
        self._closes = (spec.how != "inner", spec.how == "outer")
        self._rows: tuple[dict[bytes | None, _Rows], dict[bytes | None, _Rows]] = ({}, {})
        # Every row until it expires. Nearly all rows come in the order of their times and so expire in the order of
        # their coming; only those that do not need a heap.
        self._in_order: tuple[deque[Row], deque[Row]] = (deque(), deque())
        self._stragglers: tuple[list[Row], list[Row]] = ([], [])
        self._expired_to_ms = NOTHING_CLOSED[
            0
        ]  # rows whose retention has ended by then match nothing; so `sweep_ms` stays behind
        self._swept_ms = NOTHING_CLOSED[0]
        self._closings: list[tuple[int, int, int, int, Row]] = []  # a heap

    def add(self, side: int, row: Row) -> Sequence[Joined]:
        time_ms = row.timestamp
        in_order = self._in_order[side]
        if not in_order or in_order[-1].timestamp <= time_ms:
            in_order.append(row)
        else:
            heappush(self._stragglers[side], row)
        if self._closes[side]:
            close_ms = time_ms + self._close_after[side]
            if close_ms < self.next_close_ms:
                self.next_close_ms = close_ms
            heappush(self._closings, (close_ms, side, time_ms, row.offset, row))
        key = row.join_key
        if key is None:
            return ()
        of_key = self._rows[side].get(key)
        if of_key is None:
            of_key = self._rows[side][key] = _Rows()
        # Of one time, the rows stand in the order of their coming, which is that of their offsets.
        place = bisect_right(of_key.times, time_ms)
        of_key.times.insert(place, time_ms)
        of_key.rows.insert(place, row)
        matches = self._match(side, row)
        if self._collect:
            return ()
        if side == LEFT:
            return [(row, (row.value, right.value)) for right in matches]
        return [(left, (left.value, row.value)) for left in matches]

    def _match(self, side: int, row: Row) -> list[Row]:
        matches = [other for other in self._in_reach(side, row) if not other.closed]
        if matches:
            row.matched = True
            for other in matches:
                other.matched = True
        return matches

    def _in_reach(self, side: int, row: Row) -> list[Row]:
        of_key = self._rows[1 - side].get(row.join_key)  # None is no key
        if of_key is None:
            return []
        before, after = self._reach[side]
        time_ms = row.timestamp
        first_ms = max(time_ms + before, self._expired_to_ms - self._retention_ms)
        times = of_key.times
        return of_key.rows[bisect_left(times, first_ms) : bisect_right(times, time_ms + after)]

    def close_next(self) -> Joined | None:
        row = self._closing = self._take_closing()
        row.closed = True
        if self.closed_to[1] == RIGHT:
            if not row.matched:
                return row, (None, [row.value] if self._collect else row.value)
        elif self._collect:
            return row, (row.value, [right.value for right in self._in_reach(LEFT, row)])
        elif not row.matched:
            return row, (row.value, None)
        return None

    def _take_closing(self) -> Row:
        close_ms, side, time_ms, offset, row = heappop(self._closings)
        self.closed_to = (close_ms, side, time_ms, offset)
        self.next_close_ms = self._closings[0][0] if self._closings else FOREVER
        return row

    def _next_place(self) -> ClosedTo:
        return self._closings[0][:4]

    def expire(self, watermark_ms: int) -> None:
        self._expired_to_ms = watermark_ms
        self._closing = None
        if watermark_ms >= self._swept_ms + self._sweep_every_ms:
            self._swept_ms = watermark_ms
            for side in (LEFT, RIGHT):
                self._sweep(side, watermark_ms - self._retention_ms)

    def _sweep(self, side: int, before_ms: int) -> None:
        in_order, stragglers = self._in_order[side], self._stragglers[side]
        keys: set[bytes | None] = set()
        while in_order and in_order[0].timestamp < before_ms:
            keys.add(in_order.popleft().join_key)
        while stragglers and stragglers[0].timestamp < before_ms:
            keys.add(heappop(stragglers).join_key)
        of_keys = self._rows[side]
        for key in keys:
            if (of_key := of_keys.get(key)) is not None:
                expired = bisect_left(of_key.times, before_ms)
                del of_key.times[:expired], of_key.rows[:expired]
                if not of_key.rows:
                    del of_keys[key]

    def low_offset(self, side: int) -> int | None:
        offsets = [row.offset for row in self._stragglers[side]]
        if self._in_order[side]:
            offsets.append(self._in_order[side][0].offset)
        return min(offsets, default=None)

    @property
    def row_count(self) -> int:
        return sum(map(len, self._in_order)) + sum(map(len, self._stragglers))
