import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.errors import CorruptRecordError, InvalidRecordError, RecordTooLargeError
from streamcore.records.batch import seal, stamp
from streamcore.records.codec import encode
from streamcore.transport.base import RECORDS_AT_A_TIME
from streamcore.transport.batches import BATCH_RECORDS_MAX, decode_batches, encode_batches
from streamcore.types import OutRecord

NOW_MS = 1_700_000_000_000


def record(value: bytes, key: bytes | None = None) -> OutRecord:
    return key, value, NOW_MS, ()


def as_stored(batches: list[bytes], lengths: list[int], base_offset: int = 0) -> bytes:
    stored = bytearray()
    for batch, length in zip(batches, lengths, strict=True):
        position = len(stored)
        stored += batch
        stamp(stored, position, base_offset, 0)
        base_offset += length
    return bytes(stored)


def lengths_of(batches: list[bytes]) -> list[int]:
    return [len(decode_batches(batch, 0)[0].all()) for batch in batches]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(480, 2000))
def test_batches_keep_every_record_in_order_and_within_the_limit(sizes: list[int], max_bytes: int) -> None:
    records = [record(random.Random(size).randbytes(size), b"%d" % number) for number, size in enumerate(sizes)]
    batches = encode_batches(records, compression="none", max_bytes=max_bytes)
    assert all(len(batch) <= max_bytes for batch in batches)
    decoded, next_offset, corrupt = decode_batches(as_stored(batches, lengths_of(batches)), 0)
    assert corrupt is None
    assert next_offset == len(records)
    assert [(r.key, r.value, r.timestamp) for r in decoded.all()] == [r[:3] for r in records]
    assert [r.offset for r in decoded.all()] == list(range(len(records)))


def test_what_fits_is_one_batch() -> None:
    assert len(encode_batches([record(b"x")] * 1000, compression="none", max_bytes=1 << 20)) == 1


def test_very_many_small_records_are_several_batches() -> None:
    batches = encode_batches([record(b"x")] * (BATCH_RECORDS_MAX + 1), compression="zstd", max_bytes=1 << 20)
    assert lengths_of(batches) == [BATCH_RECORDS_MAX, 1]


def test_a_record_that_no_batch_can_hold_is_named_by_its_size() -> None:
    records = [record(b"small"), record(b"x" * 5000, b"key"), record(b"small")]
    with pytest.raises(RecordTooLargeError, match=r"3 of key, 5000 of value.*takes 1000.*max\.message\.bytes"):
        encode_batches(records, compression="none", max_bytes=1000)


@pytest.mark.parametrize(
    "bad",
    [
        ("text", b"", 0, ()),
        (b"", 7, 0, ()),
        (b"", b"", "now", ()),
        (b"", b"", 1 << 70, ()),
        (b"", b"", 0, [("a", "b")]),
    ],
)
def test_a_record_of_wrong_types_is_an_invalid_record(bad: OutRecord) -> None:
    with pytest.raises(InvalidRecordError, match="cannot be encoded"):
        encode_batches([bad], compression="none", max_bytes=1000)


def test_records_before_the_asked_offset_are_dropped() -> None:
    stored = as_stored([encode([record(b"%d" % n) for n in range(10)])], [10], base_offset=100)
    records, next_offset, corrupt = decode_batches(stored, 107)
    assert [r.offset for r in records.all()] == [107, 108, 109]
    assert (next_offset, corrupt) == (110, None)


def test_records_before_the_damage_come_and_the_next_call_tells_of_it() -> None:
    stored = bytearray(as_stored([encode([record(b"good")]), encode([record(b"damaged")])], [1, 1]))
    stored[-2] ^= 0xFF
    records, next_offset, corrupt = decode_batches(bytes(stored), 0)
    assert [r.value for r in records.all()] == [b"good"]
    assert next_offset == 1
    assert isinstance(corrupt, CorruptRecordError)


def test_bytes_that_hold_no_whole_batch_are_corrupt_rather_than_read_for_ever() -> None:
    records, next_offset, corrupt = decode_batches(encode([record(b"x" * 100)])[:-1], 0)
    assert (records.all(), next_offset) == ([], 0)
    assert isinstance(corrupt, CorruptRecordError)


def test_records_that_a_right_checksum_hides_end_what_comes_before_them() -> None:
    # A producer may write what it likes under a checksum of its own.
    count, broken = 2 * RECORDS_AT_A_TIME, RECORDS_AT_A_TIME + 22
    stored = bytearray(as_stored([encode([record(b"%04d" % n) for n in range(count)])], [count]))
    place = stored.index(b"%04d" % broken)
    stored[place - 1] = 0xFE  # the value's length
    seal(stored, 0, len(stored))
    reader, next_offset, corrupt = decode_batches(bytes(stored), 0)
    assert (next_offset, corrupt) == (count, None)
    assert [r.offset for r in reader.take()] == list(range(RECORDS_AT_A_TIME))
    assert [r.offset for r in reader.take()] == list(range(RECORDS_AT_A_TIME, broken))
    with pytest.raises(CorruptRecordError):
        reader.take()
    with pytest.raises(CorruptRecordError):
        decode_batches(bytes(stored), 0)[0].all()
    reader, next_offset, corrupt = decode_batches(bytes(stored), broken)
    assert (reader.take(), next_offset) == ([], broken)
    assert isinstance(corrupt, CorruptRecordError)


def test_records_looked_at_all_at_once_can_still_be_taken() -> None:
    stored = as_stored([encode([record(b"%d" % n) for n in range(300)])], [300])
    reader, _, _ = decode_batches(stored, 0)
    first = reader.take()
    rest = reader.all()
    assert [r.offset for r in first + rest] == list(range(300))
    assert reader.all() == rest
    assert reader.take() == rest
    assert reader.take() == []


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_what_grows_when_it_is_compressed_still_keeps_within_the_limit(compression: str) -> None:
    # 40 records fill a batch to the last byte, and random bytes do not get smaller.
    values = [record(random.Random(n).randbytes(100)) for n in range(200)]
    limit = len(encode(values[:40]))
    batches = encode_batches(values, compression=compression, max_bytes=limit)
    assert all(len(batch) <= limit for batch in batches)
    assert sum(lengths_of(batches)) == 200
