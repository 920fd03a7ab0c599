"""`__consumer_offsets`: the log behind the committed offsets, kept short by the cleaner like any compacted topic."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from streamcore.broker.coordinator.offset_records import OffsetKey, OffsetValue
from streamcore.broker.coordinator.offsets import OFFSETS_TOPIC, Offsets, tombstone_records
from streamcore.clock import Clock
from streamcore.errors import CorruptRecordError
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import decode, encode
from streamcore.types import TP, InRecord, OutRecord

logger = logging.getLogger(__name__)

OFFSETS_TP = TP(OFFSETS_TOPIC, 0)
_READ_BYTES = 1 << 20
_TOMBSTONES_PER_BATCH = 1024


class OffsetsTopic:
    """The offsets of one node's groups: in memory, and in the log they are reloaded from. Nothing here waits."""

    def __init__(self, log: PartitionLog, clock: Clock) -> None:
        self.offsets = Offsets()
        self._log = log
        self._clock = clock
        self._load()

    def commit(self, group: str, offsets: Mapping[TP, OffsetValue]) -> None:
        """Append a commit as one batch, all or none of it, and answer with it from now on.

        Raises:
            OffsetMetadataTooLargeError, InvalidRecordError, RecordTooLargeError, LogOfflineError
        """
        now_ms = self._clock.now_ms()
        records = self.offsets.commit_records(group, offsets, now_ms)
        if records:
            self._append(records)
            self.offsets.apply_commit(group, offsets, now_ms)

    def forget(self, keys: Iterable[OffsetKey]) -> bool:
        """Append tombstones for offsets; whether there was anything to forget."""
        keys = list(keys)
        if keys:
            records = tombstone_records(keys, self._clock.now_ms())
            for start in range(0, len(records), _TOMBSTONES_PER_BATCH):
                self._append(records[start : start + _TOMBSTONES_PER_BATCH])
            self.offsets.apply_tombstones(keys)
        return bool(keys)

    def append_others(self, records: Sequence[OutRecord]) -> None:
        """Append records that are no offsets, in as many batches as they need."""
        rest = list(records)
        while rest:
            size_bytes, taken = 0, 0
            for key, value, _, _ in rest:
                size_bytes += len(key or b"") + len(value or b"") + 32
                if taken and size_bytes > _READ_BYTES // 2:
                    break
                taken += 1
            self._append(rest[:taken])
            rest = rest[taken:]

    def _append(self, records: list[OutRecord]) -> None:
        self._log.append_as_leader(encode(records))

    def _load(self) -> None:
        for records in self.batches():
            try:
                self.offsets.reload(records)
            except CorruptRecordError:
                # The commits around it are still good; a group that has lost one reads some records again.
                logger.exception("%s: the batch at offset %d is passed over", OFFSETS_TP, records[0].offset)

    def batches(self) -> Iterator[list[InRecord]]:
        """Everything in the topic, batch by batch; one that cannot be read is passed over."""
        offset = self._log.log_start_offset
        while offset < self._log.log_end_offset:
            batches = list(split(self._log.read(offset, _READ_BYTES)))
            if not batches:
                raise CorruptRecordError(f"{OFFSETS_TP}: at offset {offset} there is no batch")
            for batch in batches:
                header = BatchHeader.parse(batch)
                offset = header.last_offset + 1
                try:
                    yield decode(batch)
                except CorruptRecordError:
                    logger.exception("%s: the batch at offset %d is passed over", OFFSETS_TP, header.base_offset)
