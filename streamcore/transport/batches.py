"""Records to stored batches and back, for a transport that holds the bytes itself."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from streamcore.errors import CorruptRecordError, InvalidRecordError, RecordTooLargeError
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import NO_STAMP, ProducerStamp, check, encode_first, iterate_checked
from streamcore.records.control import Aborted, AbortedFilter
from streamcore.transport.base import Records
from streamcore.types import InRecord, OutRecord

# A batch is what a reader decodes at a time; more records would not make it denser.
BATCH_RECORDS_MAX: Final = 16_384


def encode_batches(
    records: Sequence[OutRecord], *, compression: str, max_bytes: int, producer: ProducerStamp = NO_STAMP
) -> list[bytes]:
    """Consecutive batches, each of at most `max_bytes`.

    Args:
        producer: whose batches they are; its sequence is that of the first record.

    Raises:
        RecordTooLargeError: one record alone is larger.
        InvalidRecordError: no records, or one that cannot be encoded.
    """
    batches: list[bytes] = []
    start = 0
    while start < len(records) or not batches:
        limit = max_bytes
        batch, count = _encode(records[start : start + BATCH_RECORDS_MAX], compression, limit, producer.after(start))
        while len(batch) > max_bytes and count > 1:
            # What does not compress grows by a little.
            limit -= len(batch) - max_bytes
            batch, count = _encode(records[start : start + count], compression, limit, producer.after(start))
        if len(batch) > max_bytes:
            key, value, _, _ = records[start]
            raise RecordTooLargeError(
                f"a record takes {len(batch)} bytes ({len(key or b'')} of key, {len(value or b'')} of value); the "
                f"topic takes {max_bytes}: send less, or raise the topic's max.message.bytes"
            )
        batches.append(batch)
        start += count
    return batches


def _encode(
    records: Iterable[OutRecord], compression: str, max_bytes: int, producer: ProducerStamp
) -> tuple[bytes, int]:
    try:
        return encode_first(records, compression=compression, max_bytes=max_bytes, producer=producer)
    except (TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
        raise InvalidRecordError(
            f"a record cannot be encoded: {error}; key and value are bytes or None, the time is an integer of ms, "
            "headers are pairs of str and bytes"
        ) from error


def decode_batches(
    buffer: bytes | memoryview, offset: int, aborted: Iterable[Aborted] = ()
) -> tuple[Records, int, CorruptRecordError | None]:
    """The records from `offset` on, of whole batches the first of which contains it.

    Args:
        aborted: every aborted transaction that has records among them, as a Fetch answer names them (KIP-98).
    Returns:
        The records, the offset to go on with, and what is wrong with the batch there, if something is.
    """
    batches: list[tuple[memoryview, BatchHeader]] = []
    next_offset = offset
    corrupt: CorruptRecordError | None = None
    skipped = AbortedFilter(aborted)
    try:
        for batch in split(buffer):
            header = check(batch)
            # Transaction markers are no records.
            if not (skipped.is_any and skipped.covers(batch, header)) and not header.is_control:
                batches.append((batch, header))
            next_offset = max(next_offset, header.last_offset + 1)
        if next_offset == offset and buffer:
            raise CorruptRecordError(f"{len(buffer)} bytes at offset {offset} hold no whole batch")
    except CorruptRecordError as error:
        corrupt = error
    try:
        # Chained in C: nothing of ours runs per record.
        return Records(chain.from_iterable(_iterators(batches, offset))), next_offset, corrupt
    except CorruptRecordError as error:  # right by its checksum, and no records inside
        return Records(), offset, error


def _iterators(batches: Sequence[tuple[memoryview, BatchHeader]], offset: int) -> Iterator[Iterator[InRecord]]:
    for batch, header in batches:
        records = iterate_checked(batch, header)
        yield records if header.base_offset >= offset else (r for r in records if r.offset >= offset)
