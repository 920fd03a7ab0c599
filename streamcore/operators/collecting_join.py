"""A join whose left rows wait for their close, and then have all their matches at once.

Only left rows close, and they close in the order of their times: one that would come after its turn is late. So right
rows are found by nobody but a left row at its close, and need not be more than a time and a value.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from streamcore.joins import IntervalJoinSpec
from streamcore.operators.interval_join import FOREVER, LEFT, NOTHING_CLOSED, RIGHT, ClosedTo, IntervalJoin, Joined, Row


class _Rights:
    """One key's right rows in the order of their times, those of one time in the order of their coming."""

    __slots__ = ("times", "values")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: list[Any] = []


class CollectingJoin(IntervalJoin):
    """`collect=True` with how="inner" or "left"."""

    def __init__(self, spec: IntervalJoinSpec) -> None:
        super().__init__(spec)
        self.late_after = (self._close_after[LEFT], spec.retention_ms + 1)
        self._needs_rights = spec.how == "inner"
        # Nearly all rows come in the order of their times; those that do not are in a heap.
        self._lefts: deque[Row] = deque()
        self._straggling_lefts: list[Row] = []
        # (time, offset) of the right rows until they expire: from where a restart must read them.
        self._rights: deque[tuple[int, int]] = deque()
        self._straggling_rights: list[tuple[int, int]] = []
        self._by_key: dict[bytes | None, _Rights] = {}
        self._sweep_keys_ms = NOTHING_CLOSED[0]

    def add(self, side: int, row: Row) -> Sequence[Joined]:
        if side == LEFT:
            self.add_left(row)
        elif row.join_key is not None:
            self.add_right(row.join_key, row.timestamp, row.offset, row.value)
        return ()

    def add_left(self, row: Row) -> None:
        lefts = self._lefts
        if lefts and lefts[-1].timestamp > row.timestamp:
            heappush(self._straggling_lefts, row)
        else:
            lefts.append(row)
        close_ms = row.timestamp + self._close_after[LEFT]
        if close_ms < self.next_close_ms:
            self.next_close_ms = close_ms

    def add_right(self, key: bytes, time_ms: int, offset: int, value: Any) -> None:
        """A right row with a key; without one it would match nothing."""
        rights = self._rights
        if rights and rights[-1][0] > time_ms:
            heappush(self._straggling_rights, (time_ms, offset))
        else:
            rights.append((time_ms, offset))
        of_key = self._by_key.get(key)
        if of_key is None:
            of_key = self._by_key[key] = _Rights()
        times = of_key.times
        if times and times[-1] > time_ms:
            place = bisect_right(times, time_ms)
            times.insert(place, time_ms)
            of_key.values.insert(place, value)
        else:
            times.append(time_ms)
            of_key.values.append(value)

    def close_next(self) -> Joined | None:
        # As `_take_closing`, without a call for every row.
        if self._straggling_lefts:
            row = self._take_closing()
            time_ms = row.timestamp
        else:
            lefts, close_after = self._lefts, self._close_after[LEFT]
            row = lefts.popleft()
            time_ms = row.timestamp
            self.closed_to = (time_ms + close_after, LEFT, time_ms, row.offset)
            self.next_close_ms = lefts[0].timestamp + close_after if lefts else FOREVER
        self._closing = row
        of_key = self._by_key.get(row.join_key)  # None is no key
        values: list[Any] = []
        if of_key is not None:
            before, after = self._reach[LEFT]
            times = of_key.times
            # No left row that closes later reaches further back than this one.
            if times and times[0] < time_ms + before:
                first = bisect_left(times, time_ms + before)
                del times[:first], of_key.values[:first]
            values = of_key.values[: bisect_right(times, time_ms + after)]
        if values or not self._needs_rights:
            return row, (row.value, values)
        return None

    def _take_closing(self) -> Row:
        lefts, stragglers = self._lefts, self._straggling_lefts
        row = heappop(stragglers) if stragglers and not (lefts and lefts[0] < stragglers[0]) else lefts.popleft()
        close_after = self._close_after[LEFT]
        self.closed_to = (row.timestamp + close_after, LEFT, row.timestamp, row.offset)
        next_ms = lefts[0].timestamp + close_after if lefts else FOREVER
        self.next_close_ms = min(next_ms, stragglers[0].timestamp + close_after) if stragglers else next_ms
        return row

    def _next_place(self) -> ClosedTo:
        row = min(queue[0] for queue in (self._lefts, self._straggling_lefts) if queue)
        return row.timestamp + self._close_after[LEFT], LEFT, row.timestamp, row.offset

    def expire(self, watermark_ms: int) -> None:
        self._closing = None
        if watermark_ms >= self.sweep_ms:
            self.sweep_ms = watermark_ms + self._sweep_every_ms
            self._sweep(watermark_ms)

    def _sweep(self, watermark_ms: int) -> None:
        before_ms = watermark_ms - self._retention_ms
        rights, stragglers = self._rights, self._straggling_rights
        while rights and rights[0][0] < before_ms:
            rights.popleft()
        while stragglers and stragglers[0][0] < before_ms:
            heappop(stragglers)
        if watermark_ms < self._sweep_keys_ms:
            return
        # Every close forgets its key's old rows; keys without one are looked through less often, since it takes longer.
        self._sweep_keys_ms = watermark_ms + self._retention_ms
        for key, of_key in list(self._by_key.items()):
            expired = bisect_left(of_key.times, before_ms)
            del of_key.times[:expired], of_key.values[:expired]
            if not of_key.times:
                del self._by_key[key]

    def low_offset(self, side: int) -> int | None:
        if side == RIGHT:
            offsets = [offset for _, offset in self._straggling_rights]
            if self._rights:
                offsets.append(self._rights[0][1])
            return min(offsets, default=None)
        rows = [*self._straggling_lefts]
        if self._lefts:
            rows.append(self._lefts[0])
        if self._closing is not None:
            rows.append(self._closing)
        return min((row.offset for row in rows), default=None)

    @property
    def row_count(self) -> int:
        return len(self._lefts) + len(self._straggling_lefts) + len(self._rights) + len(self._straggling_rights)
