"""An interval join's logic: rows in, joined rows out, no clock and no I/O.

Its rows need no changelog: the input topics hold them already. What a restart needs is from which offset to read
each side again (`low_offset`), the watermark, how far closing had come (`closed_to`), and the few rows that had been
refused as late (`late_offsets`); reading those rows back in gives the same join.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

from streamcore.events import Event
from streamcore.joins import IntervalJoinSpec

LEFT, RIGHT = 0, 1


class Row:
    """One event of one side, for as long as a row of the other side may match it."""

    __slots__ = ("closed", "event", "gone", "key", "matched", "offset", "time_ms")

    def __init__(self, key: bytes | None, time_ms: int, offset: int, event: Event) -> None:
        self.key = key
        self.time_ms = time_ms
        self.offset = offset
        self.event = event
        self.matched = False
        self.closed = False  # its window is: matches nothing that comes later
        self.gone = False  # expired

    def __lt__(self, other: "Row") -> bool:
        return (self.time_ms, self.offset) < (other.time_ms, other.offset)


class ClosedTo(NamedTuple):
    """The last row that was closed; rows close in this order."""

    close_ms: int
    side: int
    time_ms: int
    offset: int


class Joined(NamedTuple):
    """A joined row: its left event (its right one where it has no left), and the value that the agent receives."""

    event: Event
    value: Any


_NOTHING_CLOSED = ClosedTo(-(1 << 63), 0, 0, 0)


def _time(row: Row) -> int:
    return row.time_ms


class IntervalJoin:
    """The state and the rules of one partition's join."""

    def __init__(self, spec: IntervalJoinSpec) -> None:
        self._spec = spec
        # A side's row matches rows of the other side from this far before it to this far after it.
        self._reach = ((-spec.before_ms, spec.after_ms), (-spec.after_ms, spec.before_ms))
        # A row's window has its end, exclusive, one millisecond after the last time that it matches.
        self._close_after = (spec.after_ms + 1 + spec.grace_ms, spec.before_ms + 1 + spec.grace_ms)
        self._closes = (spec.collect or spec.how != "inner", spec.how == "outer")
        self._rows: tuple[dict[bytes, list[Row]], dict[bytes, list[Row]]] = ({}, {})
        self._arrived: tuple[deque[Row], deque[Row]] = (deque(), deque())
        self._closings: list[tuple[int, int, int, int, Row]] = []
        self._expiries: list[tuple[int, int, int, Row]] = []
        self.closed_to = _NOTHING_CLOSED
        self._late: tuple[set[int], set[int]] = (set(), set())

    def deadline_ms(self) -> int | None:
        """The watermark at which the next row closes."""
        return self._closings[0][0] if self._closings else None

    def is_late(self, side: int, time_ms: int, watermark_ms: int) -> bool:
        """Whether nothing can be made of such a row any more."""
        spec = self._spec
        if spec.how == "outer":
            # Rows of both sides are given out as unmatched: a row beyond grace could contradict one of them.
            return watermark_ms > time_ms + spec.grace_ms
        if side == LEFT:
            return watermark_ms >= time_ms + self._close_after[LEFT]
        # A right row may miss the left rows that have closed and still belongs to those that have not.
        return watermark_ms > time_ms + spec.retention_ms

    def refuse(self, side: int, offset: int) -> None:
        """Remember a row that came too late, so that a restart refuses it again."""
        self._late[side].add(offset)

    def add(self, side: int, key: bytes | None, event: Event) -> list[Joined]:
        """Take in a row that is not late.

        Returns:
            Its pairs where pairs are wanted; with `collect` a left row waits for its close.
        """
        row = Row(key, event.timestamp, event.offset, event)
        self._insert(side, row)
        if key is None:
            return []
        if self._spec.collect:
            if self._spec.how == "outer":
                self._match(side, row)
            return []
        matches = self._match(side, row)
        if side == LEFT:
            return [Joined(event, (event.value, right.event.value)) for right in matches]
        return [Joined(left.event, (left.event.value, event.value)) for left in matches]

    def _insert(self, side: int, row: Row) -> None:
        time_ms, offset, key = row.time_ms, row.offset, row.key
        self._arrived[side].append(row)
        if key is not None:
            rows = self._rows[side].get(key)
            if rows is None:
                self._rows[side][key] = [row]
            elif rows[-1].time_ms <= time_ms:
                rows.append(row)
            else:
                insort(rows, row)
        if self._closes[side]:
            heappush(self._closings, (time_ms + self._close_after[side], side, time_ms, offset, row))
        heappush(self._expiries, (time_ms + self._spec.retention_ms + 1, side, offset, row))

    def _match(self, side: int, row: Row) -> list[Row]:
        matches = [other for other in self._in_reach(side, row) if not other.closed]
        if matches:
            row.matched = True
            for other in matches:
                other.matched = True
        return matches

    def _in_reach(self, side: int, row: Row) -> list[Row]:
        rows = self._rows[1 - side].get(row.key) if row.key is not None else None
        if not rows:
            return []
        before, after = self._reach[side]
        first = bisect_left(rows, row.time_ms + before, key=_time)
        last = bisect_right(rows, row.time_ms + after, first, key=_time)
        return [other for other in rows[first:last] if not other.gone]

    def close(self, watermark_ms: int) -> Iterator[Joined]:
        """The rows that this watermark closes, in an order that no restart changes.

        The state is consistent between any two of them: `closed_to` says which was the last.
        """
        closings = self._closings
        collect, how = self._spec.collect, self._spec.how
        while closings and closings[0][0] <= watermark_ms:
            close_ms, side, time_ms, offset, row = heappop(closings)
            self.closed_to = ClosedTo(close_ms, side, time_ms, offset)
            row.closed = True
            if side == RIGHT:
                if not row.matched:
                    yield Joined(row.event, (None, [row.event.value] if collect else row.event.value))
            elif collect:
                rights = [right.event.value for right in self._in_reach(LEFT, row)]
                if rights or how != "inner":
                    yield Joined(row.event, (row.event.value, rights))
            elif not row.matched:
                yield Joined(row.event, (row.event.value, None))
        self.expire(watermark_ms)

    def expire(self, watermark_ms: int) -> None:
        """Forget the rows that nothing can match any more."""
        expiries = self._expiries
        while expiries and expiries[0][0] <= watermark_ms:
            _, side, _, row = heappop(expiries)
            row.gone = True
            if row.key is not None:
                # Retention is the same for all, so the oldest of its key is the one that goes.
                rows = self._rows[side][row.key]
                rows.remove(row)
                if not rows:
                    del self._rows[side][row.key]
        for side in (LEFT, RIGHT):
            arrived = self._arrived[side]
            while arrived and arrived[0].gone:
                arrived.popleft()

    def low_offset(self, side: int) -> int | None:
        """From where this side must be read again after a restart; None where nothing is needed."""
        return self._arrived[side][0].offset if self._arrived[side] else None

    def late_offsets(self, side: int) -> list[int]:
        """The refused rows at or after `low_offset`."""
        low = self.low_offset(side)
        late = self._late[side]
        if late:
            late.intersection_update([offset for offset in late if low is not None and offset >= low])
        return sorted(late)

    @property
    def row_count(self) -> int:
        return len(self._arrived[LEFT]) + len(self._arrived[RIGHT])

    def rebuild(
        self,
        rows: Iterable[tuple[int, bytes | None, Event]],
        closed_to: ClosedTo | None,
        late: tuple[Iterable[int], Iterable[int]],
    ) -> None:
        """Take back the rows (side, key, event) that had been read before the last commit, as they stood then."""
        self._late = (set(late[LEFT]), set(late[RIGHT]))
        for side, key, event in rows:
            if event.offset not in self._late[side]:
                row = Row(key, event.timestamp, event.offset, event)
                self._insert(side, row)
                self._match(side, row)
        self.closed_to = closed_to or _NOTHING_CLOSED
        while self._closings and self._closings[0][:4] <= self.closed_to:
            heappop(self._closings)[4].closed = True
        # What the watermark has expired goes after the next `close`: rows that still have to close may need it.
