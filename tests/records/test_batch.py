"""What a batch's header and checksum must say."""

import struct

import pytest

from streamcore.errors import CorruptRecordError, InvalidRecordError
from streamcore.records.batch import (
    BatchHeader,
    is_intact,
    seal,
    split,
    stamp,
    stamp_log_append_time,
    validate,
)
from streamcore.records.codec import decode, encode

BATCH = encode([(b"k1", b"v1", 1000, ()), (b"k2", b"v2", 2000, ())])


def altered(position: int, layout: str, value: int, *, sealed: bool = True) -> bytearray:
    batch = bytearray(BATCH)
    struct.pack_into(layout, batch, position, value)
    if sealed:
        seal(batch, 0, len(batch))
    return batch


def test_a_right_batch_is_valid() -> None:
    (header,) = validate(BATCH)
    assert header == BatchHeader.parse(BATCH)
    assert header.size_bytes == len(BATCH)


def test_several_batches_are_valid_unless_one_is_asked_for() -> None:
    assert len(validate(BATCH * 3)) == 3
    with pytest.raises(InvalidRecordError, match="3 came"):
        validate(BATCH * 3, single=True)


CORRUPT = {
    "nothing at all": b"",
    "less than a header": BATCH[:60],
    "a cut-off end": BATCH[:-1],
    "something after it": BATCH + b"x",
    "a length that is too small": altered(8, ">i", 48, sealed=False),
    "a negative length": altered(8, ">i", -1, sealed=False),
    "a length of gigabytes": altered(8, ">i", (1 << 31) - 1, sealed=False),
    "an old magic": altered(16, ">b", 1, sealed=False),
    "a wrong checksum": altered(17, ">I", 1, sealed=False),
    "a changed record": altered(len(BATCH) - 1, ">b", 7, sealed=False),
}
INVALID = {
    "no records": altered(57, ">i", 0),
    "a negative count": altered(57, ">i", -1),
    "a count that is not the last delta plus one": altered(57, ">i", 3),
    "a control batch": altered(21, ">h", 0x20),
    "an unknown compression": altered(21, ">h", 5),
    "a producer id without a sequence": altered(43, ">q", 7),
}


@pytest.mark.parametrize("what", CORRUPT)
def test_what_contradicts_its_bytes_is_corrupt(what: str) -> None:
    with pytest.raises(CorruptRecordError):
        validate(CORRUPT[what])


@pytest.mark.parametrize("what", INVALID)
def test_what_contradicts_itself_is_invalid(what: str) -> None:
    with pytest.raises(InvalidRecordError):
        validate(INVALID[what])


def test_stamping_changes_twelve_bytes_and_needs_no_new_checksum() -> None:
    batch = bytearray(BATCH)
    stamp(batch, 0, 1 << 40, 7)
    assert [position for position in range(len(BATCH)) if batch[position] != BATCH[position]] == [2, 12, 13, 14, 15]
    assert is_intact(batch)
    header = BatchHeader.parse(batch)
    assert (header.base_offset, header.leader_epoch) == (1 << 40, 7)


def test_log_append_time_is_every_records_time() -> None:
    batch = bytearray(BATCH)
    stamp_log_append_time(batch, 0, len(batch), 5000)
    assert is_intact(batch)
    assert [record.timestamp for record in decode(batch)] == [5000, 5000]


def test_splitting_leaves_out_a_cut_off_end() -> None:
    parts = list(split(BATCH * 3 + BATCH[:80]))
    assert [bytes(part) for part in parts] == [BATCH] * 3


def test_splitting_garbage_is_a_clear_error() -> None:
    with pytest.raises(CorruptRecordError):
        list(split(bytes(100)))
