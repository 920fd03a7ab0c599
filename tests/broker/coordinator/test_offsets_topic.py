import logging

import pytest

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets import Offsets
from streamcore.broker.coordinator.offsets_topic import OffsetsTopic
from streamcore.clock import ManualClock
from streamcore.errors import StreamcoreError
from streamcore.log.config import LogConfig
from streamcore.log.partition_log import PartitionLog
from streamcore.types import TP
from tests.faults.faulty_disk import FaultyDisk, Killed

A, B = TP("a", 0), TP("b", 0)
CLOCK = ManualClock()
CONFIG = LogConfig.parse({"cleanup.policy": "compact", "segment.bytes": "2000"})


def open_log(disk: FaultyDisk, log_start_offset: int = 0) -> PartitionLog:
    return PartitionLog.open(disk, "/offsets", CONFIG, CLOCK, clean=False, log_start_offset=log_start_offset)


def contents(offsets: Offsets) -> dict[str, dict[TP, OffsetValue]]:
    return {group: offsets.committed(group) for group in offsets.groups()}


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_at_any_step_of_a_snapshot_loses_no_commit(seed: int) -> None:
    disk = FaultyDisk(seed)
    log = open_log(disk)
    topic = OffsetsTopic(log, CLOCK, length_max_bytes=4000)
    acknowledged: dict[str, dict[TP, OffsetValue]] = {}
    number = snapshots = 0
    try:
        while snapshots < 3:
            if number == 20:
                disk.kill_after(disk.random.randrange(200))
            group = f"group {number % 3}"
            topic.commit(group, {A: OffsetValue(number), B: OffsetValue(number, "metadata")})
            acknowledged = contents(topic.offsets)
            if topic.is_long:
                start_offset = topic.append_snapshot()
                log.flush()
                topic.delete_before(start_offset)
                snapshots += 1
                assert log.size_bytes < 6000
            number += 1
    except (Killed, StreamcoreError):
        pass
    disk.kill()
    reloaded = contents(OffsetsTopic(open_log(disk), CLOCK).offsets)
    for group, known in acknowledged.items():
        for tp, value in known.items():
            # The commit during which the process died may be there too.
            assert reloaded[group][tp].offset in (value.offset, number)


def test_a_damaged_batch_is_passed_over_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    topic = OffsetsTopic(log, CLOCK)
    topic.commit("g", {A: OffsetValue(1), B: OffsetValue(1)})
    topic.commit("g", {A: OffsetValue(2)})
    topic.commit("h", {B: OffsetValue(3)})
    second = next(found for found in log.segments[0].scan() if found.header.base_offset == 2)
    log.segments[0].file.write_at(second.position + second.header.size_bytes - 3, b"\xff")
    with caplog.at_level(logging.ERROR):
        reloaded = OffsetsTopic(log, CLOCK).offsets
    assert "the batch at offset 2 is passed over" in caplog.text
    assert reloaded.committed("g")[A].offset == 1
    assert reloaded.committed("h")[B].offset == 3


def test_forgetting_nothing_appends_nothing() -> None:
    log = open_log(FaultyDisk())
    topic = OffsetsTopic(log, CLOCK)
    assert not topic.forget(topic.offsets.keys_of_topic("nowhere"))
    topic.commit("g", {})
    assert log.log_end_offset == 0
    assert topic.offsets.groups() == []
