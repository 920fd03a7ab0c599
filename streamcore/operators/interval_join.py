"""What the joins on event time have in common: rows in, joined rows out, no clock and no I/O.

Their rows need no changelog: the input topics hold them already. What a restart needs is from which offset to read
each side again (`low_offset`), the watermark, how far closing had come (`closed_to`), and the few rows that had been
refused as late (`late_offsets`); reading those rows back in gives the same join.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
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

NOTHING_CLOSED: ClosedTo = (-(1 << 63), 0, 0, 0)


class IntervalJoin(ABC):
    """The state and the rules of one partition's join."""

    late_after: tuple[int, int]  # a row of this side is late when the watermark is this far past it

    def __init__(self, spec: IntervalJoinSpec) -> None:
        self._how = spec.how
        # A side's row matches rows of the other side from this far before it to this far after it.
        self._reach = ((-spec.before_ms, spec.after_ms), (-spec.after_ms, spec.before_ms))
        # A row's window has its end, exclusive, one millisecond after the last time that it matches.
        self._close_after = (spec.after_ms + 1 + spec.grace_ms, spec.before_ms + 1 + spec.grace_ms)
        self._retention_ms = spec.retention_ms
        self.sweep_ms = NOTHING_CLOSED[0]  # the watermark at which `expire` has something to do, also without a close
        self._sweep_every_ms = max(1, spec.retention_ms // 8)
        self.next_close_ms = FOREVER  # the watermark at which the next row closes
        self._closing: Row | None = None  # the row that `close_next` has taken out and the caller is at
        self.closed_to: ClosedTo = NOTHING_CLOSED
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

    @abstractmethod
    def add(self, side: int, row: Row) -> Sequence[Joined]:
        """Take in a row that is not late.

        Returns:
            Its pairs where pairs are wanted; with `collect` a left row waits for its close.
        """

    def close(self, watermark_ms: int) -> Iterator[Joined]:
        """The rows that this watermark closes, in an order that no restart changes.

        The state is consistent between any two of them: `closed_to` says which was the last.
        """
        while self.next_close_ms <= watermark_ms:
            if (joined := self.close_next()) is not None:
                yield joined
        self.expire(watermark_ms)

    @abstractmethod
    def close_next(self) -> Joined | None:
        """Close the row that is due first; None where nothing comes of it. `expire` follows the last that is due."""

    @abstractmethod
    def expire(self, watermark_ms: int) -> None:
        """Nothing matches the rows any more whose retention has ended; forget them, now and then."""

    @abstractmethod
    def low_offset(self, side: int) -> int | None:
        """From where this side must be read again after a restart; None where nothing is needed."""

    def late_offsets(self, side: int) -> list[int]:
        """The refused rows at or after `low_offset`."""
        low = self.low_offset(side)
        late = self._late[side]
        if late:
            late.intersection_update([offset for offset in late if low is not None and offset >= low])
        return sorted(late)

    @property
    @abstractmethod
    def row_count(self) -> int:
        """Rows in memory."""

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
                self.add(side, row)
        self.closed_to = closed_to or NOTHING_CLOSED
        done = self.closed_to
        while self.next_close_ms <= done[0] and self._next_place() <= done:
            self._take_closing().closed = True
        self.closed_to = done
        # What the watermark has expired goes after the next `close`: rows that still have to close may need it.

    @abstractmethod
    def _next_place(self) -> ClosedTo:
        """The place of the row that closes next, where there is one."""

    @abstractmethod
    def _take_closing(self) -> Row:
        """The row that closes next, out of its queue; `closed_to` is its place in their order."""
