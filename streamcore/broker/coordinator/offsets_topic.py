"""`__consumer_offsets`: the log behind the committed offsets, kept short by the cleaner like any compacted topic.

Offsets that a transaction commits are on the log as soon as they come, and count from the transaction's marker on
(KIP-98, KIP-447); until then they are pending.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from streamcore.broker.coordinator.coordinator_log import CoordinatorLog
from streamcore.broker.coordinator.offset_records import OffsetKey, OffsetValue
from streamcore.broker.coordinator.offsets import OFFSETS_TOPIC, Offsets, tombstone_records
from streamcore.clock import Clock
from streamcore.errors import CorruptRecordError
from streamcore.log.partition_log import PartitionLog
from streamcore.records.codec import ProducerStamp
from streamcore.types import TP, InRecord, OutRecord

logger = logging.getLogger(__name__)

OFFSETS_TP = TP(OFFSETS_TOPIC, 0)
_TOMBSTONES_PER_BATCH = 1024


class OffsetsTopic:
    """The offsets of one node's groups: in memory, and in the log they are reloaded from. Nothing here waits."""

    def __init__(self, log: PartitionLog, clock: Clock) -> None:
        self.offsets = Offsets()
        self._log = CoordinatorLog(log, OFFSETS_TP)
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
            self._log.append(records)
            self.offsets.apply_commit(group, offsets, now_ms)

    def commit_in_transaction(
        self, group: str, offsets: Mapping[TP, OffsetValue], producer_id: int, producer_epoch: int
    ) -> None:
        """As `commit`, for the case that the producer's transaction commits.

        Raises:
            InvalidProducerEpochError, and as `commit`
        """
        now_ms = self._clock.now_ms()
        records = self.offsets.commit_records(group, offsets, now_ms)
        if records:
            # Nobody else writes here under the producer's id, so that the next sequence is known.
            sequence = self._log.log.producers.next_sequence(producer_id, producer_epoch)
            self._log.append(records, ProducerStamp(producer_id, producer_epoch, sequence, is_transactional=True))
            self.offsets.apply_pending(producer_id, group, offsets, now_ms)

    def end_transaction(self, producer_id: int, producer_epoch: int, *, is_commit: bool, coordinator_epoch: int) -> int:
        """Append a transaction's marker: what it has committed counts from now on, or never.

        Returns:
            The marker's offset.
        Raises:
            LogError
        """
        offset = self._log.log.append_marker(
            producer_id, producer_epoch, is_commit=is_commit, coordinator_epoch=coordinator_epoch
        )
        self.offsets.apply_marker(producer_id, is_commit=is_commit)
        return offset

    def forget(self, keys: Iterable[OffsetKey]) -> bool:
        """Append tombstones for offsets; whether there was anything to forget."""
        keys = list(keys)
        if keys:
            records = tombstone_records(keys, self._clock.now_ms())
            for start in range(0, len(records), _TOMBSTONES_PER_BATCH):
                self._log.append(records[start : start + _TOMBSTONES_PER_BATCH])
            self.offsets.apply_tombstones(keys)
        return bool(keys)

    def append_others(self, records: Sequence[OutRecord]) -> None:
        """Append records that are no offsets, in as many batches as they need."""
        self._log.append_all(records)

    def _load(self) -> None:
        for header, records, marker in self._log.batches():
            try:
                if marker is not None:
                    self.offsets.apply_marker(header.producer_id, is_commit=marker.is_commit)
                else:
                    self.offsets.reload(records, header.producer_id if header.is_transactional else None)
            except CorruptRecordError:
                # The commits around it are still good; a group that has lost one reads some records again.
                logger.exception("%s: the batch at offset %d is passed over", OFFSETS_TP, header.base_offset)

    def batches(self) -> Iterator[list[InRecord]]:
        """Everything in the topic but markers, batch by batch; one that cannot be read is passed over."""
        return (batch.records for batch in self._log.batches() if batch.marker is None)
