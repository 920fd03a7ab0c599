"""One partition's log: an ordered set of segments that is appended to at one end and forgotten at the other.

log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset; with one replica, the high watermark is the
log end. The last stable offset is where the oldest open transaction begins, or else the high watermark (KIP-98).
One thread changes a log; `flush` alone may run in another at the same time.
"""

import errno
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from streamcore.clock import Clock
from streamcore.errors import (
    BatchTooLargeError,
    CorruptRecordError,
    DiskError,
    InvalidRecordError,
    LogError,
    LogOfflineError,
    OffsetOutOfRangeError,
)
from streamcore.log import recovery, timestamps
from streamcore.log.aborted_transactions import AbortedTransaction, AbortedTransactions
from streamcore.log.config import LogConfig
from streamcore.log.disk import Disk
from streamcore.log.leader_epochs import LeaderEpochs
from streamcore.log.open_files import OpenFiles
from streamcore.log.producer_snapshots import ProducerSnapshots, rebuild
from streamcore.log.producer_state import ProducerState
from streamcore.log.replacement import Replacement, begin_replacement, finish_replacement
from streamcore.log.segment import Found, Placed, Segment
from streamcore.log.segment_policy import count_expired, should_roll
from streamcore.log.validation import admit
from streamcore.records.batch import (
    BASE_OFFSET,
    HEADER_BYTES,
    LENGTH,
    LENGTH_OVERHEAD,
    LENGTH_POSITION,
    NO_PRODUCER,
    NO_TIMESTAMP,
    BatchHeader,
    Buffer,
    stamp,
)
from streamcore.records.control import Marker, encode_marker

logger = logging.getLogger(__name__)

HIGH_WATERMARK: Final = -1  # as the offset of delete_records
_READERS_REMEMBERED: Final = 64

# The disk is well, there is no room (of some kind) at the moment; anything else puts the log offline.
_NO_HANDLES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}) | _NO_HANDLES


