"""Records to and from one batch v2; the per-record work is aiokafka's compiled codec.

A million records a second pass through here, so a record is a tuple on its way in and the codec's own object on
its way out, and nothing is copied that need not be.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, cast

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from crc32c import crc32c

from streamcore.errors import CorruptRecordError, InvalidRecordError
from streamcore.records.batch import (
    DELETE_HORIZON,
    HEADER,
    HEADER_BYTES,
    LENGTH,
    LENGTH_OVERHEAD,
    LENGTH_POSITION,
    MAGIC,
    BatchHeader,
    Buffer,
    seal,
)
from streamcore.records.compression import COMPRESSION_MASK, compress, compression_code, decompress
from streamcore.types import Headers, InRecord, OutRecord

_BATCH_BYTES_MAX: Final = 1 << 30  # the builder's own limit; the log's limits are smaller
_ATTRIBUTES = struct.Struct(">h")
_ATTRIBUTES_POSITION: Final = 21
_SEQUENCES: Final = 1 << 31  # sequences begin again at 0 after the largest int32
_NO_HEADERS: Final[list[tuple[str, bytes]]] = []

# What the compiled codec raises over bytes that are no records.
UNREADABLE: Final = (CorruptRecordException, ValueError, IndexError, OverflowError)


class ProducerStamp(NamedTuple):
    """Whose batch it is, and which of that producer's records are in it (KIP-98)."""

    producer_id: int
    producer_epoch: int
    base_sequence: int
    is_transactional: bool = False

    def after(self, count: int) -> "ProducerStamp":
        """The stamp of a batch that comes `count` records later."""
        if self.producer_id < 0 or not count:
            return self
        return self._replace(base_sequence=(self.base_sequence + count) % _SEQUENCES)


NO_STAMP: Final = ProducerStamp(-1, -1, -1)


def encode(records: Sequence[OutRecord], *, compression: str = "none") -> bytes:
    """One batch v2 with base offset 0, create times, and no producer id.

    Raises:
        InvalidRecordError: no records, or an unknown compression.
        TypeError: a key or value that is not bytes, a header that is not (str, bytes).
    """
    return encode_first(records, compression=compression, max_bytes=_BATCH_BYTES_MAX)[0]


def encode_stamped(records: Sequence[OutRecord], producer: ProducerStamp) -> bytes:
    """As `encode`, uncompressed, as a batch of this producer."""
    return encode_first(records, compression="none", max_bytes=_BATCH_BYTES_MAX, producer=producer)[0]


def encode_first(
    records: Iterable[OutRecord], *, compression: str, max_bytes: int, producer: ProducerStamp = NO_STAMP
) -> tuple[bytes, int]:
    """As `encode`, as many of the records as `max_bytes` hold uncompressed, and the first in any case.

    Returns:
        The batch, and how many records are in it.
    """
    producer_id, producer_epoch, base_sequence, is_transactional = producer
    builder = DefaultRecordBatchBuilder(
        MAGIC, 0, int(is_transactional), producer_id, producer_epoch, base_sequence, max_bytes
    )
    append = builder.append
    count = 0
    for key, value, timestamp, headers in records:
        if append(count, timestamp, key, value, _as_list(headers) if headers else _NO_HEADERS) is None:
            break
        count += 1
    if not count:
        raise InvalidRecordError("a batch needs at least one record")
    batch = cast(bytearray, builder.build())
    if compression != "none":
        batch = _compressed(batch, compression_code(compression))
    return bytes(batch), count


def decode(batch: Buffer) -> list[InRecord]:
    """The records of one batch, with their offsets and timestamps.

    Raises:
        CorruptRecordError: the checksum or the bytes inside do not hold.
    """
    try:
        return list(_plain(batch))
    except UNREADABLE as error:
        raise unreadable(error) from error


def iterate(batch: Buffer) -> Iterator[InRecord]:
    """As `decode`, one at a time, for a caller that stops early."""
    try:
        yield from _plain(batch)
    except UNREADABLE as error:
        raise unreadable(error) from error


def unreadable(error: BaseException) -> CorruptRecordError:
    """One of UNREADABLE as an error of ours."""
    return CorruptRecordError(f"the records of a batch cannot be read: {error}")


