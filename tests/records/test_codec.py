"""Records in, one batch out, and back."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.errors import CorruptRecordError, InvalidRecordError
from streamcore.records.batch import BatchHeader, seal
from streamcore.records.codec import decode, encode, iterate, recompress
from streamcore.records.compression import COMPRESSIONS
from streamcore.types import OutRecord

headers = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=3)
# Create times as clients send them: Unix ms, up to the year 5138.
timestamps = st.integers(0, 10**14)
records = st.tuples(st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=200), timestamps, headers)
compressions = st.sampled_from(COMPRESSIONS)


@settings(deadline=None)
@given(st.lists(records, min_size=1, max_size=30), compressions)
def test_decoding_inverts_encoding(batch: list[OutRecord], compression: str) -> None:
    decoded = decode(encode(batch, compression=compression))
    assert [(r.key, r.value, r.timestamp, list(r.headers)) for r in decoded] == [tuple(record) for record in batch]
    assert [r.offset for r in decoded] == list(range(len(batch)))


@settings(deadline=None)
@given(st.lists(records, min_size=1, max_size=30), compressions)
def test_another_client_reads_what_is_encoded(batch: list[OutRecord], compression: str) -> None:
    theirs = DefaultRecordBatch(encode(batch, compression=compression))
    assert theirs.validate_crc()
    assert [(r.key, r.value, r.timestamp) for r in theirs] == [record[:3] for record in batch]


def test_the_header_says_what_the_records_are() -> None:
    header = BatchHeader.parse(encode([(b"k", b"v", 30, ()), (b"k", b"v", 10, ()), (b"k", b"v", 20, ())]))
    assert header.base_offset == 0
    assert header.record_count == 3
    assert header.last_offset_delta == 2
    assert header.base_timestamp == 30
    assert header.max_timestamp == 30
    assert header.producer_id == -1
    assert header.compression == "none"


@pytest.mark.parametrize("before", COMPRESSIONS)
@pytest.mark.parametrize("after", COMPRESSIONS)
def test_recompressing_keeps_records_and_header(before: str, after: str) -> None:
    batch = encode([(b"k", b"v" * 100, 5, [("h", b"1")])] * 50, compression=before)
    again = bytes(recompress(batch, after))
    assert [(r.key, r.value, r.timestamp, r.headers) for r in decode(again)] == [
        (r.key, r.value, r.timestamp, r.headers) for r in decode(batch)
    ]
    header = BatchHeader.parse(again)
    assert header.compression == after
    assert header.size_bytes == len(again)
    same = ("base_offset", "record_count", "last_offset_delta", "base_timestamp", "max_timestamp", "producer_id")
    assert all(getattr(header, name) == getattr(BatchHeader.parse(batch), name) for name in same)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_no_flipped_bit_under_the_checksum_is_read(compression: str) -> None:
    batch = encode([(b"key", b"value" * 5, 1, ())] * 3, compression=compression)
    for position in range(16, len(batch)):
        damaged = bytearray(batch)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CorruptRecordError):
            decode(damaged)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_a_corrupt_record(garbage: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        decode(garbage)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 7))
def test_garbage_under_a_right_checksum_is_a_clear_error(garbage: bytes, attributes: int) -> None:
    batch = bytearray(encode([(b"key", b"value", 1, ())])[:61]) + garbage
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    batch[22] = attributes
    seal(batch, 0, len(batch))
    try:
        decode(batch)
    except (CorruptRecordError, InvalidRecordError):
        pass


def test_iterating_stops_where_the_caller_does() -> None:
    batch = encode([(b"k", str(n).encode(), n, ()) for n in range(100)])
    assert next(iter(iterate(batch))).value == b"0"
    assert len(list(iterate(batch))) == 100


def test_a_batch_without_records_cannot_be_made() -> None:
    with pytest.raises(InvalidRecordError):
        encode([])


def test_an_unknown_compression_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidRecordError, match=r"'brotli'.*zstd"):
        encode([(None, b"v", 1, ())], compression="brotli")


def test_a_value_that_is_not_bytes_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode([(b"k", "text", 1, ())])  # type: ignore[list-item]
