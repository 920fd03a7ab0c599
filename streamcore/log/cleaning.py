"""The log cleaner: which log is worth a pass, and the pass itself, step by step. As Kafka's LogCleaner does it.

A pass reads the segments that have come since the last one and notes the newest offset of every key; then it goes
through all segments up to there and writes those anew of which something goes, neighbours together as long as they fit
into one. It touches closed and synced segments only, as far as `cleanable` says. The steps open files of their own and
change nothing that others read, so they may run in any thread; the log's owner puts each `Replacement` in its place.
"""

from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from streamcore.errors import CorruptRecordError, LogError
from streamcore.log.compaction import LastBatch, Rules, Transactions, compact, note_keys
from streamcore.log.config import INT32_MAX, INT64_MAX, LogConfig
from streamcore.log.disk import Disk, File
from streamcore.log.offset_map import OffsetMap
from streamcore.log.partition_log import PartitionLog
from streamcore.log.replacement import Replacement, ReplacementWriter
from streamcore.log.segment import Segment
from streamcore.records.batch import HEADER_BYTES, MAGIC, NO_TIMESTAMP, BatchHeader
from streamcore.records.control import Aborted, AbortedFilter

_READ_BYTES: Final = 1 << 20
_INDEX_ENTRY_BYTES: Final = 8


class Cleanable(NamedTuple):
    """How much a pass over a log has to do."""

    first_dirty_offset: int
    end_offset: int  # a segment's start; nothing from here on is touched
    clean_bytes: int
    dirty_bytes: int
    is_overdue: bool  # max.compaction.lag.ms is over

    @property
    def ratio(self) -> float:
        return self.dirty_bytes / max(1, self.clean_bytes + self.dirty_bytes)

    def is_due(self, config: LogConfig) -> bool:
        if not self.dirty_bytes:
            return False
        return self.is_overdue or self.ratio > config.min_cleanable_dirty_ratio


def cleanable(log: PartitionLog, now_ms: int, limit: int = INT64_MAX) -> Cleanable | None:
    """What there is to clean; None where there is nothing.

    Args:
        limit: nothing at or above this offset may be touched, for a reason of the caller's.
    """
    config = log.config
    segments = log.segments
    if not config.is_compacted or log.offline_reason is not None or len(segments) < 2:
        return None
    first_dirty = max(log.cleaned_offset or 0, log.log_start_offset)
    # What an open transaction has written may still be aborted, and what follows it is not read yet.
    limit = min(limit, log.recovery_point, log.last_stable_offset)
    clean_bytes = dirty_bytes = 0
    end_offset = segments[0].base_offset
    is_overdue = False
    for segment, following in pairwise(segments):
        if following.base_offset > limit:
            break
        if following.base_offset <= first_dirty:
            clean_bytes += segment.size_bytes
        else:
            newest_ms, _ = segment.max_timestamp
            if config.min_compaction_lag_ms and newest_ms > now_ms - config.min_compaction_lag_ms:
                break
            oldest_ms = segment.first_timestamp
            if oldest_ms is not None and NO_TIMESTAMP < oldest_ms < now_ms - config.max_compaction_lag_ms:
                is_overdue = True
            dirty_bytes += segment.size_bytes
        end_offset = following.base_offset
    if end_offset <= first_dirty:
        return None
    return Cleanable(first_dirty, end_offset, clean_bytes, dirty_bytes, is_overdue)


class _Closed(NamedTuple):
    segment: Segment
    end_offset: int
    index_bytes: int


