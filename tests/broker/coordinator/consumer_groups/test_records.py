"""Changes as records: what is written is read back, and what is damaged is told."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.broker.coordinator.consumer_groups.assignment import assignment_of
from streamcore.broker.coordinator.consumer_groups.changes import Change, Kind
from streamcore.broker.coordinator.consumer_groups.messages import (
    ClassicMember,
    GroupEpoch,
    MemberMetadata,
    ResolvedRegex,
)
from streamcore.broker.coordinator.consumer_groups.reconciliation import CurrentAssignment, MemberState
from streamcore.broker.coordinator.consumer_groups.records import decode_change, encode_change
from streamcore.errors import CorruptRecordError

NOW_MS = 1_700_000_000_000
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
maybe = st.none() | texts
strings = st.lists(texts, max_size=4).map(tuple)
assignments = st.dictionaries(st.uuids(), st.frozensets(st.integers(0, 9), max_size=5), max_size=3).map(
    lambda found: assignment_of(found.items())
)
classics = st.builds(ClassicMember, int32, st.lists(st.tuples(texts, st.binary(max_size=300)), max_size=3).map(tuple))
members = st.builds(MemberMetadata, maybe, maybe, texts, texts, strings, maybe, int32, maybe, st.none() | classics)
values = {
    Kind.EPOCH: st.builds(GroupEpoch, int32, int64),
    Kind.MEMBER: members,
    Kind.TARGET_EPOCH: int32,
    Kind.TARGET: assignments,
    Kind.CURRENT: st.builds(CurrentAssignment, int32, int32, st.sampled_from(MemberState), assignments, assignments),
    Kind.REGEX: st.builds(ResolvedRegex, strings, int64),
}
NAMED = (Kind.MEMBER, Kind.TARGET, Kind.CURRENT, Kind.REGEX)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kind = draw(st.sampled_from(Kind))
    return Change(kind, draw(texts), draw(texts) if kind in NAMED else "", draw(st.none() | values[kind]))


@given(changes())
def test_decoding_inverts_encoding(change: Change) -> None:
    key, value, timestamp_ms, headers = encode_change(change, NOW_MS)
    assert key is not None
    assert (timestamp_ms, headers) == (NOW_MS, ())
    assert decode_change(key, value) == change


@given(changes(), st.data())
def test_damaged_bytes_are_told_or_mean_something_else(change: Change, data: st.DataObject) -> None:
    key, value, _, _ = encode_change(change, NOW_MS)
    assert key is not None
    which = bytearray(data.draw(st.sampled_from([part for part in (key, value) if part])))
    place = data.draw(st.integers(0, len(which) - 1))
    damaged = bytes(which[:place]) if data.draw(st.booleans()) else bytes(which[:place] + b"\xff" + which[place + 1 :])
    try:
        decode_change(*((damaged, value) if len(which) == len(key) else (key, damaged)))
    except CorruptRecordError:
        pass


def test_the_bytes_are_kafkas() -> None:
    """As Apache Kafka 4.1 has written them."""
    topic_id = UUID("00000000-0000-0000-0000-000000000001")
    target = Change(Kind.TARGET, "g", "m", {topic_id: frozenset({1, 0})})
    key, value, _, _ = encode_change(target, NOW_MS)
    assert key == b"\0\7\0\1g\0\1m"
    assert value == b"\0\0" + b"\2" + topic_id.bytes + b"\3\0\0\0\0\0\0\0\1\0" + b"\0"
    key, value, _, _ = encode_change(Change(Kind.EPOCH, "g", "", GroupEpoch(3, 1)), NOW_MS)
    assert (key, value) == (b"\0\3\0\1g", b"\0\0\0\0\0\3" + b"\1\0\x08" + b"\0\0\0\0\0\0\0\1")


@pytest.mark.parametrize("key", [b"\0\2\0\1g", b"\0\1\0\1g\0\1t\0\0\0\0", b"\0\4\0\1g"])
def test_other_kinds_are_passed_over(key: bytes) -> None:
    assert decode_change(key, b"") is None


@pytest.mark.parametrize(
    ("key", "value"), [(b"", None), (b"\0\3", None), (b"\0\3\0\5g", None), (b"\0\3\0\1g", b"\0\1\0\0\0\3\0")]
)
def test_bytes_that_are_nothing_raise(key: bytes, value: bytes | None) -> None:
    with pytest.raises(CorruptRecordError):
        decode_change(key, value)
