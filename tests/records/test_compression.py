"""The framings that Kafka's clients expect."""

import gzip

import cramjam
import pytest
from aiokafka import codec as aiokafkas
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.errors import CorruptRecordError, InvalidRecordError
from streamcore.records.compression import compress, decompress

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
THEIRS = {
    GZIP: (aiokafkas.gzip_encode, aiokafkas.gzip_decode),
    SNAPPY: (aiokafkas.snappy_encode, aiokafkas.snappy_decode),
    LZ4: (aiokafkas.lz4_encode, aiokafkas.lz4_decode),
    ZSTD: (aiokafkas.zstd_encode, aiokafkas.zstd_decode),
}


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=100_000), st.sampled_from(sorted(THEIRS)))
def test_another_client_decompresses_what_is_compressed_and_the_other_way_round(data: bytes, code: int) -> None:
    encode, decode = THEIRS[code]
    assert decode(compress(code, data)) == data
    assert decompress(code, encode(data)) == data


def test_snappy_is_framed_as_the_xerial_library_does() -> None:
    data = bytes(range(256)) * 400  # more than one block of 32 kB
    framed = compress(SNAPPY, data)
    assert framed[:16] == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    assert decompress(SNAPPY, framed) == data


def test_a_bare_snappy_block_is_read_too() -> None:
    assert decompress(SNAPPY, bytes(cramjam.snappy.compress_raw(b"hello"))) == b"hello"


def test_gzip_is_plain_gzip() -> None:
    assert gzip.decompress(compress(GZIP, b"hello")) == b"hello"


@pytest.mark.parametrize("code", sorted(THEIRS))
def test_what_ends_early_is_corrupt(code: int) -> None:
    whole = compress(code, bytes(range(256)) * 100)
    with pytest.raises(CorruptRecordError):
        decompress(code, whole[: len(whole) // 2])


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(THEIRS)))
def test_garbage_is_corrupt_or_something_short(garbage: bytes, code: int) -> None:
    try:
        decompress(code, garbage)
    except CorruptRecordError:
        pass


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(InvalidRecordError):
        decompress(5, b"")
