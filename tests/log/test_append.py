"""What a log takes, what it refuses, and what an append leaves on the disk. Invariants 1 to 6."""

import struct
from pathlib import Path

import pytest

from streamcore.clock import ManualClock
from streamcore.errors import (
    BatchTooLargeError,
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    KeylessRecordError,
    LogError,
    RecordTooLargeError,
)
from streamcore.log.config import LogConfig
from streamcore.log.disk import RealDisk
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import BatchHeader, seal, split
from streamcore.records.codec import decode, encode
from streamcore.records.compression import COMPRESSIONS
from tests.log.support import DIRECTORY, NOW_MS, batch, open_log, read_records, read_values


def test_offsets_follow_each_other_without_a_gap() -> None:
    """Invariant 1."""
    log = open_log()
    for size in (3, 1, 5):
        appended = log.append_as_leader(batch(*[b"v"] * size))
        assert appended.last_offset - appended.base_offset == size - 1
    two = log.append_as_leader(batch(b"a", b"b") + batch(b"c"))
    assert (two.base_offset, two.last_offset) == (9, 11)
    headers = [BatchHeader.parse(part) for part in split(log.read(0, 1 << 20))]
    assert [header.base_offset for header in headers] == [0, 3, 4, 9, 11]
    assert [record.offset for record in read_records(log)] == list(range(12))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_only_base_offset_and_leader_epoch_are_changed(compression: str) -> None:
    """Invariant 2: what is stored and fetched is the producer's batch, but for bytes 0-7 and 12-15."""
    disk = MemoryDisk()
    log = open_log(disk)
    log.append_as_leader(batch(b"first"))
    sent = batch(b"a", b"b" * 500, compression=compression)
    log.append_as_leader(sent, leader_epoch=3)
    fetched = bytes(log.read(1, 1 << 20))
    assert fetched[:8] == struct.pack(">q", 1)
    assert fetched[12:16] == struct.pack(">i", 3)
    assert fetched[8:12] + fetched[16:] == sent[8:12] + sent[16:]
    assert disk.open(log.segments[0].log_path).read_at(0, 1 << 20).endswith(fetched)


def test_a_bytearray_is_stamped_in_place_and_bytes_are_not_touched() -> None:
    log = open_log()
    log.append_as_leader(batch(b"first"))
    immutable, mutable = batch(b"v"), bytearray(batch(b"v"))
    log.append_as_leader(immutable)
    log.append_as_leader(mutable)
    assert BatchHeader.parse(immutable).base_offset == 0
    assert BatchHeader.parse(mutable).base_offset == 2


def altered(position: int, layout: str, value: int, *, sealed: bool = True) -> bytes:
    damaged = bytearray(batch(b"a", b"b"))
    struct.pack_into(layout, damaged, position, value)
    if sealed:
        seal(damaged, 0, len(damaged))
    return bytes(damaged)


keyless = encode([(b"k", b"v", NOW_MS, ()), (None, b"v", NOW_MS, ())])
REFUSED: dict[str, tuple[bytes, type[LogError], int]] = {
    "nothing": (b"", CorruptRecordError, 2),
    "a wrong checksum": (altered(17, ">I", 0, sealed=False), CorruptRecordError, 2),
    "a flipped bit": (altered(70, ">b", 1, sealed=False), CorruptRecordError, 2),
    "a wrong length": (altered(8, ">i", 60, sealed=False), CorruptRecordError, 2),
    "a cut-off end": (batch(b"a", b"b")[:-1], CorruptRecordError, 2),
    "an old magic": (altered(16, ">b", 1, sealed=False), CorruptRecordError, 2),
    "no records": (altered(57, ">i", 0), InvalidRecordError, 87),
    "a count that contradicts the last offset": (altered(23, ">i", 5), InvalidRecordError, 87),
    "a control batch": (altered(21, ">h", 0x20), InvalidRecordError, 87),
    "a producer id without a sequence": (altered(43, ">q", 5), InvalidRecordError, 87),
    "an unknown compression": (altered(21, ">h", 6), InvalidRecordError, 87),
    "a record without a key": (keyless, KeylessRecordError, 87),
    "records that cannot be read": (altered(61, ">b", 2), CorruptRecordError, 2),
    "more than max.message.bytes": (batch(b"x" * 3000), RecordTooLargeError, 10),
    "more than segment.bytes": (batch(b"x" * 1500) * 3, BatchTooLargeError, 18),
    "a time in the future": (batch(b"v", timestamp_ms=NOW_MS + 3_600_001), InvalidTimestampError, 32),
    "a time too long ago": (batch(b"v", timestamp_ms=NOW_MS - 86_400_001), InvalidTimestampError, 32),
    "log append time by a client": (altered(21, ">h", 0x08), InvalidTimestampError, 32),
}
STRICT = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    max_message_bytes=2000,
    segment_bytes=4000,
    message_timestamp_before_max_ms=86_400_000,
)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("first", [b"", batch(b"good")], ids=["alone", "after a good batch"])
def test_what_is_refused_changes_nothing(what: str, first: bytes) -> None:
    """Invariants 3 to 6: the whole request is checked before a byte is written."""
    bad, error, code = REFUSED[what]
    disk = MemoryDisk()
    log = open_log(disk, config=STRICT)
    log.append_as_leader(batch(b"before"))
    before = disk.open(log.segments[0].log_path).read_at(0, 1 << 20)
    if first and not bad:
        return  # a good batch and nothing is a good batch
    with pytest.raises(error) as raised:
        log.append_as_leader(first + bad)
    assert raised.value.code == code
    assert log.log_end_offset == 1
    assert len(log.segments) == 1
    assert disk.open(log.segments[0].log_path).read_at(0, 1 << 20) == before
    assert log.append_as_leader(batch(b"after")).base_offset == 1


