"""What compaction leaves of one batch: Kafka's rules (Cleaner and MemoryRecords.filterTo), without a disk.

- A record goes when a newer one of its key is known, or when it has no key. What is above the map is not judged.
- A tombstone stays until the batch's delete horizon. The first pass that meets a tombstone stamps the horizon into the
  batch: attribute bit 6, the base timestamp is the horizon then, and the records' deltas count from it (KIP-534).
- A batch keeps its base offset, last offset, producer and sequence, whatever goes. One that loses all records goes as
  well, unless it is the last of its producer (its sequence must survive) or of the range (readers must get past it).
- The records of an aborted transaction go. A marker stays as long as a batch of its transaction is left, or else a
  start would take that one for open; after that, until its own delete horizon, as a tombstone does.
- A batch whose checksum holds and whose records cannot be read stays as it is: it is its reader's to judge.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamcore.errors import CorruptRecordError
from streamcore.log.offset_map import OffsetMap
from streamcore.records.batch import NO_PRODUCER, BatchHeader, empty
from streamcore.records.codec import UNREADABLE, check, decode, iterate_checked, rebuild
from streamcore.records.control import Aborted, AbortedFilter
from streamcore.types import InRecord


class LastBatch(NamedTuple):
    """What has to be kept of a producer that is still remembered."""

    last_offset: int  # of its last batch of records; -1 where its epoch has none
    producer_epoch: int


class Rules(NamedTuple):
    """What one pass knows."""

    newest: OffsetMap
    end_offset: int  # a batch's start: the map knows every record below, and none from here on
    now_ms: int
    delete_retention_ms: int
    last_batches: Mapping[int, LastBatch]  # by producer id


class Transactions:
    """Which batches of one pass belong to which transactions; it is shown every batch, in the order of the log."""

    def __init__(self, aborted: Iterable[Aborted]) -> None:
        self._aborted = AbortedFilter(aborted)
        self._with_batches: set[int] = set()  # producers with a batch since their last marker

    def is_aborted(self, batch: bytes, header: BatchHeader) -> bool:
        """Whether the batch is data that nobody is to read."""
        is_aborted = self._aborted.is_any and self._aborted.covers(batch, header)
        if header.is_transactional and not header.is_control:
            self._with_batches.add(header.producer_id)
        return is_aborted

    def is_marker_needed(self, header: BatchHeader) -> bool:
        """Whether there was a batch of its transaction when the pass began."""
        is_needed = header.producer_id in self._with_batches
        self._with_batches.discard(header.producer_id)
        return is_needed


def note_keys(batch: bytes, newest: OffsetMap) -> None:
    """Add a batch's records to the map.

    Raises:
        CorruptRecordError: the checksum does not hold.
    """
    header = check(batch)
    if header.is_control or not header.record_count:
        return
    try:
        for record in iterate_checked(batch, header):
            if record.key is not None:
                newest.put(record.key, record.offset)
    except (*UNREADABLE, CorruptRecordError):
        pass  # those before the damage are known; the batch stays


def compact(batch: bytes, rules: Rules, transactions: Transactions) -> bytes | None:
    """What is left of a batch: `batch` itself where nothing changes, None where all of it goes.

    Raises:
        CorruptRecordError: the checksum does not hold.
    """
    header = check(batch)
    is_aborted = transactions.is_aborted(batch, header)
    if header.is_control:
        return _compact_marker(batch, header, rules, is_needed=transactions.is_marker_needed(header))
    if header.base_offset >= rules.end_offset and not is_aborted:
        return batch
    horizon_ms = header.delete_horizon_ms
    kept: list[InRecord] = []
    has_tombstones = False
    # What is aborted goes above the map as well: who takes the new segment has no index that says what to pass over.
    if header.record_count and not is_aborted:
        try:
            kept, has_tombstones = _kept(batch, header, rules)
        except (*UNREADABLE, CorruptRecordError):
            return batch
    if not kept:
        if not _is_needed(header, rules):
            return None
        return empty(header) if header.record_count else batch
    if has_tombstones and horizon_ms is None:
        horizon_ms = rules.now_ms + rules.delete_retention_ms
    elif len(kept) == header.record_count:
        return batch
    return rebuild(header, kept, horizon_ms)


def _compact_marker(batch: bytes, header: BatchHeader, rules: Rules, *, is_needed: bool) -> bytes | None:
    if is_needed or header.base_offset >= rules.end_offset or not header.record_count:
        return batch
    horizon_ms = header.delete_horizon_ms
    if horizon_ms is None:
        # For readers that are on their way to it.
        return rebuild(header, decode(batch), rules.now_ms + rules.delete_retention_ms)
    if horizon_ms > rules.now_ms:
        return batch
    return empty(header) if header.last_offset + 1 == rules.end_offset else None


def _kept(batch: bytes, header: BatchHeader, rules: Rules) -> tuple[list[InRecord], bool]:
    newest = rules.newest
    horizon_ms = header.delete_horizon_ms
    are_tombstones_due = horizon_ms is not None and horizon_ms <= rules.now_ms
    kept: list[InRecord] = []
    has_tombstones = False
    for record in iterate_checked(batch, header):
        key = record.key
        if key is None or record.offset < newest.get(key):
            continue
        if record.value is None:
            if are_tombstones_due:
                continue
            has_tombstones = True
        kept.append(record)
    return kept, has_tombstones


def _is_needed(header: BatchHeader, rules: Rules) -> bool:
    """Whether even a batch without records says something."""
    if header.last_offset + 1 == rules.end_offset:
        return True
    if header.producer_id == NO_PRODUCER:
        return False
    last = rules.last_batches.get(header.producer_id)
    return last is not None and last.last_offset == header.last_offset
