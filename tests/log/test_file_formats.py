"""The bytes of the files beside the segments, as Kafka writes them."""

import struct
import uuid

import pytest

from streamcore.log.checkpoints import (
    CheckpointError,
    read_offsets,
    read_topic_id,
    write_offsets,
    write_topic_id,
)
from streamcore.log.config import LogConfig
from streamcore.log.disk import read_file
from streamcore.log.filenames import parse_partition_directory, segment_base_offset
from streamcore.log.indexes import OffsetIndex, TimeIndex
from streamcore.log.leader_epochs import LeaderEpochs
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.open_files import OpenFiles
from tests.log.support import DIRECTORY, NOW_MS, batch, open_log


@pytest.fixture
def disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.make_directory("/d")
    return disk


def test_an_offset_checkpoint_has_a_version_a_count_and_a_line_per_partition(disk: MemoryDisk) -> None:
    write_offsets(disk, "/d/c", {("a", 0): 5, ("b-c", 12): 1 << 40})
    assert read_file(disk, "/d/c") == b"0\n2\na 0 5\nb-c 12 1099511627776\n"
    assert read_offsets(disk, "/d/c") == {("a", 0): 5, ("b-c", 12): 1 << 40}
    assert read_offsets(disk, "/d/none") == {}


DAMAGED = [
    b"",
    b"0\n",
    b"1\n0\n",
    b"0\n1\n",
    b"0\nx\n",
    b"0\n1\na 0\n",
    b"0\n1\na 0 1_0\n",
    b"0\n1\na 0 \xff\n",
    b"0\n0\na 0 1\n",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_checkpoint_is_noticed(disk: MemoryDisk, text: bytes) -> None:
    disk.open("/d/c", create=True).write_at(0, text)
    with pytest.raises(CheckpointError, match="/d/c"):
        read_offsets(disk, "/d/c")


def test_partition_metadata_has_the_topics_id_in_kafkas_base64(disk: MemoryDisk) -> None:
    topic_id = uuid.UUID("00000000-0000-0000-0000-0000000000ff")
    write_topic_id(disk, "/d/partition.metadata", topic_id)
    assert read_file(disk, "/d/partition.metadata") == b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAA_w\n"
    assert read_topic_id(disk, "/d/partition.metadata") == topic_id
    assert read_topic_id(disk, "/d/none") is None
    disk.open("/d/partition.metadata").truncate(20)
    assert read_topic_id(disk, "/d/partition.metadata") is None


def test_leader_epochs_have_a_line_per_epoch(disk: MemoryDisk) -> None:
    epochs = LeaderEpochs(disk, "/d")
    assert not epochs.load()
    for epoch, offset in ((0, 0), (3, 10), (4, 20)):
        epochs.assign(epoch, offset)
    assert read_file(disk, "/d/leader-epoch-checkpoint") == b"0\n3\n0 0\n3 10\n4 20\n"
    again = LeaderEpochs(disk, "/d")
    assert again.load()
    assert again.entries == [(0, 0), (3, 10), (4, 20)]
    assert [again.epoch_at(offset) for offset in (0, 9, 10, 19, 20, 99)] == [0, 0, 3, 3, 4, 4]


def test_leader_epochs_are_cut_at_both_ends(disk: MemoryDisk) -> None:
    epochs = LeaderEpochs(disk, "/d")
    for epoch, offset in ((0, 0), (3, 10), (4, 20)):
        epochs.assign(epoch, offset)
    epochs.truncate_from_end(20)
    assert epochs.entries == [(0, 0), (3, 10)]
    epochs.truncate_from_start(12)
    assert epochs.entries == [(3, 12)]
    epochs.assign(5, 12)  # epoch 3 wrote nothing from 12 on
    assert epochs.entries == [(5, 12)]


def test_index_entries_have_kafkas_layout() -> None:
    disk = MemoryDisk()
    log = open_log(disk, config=LogConfig(index_interval_bytes=0))
    for number in range(3):
        log.append_as_leader(batch(b"a", b"b", timestamp_ms=NOW_MS + number * 10))
    size = log.size_bytes // 3
    log.close()
    path = f"{DIRECTORY}/00000000000000000000"
    # (last offset - base offset, position); the first batch of a segment needs no entry.
    assert read_file(disk, path + ".index") == struct.pack(">iiii", 3, size, 5, 2 * size)
    # (largest timestamp so far, last offset of its batch - base offset)
    assert read_file(disk, path + ".timeindex") == struct.pack(">qiqi", NOW_MS + 11, 3, NOW_MS + 21, 5)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 2000])
def test_an_index_finds_the_entry_at_or_before(count: int) -> None:
    disk = MemoryDisk()
    disk.make_directory("/d")
    files = OpenFiles(disk)
    offsets, times = OffsetIndex(files, "/d/i", 1000), TimeIndex(files, "/d/t", 1000)
    for number in range(count):
        offsets.add(1000 + 10 * number, 100 * number)
        times.add(5 * number + 1, 1000 + 10 * number)
    for number in range(count):
        for beyond in (0, 3, 9):
            assert offsets.lookup(1000 + 10 * number + beyond) == (1000 + 10 * number, 100 * number)
    assert offsets.lookup(999) == (999, 0)
    assert times.before(1) == 999
    if count:
        assert times.before(5 * count) == 1000 + 10 * (count - 1)
    offsets.truncate_to_position(100 * (count // 2))
    times.truncate_to_offset(1000 + 10 * (count // 2))
    assert offsets.count == times.count == count // 2


def test_a_timestamp_that_is_no_larger_makes_no_entry() -> None:
    disk = MemoryDisk()
    disk.make_directory("/d")
    times = TimeIndex(OpenFiles(disk), "/d/t", 0)
    for timestamp, offset in ((5, 1), (5, 2), (4, 3), (6, 4)):
        times.add(timestamp, offset)
    assert [times.at(index) for index in range(times.count)] == [(5, 1), (6, 4)]


def test_names_of_segments_and_partitions_are_told_from_others() -> None:
    assert segment_base_offset("00000000000000000042.log") == 42
    assert segment_base_offset("42.log") is None
    assert segment_base_offset("00000000000000000042.index") is None
    assert parse_partition_directory("a-b-10") == ("a-b", 10)
    assert parse_partition_directory("a-01") is None
    assert parse_partition_directory("a") is None
