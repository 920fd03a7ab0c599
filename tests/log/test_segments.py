"""When a segment ends, what its files are called, what its indexes hold. Invariants 10 and 11."""

import pytest

from streamcore.clock import ManualClock
from streamcore.log.config import LogConfig
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.open_files import OpenFiles
from streamcore.log.partition_log import PartitionLog
from streamcore.log.segment import scan_headers
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import encode
from tests.log.support import DIRECTORY, NOW_MS, batch, fill, open_log, read_values, value, values

ONE = len(batch(value(0)))


def test_a_segment_rolls_when_the_next_batch_does_not_fit() -> None:
    """Invariant 10."""
    log = open_log(config=LogConfig(segment_bytes=3 * ONE))
    fill(log, 3)
    assert [segment.base_offset for segment in log.segments] == [0]
    fill(log, 1)
    assert [segment.base_offset for segment in log.segments] == [0, 3]
    fill(log, 6)
    assert [segment.base_offset for segment in log.segments] == [0, 3, 6, 9]


def test_a_segment_rolls_when_its_first_record_is_too_old() -> None:
    """Invariant 10."""
    log = open_log(config=LogConfig(segment_ms=1000, message_timestamp_after_max_ms=1 << 60))
    for age, segments in ((0, 1), (1000, 1), (1001, 2), (2001, 2), (2002, 3)):
        log.append_as_leader(batch(b"v", timestamp_ms=NOW_MS + age))
        assert len(log.segments) == segments


def test_a_segment_without_timestamps_rolls_by_the_clock() -> None:
    """Invariant 10."""
    clock = ManualClock(NOW_MS)
    log = open_log(clock=clock, config=LogConfig(segment_ms=1000))
    log.append_as_leader(encode([(b"k", b"v", -1, ())]))
    clock.advance(1001)
    log.append_as_leader(encode([(b"k", b"v", -1, ())]))
    assert len(log.segments) == 2


def test_a_segment_rolls_when_an_index_is_full() -> None:
    """Invariant 10."""
    log = open_log(config=LogConfig(segment_index_bytes=36, index_interval_bytes=0))
    fill(log, 12)
    assert len(log.segments) > 2
    assert all(segment.offset_index.count <= 4 and segment.time_index.count <= 3 for segment in log.segments)


