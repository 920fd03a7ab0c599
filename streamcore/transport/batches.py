"""Records to stored batches and back, for a transport that holds the bytes itself."""

import struct
from collections.abc import Sequence
from typing import Final

from streamcore.errors import CorruptRecordError, InvalidRecordError, RecordTooLargeError
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import decode, encode
from streamcore.types import InRecord, OutRecord

# A batch is what a reader decodes at a time; more records would not make it denser.
BATCH_RECORDS_MAX: Final = 16_384


def encode_batches(records: Sequence[OutRecord], *, compression: str, max_bytes: int) -> list[bytes]:
    """Consecutive batches, each of at most `max_bytes`.

    Raises:
        RecordTooLargeError: one record alone is larger.
        InvalidRecordError: no records, or one that cannot be encoded.
    """
    if len(records) <= BATCH_RECORDS_MAX:
        batch = _encode(records, compression)
        if len(batch) <= max_bytes:  # nearly always
            return [batch]
    batches: list[bytes] = []
    for start in range(0, len(records), BATCH_RECORDS_MAX):
        _encode_within(records[start : start + BATCH_RECORDS_MAX], compression, max_bytes, batches)
    return batches


def _encode_within(records: Sequence[OutRecord], compression: str, max_bytes: int, batches: list[bytes]) -> None:
    batch = _encode(records, compression)
    if len(batch) <= max_bytes:
        batches.append(batch)
        return
    if len(records) == 1:
        key, value, _, _ = records[0]
        raise RecordTooLargeError(
            f"a record takes {len(batch)} bytes ({len(key or b'')} of key, {len(value or b'')} of value); the topic "
            f"takes {max_bytes}: send less, or raise the topic's max.message.bytes"
        )
    # A quarter of slack, since records differ in size: most parts then fit at the second try.
    parts = min(len(records), max(2, -(-len(batch) * 5 // (max_bytes * 4))))
    length = -(-len(records) // parts)
    for start in range(0, len(records), length):
        _encode_within(records[start : start + length], compression, max_bytes, batches)


def _encode(records: Sequence[OutRecord], compression: str) -> bytes:
    try:
        return encode(records, compression=compression)
    except (TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
        raise InvalidRecordError(
            f"a record cannot be encoded: {error}; key and value are bytes or None, the time is an integer of ms, "
            "headers are pairs of str and bytes"
        ) from error


def decode_batches(buffer: bytes | memoryview, offset: int) -> tuple[list[InRecord], int, CorruptRecordError | None]:
    """The records from `offset` on, of whole batches the first of which contains it.

    Returns:
        The records, the offset to go on with, and what is wrong with the batch there, if something is.
    """
    records: list[InRecord] = []
    next_offset = offset
    try:
        for batch in split(buffer):
            header = BatchHeader.parse(batch)
            if not header.is_control:  # transaction markers are no records
                decoded = decode(batch)
                if header.base_offset < offset:
                    decoded = [record for record in decoded if record.offset >= offset]
                if records:
                    records += decoded
                else:
                    records = decoded
            next_offset = max(next_offset, header.last_offset + 1)
    except CorruptRecordError as error:
        return records, next_offset, error
    if next_offset == offset and buffer:
        return records, offset, CorruptRecordError(f"{len(buffer)} bytes at offset {offset} hold no whole batch")
    return records, next_offset, None
