"""Topics and their partitions in one directory. Invariants 14 and 41, locks, and what a start makes of damage."""

import errno
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from streamcore.clock import ManualClock
from streamcore.errors import (
    DirectoryHeldError,
    DirectoryUnusableError,
    DiskError,
    InvalidConfigError,
    InvalidPartitionsError,
    InvalidTopicError,
    LogOfflineError,
    OffsetOutOfRangeError,
    TopicExistsError,
    UnknownTopicError,
)
from streamcore.log.checkpoints import read_topic_id
from streamcore.log.directory import LogDirectory
from streamcore.log.memory_disk import MemoryDisk
from streamcore.types import TP
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import NOW_MS, batch, fill, read_values, value, values

PATH = "/data"


def open_directory(disk: FaultyDisk | MemoryDisk, clock: ManualClock | None = None) -> LogDirectory:
    return LogDirectory.open(PATH, disk=disk, clock=clock or ManualClock(NOW_MS))


def restarted(disk: FaultyDisk) -> LogDirectory:
    disk.kill()
    return open_directory(disk)


# ---- topics


def test_a_topic_has_the_partitions_the_settings_and_the_files_it_was_made_with() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    topic = directory.create_topic("metrics", 3, {"retention.ms": "1000"})
    assert (topic.name, topic.partitions, topic.internal) == ("metrics", 3, False)
    assert directory.log("metrics", 2).config.retention_ms == 1000
    assert disk.contents(f"{PATH}/metrics-2/partition.metadata").startswith(b"version: 0\ntopic_id: ")
    assert read_topic_id(disk, f"{PATH}/metrics-2/partition.metadata") == topic.topic_id
    fill(directory.log("metrics", 1), 3)
    again = restarted(disk)
    assert dict(again.topics) == {"metrics": topic}
    assert again.log("metrics", 1).log_end_offset == 3


def test_topics_survive_a_loss_of_power_as_soon_as_they_are_made() -> None:
    for seed in range(50):
        disk = FaultyDisk(seed)
        directory = open_directory(disk)
        made = directory.create_topic("a", 2)
        altered = directory.alter_config("a", {"retention.ms": "5"})
        grown = directory.add_partitions("a", 4)
        disk.lose_power()
        assert dict(open_directory(disk).topics) == {"a": grown}
        assert grown.topic_id == altered.topic_id == made.topic_id
        assert not open_directory_again(disk).offline_partitions


def open_directory_again(disk: FaultyDisk) -> LogDirectory:
    disk.kill()
    return open_directory(disk)


def test_internal_topics_begin_with_two_underscores() -> None:
    assert open_directory(MemoryDisk()).create_topic("__consumer_offsets", 1).internal


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "a b", "x" * 250, "a\n"])
def test_a_name_that_kafka_would_refuse_is_refused(name: str) -> None:
    directory = open_directory(MemoryDisk())
    with pytest.raises(InvalidTopicError, match="1 to 249"):
        directory.create_topic(name, 1)


def test_a_name_is_taken_once_and_dots_are_underscores() -> None:
    directory = open_directory(MemoryDisk())
    directory.create_topic("a.b", 1)
    for name in ("a.b", "a_b"):
        with pytest.raises(TopicExistsError):
            directory.create_topic(name, 1)


@pytest.mark.parametrize("partitions", [0, -1, 10_001])
def test_a_number_of_partitions_out_of_bounds_is_refused(partitions: int) -> None:
    directory = open_directory(MemoryDisk())
    with pytest.raises(InvalidPartitionsError):
        directory.create_topic("a", partitions)
    assert not directory.topics


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    directory = open_directory(MemoryDisk())
    with pytest.raises(InvalidConfigError, match=r"'retention\.ms'"):
        directory.create_topic("a", 1, {"retention.msec": "1"})
    assert not directory.topics


def test_partitions_can_be_added_and_not_taken_away() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 2)
    fill(directory.log("a", 1), 4)
    directory.add_partitions("a", 5)
    fill(directory.log("a", 4), 2)
    for total in (5, 4):
        with pytest.raises(InvalidPartitionsError):
            directory.add_partitions("a", total)
    again = restarted(disk)
    assert [again.log("a", partition).log_end_offset for partition in range(5)] == [0, 4, 0, 0, 2]


def test_altered_settings_hold_at_once_and_after_a_restart() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1, {"retention.ms": "5", "segment.bytes": "1000"})
    directory.alter_config("a", {"retention.ms": None, "max.message.bytes": "200"})
    for current in (directory, restarted(disk)):
        assert dict(current.topics["a"].config) == {"segment.bytes": "1000", "max.message.bytes": "200"}
        assert current.log("a", 0).config.retention_ms == 604_800_000
        assert current.log("a", 0).config.max_message_bytes == 200
    with pytest.raises(InvalidConfigError):
        directory.alter_config("a", {"segment.bytes": "many"})
    with pytest.raises(UnknownTopicError):
        directory.alter_config("b", {})