class Cleaning:
    """One pass over one log. Made by the log's owner; the steps may be another thread's."""

    def __init__(self, disk: Disk, log: PartitionLog, scope: Cleanable, now_ms: int, *, keys_max: int) -> None:
        """
        Args:
            keys_max: how many keys there is memory for; where there are more, the pass ends earlier.
        """
        self.log = log
        self.cleaned_offset: int | None = None  # up to where the log is clean, once the steps have ended
        self._disk = disk
        self._config = log.config
        self._scope = scope
        self._now_ms = now_ms
        self._keys_max = keys_max
        # Their indexes are looked at here and now: the handles for that are the owner's.
        self._segments = [
            _Closed(segment, following.base_offset, segment.offset_index.count * _INDEX_ENTRY_BYTES)
            for segment, following in pairwise(log.segments)
            if following.base_offset <= scope.end_offset
        ]
        self._end_offsets = {closed.segment: closed.end_offset for closed in self._segments}
        self._last_batches = {
            producer_id: LastBatch(producer.last_offset, producer.producer_epoch)
            for producer_id, producer in log.producers.producers.items()
        }
        self._aborted = log.aborted_transactions(log.segments[0].base_offset, scope.end_offset)
        self._writer: ReplacementWriter | None = None
        self.bytes_read = self.bytes_written = 0

    @property
    def segments(self) -> list[Segment]:
        """What the pass reads."""
        return [closed.segment for closed in self._segments]

    def steps(self) -> Iterator[Replacement | None]:
        """Do the work, a batch at a time.

        Yields:
            None after a batch; a Replacement where one is complete, which the log's owner puts in its place. Whoever
            does not go on to the end calls `abandon`.
        Raises:
            CorruptRecordError: a batch is damaged; the log stays as it is.
            LogError: the map has no room for a single batch.
            OSError
        """
        self.log.prepare_cleaning()
        # An offset can be no more than one key.
        newest = OffsetMap(min(self._keys_max, self._scope.end_offset - self._scope.first_dirty_offset))
        end_offset = yield from self._note_keys(newest)
        rules = Rules(newest, end_offset, self._now_ms, self._config.delete_retention_ms, self._last_batches)
        transactions = Transactions(self._aborted_from(0))
        for group in self._groups(end_offset):
            yield from self._clean(group, rules, transactions)
        self.cleaned_offset = end_offset

    def _note_keys(self, newest: OffsetMap) -> Generator[None, None, int]:
        """Fill the map; the end of what it knows, a batch's start."""
        first_dirty = self._scope.first_dirty_offset
        dirty = [closed for closed in self._segments if closed.end_offset > first_dirty]
        aborted = AbortedFilter(self._aborted_from(dirty[0].segment.base_offset))
        for segment, _, _ in dirty:
            for _, batch in self._batches(segment):
                header = BatchHeader.parse(batch)
                if (aborted.is_any and aborted.covers(batch, header)) or header.last_offset < first_dirty:
                    continue
                if header.record_count > newest.free:
                    if header.base_offset <= first_dirty:
                        raise LogError(
                            f"{segment.log_path}: a batch of {header.record_count} records is more than the cleaner "
                            f"has memory for; give it more (log.cleaner.dedupe.buffer.size)"
                        )
                    return header.base_offset
                note_keys(batch, newest)
                yield None
        return self._scope.end_offset

    def _aborted_from(self, offset: int) -> list[Aborted]:
        """Those whose markers are met by who reads from `offset` on."""
        return [
            Aborted(found.first_offset, found.producer_id) for found in self._aborted if found.last_offset >= offset
        ]

    def _groups(self, end_offset: int) -> Iterator[list[Segment]]:
        """Neighbours that fit into one segment."""
        group: list[Segment] = []
        size = index_size = 0
        for segment, end, more_index in self._segments:
            if segment.base_offset >= end_offset:
                break
            more = segment.size_bytes
            if group and (
                size + more > self._config.segment_bytes
                or index_size + more_index > self._config.segment_index_bytes
                or end - group[0].base_offset > INT32_MAX
            ):
                yield group
                group, size, index_size = [], 0, 0
            group.append(segment)
            size, index_size = size + more, index_size + more_index
        if group:
            yield group

    def _clean(
        self, group: Sequence[Segment], rules: Rules, transactions: Transactions
    ) -> Iterator[Replacement | None]:
        """Write what is left of a group, from where something goes on; nothing where nothing does."""
        self._writer = self._new_writer(group) if len(group) > 1 else None
        for segment in group:
            for position, batch in self._batches(segment):
                left = compact(batch, rules, transactions)
                if self._writer is None and left is not batch:
                    self._writer = self._new_writer(group)
                    for _, same in self._batches(segment, position):
                        self._writer.append(same)
                if self._writer is not None and left is not None:
                    self._writer.append(left)
                yield None
        if self._writer is not None:
            replacement = self._writer.finish()
            self.bytes_written += replacement.size_bytes
            yield replacement
            self._writer = None

    def _new_writer(self, group: Sequence[Segment]) -> ReplacementWriter:
        return ReplacementWriter(self._disk, self.log.directory, group, self._config.index_interval_bytes)

    def abandon(self) -> None:
        """End a pass that will not be finished; what was put in its place stays.

        Raises:
            OSError: files are left, which the next start removes.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def _batches(self, segment: Segment, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Every batch of the segment with its position, or those before the position `end`."""
        size = segment.size_bytes if end is None else end
        end_offset = self._end_offsets[segment]
        # A handle of its own: it outlives the segment, and belongs to this thread.
        file = self._disk.open(segment.log_path)
        try:
            position = window_start = 0
            window = b""
            next_offset = segment.base_offset
            while position < size:
                at = position - window_start
                if at + HEADER_BYTES > len(window):
                    window, window_start, at = self._read(file, position, size), position, 0
                header = BatchHeader.parse(window, at)
                bytes_ = header.size_bytes
                # The checksum does not cover the base offset.
                if (
                    header.magic != MAGIC
                    or not HEADER_BYTES <= bytes_ <= size - position
                    or not next_offset <= header.base_offset <= header.last_offset < end_offset
                ):
                    raise CorruptRecordError(f"{segment.log_path}: at byte {position} there is no batch")
                if at + bytes_ > len(window):
                    window, window_start, at = self._read(file, position, size, bytes_), position, 0
                yield position, window[at : at + bytes_]
                position += bytes_
                next_offset = header.last_offset + 1
        finally:
            file.close()
        self.bytes_read += size

    def _read(self, file: File, position: int, end: int, least: int = HEADER_BYTES) -> bytes:
        data = file.read_at(position, min(max(least, _READ_BYTES), end - position))
        if len(data) < least:
            raise CorruptRecordError(f"{self.log.directory}: a segment ends at byte {position + len(data)}, not {end}")
        return data
