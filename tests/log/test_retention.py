"""What a log forgets: by time, by size, by order. Invariants 16 and 17."""

import errno

import pytest

from streamcore.errors import DiskError, OffsetOutOfRangeError
from streamcore.log.config import LogConfig
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import HIGH_WATERMARK, PartitionLog
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import NOW_MS, batch, fill, open_log, read_values, reopen, value, values

ONE = len(batch(value(0)))
CONFIG = LogConfig(segment_bytes=5 * ONE, retention_ms=1000, message_timestamp_after_max_ms=1 << 60)


def bases(log: PartitionLog) -> list[int]:
    return [segment.base_offset for segment in log.segments]


def test_whole_closed_segments_go_when_their_newest_record_is_too_old() -> None:
    """Invariant 17."""
    log = open_log(config=CONFIG)
    fill(log, 20, step_ms=100)  # newest of each segment: 400, 900, 1400, 1900
    assert log.apply_retention(NOW_MS + 1400) == 0
    assert log.apply_retention(NOW_MS + 1401) == 5 * ONE
    assert log.log_start_offset == 5
    assert read_values(log) == values(range(5, 20))
    assert log.apply_retention(NOW_MS + 2000) == 5 * ONE
    assert bases(log) == [10, 15]


def test_one_new_record_keeps_its_whole_segment_and_all_after_it() -> None:
    """Invariant 17: segments go from the old end only, however the times lie."""
    log = open_log(config=CONFIG)
    log.append_as_leader(batch(value(0), timestamp_ms=NOW_MS + 10**6))
    fill(log, 19, step_ms=1)
    assert log.apply_retention(NOW_MS + 10**5) == 0
    assert bases(log) == [0, 5, 10, 15]


def test_the_active_segment_goes_too_when_everything_in_it_is_too_old_and_offsets_go_on() -> None:
    """Invariant 17: it is closed first."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 7)
    assert log.apply_retention(NOW_MS + 10**6) == 7 * ONE
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (7, 7, 0)
    assert log.apply_retention(NOW_MS + 10**6) == 0
    assert reopen(log, disk).append_as_leader(batch(b"v")).base_offset == 7


def test_offsets_go_on_after_everything_expired_and_power_was_lost() -> None:
    """Invariant 16: the new segment's name is durable before the last record goes."""
    for seed in range(50):
        disk = FaultyDisk(seed)
        log = open_log(disk, config=CONFIG)
        fill(log, 7)
        log.flush()
        log.apply_retention(NOW_MS + 10**6)
        disk.lose_power()
        again = open_log(disk, config=CONFIG, recovery_point=log.recovery_point)
        assert again.log_end_offset == 7


def test_the_oldest_segments_go_when_there_are_too_many_bytes() -> None:
    """Invariant 17: never below what is to be kept, and never the active one."""
    log = open_log(config=LogConfig(segment_bytes=5 * ONE, retention_bytes=12 * ONE))
    fill(log, 23)
    assert log.apply_retention(NOW_MS) == 10 * ONE
    assert bases(log) == [10, 15, 20]
    small = open_log(config=LogConfig(segment_bytes=5 * ONE, retention_bytes=0))
    fill(small, 23)
    small.apply_retention(NOW_MS)
    assert bases(small) == [20]


def test_minus_one_keeps_records_for_ever() -> None:
    log = open_log(config=LogConfig.parse({"retention.ms": "-1", "segment.bytes": "1000"}))
    fill(log, 30)
    assert log.apply_retention(NOW_MS * 100) == 0


def test_a_compacted_topic_keeps_old_records() -> None:
    config = LogConfig(segment_bytes=5 * ONE, retention_ms=1, cleanup_policy=frozenset({"compact"}))
    log = open_log(config=config)
    fill(log, 30)
    assert log.apply_retention(NOW_MS * 100) == 0
    log.delete_records(12)
    assert bases(log) == [10, 15, 20, 25]


