"""After a stop of any kind the log holds the longest valid prefix of what was written. Invariants 13 and 14."""

import errno
import logging
import struct

import pytest

from streamcore.errors import LogOfflineError
from streamcore.log.config import LogConfig
from streamcore.log.leader_epochs import LeaderEpochs
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import BatchHeader, split
from tests.faults.faulty_disk import FaultyDisk
from tests.log.support import DIRECTORY, NOW_MS, batch, fill, open_log, read_values, reopen, value, values
from tests.log.test_segments import answers

LOG_PATH = f"{DIRECTORY}/00000000000000000000.log"
CONFIG = LogConfig(index_interval_bytes=100)


def state(log: PartitionLog, disk: FaultyDisk) -> tuple[object, ...]:
    """Everything that a recovery has to bring back: records, answers, index bytes, epochs."""
    indexes = {path: disk.contents(path) for path in disk.paths("index")}
    return log.log_start_offset, log.log_end_offset, answers(log), indexes, log.epochs.entries


def replayed(batches: list[bytes], config: LogConfig, epochs: list[int]) -> tuple[object, ...]:
    """The state of a log to which just `batches` were appended, and which was then recovered."""
    disk = FaultyDisk()
    log = open_log(disk, config=config)
    for data, epoch in zip(batches, epochs, strict=False):
        log.append_as_leader(data, leader_epoch=epoch)
    return state(reopen(log, disk), disk)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_tear_at_every_byte_leaves_the_longest_valid_prefix(damage: str) -> None:
    """Invariant 13: the log end, the indexes and the leader epochs are as after a replay of that prefix."""
    batches = [batch(value(n, 20), value(n + 100, 20), timestamp_ms=NOW_MS + n * 20) for n in range(5)]
    epochs = [0, 0, 2, 2, 3]
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    ends = []
    for data, epoch in zip(batches, epochs, strict=True):
        log.append_as_leader(data, leader_epoch=epoch)
        ends.append(log.size_bytes)
    log.flush()
    whole = disk.contents(LOG_PATH)
    expected = [replayed(batches[:count], CONFIG, epochs) for count in range(len(batches) + 1)]
    for position in range(len(whole)):
        torn = disk.copy()
        if damage == "truncated":
            torn.set_contents(LOG_PATH, whole[:position])
        else:
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            torn.set_contents(LOG_PATH, bytes(flipped))
        intact = sum(end <= position for end in ends)
        recovered = open_log(torn, config=CONFIG)
        assert recovered.log_end_offset == 2 * intact, position
        assert state(recovered, torn)[2:4] == expected[intact][2:4], position
        assert torn.contents(LOG_PATH) == whole[: ends[intact - 1] if intact else 0]
        # An epoch that was assigned and wrote nothing that survived is forgotten.
        assert recovered.epochs.entries == expected[intact][4], position
        assert recovered.append_as_leader(batch(b"next"), leader_epoch=3).base_offset == 2 * intact