def test_unknown_topics_and_partitions_are_told_apart() -> None:
    directory = open_directory(MemoryDisk())
    directory.create_topic("a", 2)
    with pytest.raises(UnknownTopicError, match="no topic 'b'"):
        directory.log("b", 0)
    for partition in (2, -1):
        with pytest.raises(UnknownTopicError, match=r"0\.\.1"):
            directory.log("a", partition)


# ---- deletion


def test_a_recreated_topic_has_a_new_id_and_none_of_the_old_records() -> None:
    """Invariant 41."""
    disk = FaultyDisk()
    directory = open_directory(disk)
    old = directory.create_topic("a", 2)
    old_log = directory.log("a", 0)
    fill(old_log, 5)
    directory.delete_topic("a")
    with pytest.raises(UnknownTopicError):
        directory.log("a", 0)
    new = directory.create_topic("a", 1)
    assert new.topic_id != old.topic_id
    assert directory.log("a", 0).log_end_offset == 0
    with pytest.raises(UnknownTopicError, match="has been deleted"):
        old_log.read(0, 100)
    with pytest.raises(UnknownTopicError, match="has been deleted"):
        old_log.append_as_leader(batch(b"v"))
    again = restarted(disk)
    assert again.topics["a"] == new
    assert again.log("a", 0).log_end_offset == 0
    with pytest.raises(OffsetOutOfRangeError):
        again.log("a", 0).read(3, 100)


def test_a_recreated_topic_takes_nothing_over_from_the_checkpoints_of_the_old_one() -> None:
    """Invariant 41."""
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1)
    fill(directory.log("a", 0), 5)
    directory.log("a", 0).delete_records(4)
    directory.flush_all()
    directory.checkpoint()
    directory.delete_topic("a")
    directory.create_topic("a", 1)
    again = restarted(disk)
    assert not again.offline_partitions
    assert (again.log("a", 0).log_start_offset, again.log("a", 0).log_end_offset) == (0, 0)


def test_a_death_at_every_step_of_deletion_and_recreation_leaves_the_old_topic_or_the_new_one() -> None:
    """Invariant 41."""
    for power in (False, True):
        step = 0
        while True:
            disk = FaultyDisk(step)
            directory = open_directory(disk)
            old = directory.create_topic("a", 2)
            fill(directory.log("a", 1), 5)
            directory.flush_all()
            directory.checkpoint()
            disk.kill_after(step)
            try:
                directory.delete_topic("a")
                directory.create_topic("a", 2)
                fill(directory.log("a", 1), 1, size=7)
                directory.flush_all()
            except Killed:
                pass
            else:
                break
            if power:
                disk.lose_power()
            again = restarted(disk)
            assert not again.offline_partitions
            if again.topics:
                expected = values(range(5)) if again.topics["a"].topic_id == old.topic_id else values([0], 7)
                found = read_values(again.log("a", 1))
                assert found == expected or (not found and again.topics["a"].topic_id != old.topic_id), step
            else:
                again.create_topic("a", 2)
                assert read_values(again.log("a", 1)) == []
            assert not again._deleting
            assert not [path for path in disk.paths() if "-delete" in path]
            step += 1
        assert step > 10


def test_a_deleted_topics_files_stay_for_the_delay_and_then_go() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1, {"file.delete.delay.ms": "1000"})
    directory.delete_topic("a")
    assert [path for path in disk.paths(".log") if "a-0." in path and "-delete/" in path]
    directory.apply_retention(NOW_MS + 999)
    assert disk.paths(".log")
    directory.apply_retention(NOW_MS + 1000)
    assert not disk.paths(".log")


def test_the_files_of_a_deleted_topic_go_with_the_next_start_at_the_latest() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1)
    directory.delete_topic("a")
    restarted(disk)
    assert not [path for path in disk.paths() if "a-0" in path]


def test_without_room_a_topic_is_neither_made_nor_deleted() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    kept = directory.create_topic("kept", 1)
    for room in range(0, 700, 50):
        disk.room = room
        try:
            directory.create_topic("new", 2)
        except DiskError:
            assert dict(directory.topics) == {"kept": kept}
            disk.heal()
            assert dict(restarted_copy(disk).topics) == {"kept": kept}
        else:
            disk.heal()
            directory.delete_topic("new")
    disk.room = 0
    with pytest.raises(DiskError):
        directory.delete_topic("kept")
    with pytest.raises(DiskError):
        directory.alter_config("kept", {"retention.ms": "1"})
    disk.heal()
    fill(directory.log("kept", 0), 1)
    assert dict(restarted(disk).topics) == {"kept": kept}