def test_a_death_at_every_step_of_retention_leaves_a_log_without_a_hole() -> None:
    """Invariant 17."""
    step = 0
    while True:
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        fill(log, 20, step_ms=100)
        log.flush()
        disk.kill_after(step)
        try:
            log.apply_retention(NOW_MS + 2000)
        except Killed:
            pass
        else:
            break
        again = reopen(log, disk)
        assert again.log_end_offset == 20
        assert again.log_start_offset in (0, 5, 10)
        assert read_values(again) == values(range(again.log_start_offset, 20))
        step += 1
    assert step > 4


# ---- delete_records


def test_the_log_start_only_grows_and_survives_a_kill() -> None:
    """Invariant 16."""
    disk = FaultyDisk()
    directory = LogDirectory.open("/data", disk=disk)
    directory.create_topic("topic", 1, {"segment.bytes": str(5 * ONE)})
    log = directory.log("topic", 0)
    fill(log, 20)
    assert log.delete_records(7) == 7
    assert log.delete_records(3) == 7
    assert read_values(log) == values(range(7, 20))
    assert bases(log) == [5, 10, 15]
    disk.kill()
    log = LogDirectory.open("/data", disk=disk).log("topic", 0)
    assert log.log_start_offset == 7
    assert read_values(log) == values(range(7, 20))
    log.delete_records(9)
    disk.lose_power()
    assert LogDirectory.open("/data", disk=disk).log("topic", 0).log_start_offset == 9


def test_records_above_the_high_watermark_cannot_be_deleted() -> None:
    """Invariant 16."""
    log = open_log()
    fill(log, 5)
    for offset in (6, -2):
        with pytest.raises(OffsetOutOfRangeError):
            log.delete_records(offset)
    assert log.log_start_offset == 0
    assert log.delete_records(HIGH_WATERMARK) == 5
    assert read_values(log) == []
    assert log.append_as_leader(batch(b"v")).base_offset == 5


def test_a_deletion_that_cannot_be_noted_did_not_happen() -> None:
    """Invariant 16: a log start that a restart would take back is not answered."""
    disk = FaultyDisk()
    directory = LogDirectory.open("/data", disk=disk)
    directory.create_topic("topic", 1)
    log = directory.log("topic", 0)
    fill(log, 5)
    disk.fail("write", errno.ENOSPC, path="log-start-offset-checkpoint")
    with pytest.raises(DiskError):
        log.delete_records(3)
    assert log.log_start_offset == 0
    assert log.delete_records(3) == 3


def test_truncation_never_leaves_the_log_start_above_the_log_end() -> None:
    log = open_log(config=CONFIG)
    fill(log, 20)
    log.delete_records(12)
    log.truncate_to(8)
    assert (log.log_start_offset, log.log_end_offset) == (8, 8)
    assert log.append_as_leader(batch(b"v")).base_offset == 8


@pytest.mark.parametrize("offset", range(0, 21, 3))
def test_truncation_removes_the_offset_and_everything_after_it(offset: int) -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 20)
    log.flush()
    log.truncate_to(offset)
    assert log.log_end_offset == min(offset, 20)
    assert read_values(log) == values(range(min(offset, 20)))
    fill(log, 7)
    again = reopen(log, disk)
    assert read_values(again) == values(range(min(offset, 20) + 7))


def test_truncation_inside_a_batch_takes_the_whole_batch() -> None:
    log = open_log()
    log.append_as_leader(batch(b"a"))
    log.append_as_leader(batch(b"b", b"c", b"d"))
    log.truncate_to(3)
    assert log.log_end_offset == 1


def test_a_death_at_every_step_of_a_truncation_leaves_a_log_without_a_hole() -> None:
    step = 0
    while True:
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        fill(log, 20)
        log.flush()
        disk.kill_after(step)
        try:
            log.truncate_to(7)
        except Killed:
            pass
        else:
            break
        again = reopen(log, disk)
        assert again.log_end_offset >= 7
        assert read_values(again) == values(range(again.log_end_offset))
        step += 1
    assert step > 4
