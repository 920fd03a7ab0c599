"""The 61-byte header of a record batch v2 (KIP-98): parse it, check it, stamp it.

```
 0 base_offset int64 | 8 length int32 | 12 leader_epoch int32 | 16 magic int8 | 17 crc uint32 | 21 attributes int16
23 last_offset_delta int32 | 27 base_timestamp int64 | 35 max_timestamp int64 | 43 producer_id int64
51 producer_epoch int16 | 53 base_sequence int32 | 57 record_count int32 | 61 records
```
`length` counts the bytes after itself. The CRC-32C covers everything from `attributes` on, so the two fields
that a leader stamps (base offset, leader epoch) need no new checksum.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from streamcore.errors import CorruptRecordError, InvalidRecordError
from streamcore.records.compression import COMPRESSION_MASK, COMPRESSIONS

Buffer = bytes | bytearray | memoryview

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES: Final = HEADER.size  # 61
LENGTH_OVERHEAD: Final = 12  # base offset and the length field itself
LENGTH: Final = struct.Struct(">i")
_RECORD_COUNT_AT: Final = 57
LENGTH_POSITION: Final = 8
MAGIC: Final = 2
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
DELETE_HORIZON: Final = 0x40  # the base timestamp says when the batch's tombstones may go (KIP-534)
CHECKED_FROM: Final = 21  # the checksum covers the batch from here to its end
NO_TIMESTAMP: Final = -1
NO_PRODUCER: Final = -1

BASE_OFFSET: Final = struct.Struct(">q")
_LEADER_EPOCH = struct.Struct(">i")
_LEADER_EPOCH_POSITION = 12
_CRC = struct.Struct(">I")
_CRC_POSITION = 17
_ATTRIBUTES = struct.Struct(">h")
_ATTRIBUTES_POSITION = CHECKED_FROM
_MAX_TIMESTAMP = struct.Struct(">q")
_MAX_TIMESTAMP_POSITION = 35


class BatchHeader(NamedTuple):
    """The header's fields in the order of their bytes."""

    base_offset: int
    length: int  # bytes after the length field
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int  # Unix ms
    max_timestamp: int  # Unix ms
    producer_id: int  # -1 for none
    producer_epoch: int
    base_sequence: int
    record_count: int

    @classmethod
    def parse(cls, buffer: Buffer, position: int = 0) -> "BatchHeader":
        """The header at `position`; the caller has made sure that 61 bytes are there."""
        return cls._make(HEADER.unpack_from(buffer, position))

    @property
    def size_bytes(self) -> int:
        """The whole batch, header included."""
        return self.length + LENGTH_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def compression_code(self) -> int:
        return self.attributes & COMPRESSION_MASK

    @property
    def compression(self) -> str:
        return COMPRESSIONS[self.attributes & COMPRESSION_MASK]

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_log_append_time(self) -> bool:
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def delete_horizon_ms(self) -> int | None:
        """From when on compaction drops the batch's tombstones; None before it has met one."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON else None


def record_count(batch: Buffer) -> int:
    """As its header says."""
    return int(LENGTH.unpack_from(batch, _RECORD_COUNT_AT)[0])


def split(buffer: Buffer) -> Iterator[memoryview]:
    """The whole batches of a fetch answer; a cut-off last one is left out, as Kafka's clients do."""
    view = memoryview(buffer)
    position, end = 0, len(view)
    while position + HEADER_BYTES <= end:
        (length,) = LENGTH.unpack_from(view, position + LENGTH_POSITION)
        if length < HEADER_BYTES - LENGTH_OVERHEAD:
            raise CorruptRecordError(f"a batch claims a length of {length} bytes; the least is 49")
        following = position + LENGTH_OVERHEAD + length
        if following > end:
            return
        yield view[position:following]
        position = following


