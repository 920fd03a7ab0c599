"""How late a group is: the age of the oldest record that it has not consumed.

That is: now, less the timestamp of the first record at or after the committed offset; zero where there is none. A
timestamp is the producer's (or the log's, with message.timestamp.type=LogAppendTime), so a clock that is wrong there
makes this wrong as well; one from the future counts as zero.
"""

from collections.abc import Mapping
from typing import Final

from streamcore.errors import CorruptRecordError
from streamcore.transport.base import Transport
from streamcore.types import TP

# Looked up in one round; the others follow in the rounds after it, and are unknown until then.
LOOK_UPS_MAX: Final = 500
REMEMBERED_MAX: Final = 20_000  # timestamps; a group that stands still is looked up once
# Of a batch without a record to show (a transaction's marker, one that compaction emptied) the next one is tried.
_STEPS_MAX: Final = 3


class LagTimes:
    """Looks timestamps up in the log, one small fetch for many partitions, and remembers them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._timestamps: dict[tuple[TP, int], int] = {}  # of the first record at or after the offset

    async def of(self, positions: Mapping[TP, int], ends: Mapping[TP, int], now_ms: int) -> dict[TP, int | None]:
        """Milliseconds per partition; None is what is not known (yet).

        Args:
            positions: the committed offsets, none below its log start offset.
            ends: the log end offsets; a partition that is missing here has no lag to speak of.
        """
        lags: dict[TP, int | None] = {tp: 0 for tp, at in positions.items() if tp in ends and at >= ends[tp]}
        behind = {tp: at for tp, at in positions.items() if tp in ends and at < ends[tp]}
        unknown = [(tp, at) for tp, at in behind.items() if (tp, at) not in self._timestamps]
        await self._look_up(dict(unknown[:LOOK_UPS_MAX]))
        for tp, at in behind.items():
            timestamp = self._timestamps.get((tp, at))
            lags[tp] = max(0, now_ms - timestamp) if timestamp is not None and timestamp >= 0 else None
        return lags

    async def _look_up(self, positions: dict[TP, int]) -> None:
        asked = dict(positions)
        for _ in range(_STEPS_MAX):
            if not asked:
                return
            # One byte is one batch: the first comes whole.
            fetched = await self._transport.fetch(asked, max_bytes=1, max_wait_ms=0)
            asked = {}
            for part in fetched:
                if part.error is not None:
                    continue
                try:
                    records = part.reader.take()
                except CorruptRecordError:
                    continue
                if records:
                    self._remember(part.tp, positions[part.tp], records[0].timestamp)
                elif part.next_offset < part.high_watermark:
                    asked[part.tp] = part.next_offset

    def _remember(self, tp: TP, offset: int, timestamp_ms: int) -> None:
        self._timestamps[tp, offset] = timestamp_ms
        if len(self._timestamps) > REMEMBERED_MAX:
            del self._timestamps[next(iter(self._timestamps))]
