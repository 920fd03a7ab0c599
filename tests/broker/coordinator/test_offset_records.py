import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.broker.coordinator.offset_records import (
    OffsetKey,
    OffsetValue,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
)
from streamcore.errors import CorruptRecordError
from streamcore.types import TP

names = st.text(max_size=200)
offsets = st.integers(0, 2**63 - 1)


def test_a_key_has_the_bytes_of_kafkas_offset_commit_key() -> None:
    expected = bytes.fromhex("0001 0005") + b"group" + bytes.fromhex("0006") + b"orders" + bytes.fromhex("00000003")
    assert encode_key("group", TP("orders", 3)) == expected


def test_a_value_has_the_bytes_of_kafkas_offset_commit_value() -> None:
    expected = bytes.fromhex("0003 000000000000002a ffffffff 0002") + b"me" + bytes.fromhex("0000018bcfe56800")
    assert encode_value(OffsetValue(42, "me", 1_700_000_000_000)) == expected


@given(names, names, st.integers(0, 2**31 - 1))
def test_decoding_inverts_encoding_of_keys(group: str, topic: str, partition: int) -> None:
    assert decode_key(encode_key(group, TP(topic, partition))) == OffsetKey(group, TP(topic, partition))


@given(offsets, st.text(max_size=1000), offsets)
def test_decoding_inverts_encoding_of_values(offset: int, metadata: str, timestamp_ms: int) -> None:
    value = OffsetValue(offset, metadata, timestamp_ms)
    assert decode_value(encode_value(value)) == value


def test_values_that_older_brokers_wrote_are_read() -> None:
    version_1 = bytes.fromhex("0001 000000000000002a 0002") + b"me" + bytes.fromhex("0000018bcfe56800 ffffffffffffffff")
    assert decode_value(version_1) == OffsetValue(42, "me", 1_700_000_000_000)


def test_kafkas_group_metadata_is_passed_over() -> None:
    assert decode_key(bytes.fromhex("0002 0005") + b"group") is None


@given(st.binary(max_size=40))
def test_garbage_is_corrupt_or_passed_over_and_nothing_else(garbage: bytes) -> None:
    for decode in (decode_key, decode_value):
        with contextlib.suppress(CorruptRecordError):  # anything else would be a surprise to whoever reloads the topic
            decode(garbage)


def test_a_string_that_claims_more_than_there_is_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError):
        decode_key(bytes.fromhex("0001 7fff 61"))