def validate(buffer: Buffer, *, single: bool = False) -> list[BatchHeader]:
    """Check every batch of `buffer` from its header and checksum; records stay unread.

    Args:
        buffer: one or several whole batches, as a producer sends them.
        single: refuse more than one batch, as a Produce request must (KIP-98).
    Returns:
        The headers, in order; a batch starts where the one before it ends.
    Raises:
        CorruptRecordError: wrong length, magic or checksum, or no batch at all.
        InvalidRecordError: counts that contradict each other, a control batch, an unknown compression, a
            producer id without a sequence, or more than one batch where `single` is asked for.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    headers: list[BatchHeader] = []
    while position < end:
        if end - position < HEADER_BYTES:
            raise CorruptRecordError(f"{end - position} bytes at {position} are too few for a batch header")
        header = BatchHeader._make(HEADER.unpack_from(view, position))
        following = position + header.length + LENGTH_OVERHEAD
        if header.length < HEADER_BYTES - LENGTH_OVERHEAD or following > end:
            raise CorruptRecordError(
                f"the batch at byte {position} claims {header.length} bytes; {end - position - LENGTH_OVERHEAD} came"
            )
        if header.magic != MAGIC:
            raise CorruptRecordError(f"the batch at byte {position} has magic {header.magic}; only {MAGIC} is taken")
        if crc32c(view[position + CHECKED_FROM : following]) != header.crc:
            raise CorruptRecordError(f"the batch at byte {position} fails its checksum")
        _check_fields(header, position)
        headers.append(header)
        position = following
    if not headers:
        raise CorruptRecordError("there is no batch to append")
    if single and len(headers) > 1:
        raise InvalidRecordError(f"one batch per partition is taken, {len(headers)} came")
    return headers


def _check_fields(header: BatchHeader, position: int) -> None:
    where = f"the batch at byte {position}"
    if header.record_count <= 0:
        raise InvalidRecordError(f"{where} claims {header.record_count} records")
    if header.last_offset_delta != header.record_count - 1:
        raise InvalidRecordError(
            f"{where} has {header.record_count} records and last offset delta {header.last_offset_delta}"
        )
    if header.attributes & CONTROL:
        raise InvalidRecordError(f"{where} is a control batch; only the log itself writes those")
    if header.attributes & COMPRESSION_MASK >= len(COMPRESSIONS):
        raise InvalidRecordError(f"{where} has unknown compression code {header.attributes & COMPRESSION_MASK}")
    if header.producer_id != NO_PRODUCER and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise InvalidRecordError(
            f"{where} has producer id {header.producer_id} with epoch {header.producer_epoch} "
            f"and sequence {header.base_sequence}"
        )


def is_intact(batch: Buffer) -> bool:
    """Whether exactly one batch fills `batch` and its checksum holds; what recovery asks of bytes on disk."""
    if len(batch) < HEADER_BYTES:
        return False
    header = BatchHeader.parse(batch)
    return (
        header.magic == MAGIC
        and header.size_bytes == len(batch)
        and header.record_count >= 0
        and header.last_offset_delta >= 0
        and crc32c(memoryview(batch)[CHECKED_FROM:]) == header.crc
    )


def stamp(buffer: bytearray | memoryview, position: int, base_offset: int, leader_epoch: int) -> None:
    """Write the two fields a leader owns into the batch at `position`; both are outside the checksum."""
    BASE_OFFSET.pack_into(buffer, position, base_offset)
    _LEADER_EPOCH.pack_into(buffer, position + _LEADER_EPOCH_POSITION, leader_epoch)


def set_attributes(buffer: bytearray | memoryview, position: int, attributes: int) -> None:
    """Of the batch at `position`; the caller seals it."""
    _ATTRIBUTES.pack_into(buffer, position + _ATTRIBUTES_POSITION, attributes)


def stamp_log_append_time(buffer: bytearray | memoryview, position: int, size_bytes: int, now_ms: int) -> None:
    """Give every record of the batch the time of its arrival; the checksum is made anew."""
    (attributes,) = _ATTRIBUTES.unpack_from(buffer, position + _ATTRIBUTES_POSITION)
    _ATTRIBUTES.pack_into(buffer, position + _ATTRIBUTES_POSITION, attributes | LOG_APPEND_TIME)
    _MAX_TIMESTAMP.pack_into(buffer, position + _MAX_TIMESTAMP_POSITION, now_ms)
    seal(buffer, position, size_bytes)


def empty(header: BatchHeader) -> bytes:
    """A batch without records that says the same of offsets, producer and time: what compaction may leave."""
    attributes = header.attributes & (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL)
    left = header._replace(
        length=HEADER_BYTES - LENGTH_OVERHEAD, attributes=attributes, base_timestamp=NO_TIMESTAMP, record_count=0
    )
    batch = bytearray(HEADER.pack(*left))
    seal(batch, 0, HEADER_BYTES)
    return bytes(batch)


def seal(buffer: bytearray | memoryview, position: int, size_bytes: int) -> None:
    """Make the checksum of the batch at `position` anew after its bytes have changed."""
    view = memoryview(buffer)
    checksum = crc32c(view[position + CHECKED_FROM : position + size_bytes])
    _CRC.pack_into(buffer, position + _CRC_POSITION, checksum)
