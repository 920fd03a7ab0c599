"""Full disks, failing disks, syncs that fail. Invariants 7 and 9."""

import errno

import pytest

from streamcore.clock import ManualClock
from streamcore.errors import DiskError, LogOfflineError
from streamcore.log.config import LogConfig
from streamcore.log.directory import LogDirectory
from streamcore.log.memory_disk import MemoryDisk
from tests.faults.faulty_disk import FaultyDisk
from tests.log.support import batch, fill, open_log, read_values, reopen, value, values

CONFIG = LogConfig(segment_bytes=1000, index_interval_bytes=100)


def test_a_full_disk_at_every_byte_leaves_no_garbage_and_the_next_append_works() -> None:
    """Invariant 7: whatever of a write fitted is taken back before anything follows it."""
    needed = len(batch(value(0))) + 60  # a batch, and more than its index entries
    refused = 0
    for room in range(0, needed, 7):
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        fill(log, 4)
        disk.room = room
        error: DiskError | None = None
        try:
            fill(log, 1)
        except DiskError as raised:
            error = raised
        if error is not None:
            assert "free some space" in str(error)
            assert log.log_end_offset == 4
            assert disk.contents(log.segments[-1].log_path).endswith(value(3) + b"\x00")
            refused += 1
        else:
            assert log.log_end_offset == 5
        assert read_values(log) == values(range(log.log_end_offset))
        disk.heal()
        fill(log, 10)
        assert read_values(log) == values(range(log.log_end_offset))
        assert read_values(reopen(log, disk)) == values(range(log.log_end_offset))
    assert refused > 10


def test_a_full_disk_while_rolling_leaves_no_empty_segment_behind() -> None:
    """Invariant 7: such a file would claim offsets that the old segment goes on to use."""
    for operation in ("open", "write", "truncate"):
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        fill(log, 5)
        disk.fail(operation, errno.ENOSPC, path="00000000000000000005")  # type: ignore[arg-type]
        try:
            fill(log, 1)
        except DiskError:
            assert log.log_end_offset == 5
        assert not [path for path in disk.paths(".log") if path.endswith("5.log")] or log.log_end_offset == 6
        log.append_as_leader(batch(b"small"))
        expected = read_values(log)
        assert read_values(reopen(log, disk)) == expected


def test_one_failing_partition_does_not_touch_another() -> None:
    """Invariant 7."""
    disk = FaultyDisk()
    directory = LogDirectory.open("/data", disk=disk)
    directory.create_topic("topic", 2)
    disk.fail("write", errno.EIO, path="topic-0/", times=None)
    with pytest.raises(LogOfflineError):
        directory.log("topic", 0).append_as_leader(batch(b"v"))
    directory.log("topic", 1).append_as_leader(batch(b"v"))
    assert [str(tp) for tp in directory.offline_partitions] == ["topic-0"]
    assert "Input/output error" in next(iter(directory.offline_partitions.values()))


@pytest.mark.parametrize("operation", ["write", "read"])
def test_an_input_output_error_puts_the_log_offline(operation: str) -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    disk.fail(operation, errno.EIO)  # type: ignore[arg-type]
    with pytest.raises(LogOfflineError, match="mend the disk"):
        fill(log, 1) if operation == "write" else log.read(0, 100)
    for call in (lambda: fill(log, 1), lambda: log.read(0, 100), log.flush, lambda: log.truncate_to(0)):
        with pytest.raises(LogOfflineError):
            call()
    assert log.offline_reason is not None
    assert read_values(reopen(log, disk)) == values(range(3))


def test_a_write_that_cannot_be_taken_back_puts_the_log_offline() -> None:
    """Invariant 7."""
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    disk.room = 50
    disk.fail("truncate", errno.EIO)
    with pytest.raises(LogOfflineError, match="could not be taken back"):
        fill(log, 1)
    disk.heal()
    assert read_values(reopen(log, disk)) == values(range(3))


