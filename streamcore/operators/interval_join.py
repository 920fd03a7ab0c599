"""An interval join's logic: rows in, joined rows out, no clock and no I/O.

Its rows need no changelog: the input topics hold them already. What a restart needs is from which offset to read
each side again (`low_offset`), the watermark, how far closing had come (`closed_to`), and the few rows that had been
refused as late (`late_offsets`); reading those rows back in gives the same join.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

from streamcore.events import Event
from streamcore.joins import IntervalJoinSpec

LEFT, RIGHT = 0, 1
FOREVER = 1 << 62  # a watermark after all events


class Row(Event, eq=False, gc=False):
    """One event of one side, for as long as a row of the other side may match it."""

    join_key: bytes | None  # rows of one key have the same bytes here, whatever their types make of them
    matched: bool = False
    closed: bool = False  # its window is: matches nothing that comes later

    def __lt__(self, other: "Row") -> bool:
        return (self.timestamp, self.offset) < (other.timestamp, other.offset)


# The last row that was closed, as (close_ms, side, time_ms, offset); rows close in this order.
ClosedTo = tuple[int, int, int, int]

# A joined row: its left event (its right one where it has no left), and the value that the agent receives.
Joined = tuple[Row, Any]

_NOTHING_CLOSED: ClosedTo = (-(1 << 63), 0, 0, 0)


class _Rows:
    """One key's rows of one side, in the order of their times; the times apart, where a search is quick."""

    __slots__ = ("rows", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.rows: list[Row] = []


class IntervalJoin:
    """The state and the rules of one partition's join."""

    def __init__(self, spec: IntervalJoinSpec) -> None:
        collect, how = spec.collect, spec.how
        self._collect, self._how = collect, how
        # A side's row matches rows of the other side from this far before it to this far after it.
        self._reach = ((-spec.before_ms, spec.after_ms), (-spec.after_ms, spec.before_ms))
        # A row's window has its end, exclusive, one millisecond after the last time that it matches.
        self._close_after = (spec.after_ms + 1 + spec.grace_ms, spec.before_ms + 1 + spec.grace_ms)
        self._retention_ms = spec.retention_ms
        # A row is late, and nothing can be made of it any more, when the watermark is this far past it. A right row
        # may miss the left rows that have closed and still belongs to those that have not. Where rows of both sides
        # are given out as unmatched, a row beyond grace could contradict one of them.
        self.late_after = (
            (spec.grace_ms + 1, spec.grace_ms + 1)
            if how == "outer"
            else (self._close_after[LEFT], spec.retention_ms + 1)
        )
        self._closes = (collect or how != "inner", how == "outer")
        # Left rows that wait for their close to look for their matches are found by none before.
        self.waits = collect and how != "outer"
        self._is_found = (not self.waits, True)
        self._rows: tuple[dict[bytes | None, _Rows], dict[bytes | None, _Rows]] = ({}, {})
        # Every row until it expires. Nearly all rows come in the order of their times and so expire in the order of
        # their coming; only those that do not need a heap.
        self._in_order: tuple[deque[Row], deque[Row]] = (deque(), deque())
        self._stragglers: tuple[list[Row], list[Row]] = ([], [])
        self._expired_to_ms = _NOTHING_CLOSED[0]  # rows whose retention has ended by then match nothing
        self._sweep_ms = _NOTHING_CLOSED[0]  # the watermark at which it is worth looking for expired rows
        self._sweep_every_ms = max(1, spec.retention_ms // 8)
        self._sweep_keys_ms = _NOTHING_CLOSED[0]
        self._closings: list[tuple[int, int, int, int, Row]] = []  # a heap; unused where left rows alone `wait`
        self.next_close_ms = FOREVER  # the watermark at which the next row closes
        self._closing: Row | None = None  # the row that `close_next` has taken out and the caller is at
        self.closed_to: ClosedTo = _NOTHING_CLOSED
        self._late: tuple[set[int], set[int]] = (set(), set())

    def deadline_ms(self) -> int | None:
        """The watermark at which the next row closes."""
        return self.next_close_ms if self.next_close_ms < FOREVER else None

    def is_late(self, side: int, time_ms: int, watermark_ms: int) -> bool:
        """Whether nothing can be made of such a row any more."""
        return watermark_ms >= time_ms + self.late_after[side]

    def refuse(self, side: int, offset: int) -> None:
        """Remember a row that came too late, so that a restart refuses it again."""
        self._late[side].add(offset)

    def add(self, side: int, row: Row) -> Sequence[Joined]:
        """Take in a row that is not late.

        Returns:
            Its pairs where pairs are wanted; with `collect` a left row waits for its close.
        """
        self.insert(side, row)
        if row.join_key is None:
            return ()
        if self._collect:
            if self._how == "outer":
                self._match(side, row)
            return ()
        matches = self._match(side, row)
        if side == LEFT:
            return [(row, (row.value, right.value)) for right in matches]
        return [(left, (left.value, row.value)) for left in matches]

    def insert_waiting(self, side: int, row: Row) -> None:
        """As `insert`, where left rows `wait` for their close."""
        time_ms = row.timestamp
        in_order = self._in_order[side]
        if in_order and in_order[-1].timestamp > time_ms:
            self.insert(side, row)
            return
        in_order.append(row)
        if side == LEFT:
            if time_ms + self._close_after[LEFT] < self.next_close_ms:
                self.next_close_ms = time_ms + self._close_after[LEFT]
        elif (key := row.join_key) is not None:
            of_key = self._rows[RIGHT].get(key)
            if of_key is None:
                of_key = self._rows[RIGHT][key] = _Rows()
            # In the order of all times is in the order of one key's, stragglers aside.
            times = of_key.times
            if times and times[-1] > time_ms:
                place = bisect_right(times, time_ms)
                times.insert(place, time_ms)
                of_key.rows.insert(place, row)
            else:
                times.append(time_ms)
                of_key.rows.append(row)

    def insert(self, side: int, row: Row) -> None:
        """Take in a row whose pairs come at its close, or are not asked for now."""
        time_ms = row.timestamp
        in_order = self._in_order[side]
        if not in_order or in_order[-1].timestamp <= time_ms:
            in_order.append(row)
        else:
            heappush(self._stragglers[side], row)
        if self._is_found[side] and (key := row.join_key) is not None:
            of_key = self._rows[side].get(key)
            if of_key is None:
                of_key = self._rows[side][key] = _Rows()
            times = of_key.times
            if not times or times[-1] <= time_ms:
                times.append(time_ms)
                of_key.rows.append(row)
            else:
                # Of one time, the rows stand in the order of their coming, which is that of their offsets.
                place = bisect_right(times, time_ms)
                times.insert(place, time_ms)
                of_key.rows.insert(place, row)
        if self._closes[side]:
            close_ms = time_ms + self._close_after[side]
            if close_ms < self.next_close_ms:
                self.next_close_ms = close_ms
            if not self.waits:
                heappush(self._closings, (close_ms, side, time_ms, row.offset, row))

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
        first_ms = time_ms + before
        if first_ms < self._expired_to_ms - self._retention_ms:
            first_ms = self._expired_to_ms - self._retention_ms
        times = of_key.times
        return of_key.rows[bisect_left(times, first_ms) : bisect_right(times, time_ms + after)]

    def close(self, watermark_ms: int) -> Iterator[Joined]:
        """The rows that this watermark closes, in an order that no restart changes.

        The state is consistent between any two of them: `closed_to` says which was the last.
        """
        while self.next_close_ms <= watermark_ms:
            if (joined := self.close_next()) is not None:
                yield joined
        self.expire(watermark_ms)

    def close_next(self) -> Joined | None:
        """Close the row that is due first; None where nothing comes of it. `expire` follows the last that is due."""
        if self.waits and not self._stragglers[LEFT]:
            return self._close_in_order()
        row = self._closing = self._take_closing()
        row.closed = True
        if self.closed_to[1] == RIGHT:
            if not row.matched:
                return row, (None, [row.value] if self._collect else row.value)
        elif self._collect:
            rights = [right.value for right in found] if (found := self._in_reach(LEFT, row)) else []
            if rights or self._how != "inner":
                return row, (row.value, rights)
        elif not row.matched:
            return row, (row.value, None)
        return None

    def _close_in_order(self) -> Joined | None:
        """As `close_next` where left rows alone close and all of them came in order: without a call for each step."""
        in_order = self._in_order[LEFT]
        row = self._closing = in_order.popleft()
        row.closed = True
        time_ms = row.timestamp
        close_after = self._close_after[LEFT]
        self.closed_to = (time_ms + close_after, LEFT, time_ms, row.offset)
        self.next_close_ms = in_order[0].timestamp + close_after if in_order else FOREVER
        of_key = self._rows[RIGHT].get(row.join_key)  # None is no key
        rights: list[Any] = []
        if of_key is not None:
            before, after = self._reach[LEFT]
            times = of_key.times
            # Left rows close in the order of their times, so what lies before this one's reach has had its time.
            if times and times[0] < time_ms + before:
                first = bisect_left(times, time_ms + before)
                del times[:first], of_key.rows[:first]
            rights = [right.value for right in of_key.rows[: bisect_right(times, time_ms + after)]]
        if rights or self._how != "inner":
            return row, (row.value, rights)
        return None

    def _take_closing(self) -> Row:
        """The row that closes next, out of its queue; `closed_to` is its place in their order."""
        if not self.waits:
            *place, row = heappop(self._closings)
            self.closed_to = (place[0], place[1], place[2], place[3])
            self.next_close_ms = self._closings[0][0] if self._closings else FOREVER
            return row
        # All left rows are open as long as anybody, so that they need no queue beside the one they are in.
        in_order, stragglers = self._in_order[LEFT], self._stragglers[LEFT]
        row = (
            heappop(stragglers) if stragglers and not (in_order and in_order[0] < stragglers[0]) else in_order.popleft()
        )
        close_after = self._close_after[LEFT]
        self.closed_to = (row.timestamp + close_after, LEFT, row.timestamp, row.offset)
        next_ms = in_order[0].timestamp + close_after if in_order else FOREVER
        self.next_close_ms = min(next_ms, stragglers[0].timestamp + close_after) if stragglers else next_ms
        return row

    def expire(self, watermark_ms: int) -> None:
        """Nothing matches the rows any more whose retention has ended; forget them, now and then."""
        self._expired_to_ms = watermark_ms
        self._closing = None
        if watermark_ms >= self._sweep_ms:
            self._sweep_ms = watermark_ms + self._sweep_every_ms
            if self.waits:
                self._sweep_waiting(watermark_ms)
            else:
                self._sweep(LEFT, watermark_ms - self._retention_ms)
                self._sweep(RIGHT, watermark_ms - self._retention_ms)

    def _sweep_waiting(self, watermark_ms: int) -> None:
        """As `_sweep`, where every close has already forgotten its key's old rows: keys without a close are few."""
        before_ms = watermark_ms - self._retention_ms
        in_order, stragglers = self._in_order[RIGHT], self._stragglers[RIGHT]
        while in_order and in_order[0].timestamp < before_ms:
            in_order.popleft()
        while stragglers and stragglers[0].timestamp < before_ms:
            heappop(stragglers)
        if watermark_ms >= self._sweep_keys_ms:
            self._sweep_keys_ms = watermark_ms + self._retention_ms
            of_keys = self._rows[RIGHT]
            for key in [key for key, of_key in of_keys.items() if not of_key.times or of_key.times[0] < before_ms]:
                self._forget_expired(of_keys, key, before_ms)

    def _sweep(self, side: int, before_ms: int) -> None:
        in_order, stragglers = self._in_order[side], self._stragglers[side]
        keys: set[bytes | None] = set()
        while in_order and in_order[0].timestamp < before_ms:
            keys.add(in_order.popleft().join_key)
        while stragglers and stragglers[0].timestamp < before_ms:
            keys.add(heappop(stragglers).join_key)
        of_keys = self._rows[side]
        for key in keys:
            self._forget_expired(of_keys, key, before_ms)

    @staticmethod
    def _forget_expired(of_keys: "dict[bytes | None, _Rows]", key: bytes | None, before_ms: int) -> None:
        if (of_key := of_keys.get(key)) is not None:
            expired = bisect_left(of_key.times, before_ms)
            del of_key.times[:expired], of_key.rows[:expired]
            if not of_key.rows:
                del of_keys[key]

    def low_offset(self, side: int) -> int | None:
        """From where this side must be read again after a restart; None where nothing is needed."""
        offsets = [row.offset for row in self._stragglers[side]]
        if self._in_order[side]:
            offsets.append(self._in_order[side][0].offset)
        if self._closing is not None and side == LEFT and self.waits:
            offsets.append(self._closing.offset)
        return min(offsets, default=None)

    def late_offsets(self, side: int) -> list[int]:
        """The refused rows at or after `low_offset`."""
        low = self.low_offset(side)
        late = self._late[side]
        if late:
            late.intersection_update([offset for offset in late if low is not None and offset >= low])
        return sorted(late)

    @property
    def row_count(self) -> int:
        return sum(map(len, self._in_order)) + sum(map(len, self._stragglers))

    def rebuild(
        self,
        rows: Iterable[tuple[int, Row]],
        closed_to: ClosedTo | None,
        late: tuple[Iterable[int], Iterable[int]],
    ) -> None:
        """Take back the rows (side, row) that had been read before the last commit, as they stood then."""
        self._late = (set(late[LEFT]), set(late[RIGHT]))
        for side, row in rows:
            if row.offset not in self._late[side]:
                self.insert(side, row)
                if not self.waits:
                    self._match(side, row)
        self.closed_to = closed_to or _NOTHING_CLOSED
        done = self.closed_to
        while self.next_close_ms <= done[0]:
            place = self._next_place()
            if place > done:
                break
            self._take_closing().closed = True
        self.closed_to = done
        # What the watermark has expired goes after the next `close`: rows that still have to close may need it.

    def _next_place(self) -> ClosedTo:
        if not self.waits:
            return self._closings[0][:4]
        fronts = [queue[0] for queue in (self._in_order[LEFT], self._stragglers[LEFT]) if queue]
        row = min(fronts)
        return row.timestamp + self._close_after[LEFT], LEFT, row.timestamp, row.offset
