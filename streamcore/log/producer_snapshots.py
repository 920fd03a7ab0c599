"""Producer state on disk, `<offset>.snapshot` in Kafka's format: what batches before the offset say of their producers.

```
0 version int16 = 1 | 2 crc uint32 of everything after it | 6 count int32 | entries of 46 bytes:
producer_id int64, epoch int16, last_sequence int32, last_offset int64, offset_delta int32, timestamp int64,
coordinator_epoch int32, current_txn_first_offset int64 (-1 for none)
```
Only the last batch of a producer is in it. A snapshot spares a start the reading of older batches and nothing more: a
missing or damaged one makes that reading longer. That is why it is written without a sync when a segment rolls, and
synced with the segments. What it must never be is another log's: before an offset can be used again, the snapshots
above it are removed, durably.
"""

import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from crc32c import crc32c

from streamcore.errors import CorruptRecordError
from streamcore.log import filenames
from streamcore.log.aborted_transactions import AbortedTransaction, AbortedTransactions
from streamcore.log.disk import Disk, read_file
from streamcore.log.producer_state import Producer, ProducerState, SentBatch, base_sequence_of
from streamcore.log.segment import Found, Segment
from streamcore.records.control import Marker, decode_marker

logger = logging.getLogger(__name__)

SNAPSHOTS_NEWEST_KEPT: Final = 2  # and the newest that is synced

_VERSION: Final = 1
_HEAD = struct.Struct(">hIi")
_CHECKED_FROM: Final = 6
_ENTRY = struct.Struct(">qhiqiqiq")


class CorruptSnapshotError(ValueError):
    """Bytes that are no snapshot; its reader takes an older one."""


def encode(producers: Mapping[int, Producer]) -> bytes:
    data = bytearray(_HEAD.pack(_VERSION, 0, len(producers)))
    for producer_id, producer in producers.items():
        data += _ENTRY.pack(
            producer_id,
            producer.producer_epoch,
            producer.last_sequence,
            producer.last_offset,
            producer.last_offset - producer.batches[-1].base_offset if producer.batches else 0,
            producer.last_timestamp,
            producer.coordinator_epoch,
            producer.transaction_first_offset,
        )
    _HEAD.pack_into(data, 0, _VERSION, crc32c(memoryview(data)[_CHECKED_FROM:]), len(producers))
    return bytes(data)


def decode(data: bytes) -> dict[int, Producer]:
    """
    Raises:
        CorruptSnapshotError
    """
    if len(data) < _HEAD.size:
        raise CorruptSnapshotError(f"{len(data)} bytes are no snapshot")
    version, crc, count = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise CorruptSnapshotError(f"version {version} is unknown")
    if len(data) != _HEAD.size + count * _ENTRY.size or crc32c(memoryview(data)[_CHECKED_FROM:]) != crc:
        raise CorruptSnapshotError("its length or its checksum is wrong")
    producers = {}
    for entry in _ENTRY.iter_unpack(memoryview(data)[_HEAD.size :]):
        producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, first_offset = entry
        batch = SentBatch(
            base_sequence_of(last_sequence, delta), last_sequence, last_offset - delta, last_offset, timestamp
        )
        batches = (batch,) if last_offset >= 0 else ()
        producers[producer_id] = Producer(epoch, batches, timestamp, coordinator_epoch, first_offset)
    return producers


