import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.broker.coordinator.group_messages import GroupMetadata, StoredMember
from streamcore.broker.coordinator.group_records import (
    decode_group,
    decode_group_key,
    encode_group,
    encode_group_key,
    encode_tombstone,
)
from streamcore.broker.coordinator.offset_records import decode_key, encode_key
from streamcore.errors import CorruptRecordError
from streamcore.types import TP

NOW_MS = 1_700_000_000_000
names = st.text(max_size=50)
milliseconds = st.integers(0, 2**31 - 1)
members = st.builds(
    StoredMember, names, st.none() | names, names, names, milliseconds, milliseconds, st.binary(), st.binary()
)
groups = st.builds(
    GroupMetadata,
    names,
    milliseconds,
    names,
    st.none() | names,
    st.none() | names,
    st.lists(members, max_size=4).map(tuple),
    st.integers(-1, 2**63 - 1),
)


def test_a_key_has_the_bytes_of_kafkas_group_metadata_key() -> None:
    assert encode_group_key("group") == bytes.fromhex("0002 0005") + b"group"


def test_a_value_has_the_bytes_of_kafkas_group_metadata_value() -> None:
    member = StoredMember("m", "i", "c", "/h", 60_000, 10_000, b"sub", b"as")
    key, value, timestamp_ms, headers = encode_group(
        GroupMetadata("g", 7, "consumer", "range", "m", (member,), NOW_MS), NOW_MS
    )
    h = bytes.fromhex
    expected = h("0003 0008") + b"consumer" + h("00000007 0005") + b"range" + h("0001") + b"m"
    expected += h("0000018bcfe56800 00000001")
    expected += h("0001") + b"m" + h("0001") + b"i" + h("0001") + b"c" + h("0002") + b"/h"
    expected += h("0000ea60 00002710 00000003") + b"sub" + h("00000002") + b"as"
    assert (key, value, timestamp_ms, headers) == (encode_group_key("g"), expected, NOW_MS, ())


@given(groups)
def test_decoding_inverts_encoding(group: GroupMetadata) -> None:
    key, value, _, _ = encode_group(group, NOW_MS)
    assert key is not None
    assert value is not None
    assert decode_group_key(key) == group.group_id
    assert decode_group(group.group_id, value) == group


def test_a_tombstone_is_a_key_alone() -> None:
    assert encode_tombstone("g", NOW_MS) == (encode_group_key("g"), None, NOW_MS, ())


def test_a_value_that_the_first_brokers_wrote_is_read() -> None:
    version_0 = bytes.fromhex(
        "0000 0001 63 00000001 0001 72 ffff 00000001 0001 6d 0001 63 0001 68 00002710 00000000 00000000"
    )
    member = StoredMember("m", None, "c", "h", 10_000, 10_000, b"", b"")
    assert decode_group("g", version_0) == GroupMetadata("g", 1, "c", "r", None, (member,))


def test_each_kind_of_key_passes_over_the_other() -> None:
    assert decode_group_key(encode_key("g", TP("t", 0))) is None
    assert decode_key(encode_group_key("g")) is None


def test_a_later_version_is_refused_rather_than_misread() -> None:
    with pytest.raises(CorruptRecordError, match="version 4"):
        decode_group("g", struct.pack(">h", 4) + bytes(40))


@given(st.binary(max_size=60))
def test_garbage_is_corrupt_or_passed_over_and_nothing_else(garbage: bytes) -> None:
    with contextlib.suppress(CorruptRecordError):
        decode_group_key(garbage)
    for version in range(4):
        with contextlib.suppress(CorruptRecordError):
            decode_group("g", struct.pack(">h", version) + garbage)


@settings(deadline=None)
@given(groups, st.data())
def test_a_value_that_was_cut_is_corrupt(group: GroupMetadata, data: st.DataObject) -> None:
    value = encode_group(group, NOW_MS)[1]
    assert value is not None
    with pytest.raises(CorruptRecordError):
        decode_group("g", value[: data.draw(st.integers(0, len(value) - 1))])


def test_a_count_of_members_that_cannot_be_takes_no_memory() -> None:
    value = encode_group(GroupMetadata("g", 1, "consumer"), NOW_MS)[1]
    assert value is not None
    for count in (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"):
        with pytest.raises(CorruptRecordError):
            decode_group("g", value[:-4] + count)