def test_records_without_a_key_are_named_by_their_index() -> None:
    """Invariant 5."""
    log = open_log(config=STRICT)
    with pytest.raises(KeylessRecordError) as raised:
        log.append_as_leader(batch(b"a", b"b") + keyless)
    assert list(raised.value.record_errors) == [3]


def test_a_batch_of_exactly_the_allowed_size_is_taken() -> None:
    """Invariant 4."""
    size = len(batch(b"x" * 100))
    log = open_log(config=LogConfig(max_message_bytes=size, segment_bytes=size))
    assert log.append_as_leader(batch(b"x" * 100)).base_offset == 0


def test_times_at_the_bounds_are_taken() -> None:
    """Invariant 6."""
    log = open_log(config=STRICT)
    log.append_as_leader(batch(b"v", timestamp_ms=NOW_MS + 3_600_000))
    log.append_as_leader(batch(b"v", timestamp_ms=NOW_MS - 86_400_000))
    assert log.log_end_offset == 2


def test_log_append_time_overrides_and_is_answered() -> None:
    """Invariant 6."""
    clock = ManualClock(NOW_MS)
    log = open_log(clock=clock, config=LogConfig(message_timestamp_type="LogAppendTime"))
    appended = log.append_as_leader(batch(b"a", b"b", timestamp_ms=5))
    assert appended.log_append_time_ms == NOW_MS
    clock.advance(10)
    log.append_as_leader(batch(b"c", timestamp_ms=NOW_MS * 2))
    assert [record.timestamp for record in read_records(log)] == [NOW_MS, NOW_MS, NOW_MS + 10]
    assert log.offset_for_timestamp(NOW_MS + 1) == (2, NOW_MS + 10)


def test_create_time_answers_no_append_time() -> None:
    assert open_log().append_as_leader(batch(b"a")).log_append_time_ms == -1


@pytest.mark.parametrize("sent", COMPRESSIONS)
def test_a_topics_own_compression_wins(sent: str) -> None:
    log = open_log(config=LogConfig(compression_type="zstd"))
    log.append_as_leader(batch(b"a" * 100, b"b" * 100, compression=sent) + batch(b"c", compression="zstd"))
    parts = [BatchHeader.parse(part) for part in split(log.read(0, 1 << 20))]
    assert [part.compression for part in parts] == ["zstd", "zstd"]
    assert read_values(log) == [b"a" * 100, b"b" * 100, b"c"]


def test_an_uncompressed_topic_unpacks() -> None:
    log = open_log(config=LogConfig(compression_type="uncompressed"))
    log.append_as_leader(batch(b"a", compression="gzip"))
    assert BatchHeader.parse(log.read(0, 1000)).compression == "none"


def test_the_size_limit_holds_after_recompression_too() -> None:
    log = open_log(config=LogConfig(compression_type="uncompressed", max_message_bytes=500))
    with pytest.raises(RecordTooLargeError):
        log.append_as_leader(batch(b"a" * 1000, compression="gzip"))
    assert log.log_end_offset == 0


def test_an_append_is_with_the_operating_system_when_it_returns(tmp_path: Path) -> None:
    """Invariant 8: another handle sees the bytes at once, so a killed process has lost nothing."""
    log = PartitionLog.open(RealDisk(), str(tmp_path / "topic-0"), LogConfig(), ManualClock(NOW_MS), clean=False)
    for number in range(10):
        log.append_as_leader(batch(str(number).encode()))
        on_disk = (tmp_path / "topic-0" / "00000000000000000000.log").read_bytes()
        assert [decode(part)[0].value for part in split(on_disk)][-1] == str(number).encode()


def test_the_directory_is_the_one_asked_for() -> None:
    disk = MemoryDisk()
    open_log(disk)
    assert disk.list_directory(DIRECTORY) == [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
    ]