class ProducerSnapshots:
    """The snapshot files of one partition. One thread changes them; `sync` alone may run in another."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._offsets: list[int] = []  # increasing
        self._unsynced: list[str] = []

    def found(self, names: Iterable[str]) -> None:
        """What is in the directory, at a start."""
        self._offsets = sorted(offset for offset in map(filenames.snapshot_offset, names) if offset is not None)

    @property
    def offsets(self) -> list[int]:
        return list(self._offsets)

    def has_any_from(self, offset: int) -> bool:
        return bool(self._offsets) and self._offsets[-1] >= offset

    def take(self, offset: int, state: ProducerState, recovery_point: int) -> bool:
        """Write what batches before `offset` say, and remove snapshots that no start will need.

        Returns:
            Whether there is a new file; without room there is none, and no harm.
        """
        if offset in self._offsets:
            return False
        path = self._path(offset)
        try:
            file = self._disk.open(path, create=True)
            self._offsets = sorted([*self._offsets, offset])
            try:
                file.truncate(0)
                file.write_at(0, encode(state.producers))
            finally:
                file.close()
        except OSError as error:
            logger.warning("%s was not written, which makes the next start longer: %s", path, error)
            self._remove([offset])
            return False
        self._unsynced.append(path)
        self.prune(recovery_point)
        return True

    def prune(self, recovery_point: int) -> None:
        """Keep the newest, and one that a loss of power leaves whole."""
        synced = max((known for known in self._offsets if known <= recovery_point), default=-1)
        self._remove(known for known in self._offsets[:-SNAPSHOTS_NEWEST_KEPT] if known != synced)

    def remove_above(self, offset: int) -> bool:
        """For a log that ends at `offset` now; the caller syncs the directory before anything is appended.

        Returns:
            Whether there were any.
        Raises:
            OSError: some are left.
        """
        return self._remove((known for known in self._offsets if known > offset), strict=True)

    def remove_below(self, offset: int) -> None:
        """For a log whose first segment begins at `offset`: those before it went with their segments."""
        self._remove(known for known in self._offsets if known < offset)

    def sync(self) -> None:
        """Sync what has been written since the last call; a failure is no loss, as a checksum tells."""
        unsynced, self._unsynced = self._unsynced, []
        for path in unsynced:
            try:
                file = self._disk.open(path)
                try:
                    file.sync()
                finally:
                    file.close()
            except FileNotFoundError:
                pass  # removed in the meantime
            except OSError as error:
                logger.warning("%s was not synced, which may make the next start longer: %s", path, error)

    def newest(self, first_offset: int, end_offset: int) -> tuple[int, dict[int, Producer]] | None:
        """The newest valid one within the bounds, both included; damaged ones on the way are removed."""
        for offset in reversed(self.offsets):
            if first_offset <= offset <= end_offset:
                try:
                    return offset, decode(read_file(self._disk, self._path(offset)))
                except OSError as error:
                    logger.warning("%s cannot be read; more batches are read instead: %s", self._path(offset), error)
                except CorruptSnapshotError as error:
                    logger.warning("%s is damaged; more batches are read instead: %s", self._path(offset), error)
                    self._remove([offset])
        return None

    def _path(self, offset: int) -> str:
        return filenames.segment_path(self._directory, offset) + filenames.SNAPSHOT

    def _remove(self, offsets: Iterable[int], *, strict: bool = False) -> bool:
        doomed = list(offsets)
        for offset in doomed:
            try:
                self._disk.remove(self._path(offset))
            except FileNotFoundError:
                pass
            except OSError as error:
                if strict:
                    raise
                logger.warning("%s could not be removed: %s", self._path(offset), error)
                continue  # still known, so that `remove_above` sees to it
            self._offsets = [known for known in self._offsets if known != offset]
        return bool(doomed)


def rebuild(
    snapshots: ProducerSnapshots, segments: Sequence[Segment], end_offset: int, now_ms: int, *, replay_end: int
) -> ProducerState:
    """The state at a log's end: from the newest snapshot and the batches after it, or from all batches.

    Args:
        segments: all of the log's, at least one.
        replay_end: no batch from here on has a producer.
    """
    first_offset = segments[0].base_offset
    # One from before the first segment would know nothing of batches that are gone: their producers could not go on.
    start_offset, producers = snapshots.newest(first_offset, end_offset) or (first_offset, {})
    state = ProducerState(producers)
    for index, segment in enumerate(segments):
        following = segments[index + 1].base_offset if index + 1 < len(segments) else end_offset
        if following > start_offset and segment.base_offset < replay_end:
            _replay(state, segment, start_offset)
    state.expire(now_ms)
    return state


def rebuild_aborted(
    snapshots: ProducerSnapshots, aborted: AbortedTransactions, segments: Sequence[Segment], from_offset: int
) -> None:
    """Make the indexes of aborted transactions anew, of the segments that begin at `from_offset` or later.

    Raises:
        OSError
    """
    first_offset = segments[0].base_offset
    start_offset, producers = snapshots.newest(first_offset, max(first_offset, from_offset)) or (first_offset, {})
    state = ProducerState(producers)
    for index, segment in enumerate(segments):
        is_anew = segment.base_offset >= from_offset
        if is_anew:
            aborted.remove(segment.base_offset)
        if is_anew or (index + 1 < len(segments) and segments[index + 1].base_offset > start_offset):
            for found in _replay(state, segment, start_offset):
                if is_anew:
                    aborted.append(segment.base_offset, found)


def _replay(state: ProducerState, segment: Segment, start_offset: int) -> list[AbortedTransaction]:
    return state.replay(
        (found.header, _marker(segment, found) if found.header.is_control else None)
        for found in _batches_from(segment, start_offset)
        if found.header.base_offset >= start_offset
    )


def _marker(segment: Segment, found: Found) -> Marker | None:
    try:
        return decode_marker(segment.read_batch(found))
    except CorruptRecordError as error:
        logger.error("%s: the marker at offset %d is passed over: %s", segment, found.header.base_offset, error)
        return None


def _batches_from(segment: Segment, offset: int) -> Iterable[Found]:
    if offset <= segment.base_offset:
        return segment.scan()
    try:
        found = segment.locate(offset)
    except CorruptRecordError:
        return segment.scan()  # up to the damage; whoever reads the segment is told
    return segment.scan(found.position) if found is not None else ()
