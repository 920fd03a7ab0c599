"""Control batches: the markers that end a transaction in a partition (KIP-98).

One record, whose key is `version int16 = 0 | type int16` (0 aborts, 1 commits), and whose value is
`version int16 = 0 | coordinator_epoch int32`. They take an offset each, and no client writes one.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from streamcore.errors import CorruptRecordError
from streamcore.records.batch import CONTROL, TRANSACTIONAL, BatchHeader, Buffer, seal, set_attributes
from streamcore.records.codec import ProducerStamp, decode, encode_stamped

_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")
_ABORT, _COMMIT = 0, 1
_VERSION: Final = 0
_NO_SEQUENCE: Final = -1


class Marker(NamedTuple):
    """How a transaction has ended, and which coordinator says so."""

    is_commit: bool
    coordinator_epoch: int


class Aborted(NamedTuple):
    """A transaction whose records nobody is to read: the producer's from this offset to its next marker."""

    first_offset: int
    producer_id: int


def encode_marker(producer_id: int, producer_epoch: int, marker: Marker, timestamp_ms: int) -> bytearray:
    """The batch with base offset 0."""
    key = _KEY.pack(_VERSION, _COMMIT if marker.is_commit else _ABORT)
    value = _VALUE.pack(_VERSION, marker.coordinator_epoch)
    stamp = ProducerStamp(producer_id, producer_epoch, _NO_SEQUENCE, is_transactional=True)
    batch = bytearray(encode_stamped([(key, value, timestamp_ms, ())], stamp))
    set_attributes(batch, 0, TRANSACTIONAL | CONTROL)
    seal(batch, 0, len(batch))
    return batch


def decode_marker(batch: Buffer) -> Marker | None:
    """None for a control batch of another type, of which there are none in a partition that clients read.

    Raises:
        CorruptRecordError
    """
    records = decode(batch)
    try:
        (record,) = records
        _, type_ = _KEY.unpack_from(record.key or b"")
        if type_ not in (_ABORT, _COMMIT):
            return None
        _, coordinator_epoch = _VALUE.unpack_from(record.value or b"")
    except (ValueError, struct.error) as error:
        raise CorruptRecordError(f"a control batch cannot be read: {error}") from error
    return Marker(type_ == _COMMIT, coordinator_epoch)


class AbortedFilter:
    """Which batches belong to aborted transactions; it is shown every batch, in the order of the log."""

    def __init__(self, aborted: Iterable[Aborted]) -> None:
        """`aborted`: every one that has records among the batches, as a Fetch answer names them."""
        self._coming = sorted(aborted, reverse=True)  # the next one is last
        self._open: set[int] = set()
        self.is_any = bool(self._coming)

    def covers(self, batch: Buffer, header: BatchHeader) -> bool:
        """Whether the batch is data of an aborted transaction."""
        while self._coming and self._coming[-1].first_offset <= header.last_offset:
            self._open.add(self._coming.pop().producer_id)
        if header.producer_id not in self._open or not header.is_transactional:
            return False
        if not header.is_control:
            return True
        # What the producer writes after its marker is another transaction.
        marker = decode_marker(batch)
        if marker is not None and not marker.is_commit:
            self._open.discard(header.producer_id)
        return False
