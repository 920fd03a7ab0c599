"""What compaction leaves of one batch: Kafka's rules (Cleaner and MemoryRecords.filterTo), without a disk.

- A record goes when a newer one of its key is known, or when it has no key. What is above the map is not judged.
- A tombstone stays until the batch's delete horizon. The first pass that meets a tombstone stamps the horizon into the
  batch: attribute bit 6, the base timestamp is the horizon then, and the records' deltas count from it (KIP-534).
- A batch keeps its base offset, last offset, producer and sequence, whatever goes. One that loses all records goes as
  well, unless it is the last of its producer (its sequence must survive) or of the range (readers must get past it).
- Control batches stay.
- A batch whose checksum holds and whose records cannot be read stays as it is: it is its reader's to judge.
"""

from collections.abc import Mapping
from typing import NamedTuple

from streamcore.errors import CorruptRecordError
from streamcore.log.offset_map import OffsetMap
from streamcore.records.batch import NO_PRODUCER, BatchHeader, empty
from streamcore.records.codec import UNREADABLE, check, iterate_checked, rebuild
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


def compact(batch: bytes, rules: Rules) -> bytes | None:
    """What is left of a batch: `batch` itself where nothing changes, None where all of it goes.

    Raises:
        CorruptRecordError: the checksum does not hold.
    """
    header = check(batch)
    if header.is_control or header.base_offset >= rules.end_offset:
        return batch
    horizon_ms = header.delete_horizon_ms
    if header.record_count:
        try:
            kept, has_tombstones = _kept(batch, header, rules)
        except (*UNREADABLE, CorruptRecordError):
            return batch
    else:
        kept, has_tombstones = [], False
    if not kept:
        if not _is_needed(header, rules):
            return None
        return empty(header) if header.record_count else batch
    if has_tombstones and horizon_ms is None:
        horizon_ms = rules.now_ms + rules.delete_retention_ms
    elif len(kept) == header.record_count:
        return batch
    return rebuild(header, kept, horizon_ms)


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