def restarted_copy(disk: FaultyDisk) -> LogDirectory:
    return open_directory(disk.copy())


# ---- stops and starts


def test_the_marker_of_an_orderly_stop_is_gone_while_the_directory_is_open() -> None:
    """Invariant 14."""
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1)
    marker = f"{PATH}/.kafka_cleanshutdown"
    directory.close()
    assert disk.exists(marker)
    disk.kill()
    again = open_directory(disk)
    assert not disk.exists(marker)
    disk.lose_power()
    assert not disk.exists(marker)
    assert not again.offline_partitions


def test_an_orderly_stop_makes_everything_durable() -> None:
    for seed in range(30):
        disk = FaultyDisk(seed)
        directory = open_directory(disk)
        directory.create_topic("a", 2, {"segment.bytes": "1000"})
        fill(directory.log("a", 0), 30)
        directory.close()
        disk.lose_power()
        again = open_directory(disk)
        assert read_values(again.log("a", 0)) == values(range(30))
        assert again.log("a", 0).recovery_point == 30


def test_a_log_that_fails_at_the_stop_makes_the_next_start_verify() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 2)
    fill(directory.log("a", 0), 3)
    disk.fail("sync", errno.EIO, path="a-0")
    directory.close()
    assert not disk.exists(f"{PATH}/.kafka_cleanshutdown")
    assert restarted(disk).log("a", 0).log_end_offset == 3


@pytest.mark.parametrize("name", ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"0\n2\na 0 5\n", b"0\n1\na 0 x\n", b"1\n0\n"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_corrupt_checkpoint_costs_a_longer_scan_and_no_records(name: str, content: bytes, clean: bool) -> None:
    """Invariant 14."""
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1, {"segment.bytes": "1000"})
    fill(directory.log("a", 0), 30)
    directory.flush_all()
    if clean:
        directory.close()
    disk.set_contents(f"{PATH}/{name}", content)
    again = restarted(disk)
    assert not again.offline_partitions
    assert read_values(again.log("a", 0)) == values(range(30))


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"version": 9}', b'{"version": 1, "topics": [{}]}'])
def test_topics_come_back_from_their_directories_where_their_file_is_lost(content: bytes | None) -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    topic = directory.create_topic("a", 2)
    fill(directory.log("a", 1), 3)
    directory.close()
    if content is None:
        disk.erase(f"{PATH}/topics.json")
    else:
        disk.set_contents(f"{PATH}/topics.json", content)
    again = restarted(disk)
    assert again.topics["a"].topic_id == topic.topic_id
    assert read_values(again.log("a", 1)) == values(range(3))


def test_a_damaged_partition_is_reported_and_the_others_open() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 3)
    for partition in range(3):
        fill(directory.log("a", partition), 5)
    directory.flush_all()
    directory.checkpoint()
    path = f"{PATH}/a-1/00000000000000000000.log"
    disk.set_contents(path, disk.contents(path)[:100])
    again = restarted(disk)
    assert list(again.offline_partitions) == [TP("a", 1)]
    assert "5 offsets were synced" in again.offline_partitions[TP("a", 1)]
    with pytest.raises(LogOfflineError, match="Restore its files"):
        again.log("a", 1)
    assert read_values(again.log("a", 2)) == values(range(5))
    # It is still known to be damaged after another stop, although the others stopped in order.
    again.close()
    assert list(restarted(disk).offline_partitions) == [TP("a", 1)]


def test_a_partition_that_belongs_to_no_topic_is_kept_aside() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 2)
    content = json.loads(disk.contents(f"{PATH}/topics.json"))
    content["topics"][0]["partitions"] = 1
    fill(directory.log("a", 1), 2)
    disk.set_contents(f"{PATH}/topics.json", json.dumps(content).encode())
    again = restarted(disk)
    assert [path for path in disk.paths(".log") if "a-1." in path and "-stray/" in path]
    assert again.add_partitions("a", 2).partitions == 2
    assert again.log("a", 1).log_end_offset == 0


