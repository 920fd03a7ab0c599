import logging

import pytest

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets import Offsets
from streamcore.broker.coordinator.offsets_topic import OffsetsTopic
from streamcore.clock import ManualClock
from streamcore.errors import StreamcoreError
from streamcore.log.config import INT64_MAX, LogConfig
from streamcore.log.partition_log import PartitionLog
from streamcore.types import COMPACTION_LIMIT, TP
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log import support as log_support
from tests.log.support import clean, reopen

A, B = TP("a", 0), TP("b", 0)
CLOCK = ManualClock()
CONFIG = LogConfig.parse({"cleanup.policy": "compact", "segment.bytes": "2000"})


def open_log(disk: FaultyDisk) -> PartitionLog:
    return log_support.open_log(disk, config=CONFIG, clock=CLOCK)


def contents(offsets: Offsets) -> dict[str, dict[TP, OffsetValue]]:
    return {group: offsets.committed(group) for group in offsets.groups()}


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_at_any_step_of_a_compaction_loses_no_commit(seed: int) -> None:
    disk = FaultyDisk(seed)
    log = open_log(disk)
    topic = OffsetsTopic(log, CLOCK)
    acknowledged: dict[str, dict[TP, OffsetValue]] = {}
    number = passes = 0
    try:
        while passes < 3:
            if number == 40:
                disk.kill_after(disk.random.randrange(200))
            group = f"group {number % 3}"
            topic.commit(group, {A: OffsetValue(number), B: OffsetValue(number, "metadata")})
            acknowledged = contents(topic.offsets)
            if log.size_bytes > 6000:
                log.flush()
                clean(disk, log)
                passes += 1
                assert log.size_bytes < 4000
            number += 1
    except (Killed, StreamcoreError):
        pass
    reloaded = contents(OffsetsTopic(reopen(log, disk), CLOCK).offsets)
    for group, known in acknowledged.items():
        for tp, value in known.items():
            # The commit during which the process died may be there too.
            assert reloaded[group][tp].offset in (value.offset, number)


def test_the_least_committed_end_limits_a_compaction() -> None:
    topic = OffsetsTopic(open_log(FaultyDisk()), CLOCK)
    assert topic.offsets.compaction_limit(A) == INT64_MAX
    topic.commit("reader", {A: OffsetValue(1)})
    topic.commit("app", {A: OffsetValue(9, COMPACTION_LIMIT)})
    topic.commit("other", {A: OffsetValue(7, COMPACTION_LIMIT), B: OffsetValue(3, COMPACTION_LIMIT)})
    assert topic.offsets.compaction_limit(A) == 7
    topic.forget(topic.offsets.keys_of_group("other"))
    assert topic.offsets.compaction_limit(A) == 9
    assert topic.offsets.compaction_limit(B) == INT64_MAX


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
