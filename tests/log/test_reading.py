"""From an offset and from a time. Invariants 12 and 39."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.errors import CorruptRecordError, OffsetOutOfRangeError
from streamcore.log.config import LogConfig
from streamcore.log.memory_disk import MemoryDisk
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import encode
from streamcore.records.compression import COMPRESSIONS
from tests.log.support import NOW_MS, batch, fill, open_log, read_records, read_values, replace, values

SMALL = LogConfig(segment_bytes=2000, index_interval_bytes=300, message_timestamp_after_max_ms=1 << 60)


def test_a_fetch_inside_a_batch_answers_the_whole_batch() -> None:
    """Invariant 39."""
    log = open_log(config=SMALL)
    for number in range(20):
        log.append_as_leader(batch(*[b"%d" % number] * 7))
    for offset in range(140):
        header = BatchHeader.parse(log.read(offset, 1))
        assert header.base_offset == offset // 7 * 7


def test_a_fetch_in_a_compaction_gap_answers_what_follows() -> None:
    """Invariant 39."""
    disk = MemoryDisk()
    log = open_log(disk, config=SMALL)
    fill(log, 60)
    log.flush()
    old = log.segments[0]
    kept = [bytes(part) for part in split(log.read(0, 1 << 20))][:3]
    replace(disk, log, [old], kept)
    following = log.segments[1].base_offset
    for offset in range(3, following):
        assert BatchHeader.parse(log.read(offset, 1)).base_offset == following
    assert read_values(log) == values([0, 1, 2]) + values(range(following, 60))


def test_the_log_end_is_empty_and_beyond_is_out_of_range() -> None:
    """Invariant 39."""
    log = open_log(config=SMALL)
    assert log.read(0, 100) == b""
    fill(log, 30)
    assert log.read(30, 100) == b""
    log.delete_records(10)
    for offset in (-1, 0, 9, 31):
        with pytest.raises(OffsetOutOfRangeError) as raised:
            log.read(offset, 100)
        assert (raised.value.log_start_offset, raised.value.log_end_offset) == (10, 30)


def test_a_first_batch_larger_than_asked_for_comes_whole() -> None:
    log = open_log()
    log.append_as_leader(batch(b"x" * 10_000))
    log.append_as_leader(batch(b"y"))
    for max_bytes in (0, 1, 60, 61, 62, 5000, 10_080):
        assert BatchHeader.parse(log.read(0, max_bytes)).size_bytes == len(log.read(0, max_bytes))


def test_no_more_whole_batches_come_than_fit() -> None:
    log = open_log()
    fill(log, 10)
    size = len(log.read(0, 1))
    assert len(log.read(0, 3 * size)) == 3 * size
    assert len(log.read(0, 4 * size - 1)) == 3 * size
    assert len(log.read(0, 100 * size)) == 10 * size


@pytest.mark.parametrize("max_bytes", [1, 300, 1 << 20])
def test_reading_on_reaches_every_record_whoever_else_reads(max_bytes: int) -> None:
    log = open_log(config=SMALL)
    fill(log, 100)
    assert len(log.segments) > 5
    for start in (0, 1, 57, 99):
        assert read_values(log, start, max_bytes) == values(range(start, 100))


def test_a_reader_at_the_end_goes_on_after_the_segment_has_rolled() -> None:
    log = open_log(config=SMALL)
    fill(log, 5)
    assert len(read_records(log, 0)) == 5
    fill(log, 40)
    assert read_values(log, 5) == values(range(5, 45))


def test_a_reader_goes_on_rightly_after_the_log_was_cut_and_written_anew() -> None:
    log = open_log(config=SMALL)
    fill(log, 30)
    read_records(log, 0, max_bytes=1)
    log.truncate_to(10)
    log.append_as_leader(batch(*[b"new"] * 50))
    assert read_values(log, 0, 1) == values(range(10)) + [b"new"] * 50


def test_what_a_read_answers_outlives_its_segment() -> None:
    """Invariant 17: a fetch that was answered is not disturbed by retention."""
    log = open_log(config=SMALL)
    fill(log, 60)
    data = log.read(0, 1 << 20)
    log.delete_records(60)
    assert [BatchHeader.parse(part).base_offset for part in split(data)][:3] == [0, 1, 2]


def test_bytes_that_are_no_batch_are_a_clear_error() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, 10)
    file = disk.open(log.segments[0].log_path)
    file.write_at(0, bytes(200))
    with pytest.raises(CorruptRecordError, match=r"000\.log"):
        log.read(0, 1000)


# ---- by time


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_time_is_found_at_the_record_not_the_batch(compression: str) -> None:
    """Invariant 12."""
    log = open_log(config=SMALL)
    for number in range(20):
        log.append_as_leader(
            batch(*[b"v" * 50] * 5, timestamp_ms=1000 + number * 50, step_ms=10, compression=compression)
        )
    for offset in range(100):
        timestamp = 1000 + offset * 10
        assert log.offset_for_timestamp(timestamp) == (offset, timestamp)
        assert log.offset_for_timestamp(timestamp - 9) == (offset, timestamp)
    assert log.offset_for_timestamp(2000) is None
    assert log.offset_for_timestamp(0) == (0, 1000)
    assert log.max_timestamp() == (99, 1990)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=6), min_size=1, max_size=60),
    st.integers(0, 1 << 30),
    st.booleans(),
)
def test_times_in_any_order_give_the_first_record_at_or_after(
    batches: list[list[int]], seed: int, without_indexes: bool
) -> None:
    """Invariant 12, with times that go back and forth, from any log start, also where the indexes are lost."""
    disk = MemoryDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=1200, index_interval_bytes=100))
    expected: list[tuple[int, int]] = []
    for times in batches:
        log.append_as_leader(encode([(b"k", b"v", time, ()) for time in times]))
        expected += [(len(expected) + index, time) for index, time in enumerate(times)]
    log.delete_records(random.Random(seed).randrange(len(expected)))
    if without_indexes:
        log.close()
        for name in disk.list_directory("/data/topic-0"):
            if name.endswith("index"):
                disk.remove(f"/data/topic-0/{name}")
        log = open_log(disk, clean=True, log_start_offset=log.log_start_offset, config=log.config)
    visible = expected[log.log_start_offset :]
    for timestamp in range(62):
        assert log.offset_for_timestamp(timestamp) == next((e for e in visible if e[1] >= timestamp), None)
    assert log.max_timestamp() == max(visible, key=lambda entry: (entry[1], -entry[0]))


def test_an_empty_log_has_no_times() -> None:
    log = open_log()
    assert log.offset_for_timestamp(0) is None
    assert log.max_timestamp() is None


def test_a_segment_that_is_deleted_takes_its_times_with_it() -> None:
    log = open_log(config=SMALL)
    log.append_as_leader(batch(b"x", timestamp_ms=NOW_MS + 10**9))
    fill(log, 60)
    log.delete_records(50)
    offset, timestamp = log.max_timestamp() or (0, 0)
    assert (offset, timestamp) == (60, NOW_MS + 600)
