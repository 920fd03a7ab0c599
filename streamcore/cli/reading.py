"""Reading a range of a topic through a transport, fetch by fetch."""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from streamcore.cli.output import note
from streamcore.errors import OffsetOutOfRangeError
from streamcore.types import TP, InRecord

if TYPE_CHECKING:
    from streamcore.transport.base import Transport

WAIT_MS = 500


class Range:
    """What is still to be read: a position per partition, and where to stop.

    Attributes:
        positions: the next offset to read, per partition; what a group commits.
        stops: the first offset not to read any more; a partition without one is followed for ever.
    """

    def __init__(self, positions: Mapping[TP, int], stops: Mapping[TP, int]) -> None:
        self.positions = dict(positions)
        self.stops = dict(stops)
        self._first = dict(positions)

    @property
    def open(self) -> dict[TP, int]:
        """The partitions that are not read to their stop yet."""
        return {tp: at for tp, at in self.positions.items() if tp not in self.stops or at < self.stops[tp]}

    @property
    def total(self) -> int:
        """Offsets between the first positions and the stops."""
        return sum(max(0, stop - self._first[tp]) for tp, stop in self.stops.items())

    @property
    def done(self) -> int:
        """Offsets passed so far."""
        return sum(at - self._first[tp] for tp, at in self.positions.items())

    def stop_at(self, tp: TP, offset: int) -> None:
        """Read this partition no further than `offset`."""
        self.stops[tp] = min(offset, self.stops.get(tp, offset))


async def read(transport: "Transport", span: Range) -> AsyncIterator[tuple[TP, list[InRecord]]]:
    """Records of one partition at a time, until every partition is at its stop.

    A partition's position moves past a list when the next one is asked for: a reader that stops in the middle leaves
    it where the reader last said with `span.positions`.
    """
    while wanted := span.open:
        for fetched in await transport.fetch(wanted, max_wait_ms=WAIT_MS):
            tp = fetched.tp
            if isinstance(fetched.error, OffsetOutOfRangeError):
                # Retention was quicker than we were.
                start = fetched.error.log_start_offset
                if start <= span.positions[tp]:
                    raise fetched.error
                note(f"{tp}: offsets {span.positions[tp]} to {start - 1} are deleted by now; going on at {start}.")
                span.positions[tp] = start
                continue
            if fetched.error is not None:
                raise fetched.error
            stop = span.stops.get(tp)
            records = fetched.records
            if stop is not None and records and records[-1].offset >= stop:
                records = [record for record in records if record.offset < stop]
            if records:
                yield tp, records
            if tp in span.open:
                span.positions[tp] = max(span.positions[tp], fetched.next_offset)
