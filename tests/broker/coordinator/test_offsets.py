from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets import METADATA_MAX_BYTES, Offsets, tombstone_records
from streamcore.errors import CorruptRecordError, InvalidRecordError, OffsetMetadataTooLargeError
from streamcore.types import TP, OutRecord

A, B, C = TP("a", 0), TP("a", 1), TP("c", 0)
NOW_MS = 1_700_000_000_000


def read_back(records: Iterable[OutRecord]) -> Offsets:
    offsets = Offsets()
    offsets.reload(SimpleNamespace(key=key, value=value) for key, value, _, _ in records)  # type: ignore[misc]
    return offsets


def committed() -> Offsets:
    offsets = Offsets()
    offsets.apply_commit("one", {A: OffsetValue(1), B: OffsetValue(2, "metadata", 5)}, NOW_MS)
    offsets.apply_commit("two", {A: OffsetValue(3), C: OffsetValue(4)}, NOW_MS)
    return offsets


def test_groups_are_independent() -> None:
    offsets = committed()
    assert offsets.committed("one", [A, C]) == {A: OffsetValue(1, "", NOW_MS)}
    assert offsets.committed("two") == {A: OffsetValue(3, "", NOW_MS), C: OffsetValue(4, "", NOW_MS)}
    assert offsets.committed("three") == {}
    assert offsets.groups() == ["one", "two"]


def test_commits_and_tombstones_are_reloaded_in_the_order_of_the_log() -> None:
    offsets = Offsets()
    log: list[OutRecord] = []
    log += offsets.commit_records("g", {A: OffsetValue(1), B: OffsetValue(2)}, NOW_MS)
    log += offsets.commit_records("g", {A: OffsetValue(9, "newer")}, NOW_MS + 1)
    offsets.apply_commit("g", {A: OffsetValue(1), B: OffsetValue(2)}, NOW_MS)
    log += tombstone_records([key for key in offsets.keys_of_group("g") if key.tp == B], NOW_MS)
    assert read_back(log).committed("g") == {A: OffsetValue(9, "newer", NOW_MS + 1)}


def test_forgetting_a_topic_leaves_the_others() -> None:
    offsets = committed()
    offsets.apply_tombstones(offsets.keys_of_topic("a"))
    assert offsets.groups() == ["two"]
    assert list(offsets.committed("two")) == [C]
    assert len(offsets) == 1


def test_metadata_is_limited_in_bytes() -> None:
    offsets = Offsets()
    assert offsets.commit_records("g", {A: OffsetValue(1, "x" * METADATA_MAX_BYTES)}, NOW_MS)
    with pytest.raises(OffsetMetadataTooLargeError, match="4098 bytes; at most 4096"):
        offsets.commit_records("g", {A: OffsetValue(1, "ö" * (METADATA_MAX_BYTES // 2 + 1))}, NOW_MS)


@pytest.mark.parametrize(("group", "offset"), [("g" * 40_000, 1), ("g", -1)])
def test_a_commit_that_no_record_can_hold_is_refused(group: str, offset: int) -> None:
    with pytest.raises(InvalidRecordError):
        Offsets().commit_records(group, {A: OffsetValue(offset)}, NOW_MS)


def test_a_record_that_is_no_commit_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError):
        read_back([(b"\0\1garbage", b"", NOW_MS, ())])