class Appended(NamedTuple):
    """What an append answers, as a Produce response needs it."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int  # -1 with create times
    log_start_offset: int
    is_duplicate: bool = False  # nothing was written: the batch has been here before, at these offsets


class PartitionLog:
    """Append, read, find, truncate, retain. Made by `open`."""

    def __init__(
        self,
        files: OpenFiles,
        directory: str,
        config: LogConfig,
        clock: Clock,
        *,
        checkpoint: Callable[[], None] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self.epochs = LeaderEpochs(files.disk, directory)
        self.producers = ProducerState()
        self.read_end_offset = 0  # where the last read that found something ended, for whoever counts
        self._snapshots = ProducerSnapshots(files.disk, directory)
        self._aborted = AbortedTransactions(files, directory)
        self._files = files
        self._clock = clock
        # Makes log_start_offset and recovery_point durable; called before anything is destroyed that they protect.
        self._checkpoint = checkpoint or (lambda: None)
        self._segments: list[Segment] = []
        self._base_offsets: list[int] = []  # of _segments, for bisect
        self._log_start_offset = 0
        self._log_end_offset = 0
        self._recovery_point = 0
        self._flushed_ms = clock.now_ms()
        self._cleaned_offset: int | None = None
        self._replaced: tuple[Segment, ...] = ()  # whose files are being exchanged at the moment
        self._truncations = 0
        self._names_unsynced = True
        self._offline: LogError | None = None
        # Where the batch of an offset starts, for readers that come back for the next one: no index search for them.
        self._reader_positions: dict[int, tuple[Segment, int]] = {}

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        config: LogConfig,
        clock: Clock,
        *,
        clean: bool,
        recovery_point: int = 0,
        log_start_offset: int = 0,
        cleaned_offset: int | None = None,
        files: OpenFiles | None = None,
        checkpoint: Callable[[], None] | None = None,
    ) -> "PartitionLog":
        """Open a partition's directory, or make a new one.

        Args:
            clean: the last stop was orderly, so nothing has to be verified.
            recovery_point: everything below is synced; damage there is a loss, damage above is a torn write.
            log_start_offset: everything below has been deleted.
            cleaned_offset: the cleaner has been over everything below; None where it never was, so that offsets
                have no gaps.
            files: shared with other logs, to bound the number of open files.
            checkpoint: makes the log's start offset and recovery point durable.
        Raises:
            LogOfflineError: synced records are damaged or missing, or the disk fails.
        """
        log = cls(files or OpenFiles(disk), directory, config, clock, checkpoint=checkpoint)
        try:
            loaded = recovery.load(
                log._files,
                directory,
                config,
                log.epochs,
                log._snapshots,
                log._aborted,
                clock.now_ms(),
                clean=clean,
                recovery_point=recovery_point,
                log_start_offset=log_start_offset,
                has_gaps=cleaned_offset is not None,
            )
        except OSError as error:
            raise LogOfflineError(f"{directory} cannot be read: {error}; mend the disk and start again") from error
        log._set_segments(loaded.segments)
        log.producers = loaded.producers
        log._log_end_offset = loaded.log_end_offset
        log._log_start_offset = max(log_start_offset, loaded.segments[0].base_offset)
        log._recovery_point = loaded.log_end_offset if clean else min(recovery_point, loaded.log_end_offset)
        if cleaned_offset is not None:
            log._cleaned_offset = min(cleaned_offset, loaded.log_end_offset)
        log._names_unsynced = not clean
        return log

    # ---- what it is

    @property
    def log_start_offset(self) -> int:
        return self._log_start_offset

    @property
    def high_watermark(self) -> int:
        """Consumers see offsets below it; with one replica, all of them."""
        return self._log_end_offset

    @property
    def last_stable_offset(self) -> int:
        """Below it, every transaction has ended; who reads committed records only gets nothing from here on."""
        for first_offset in self.producers.open_transactions.values():
            return max(first_offset, self._log_start_offset)
        return self._log_end_offset

    @property
    def open_transactions(self) -> Mapping[int, int]:
        """By producer id, where each begins."""
        return self.producers.open_transactions

    @property
    def log_end_offset(self) -> int:
        """The offset of the next record."""
        return self._log_end_offset

    @property
    def recovery_point(self) -> int:
        """Every record below it survives a loss of power."""
        return self._recovery_point

    @property
    def cleaned_offset(self) -> int | None:
        """Up to where the cleaner has been; None where it has never replaced anything, so that there are no gaps."""
        return self._cleaned_offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    @property
    def offline_reason(self) -> str | None:
        """Why nothing is accepted any more, or None."""
        return str(self._offline) if self._offline else None

    # ---- append

    def append_as_leader(self, batches: Buffer, *, leader_epoch: int = 0) -> Appended:
        """Validate every batch, give out offsets, and hand the bytes to the operating system.

        Args:
            batches: one or several whole batches v2, a single one if it has a producer id. They are stamped in
                place where they can be written to, or else copied.
            leader_epoch: never below an earlier one.
        Raises:
            CorruptRecordError, InvalidRecordError, RecordTooLargeError, BatchTooLargeError, InvalidTimestampError:
                nothing was written.
            OutOfOrderSequenceError, InvalidProducerEpochError, InvalidTransactionStateError: nothing was written, for
                its producer's sake.
            DiskError: there was no room; nothing was written, and the next append may work.
            LogOfflineError: the disk failed.
        """
        self._check_online()
        now_ms = self._clock.now_ms()
        config = self.config
        data, headers = admit(batches, config, now_ms)
        if len(data) > config.segment_bytes:
            raise BatchTooLargeError(
                f"{len(data)} bytes of batches are more than segment.bytes ({config.segment_bytes}); send smaller ones"
            )
        sent: BatchHeader | None = None  # by an idempotent producer
        for header in headers:
            if header.producer_id != NO_PRODUCER:
                duplicate = self._sent_before(headers, header)
                if duplicate is not None:
                    return duplicate
                sent = header
        base_offset = self._log_end_offset
        self._write(data, headers, leader_epoch, now_ms)
        if sent is not None:
            self.producers.append(sent, base_offset)
        is_append_time = config.message_timestamp_type == "LogAppendTime"
        return Appended(base_offset, self._log_end_offset - 1, now_ms if is_append_time else -1, self._log_start_offset)

    def append_marker(
        self, producer_id: int, producer_epoch: int, *, is_commit: bool, coordinator_epoch: int, leader_epoch: int = 0
    ) -> int:
        """End a producer's transaction, as its coordinator says; one that is not open here as well, as Kafka does.

        Returns:
            The marker's offset.
        Raises:
            InvalidProducerEpochError, TransactionCoordinatorFencedError: from the past; nothing was written.
            DiskError, LogOfflineError: as `append_as_leader`.
        """
        self._check_online()
        self.producers.check_marker(producer_id, producer_epoch, coordinator_epoch)
        now_ms = self._clock.now_ms()
        marker = Marker(is_commit, coordinator_epoch)
        data = encode_marker(producer_id, producer_epoch, marker, now_ms)
        header = BatchHeader.parse(data)
        offset = self._log_end_offset
        aborted = self.producers.ended_by(producer_id, marker, offset)
        self._write(data, [header], leader_epoch, now_ms, aborted)
        self.producers.end(header, marker)
        return offset

    def _write(
        self,
        data: bytearray | memoryview,
        headers: Sequence[BatchHeader],
        leader_epoch: int,
        now_ms: int,
        aborted: AbortedTransaction | None = None,
    ) -> None:
        """Stamp the batches and write them at the log's end.

        Args:
            aborted: the transaction that they end.
        Raises:
            DiskError, LogOfflineError
        """
        base_offset = next_offset = self._log_end_offset
        position = 0
        placed = []
        largest_timestamp = NO_TIMESTAMP
        for header in headers:
            stamp(data, position, next_offset, leader_epoch)
            size_bytes = header.length + LENGTH_OVERHEAD
            next_offset += header.record_count
            placed.append(Placed(size_bytes, next_offset - 1, header.max_timestamp))
            largest_timestamp = max(largest_timestamp, header.max_timestamp)
            position += size_bytes
        try:
            if should_roll(
                self._segments[-1],
                self.config,
                size_bytes=position,
                last_offset=next_offset - 1,
                largest_timestamp=largest_timestamp,
                now_ms=now_ms,
            ):
                self.roll()
            if leader_epoch > self.epochs.latest:
                self.epochs.assign(leader_epoch, base_offset)
            if aborted is not None:
                self._aborted.append(self._segments[-1].base_offset, aborted)
                self._names_unsynced = True
            self._segments[-1].append(data, placed, self.config.index_interval_bytes)
        except OSError as error:
            raise self._write_failed(error) from error
        self._log_end_offset = next_offset

    def _sent_before(self, headers: list[BatchHeader], header: BatchHeader) -> Appended | None:
        """What the first append of an idempotent producer's batch was answered; None where this is the first."""
        if len(headers) > 1:
            raise InvalidRecordError(
                f"{len(headers)} batches came at once, one of producer {header.producer_id}: such are sent one by one"
            )
        batch = self.producers.check(header)
        if batch is None:
            return None
        append_time_ms = batch.timestamp if self.config.message_timestamp_type == "LogAppendTime" else -1
        return Appended(batch.base_offset, batch.last_offset, append_time_ms, self._log_start_offset, True)

    def roll(self) -> None:
        """Close the active segment and begin a new one at the log end; nothing happens where it is empty.

        Raises:
            OSError: the active segment stays the active one.
        """
        active = self._segments[-1]
        if not active.size_bytes:
            return
        active.seal()
        now_ms = self._clock.now_ms()
        try:
            segment = Segment.create(self._files, self.directory, self._log_end_offset, now_ms)
        except OSError:
            # Left behind, an empty segment would later claim offsets that the active one has gone on to use.
            Segment(self._files, self.directory, self._log_end_offset, 0, now_ms).remove()
            raise
        self._set_segments([*self._segments, segment])
        self._take_snapshot()
        self._names_unsynced = True

    def _take_snapshot(self) -> None:
        if self._snapshots.take(self._log_end_offset, self.producers, self._recovery_point):
            self._names_unsynced = True

    def _write_failed(self, error: OSError) -> LogError:
        """Bring the file back to the log end, or give the log up."""
        try:
            self._segments[-1].cut_garbage()
            self._aborted.truncate(self._log_end_offset)
        except OSError as again:
            return self._go_offline(f"a write failed ({error}) and could not be taken back ({again})")
        return self._failed("a write", error)

    # ---- read

    def read(self, offset: int, max_bytes: int, *, is_committed_only: bool = False) -> bytes | memoryview:
        """Whole batches from the one that contains `offset`.

        Args:
            offset: log_start_offset <= offset <= log_end_offset.
            max_bytes: soft limit; the first batch comes whole, whatever its size (KIP-74).
            is_committed_only: nothing from the last stable offset on. What is aborted comes nevertheless: the reader
                passes it over, by `aborted_transactions`.
        Returns:
            Concatenated record batches v2, empty at the log end; a copy, which outlives its segment.
        Raises:
            OffsetOutOfRangeError: `offset` is outside the log.
            CorruptRecordError: the bytes on disk are no batches.
            LogOfflineError: the disk failed.
        """
        self._check_online()
        if not self._log_start_offset <= offset <= self._log_end_offset:
            raise OffsetOutOfRangeError(offset, self._log_start_offset, self._log_end_offset)
        if offset == self._log_end_offset:
            return b""
        end_offset: int | None = None
        if is_committed_only and self.producers.open_transactions:
            end_offset = self.last_stable_offset
            if offset >= end_offset:
                return b""
        try:
            place = self._reader_positions.pop(offset, None)
            if place is None or place[1] >= place[0].size_bytes:
                found = self._found(offset)
                if found is None:
                    return b""
                place = found[0], found[1].position
            return self._read_at(*place, max_bytes, end_offset)
        except OSError as error:
            raise self._failed("a read", error) from error

    def _found(self, offset: int) -> tuple[Segment, Found] | None:
        """The first batch that ends at or after `offset`, which may lie in a gap that compaction left."""
        for segment in self._segments[max(0, bisect_right(self._base_offsets, offset) - 1) :]:
            found = segment.locate(offset)
            if found is not None:
                return segment, found
        return None

    def _read_at(self, segment: Segment, position: int, max_bytes: int, end_offset: int | None) -> bytes | memoryview:
        rest = segment.size_bytes - position
        file = segment.file
        data = file.read_at(position, min(max(max_bytes, HEADER_BYTES), rest))
        if len(data) < HEADER_BYTES:
            raise CorruptRecordError(
                f"{segment.log_path} ends at byte {position + len(data)}, {rest} more were expected"
            )
        first_bytes = LENGTH.unpack_from(data, LENGTH_POSITION)[0] + LENGTH_OVERHEAD
        if len(data) < first_bytes <= rest:
            data = file.read_at(position, first_bytes)
        end = start = 0
        size = len(data)
        while end + HEADER_BYTES <= size:
            following = end + LENGTH.unpack_from(data, end + LENGTH_POSITION)[0] + LENGTH_OVERHEAD
            if following < end + HEADER_BYTES:
                raise CorruptRecordError(f"{segment.log_path}: at byte {position + end} there is no batch")
            if following > size:
                break
            if end_offset is not None and BASE_OFFSET.unpack_from(data, end)[0] >= end_offset:
                if not end:
                    return b""
                break
            start, end = end, following
        if not end:
            raise CorruptRecordError(f"{segment.log_path}: the batch at byte {position} ends past the file")
        self.read_end_offset = BatchHeader.parse(data, start).last_offset + 1
        self._remember(self.read_end_offset, segment, position + end)
        return data if end == size else memoryview(data)[:end]

    def _remember(self, next_offset: int, segment: Segment, position: int) -> None:
        positions = self._reader_positions
        positions[next_offset] = (segment, position)
        if len(positions) > _READERS_REMEMBERED:
            del positions[next(iter(positions))]

    def aborted_transactions(self, offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Those that have records in [offset, end_offset), in the order of their markers (KIP-98).

        Raises:
            LogOfflineError: the disk failed.
        """
        try:
            return self._aborted.between(offset, end_offset, self._base_offsets)
        except OSError as error:
            raise self._failed("a read", error) from error

    # ---- find by time

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record, in offset order, whose timestamp is at least `timestamp_ms`."""
        self._check_online()
        try:
            return timestamps.first_at_or_after(self._segments, timestamp_ms, self._log_start_offset)
        except OSError as error:
            raise self._failed("a read", error) from error

    def max_timestamp(self) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record with the largest timestamp (KIP-734)."""
        self._check_online()
        try:
            return timestamps.largest(self._segments, self._log_start_offset)
        except OSError as error:
            raise self._failed("a read", error) from error

    # ---- forget

    def truncate_to(self, offset: int) -> None:
        """Remove `offset` and everything after it, for good; a batch that contains it goes whole.

        At or below the log start, the log becomes empty and begins at `offset`.
        """
        self._check_online()
        if offset >= self._log_end_offset:
            return
        try:
            place = self._found(offset) if offset > self._log_start_offset else None
            end_offset = offset if place is None else min(offset, place[1].header.base_offset)
            self._truncations += 1
            self._reader_positions.clear()
            # The recovery point first: it must never claim bytes that are written anew after the cut.
            self._recovery_point = min(self._recovery_point, end_offset)
            self._log_start_offset = min(self._log_start_offset, end_offset)
            if self._cleaned_offset is not None:
                self._cleaned_offset = min(self._cleaned_offset, end_offset)
            self._checkpoint()
            # Durable with the names of the segments, before anything else gets the offsets they speak of.
            self._snapshots.remove_above(end_offset)
            self._aborted.truncate(end_offset)
            if place is None:
                self._start_anew(end_offset)
            else:
                self._cut(place[0], place[1].position)
            self._log_end_offset = end_offset
            self.epochs.truncate_from_end(end_offset)
            self._truncate_producers(end_offset)
        except OSError as error:
            raise self._failed("a truncation", error) from error

    def _cut(self, segment: Segment, position: int) -> None:
        kept = self._segments.index(segment) + 1
        # From the end, so that a crash in between leaves no hole.
        for later in reversed(self._segments[kept:]):
            later.remove()
        self._files.disk.sync_directory(self.directory)
        segment.truncate(position)
        self._set_segments(self._segments[:kept])

    def _truncate_producers(self, end_offset: int) -> None:
        has_transactions = self.producers.has_transactions
        forgotten = self.producers.truncate(end_offset)
        if forgotten or has_transactions:
            now_ms = self._clock.now_ms()
            earlier = rebuild(self._snapshots, self._segments, end_offset, now_ms, replay_end=end_offset)
            if has_transactions:
                # A marker that is gone has opened its transaction again.
                earlier.remember(self.producers, end_offset)
                earlier.expiration_ms = self.producers.expiration_ms
                self.producers = earlier
            else:
                self.producers.restore(forgotten, earlier)
        if self.producers.producers:
            self._take_snapshot()  # some may be known from records that are gone and snapshots that were above
        self._snapshots.remove_below(self._segments[0].base_offset)

    def _start_anew(self, offset: int) -> None:
        """No records; the next one gets `offset`."""
        for segment in reversed(self._segments):
            segment.remove()
        self._aborted.keep(())
        self._set_segments([Segment.create(self._files, self.directory, offset, self._clock.now_ms())])
        self._files.disk.sync_directory(self.directory)

    def delete_records(self, before_offset: int) -> int:
        """Forget every record below `before_offset`; the bytes go when a whole segment is below it.

        Args:
            before_offset: at most the high watermark, which HIGH_WATERMARK (-1) stands for.
        Returns:
            The new log start offset, which is durable.
        Raises:
            OffsetOutOfRangeError: `before_offset` is above the high watermark, or negative.
        """
        self._check_online()
        if before_offset == HIGH_WATERMARK:
            before_offset = self.high_watermark
        if not 0 <= before_offset <= self.high_watermark:
            raise OffsetOutOfRangeError(before_offset, self._log_start_offset, self.high_watermark)
        earlier = self._log_start_offset
        if before_offset > earlier:
            try:
                self._log_start_offset = before_offset
                self._checkpoint()
            except OSError as error:
                self._log_start_offset = earlier
                raise self._failed("a deletion", error) from error
            self._remove_below_start()
        return self._log_start_offset

    def apply_retention(self, now_ms: int) -> int:
        """Remove whole segments that retention.ms and retention.bytes no longer cover, oldest first.

        Returns:
            Bytes freed.
        """
        self._check_online()
        self.producers.expire(now_ms)
        freed = self._remove_below_start()
        if not self.config.is_deleted:
            return freed
        try:
            doomed = count_expired(self._segments, self.config, now_ms)
            if doomed == len(self._segments):
                # With every record gone, the name of the new segment is what keeps offsets from being used again.
                self.roll()
                self._files.disk.sync_directory(self.directory)
        except OSError as error:
            raise self._failed("retention", error) from error
        if doomed:
            self._log_start_offset = max(self._log_start_offset, self._segments[doomed].base_offset)
            freed += self._remove_below_start()
        return freed

    def prepare_cleaning(self) -> None:
        """Note durably that offsets below the recovery point may have gaps from now on: a start must know it.

        May run in another thread, as `flush` may.

        Raises:
            OSError
        """
        if self._cleaned_offset is None:
            self._cleaned_offset = 0
        self._checkpoint()

    def replace(self, replacement: Replacement) -> bool:
        """Put one segment in the place of several old ones; a crash leaves the old set or the new one.

        Offsets and what is known of producers stay as they are; what is missing is compacted away.

        Returns:
            False where the old ones have been truncated or removed meanwhile: nothing was changed.
        Raises:
            DiskError: there was no room; nothing was changed.
            LogOfflineError: the disk failed.
        """
        self._check_online()
        old, disk = replacement.old, self._files.disk
        first = self._segments.index(old[0]) if old[0] in self._segments else 0
        following = self._segments[first + len(old) :]
        if tuple(self._segments[first : first + len(old)]) != old or not following:
            return False
        base_offset, end_offset = old[0].base_offset, following[0].base_offset
        assert end_offset <= self._recovery_point, "only what is synced is cleaned"
        assert self._cleaned_offset is not None, "prepare_cleaning comes first"
        try:
            begin_replacement(disk, self.directory, base_offset, end_offset)
        except OSError as error:
            raise self._failed("a compaction", error) from error
        new = Segment(self._files, self.directory, base_offset, replacement.size_bytes, old[0].created_ms)
        try:
            for segment in old:
                for path in segment.paths:
                    self._files.forget(path)
            self._replaced = (*old, new)
            self._reader_positions.clear()
            # What was aborted has gone from them: there is nothing to pass over any more.
            for segment in old:
                self._aborted.remove(segment.base_offset)
            self._set_segments([*self._segments[:first], new, *following])
            finish_replacement(disk, self.directory, base_offset, end_offset, has_indexes=True)
        except OSError as error:
            raise self._go_offline(f"a compaction failed half way, the next start completes it: {error}") from error
        self._replaced = ()
        # With the next flush, or a truncation: until then a start after a loss of power does the renaming once more.
        self._names_unsynced = True
        return True

    def cleaned(self, offset: int) -> None:
        """The cleaner has been over everything below `offset`; durable with the next checkpoint."""
        self._cleaned_offset = max(self._cleaned_offset or 0, offset)

    def _remove_below_start(self) -> int:
        """Delete the files of closed segments that end at or below the log start."""
        freed = 0
        try:
            # Oldest first, so that a crash in between leaves no hole.
            while len(self._segments) > 1 and self._segments[1].base_offset <= self._log_start_offset:
                segment = self._segments[0]
                if self.producers.producers and not self._snapshots.has_any_from(self._segments[1].base_offset):
                    self._take_snapshot()  # what these batches say of their producers outlives them
                self._set_segments(self._segments[1:])
                freed += segment.size_bytes
                segment.remove()
                self._aborted.remove(segment.base_offset)
        except OSError as error:
            raise self._failed("a deletion", error) from error
        if freed:
            self._reader_positions.clear()
            self._snapshots.remove_below(self._segments[0].base_offset)
            try:
                self.epochs.truncate_from_start(self._log_start_offset)
            except OSError as error:
                # Epochs of records that are gone do no harm, and a full disk is why one deletes.
                logger.warning("%s: the leader epochs were not shortened: %s", self.directory, error)
        return freed

    # ---- durability

    @property
    def is_flush_due(self) -> bool:
        """Whether flush.messages or flush.ms ask for a sync."""
        unflushed = self._log_end_offset - self._recovery_point
        if not unflushed:
            return False
        return (
            unflushed >= self.config.flush_messages or self._clock.now_ms() - self._flushed_ms >= self.config.flush_ms
        )

    @property
    def has_unsynced_segments(self) -> bool:
        """Whether a closed segment is above the recovery point: nothing is gained by putting its sync off."""
        return len(self._segments) > 1 and self._recovery_point < self._segments[-1].base_offset

    def flush(self) -> int:
        """Sync everything appended before the call.

        May run in another thread while the owner appends. A failed sync is never tried again: the kernel may have
        dropped the dirty pages and would report success the next time (fsyncgate).

        Returns:
            The new recovery point.
        Raises:
            LogOfflineError: the sync failed, now or before.
            DiskError: no file could be opened, so nothing was synced; it may be tried again.
        """
        self._check_online()
        end_offset, truncations = self._log_end_offset, self._truncations
        if end_offset == self._recovery_point and not self._names_unsynced:
            return end_offset
        segments = self._segments
        # The segment that ends at the recovery point belongs to it: its indexes were completed after that sync.
        first = max(0, bisect_left([segment.base_offset for segment in segments], self._recovery_point) - 1)
        disk = self._files.disk
        try:
            self._snapshots.sync()
            if self._names_unsynced:
                self._names_unsynced = False
                disk.sync_directory(self.directory)
            for segment in segments[first:]:
                # The indexes of the last segment are made anew after a crash; the others' must be right.
                for path in segment.paths[:1] if segment is segments[-1] else self._paths_of(segment):
                    self._sync_file(disk, path, segment)
        except OSError as error:
            if error.errno in _NO_HANDLES:
                self._names_unsynced = True
                raise self._failed("a sync", error) from error
            raise self._go_offline(f"a sync failed, so synced and lost can no longer be told apart: {error}") from error
        if self._truncations == truncations:
            self._recovery_point = max(self._recovery_point, end_offset)
            self._flushed_ms = self._clock.now_ms()
        return self._recovery_point

    def _paths_of(self, segment: Segment) -> tuple[str, ...]:
        transaction_index = self._aborted.path(segment.base_offset)
        return segment.paths if transaction_index is None else (*segment.paths, transaction_index)

    def _sync_file(self, disk: Disk, path: str, segment: Segment) -> None:
        # A handle of its own: the shared ones may be closed by the other thread at any moment.
        try:
            file = disk.open(path)
        except FileNotFoundError:
            if segment in self._segments and segment not in self._replaced:
                raise
            return  # retention, a truncation or the cleaner was faster; the cleaner's files are synced
        try:
            file.sync()
        finally:
            file.close()

    def close(self) -> None:
        """Flush and close the files; the log end becomes the recovery point."""
        if self._offline is None:
            try:
                self._segments[-1].seal()
                self._sync_indexes()
            except OSError as error:
                raise self._go_offline(f"closing failed: {error}") from error
            if self._log_end_offset > self._segments[0].base_offset:
                self._take_snapshot()
            self.flush()
        self.abandon()

    def _sync_indexes(self) -> None:
        for path in self._paths_of(self._segments[-1])[1:]:
            self._sync_file(self._files.disk, path, self._segments[-1])

    def abandon(self, reason: LogError | None = None) -> None:
        """Close the files as they are; every later call gets `reason`."""
        for segment in self._segments:
            for path in self._paths_of(segment):
                self._files.forget(path)
        self._offline = self._offline or reason or LogOfflineError(f"{self.directory} is closed")

    # ---- inside

    def _set_segments(self, segments: list[Segment]) -> None:
        # Replaced, not changed: `flush` may hold the old list in another thread.
        self._segments = segments
        self._base_offsets = [segment.base_offset for segment in segments]

    def _check_online(self) -> None:
        if self._offline is not None:
            raise self._offline

    def _failed(self, what: str, error: OSError) -> LogError:
        """What the caller of a failed operation gets; only a lack of room lets the log live on."""
        if error.errno in _NO_ROOM:
            return DiskError(
                f"{self.directory}: {what} failed: {error.strerror}; nothing was changed: free some space and try again"
            )
        return self._go_offline(f"{what} failed: {error}")

    def _go_offline(self, reason: str) -> LogOfflineError:
        error = LogOfflineError(f"{self.directory} is offline: {reason}; mend the disk and start again")
        if self._offline is None:
            self._offline = error
            logger.error("%s", error)
        return error