def test_after_a_failed_sync_the_log_is_never_called_durable_again() -> None:
    """Invariant 7: the kernel drops dirty pages and reports success the next time (fsyncgate)."""
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    log.flush()
    fill(log, 3)
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogOfflineError, match="sync failed"):
        log.flush()
    with pytest.raises(LogOfflineError, match="sync failed"):
        log.flush()
    with pytest.raises(LogOfflineError):
        fill(log, 1)
    assert log.recovery_point == 3


def test_a_lack_of_file_handles_is_no_failed_sync() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    disk.fail("open", errno.EMFILE, path=".log")
    with pytest.raises(DiskError):
        log.flush()
    assert log.recovery_point == 0
    assert log.flush() == 3


def test_a_flush_covers_the_offsets_it_answers() -> None:
    """Invariant 9: what lies below the answer survives any loss of power, in every order that pages may have."""
    config = LogConfig(segment_bytes=600)
    for seed in range(200):
        disk = FaultyDisk(seed)
        log = open_log(disk, config=config)
        fill(log, seed % 17)
        flushed = log.flush()
        assert flushed == seed % 17
        fill(log, seed % 11)
        disk.lose_power()
        again = open_log(disk, config=config, recovery_point=flushed)
        assert flushed <= again.log_end_offset <= seed % 17 + seed % 11
        assert read_values(again) == values(range(again.log_end_offset))


def test_a_flush_writes_once_for_many_appends() -> None:
    """Invariant 9: one sync covers every request that waits."""
    disk = FaultyDisk()
    log = open_log(disk)
    log.flush()
    fill(log, 100)
    disk.log.clear()
    assert log.flush() == 100
    assert [operation for operation, _ in disk.log if operation == "sync"] == ["sync"]
    disk.log.clear()
    assert log.flush() == 100
    assert not disk.log


def test_what_is_appended_while_a_flush_runs_is_not_covered_by_it() -> None:
    """Invariant 9: the owner appends while another thread waits for the disk."""
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 5)
    appended = []
    original = FaultyDisk.sync_directory

    def during(self: FaultyDisk, path: str) -> None:
        original(self, path)
        if not appended:
            appended.append(True)
            fill(log, 2)

    disk.sync_directory = during.__get__(disk)  # type: ignore[method-assign]
    assert log.flush() == 5
    assert log.recovery_point == 5
    assert log.log_end_offset == 7


def test_a_truncation_while_a_flush_runs_is_not_overruled_by_it() -> None:
    """Invariant 14: bytes that are written anew after the cut have not been synced."""
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 5)
    original = FaultyDisk.sync_directory

    def during(self: FaultyDisk, path: str) -> None:
        del disk.sync_directory  # type: ignore[attr-defined]  # once
        original(self, path)
        log.truncate_to(2)
        fill(log, 6)

    disk.sync_directory = during.__get__(disk)  # type: ignore[method-assign]
    log.flush()
    assert log.recovery_point <= 2


def test_a_segment_that_retention_removes_while_a_flush_runs_is_no_error() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 30)
    original = FaultyDisk.sync_directory

    def during(self: FaultyDisk, path: str) -> None:
        original(self, path)
        log.delete_records(20)

    disk.sync_directory = during.__get__(disk)  # type: ignore[method-assign]
    assert log.flush() == 30
    assert log.offline_reason is None


def test_a_segment_that_somebody_deletes_is_an_error() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    disk.erase(log.segments[0].log_path)
    with pytest.raises(LogOfflineError):
        log.flush()


def test_flush_messages_and_flush_ms_say_when_a_flush_is_due() -> None:
    clock = ManualClock()
    log = open_log(MemoryDisk(), clock=clock, config=LogConfig(flush_messages=3, flush_ms=1000))
    assert not log.is_flush_due
    fill(log, 2)
    assert not log.is_flush_due
    fill(log, 1)
    assert log.is_flush_due
    log.flush()
    fill(log, 1)
    clock.advance(999)
    assert not log.is_flush_due
    clock.advance(1)
    assert log.is_flush_due