def test_whole_batches_after_a_torn_one_are_cut_off_too() -> None:
    """Invariant 13: a prefix has no holes, although pages reach a disk in any order."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 5)
    size = log.size_bytes // 5
    data = bytearray(disk.contents(LOG_PATH))
    data[size : 2 * size] = bytes(size)
    disk.set_contents(LOG_PATH, bytes(data))
    assert read_values(open_log(disk, config=CONFIG)) == values([0])


def test_later_segments_go_with_a_torn_one(caplog: pytest.LogCaptureFixture) -> None:
    """Invariant 13, over several segments; and it is said how much was lost."""
    config = LogConfig(segment_bytes=1000)
    disk = FaultyDisk()
    log = open_log(disk, config=config)
    fill(log, 40)
    third = log.segments[2]
    data = bytearray(disk.contents(third.log_path))
    data[third.size_bytes // 2] ^= 1
    disk.set_contents(third.log_path, bytes(data))
    written = log.size_bytes
    with caplog.at_level(logging.WARNING):
        recovered = open_log(disk, config=config)
    assert len(recovered.segments) == 3
    assert third.base_offset < recovered.log_end_offset < log.segments[3].base_offset
    assert read_values(recovered) == values(range(recovered.log_end_offset))
    assert f"cut at offset {recovered.log_end_offset}" in caplog.text
    assert f"{written - recovered.size_bytes} bytes" in caplog.text


def test_a_missing_segment_is_a_tear_as_well() -> None:
    config = LogConfig(segment_bytes=1000)
    disk = FaultyDisk()
    log = open_log(disk, config=config)
    fill(log, 40)
    end = log.segments[2].base_offset
    disk.erase(log.segments[2].log_path)
    recovered = open_log(disk, config=config)
    assert recovered.log_end_offset == end
    assert [segment.base_offset for segment in recovered.segments] == [s.base_offset for s in log.segments[:2]]
    assert len(disk.paths(".log")) == 2


@pytest.mark.parametrize("damage", ["flipped", "truncated", "segment gone", "all gone"])
def test_damage_below_the_recovery_point_puts_the_partition_offline_untouched(damage: str) -> None:
    """What was synced was promised: its loss is reported, with a remedy, and nothing is cut."""
    config = LogConfig(segment_bytes=1000)
    disk = FaultyDisk()
    log = open_log(disk, config=config)
    fill(log, 40)
    log.flush()
    last = log.segments[-1]
    if damage == "flipped":
        data = bytearray(disk.contents(last.log_path))
        data[10] ^= 1
        disk.set_contents(last.log_path, bytes(data))
    elif damage == "truncated":
        disk.set_contents(last.log_path, disk.contents(last.log_path)[:-1])
    else:
        for segment in log.segments if damage == "all gone" else log.segments[-1:]:
            disk.erase(segment.log_path)
    before = {path: disk.contents(path) for path in disk.paths(".log")}
    with pytest.raises(LogOfflineError, match=r"recovery-point-offset-checkpoint"):
        reopen(log, disk)
    assert {path: disk.contents(path) for path in disk.paths(".log")} == before
    # The remedy it names works: without the recovery point the valid prefix is what there is.
    if damage != "all gone":
        mended = open_log(disk, config=config)
        assert read_values(mended) == values(range(mended.log_end_offset))


def test_everything_above_the_recovery_point_is_read_again_and_nothing_below() -> None:
    """Invariant 14."""
    config = LogConfig(segment_bytes=1000)
    disk = FaultyDisk()
    log = open_log(disk, config=config)
    fill(log, 60)
    log.flush()
    fill(log, 3)
    point = next(s for s in reversed(log.segments) if s.base_offset < log.recovery_point)
    disk.log.clear()
    recovered = reopen(log, disk)
    assert recovered.log_end_offset == 63
    read = {path for operation, path in disk.log if operation == "read" and path.endswith(".log")}
    assert read == {segment.log_path for segment in log.segments if segment.base_offset >= point.base_offset}


def test_after_an_orderly_stop_only_the_end_is_read() -> None:
    """Invariant 14: with the marker there is nothing to verify."""
    disk = FaultyDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=20_000))
    fill(log, 500)
    log.close()
    disk.log.clear()
    again = reopen(log, disk, clean=True)
    assert again.log_end_offset == 500
    assert again.recovery_point == 500
    reads = [path for operation, path in disk.log if operation == "read" and path.endswith(".log")]
    assert set(reads) == {log.segments[-1].log_path}
    assert len(reads) <= 5


def test_an_end_that_is_torn_in_spite_of_the_marker_is_cut() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 5)
    log.close()
    disk.set_contents(LOG_PATH, disk.contents(LOG_PATH) + b"garbage")
    again = reopen(log, disk, clean=True)
    assert again.log_end_offset == 5
    assert again.append_as_leader(batch(b"next")).base_offset == 5


def test_the_recovery_point_is_never_above_what_was_synced() -> None:
    """Invariant 14."""
    disk = FaultyDisk()
    log = open_log(disk)
    assert log.recovery_point == 0
    fill(log, 5)
    assert log.recovery_point == 0
    assert log.flush() == 5
    fill(log, 1)
    assert log.recovery_point == 5
    log.truncate_to(3)
    assert log.recovery_point == 3
    fill(log, 10)
    assert log.recovery_point == 3


def test_a_read_error_at_start_leaves_the_partition_offline_with_the_reason() -> None:
    disk = FaultyDisk()
    fill(open_log(disk), 5)
    disk.kill()
    disk.fail("read", errno.EIO, path=".log", times=None)
    with pytest.raises(LogOfflineError, match=r"Input/output error.*mend the disk"):
        open_log(disk)


@pytest.mark.parametrize("content", [b"", b"garbage", b"0\n1\n", b"0\n1\n0\n", b"0\n2\n3 0\n1 5\n", b"\xff\xfe"])
def test_leader_epochs_come_back_from_the_batches_where_their_file_is_damaged(content: bytes) -> None:
    """Invariant 14."""
    for clean in (False, True):
        disk = FaultyDisk()
        log = open_log(disk)
        for epoch in (0, 0, 4, 4, 7):
            log.append_as_leader(batch(b"v"), leader_epoch=epoch)
        log.close()
        disk.set_contents(f"{DIRECTORY}/leader-epoch-checkpoint", content)
        again = reopen(log, disk, clean=clean)
        assert again.epochs.entries == [(0, 0), (4, 2), (7, 4)]
        assert read_values(again) == [b"v"] * 5


@pytest.mark.parametrize("whole", [b"0\n1\n7 1234\n"])
def test_a_file_of_leader_epochs_that_is_torn_anywhere_is_not_believed(whole: bytes) -> None:
    """Its first entry is written without a sync; `7 1` is no shorter `7 1234`."""
    for length in range(len(whole) + 1):
        disk = FaultyDisk()
        disk.make_directory(DIRECTORY)
        disk.set_contents(f"{DIRECTORY}/leader-epoch-checkpoint", whole[:length])
        epochs = LeaderEpochs(disk, DIRECTORY)
        assert epochs.load() == (length == len(whole))
        assert epochs.entries == ([(7, 1234)] if length == len(whole) else [])


@pytest.mark.parametrize("epochs", [(0,), (3,), (0, 4), (0, 4, 7)])
def test_records_that_are_synced_outlive_a_loss_of_power_whatever_became_of_the_epochs(epochs: tuple[int, ...]) -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    for epoch in epochs:
        log.append_as_leader(batch(b"v"), leader_epoch=epoch)
    log.flush()
    disk.lose_power()
    again = open_log(disk, recovery_point=log.recovery_point)
    assert again.epochs.entries == list(zip(epochs, range(len(epochs)), strict=True))
    assert read_values(again) == [b"v"] * len(epochs)


def test_an_epoch_that_takes_the_place_of_another_is_durable_before_its_first_batch() -> None:
    disk = FaultyDisk()
    disk.make_directory(DIRECTORY)
    epochs = LeaderEpochs(disk, DIRECTORY)
    epochs.assign(3, 0)
    epochs.save()
    epochs.assign(5, 0)
    disk.lose_power()
    again = LeaderEpochs(disk, DIRECTORY)
    assert again.load()
    assert again.entries == [(5, 0)]


def test_the_epoch_of_an_offset_is_that_of_its_batch() -> None:
    log = open_log(config=LogConfig(segment_bytes=400))
    for epoch in (0, 0, 4, 4, 7):
        log.append_as_leader(batch(b"v" * 100), leader_epoch=epoch)
    for part in split(b"".join(bytes(log.read(offset, 1)) for offset in range(5))):
        header = BatchHeader.parse(part)
        assert log.epochs.epoch_at(header.base_offset) == header.leader_epoch
    log.truncate_to(3)
    assert log.epochs.entries == [(0, 0), (4, 2)]
    log.delete_records(3)
    assert log.epochs.epoch_at(3) == 4


def test_records_below_the_log_start_do_not_confuse_the_epochs_at_recovery() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    for epoch in (0, 1, 1):
        log.append_as_leader(batch(b"v"), leader_epoch=epoch)
    log.delete_records(2)
    again = reopen(log, disk)
    assert (again.log_start_offset, again.log_end_offset) == (2, 3)


def test_an_offset_that_was_deleted_is_not_used_again_when_the_rest_is_lost() -> None:
    """Invariant 16: everything above the log start was unsynced and is gone."""
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 10)
    log.delete_records(8)
    disk.set_contents(LOG_PATH, b"")
    again = reopen(log, disk)
    assert (again.log_start_offset, again.log_end_offset) == (8, 8)
    assert again.append_as_leader(batch(b"v")).base_offset == 8


def test_what_a_crash_left_lying_about_is_swept_away() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    fill(log, 3)
    leftovers = [
        "00000000000000000007.index",
        "00000000000000000007.timeindex",
        "00000000000000000000.cleaned",
        "00000000000000000000.log.deleted",
        "leader-epoch-checkpoint.tmp",
    ]
    for name in leftovers:
        disk.set_contents(f"{DIRECTORY}/{name}", struct.pack(">ii", 3, 4))
    again = reopen(log, disk)
    assert read_values(again) == values(range(3))
    assert not {f"{DIRECTORY}/{name}" for name in leftovers} & set(disk.paths())


def test_files_of_others_are_left_alone() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    for name in ("notes.txt", "00000000000000000000.snapshot", "1.log.bak"):
        disk.set_contents(f"{DIRECTORY}/{name}", b"mine")
    reopen(log, disk)
    assert disk.contents(f"{DIRECTORY}/notes.txt") == b"mine"
    assert f"{DIRECTORY}/1.log.bak" in disk.paths()