def test_flush_syncs_what_is_due_and_closed_segments() -> None:
    clock = ManualClock(NOW_MS)
    directory = open_directory(MemoryDisk(), clock)
    directory.create_topic("lazy", 1, {"segment.bytes": "1000"})
    directory.create_topic("eager", 1, {"flush.messages": "2"})
    fill(directory.log("lazy", 0), 3)
    fill(directory.log("eager", 0), 2)
    directory.flush()
    assert directory.log("lazy", 0).recovery_point == 0
    assert directory.log("eager", 0).recovery_point == 2
    fill(directory.log("lazy", 0), 10)
    directory.flush()
    assert directory.log("lazy", 0).recovery_point == 13
    directory.flush_all()


def test_a_thousand_partitions_hold_a_bounded_number_of_open_files(tmp_path: Path) -> None:
    directory = LogDirectory.open(str(tmp_path / "data"))
    # Synced one by one, as they must be; a hundred each keep the test short.
    directory.create_topic("a", 100)
    for partition in range(100):
        fill(directory.log("a", partition), 2)
    assert len(os.listdir("/proc/self/fd")) < 350
    directory.close()
    assert (
        sum(
            os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path))
            for fd in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{fd}")
        )
        == 0
    )


# ---- locks, and directories that cannot be used


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    directory = LogDirectory.open(path, holder="the first program")
    program = f"from streamcore.log.directory import LogDirectory; LogDirectory.open({path!r})"
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "DirectoryHeldError" in second.stderr
    assert f"process {os.getpid()} (the first program) since 20" in second.stderr
    directory.close()
    third = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    program = (
        "import os; from streamcore.log.directory import LogDirectory;"
        f"LogDirectory.open({path!r}).create_topic('a', 1); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    directory = LogDirectory.open(path)
    assert list(directory.topics) == ["a"]
    directory.close()


def test_one_process_cannot_open_a_directory_twice(tmp_path: Path) -> None:
    directory = LogDirectory.open(str(tmp_path / "data"))
    with pytest.raises(DirectoryHeldError, match="stop that process, or use another directory"):
        LogDirectory.open(str(tmp_path / "data"))
    directory.close()
    LogDirectory.open(str(tmp_path / "data")).close()


def test_a_lock_file_full_of_garbage_is_no_obstacle(tmp_path: Path) -> None:
    disk = MemoryDisk()
    lock = disk.lock  # somebody who does not say who
    disk.make_directory(PATH)
    lock(f"{PATH}/.lock", b"\xff\x00")
    with pytest.raises(DirectoryHeldError, match="another process"):
        open_directory(disk)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".lock").write_bytes(b"\xff\x00")
    LogDirectory.open(str(tmp_path / "data")).close()


def test_a_read_only_directory_is_a_clear_error() -> None:
    disk = FaultyDisk()
    disk.read_only = True
    with pytest.raises(DirectoryUnusableError, match=r"cannot be written.*let this user write there"):
        open_directory(disk)
    made = FaultyDisk()
    open_directory(made).close()
    made.kill()
    made.read_only = True
    with pytest.raises(DirectoryUnusableError, match="cannot be written"):
        open_directory(made)
    made.read_only = False
    open_directory(made).close()


def test_a_path_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(DirectoryUnusableError, match="cannot be used"):
        LogDirectory.open(str(tmp_path / "file"))


def test_an_unreadable_file_of_topics_leaves_the_lock_free() -> None:
    disk = FaultyDisk()
    open_directory(disk).close()
    disk.fail("read", errno.EIO, path="topics.json")
    if not disk.exists(f"{PATH}/topics.json"):
        disk.set_contents(f"{PATH}/topics.json", b"{}")
    with pytest.raises(DirectoryUnusableError):
        open_directory(disk)
    open_directory(disk).close()


def test_settings_of_another_version_do_not_hide_the_records() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 1)
    fill(directory.log("a", 0), 3)
    content = json.loads(disk.contents(f"{PATH}/topics.json"))
    content["topics"][0]["config"] = {"setting.of.tomorrow": "1"}
    disk.set_contents(f"{PATH}/topics.json", json.dumps(content).encode())
    again = restarted(disk)
    assert read_values(again.log("a", 0)) == values(range(3))
    assert dict(again.topics["a"].config) == {"setting.of.tomorrow": "1"}


def test_a_missing_partition_directory_is_made_anew_only_where_nothing_was_synced() -> None:
    disk = FaultyDisk()
    directory = open_directory(disk)
    directory.create_topic("a", 2)
    fill(directory.log("a", 1), 3)
    directory.flush_all()
    directory.checkpoint()
    for path in [path for path in disk.paths() if "/a-" in path]:
        disk.erase(path)
    again = restarted(disk)
    assert list(again.offline_partitions) == [TP("a", 1)]
    assert again.log("a", 0).append_as_leader(batch(value(0))).base_offset == 0
    assert isinstance(again.topics["a"].topic_id, uuid.UUID)
