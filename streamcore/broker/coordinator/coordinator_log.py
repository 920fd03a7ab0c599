"""The log behind a coordinator's memory: one partition of an internal topic, written in batches and read back whole."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from streamcore.errors import CorruptRecordError
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import NO_STAMP, ProducerStamp, decode, encode_stamped
from streamcore.records.control import Marker, decode_marker
from streamcore.types import TP, InRecord, OutRecord

logger = logging.getLogger(__name__)

INTERNAL_CONFIG: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    # Kafka takes 100 MB, which one thread of Python reads in two seconds. What a start reloads is what is true, as much
    # again, and the active segment: with small ones some 50 ms.
    "segment.bytes": str(2 << 20),
}
_READ_BYTES: Final = 1 << 20
_RECORD_OVERHEAD_BYTES: Final = 32  # more than a batch spends on a record beside its key and value


class StoredBatch(NamedTuple):
    """One batch of the log; a marker has no records."""

    header: BatchHeader
    records: list[InRecord]
    marker: Marker | None


class CoordinatorLog:
    """Nothing here waits."""

    def __init__(self, log: PartitionLog, tp: TP) -> None:
        self.tp = tp
        self._log = log

    @property
    def log(self) -> PartitionLog:
        return self._log

    def append(self, records: Sequence[OutRecord], producer: ProducerStamp = NO_STAMP) -> None:
        """One batch, all or none of it.

        Raises:
            LogError
        """
        self._log.append_as_leader(encode_stamped(records, producer))

    def append_all(self, records: Sequence[OutRecord]) -> None:
        """As `append`, in as many batches as the records need."""
        rest = list(records)
        while rest:
            size_bytes, taken = 0, 0
            for key, value, _, _ in rest:
                size_bytes += len(key or b"") + len(value or b"") + _RECORD_OVERHEAD_BYTES
                if taken and size_bytes > _READ_BYTES // 2:
                    break
                taken += 1
            self.append(rest[:taken])
            rest = rest[taken:]

    def batches(self) -> Iterator[StoredBatch]:
        """Everything in the topic, batch by batch; one that cannot be read is passed over."""
        offset = self._log.log_start_offset
        while offset < self._log.log_end_offset:
            batches = list(split(self._log.read(offset, _READ_BYTES)))
            if not batches:
                raise CorruptRecordError(f"{self.tp}: at offset {offset} there is no batch")
            for batch in batches:
                header = BatchHeader.parse(batch)
                offset = header.last_offset + 1
                try:
                    if header.is_control:
                        marker = decode_marker(batch)
                        if marker is not None:
                            yield StoredBatch(header, [], marker)
                    else:
                        yield StoredBatch(header, decode(batch), None)
                except CorruptRecordError:
                    logger.exception("%s: the batch at offset %d is passed over", self.tp, header.base_offset)