def iterate_checked(batch: Buffer, header: BatchHeader) -> Iterator[InRecord]:
    """The compiled iterator itself, over a batch that `check` has passed.

    Raises:
        UNREADABLE: while it is used; a checksum says nothing about what a producer wrote.
        CorruptRecordError: the batch cannot be decompressed.
    """
    if header.compression_code:
        view = memoryview(batch)
        plain = bytearray(view[:HEADER_BYTES])
        plain += decompress(header.compression_code, view[HEADER_BYTES:])
        _ATTRIBUTES.pack_into(plain, _ATTRIBUTES_POSITION, header.attributes & ~COMPRESSION_MASK)
        batch = plain
    return cast(Iterator[InRecord], iter(DefaultRecordBatch(batch)))


def check(batch: Buffer) -> BatchHeader:
    """The header of one whole batch whose checksum holds.

    Raises:
        CorruptRecordError
    """
    if len(batch) < HEADER_BYTES:
        raise CorruptRecordError(f"{len(batch)} bytes are too few for a batch")
    header = BatchHeader.parse(batch)
    if header.magic != MAGIC or header.size_bytes != len(batch):
        raise CorruptRecordError(
            f"a batch of {len(batch)} bytes claims magic {header.magic}, {header.size_bytes} bytes"
        )
    if crc32c(memoryview(batch)[_ATTRIBUTES_POSITION:]) != header.crc:
        raise CorruptRecordError(f"the batch at offset {header.base_offset} fails its checksum")
    return header


def recompress(batch: Buffer, compression: str) -> bytearray:
    """The same records under another compression; header fields other than length, attributes and checksum stay."""
    header = BatchHeader.parse(batch)
    code = compression_code(compression)
    plain = bytearray(batch[:HEADER_BYTES])
    payload = memoryview(batch)[HEADER_BYTES:]
    plain += decompress(header.compression_code, payload) if header.compression_code else payload
    _ATTRIBUTES.pack_into(plain, _ATTRIBUTES_POSITION, header.attributes & ~COMPRESSION_MASK)
    return _compressed(plain, code)


def rebuild(header: BatchHeader, records: Sequence[InRecord], delete_horizon_ms: int | None) -> bytes:
    """The batch of `header` with only these of its records, at the offsets they had, under its own compression.

    Args:
        records: at least one.
        delete_horizon_ms: what the base timestamp is to say (KIP-534), or None.
    """
    base_timestamp = records[0].timestamp if delete_horizon_ms is None else delete_horizon_ms
    builder = DefaultRecordBatchBuilder(
        MAGIC, 0, 0, header.producer_id, header.producer_epoch, header.base_sequence, _BATCH_BYTES_MAX
    )
    # The builder counts timestamps from its first record's: one with the wanted base goes in, and its bytes out again.
    first = builder.append(0, base_timestamp, None, None, _NO_HEADERS)
    for record in records:
        builder.append(
            record.offset - header.base_offset, record.timestamp, record.key, record.value, _as_list(record.headers)
        )
    batch = cast(bytearray, builder.build())
    del batch[HEADER_BYTES : HEADER_BYTES + first.size]
    attributes = header.attributes & ~(COMPRESSION_MASK | DELETE_HORIZON)
    left = header._replace(
        attributes=attributes if delete_horizon_ms is None else attributes | DELETE_HORIZON,
        base_timestamp=base_timestamp,
        max_timestamp=header.max_timestamp
        if header.is_log_append_time
        else max(record.timestamp for record in records),
        record_count=len(records),
    )
    HEADER.pack_into(batch, 0, *left)
    return bytes(_compressed(batch, header.compression_code))


def _as_list(headers: Headers) -> list[tuple[str, bytes]]:
    # The compiled builder takes a list and nothing else.
    return headers if type(headers) is list else list(headers)


def _compressed(batch: bytearray, code: int) -> bytearray:
    """`batch` is uncompressed; its header is adjusted to the payload's new form."""
    (attributes,) = _ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_POSITION)
    if code:
        payload = compress(code, memoryview(batch)[HEADER_BYTES:])
        batch = batch[:HEADER_BYTES] + payload
    _ATTRIBUTES.pack_into(batch, _ATTRIBUTES_POSITION, attributes | code)
    LENGTH.pack_into(batch, LENGTH_POSITION, len(batch) - LENGTH_OVERHEAD)
    seal(batch, 0, len(batch))
    return batch


def _plain(batch: Buffer) -> Iterator[InRecord]:
    """The compiled iterator over a batch whose checksum holds, decompressed by us where needed."""
    return iterate_checked(batch, check(batch))