def test_a_segment_rolls_before_a_relative_offset_leaves_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 10, KAFKA-6264: with the bound made small enough to reach."""
    monkeypatch.setattr("streamcore.log.segment_policy.INT32_MAX", 9)
    log = open_log()
    fill(log, 10)
    assert len(log.segments) == 1
    fill(log, 1)
    assert [segment.base_offset for segment in log.segments] == [0, 10]
    log.append_as_leader(batch(*[b"v"] * 9))
    assert len(log.segments) == 2
    log.append_as_leader(batch(b"v"))
    assert [segment.base_offset for segment in log.segments] == [0, 10, 20]


def test_files_are_named_after_their_first_offset() -> None:
    """Invariant 10."""
    disk = MemoryDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=3 * ONE))
    fill(log, 5)
    assert [name for name in disk.list_directory(DIRECTORY) if name.endswith("log")] == [
        "00000000000000000000.log",
        "00000000000000000003.log",
    ]
    for segment in log.segments:
        found = next(segment.scan())
        assert segment.base_offset <= found.header.base_offset


def test_index_entries_increase_and_point_at_batches() -> None:
    """Invariants 11 and 12."""
    disk = MemoryDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=20 * ONE, index_interval_bytes=2 * ONE))
    fill(log, 100)
    log.close()
    assert sum(segment.offset_index.count for segment in log.segments) > 20
    for segment in log.segments:
        batches = {f.position: f.header for f in scan_headers(disk.open(segment.log_path), 0, segment.size_bytes)}
        entries = [segment.offset_index.at(index) for index in range(segment.offset_index.count)]
        assert entries == sorted(set(entries))
        for last_offset, position in entries:
            assert batches[position].last_offset == last_offset
        times = [segment.time_index.at(index) for index in range(segment.time_index.count)]
        assert times == sorted(set(times))
        for timestamp, offset in times:
            earlier = [header for header in batches.values() if header.last_offset <= offset]
            assert max(header.max_timestamp for header in earlier) == timestamp
        assert times[-1][0] == max(header.max_timestamp for header in batches.values())


def answers(log: PartitionLog) -> list[object]:
    """What fetches and searches by time say, at every offset and time."""
    fetched: list[object] = [bytes(log.read(offset, 500)) for offset in range(log.log_start_offset, log.log_end_offset)]
    times = range(NOW_MS - 5, NOW_MS + 10 * log.log_end_offset + 5, 3)
    return [*fetched, *(log.offset_for_timestamp(time) for time in times), log.max_timestamp()]


@pytest.fixture
def filled() -> tuple[MemoryDisk, LogConfig, list[object]]:
    disk = MemoryDisk()
    config = LogConfig(segment_bytes=20 * ONE, index_interval_bytes=2 * ONE)
    log = open_log(disk, config=config)
    fill(log, 90)
    expected = answers(log)
    log.close()
    return disk, config, expected


def index_files(disk: MemoryDisk) -> list[str]:
    return [f"{DIRECTORY}/{name}" for name in disk.list_directory(DIRECTORY) if name.endswith("index")]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("suffix", [".index", ".timeindex", "index"])
def test_answers_are_the_same_when_every_index_is_deleted(
    filled: tuple[MemoryDisk, LogConfig, list[object]], suffix: str, clean: bool
) -> None:
    """Invariant 11."""
    disk, config, expected = filled
    for path in index_files(disk):
        if path.endswith(suffix):
            disk.remove(path)
    assert answers(open_log(disk, config=config, clean=clean, recovery_point=90)) == expected


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff" * 7, b"\xff" * 24, b"\x00" * 24, b"\x7f" * 240],
    ids=["empty", "half an entry", "ones", "zeros", "beyond the end"],
)
def test_answers_are_the_same_when_every_index_is_garbage(
    filled: tuple[MemoryDisk, LogConfig, list[object]], damage: bytes
) -> None:
    """Invariant 14: a damaged index costs a scan and nothing else."""
    disk, config, expected = filled
    for path in index_files(disk):
        if path.endswith(".index") or damage[:1] != b"\x00":
            file = disk.open(path)
            file.truncate(0)
            file.write_at(0, damage)
    assert answers(open_log(disk, config=config, clean=True)) == expected


def test_a_damaged_offset_entry_in_the_middle_is_noticed_when_used(
    filled: tuple[MemoryDisk, LogConfig, list[object]],
) -> None:
    disk, config, expected = filled
    for path in index_files(disk):
        if path.endswith(".index") and disk.size(path) >= 24:
            disk.open(path).write_at(8 + 4, b"\x00\x00\x01\x01")
    assert answers(open_log(disk, config=config, clean=True)) == expected


def test_few_files_are_open_however_many_segments_there_are() -> None:
    disk = MemoryDisk()
    files = OpenFiles(disk, limit=4)
    config = LogConfig(segment_bytes=2 * ONE)
    log = PartitionLog.open(disk, DIRECTORY, config, ManualClock(NOW_MS), clean=False, files=files)
    fill(log, 100)
    assert read_values(log, max_bytes=1) == values(range(100))
    assert len(log.segments) == 50
    assert len(files) <= 4


def test_batches_larger_than_a_scanning_window_are_found() -> None:
    log = open_log(config=LogConfig(max_message_bytes=1 << 30, index_interval_bytes=1 << 30))
    for size in (10, 3 << 20, 10, 20_000, 10):
        log.append_as_leader(batch(b"x" * size))
    for offset in range(5):
        assert BatchHeader.parse(log.read(offset, 1)).base_offset == offset
    assert len(list(split(log.read(0, 1 << 30)))) == 5


def test_batches_larger_than_a_scanning_window_are_verified() -> None:
    for damaged in (False, True):
        disk = MemoryDisk()
        log = open_log(disk, config=LogConfig(max_message_bytes=1 << 30))
        for size in (10, 3 << 20, 10):
            log.append_as_leader(batch(b"x" * size))
        if damaged:
            disk.open(log.segments[0].log_path).write_at(2 << 20, b"y")
        assert open_log(disk).log_end_offset == (1 if damaged else 3)
