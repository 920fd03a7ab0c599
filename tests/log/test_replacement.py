"""One segment in the place of several, whatever happens in between. Invariant 15."""

import errno
import itertools

import pytest

from streamcore.errors import LogOfflineError
from streamcore.log.config import LogConfig
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import split
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import fill, open_log, read_values, reopen, replace, values

CONFIG = LogConfig(segment_bytes=1000, cleanup_policy=frozenset({"compact"}))
KEPT = (1, 8, 12)  # what compaction leaves of the first three segments; the last offsets go


def prepared() -> tuple[FaultyDisk, PartitionLog, list[bytes]]:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill(log, 40)
    log.flush()
    batches = [bytes(next(split(log.read(offset, 1)))) for offset in KEPT]
    return disk, log, batches


def test_a_replaced_log_reads_as_its_new_segments_and_again_after_a_restart() -> None:
    disk, log, batches = prepared()
    end = log.segments[3].base_offset
    replace(disk, log, log.segments[:3], batches)
    expected = values(KEPT) + values(range(end, 40))
    assert read_values(log) == expected
    again = reopen(log, disk)
    assert read_values(again) == expected
    fill(again, 1)
    assert read_values(again) == expected + values([40])


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_death_at_every_step_leaves_the_old_set_or_the_new_one(power: bool) -> None:
    """Invariant 15: never both, never a hole, also when the next start dies as well."""
    _, log, _ = prepared()
    new = values(KEPT) + values(range(log.segments[3].base_offset, 40))
    seen = set()
    for step in itertools.count():
        disk, log, batches = prepared()
        disk.kill_after(step)
        try:
            replace(disk, log, log.segments[:3], batches)
        except Killed:
            pass
        else:
            break
        for second_step in (0, 1, 2, 3, 5, 8, None):
            copy = disk.copy()
            if power:
                disk.lose_power()
                copy = disk.copy()
            if second_step is not None:
                copy.kill_after(second_step)
                try:
                    reopen_at(copy, log)
                except Killed:
                    copy.kill()
                copy.kill()
            found = read_values(reopen_at(copy, log))
            assert found in (values(range(40)), new), step
            seen.add(len(found))
            assert not [path for path in copy.paths() if path.endswith((".cleaned", ".swap"))]
    assert seen == {40, len(new)}
    assert step > 5


def reopen_at(disk: FaultyDisk, log: PartitionLog) -> PartitionLog:
    return open_log(disk, config=CONFIG, recovery_point=log.recovery_point, cleaned_offset=0)


def test_without_room_the_old_set_stays() -> None:
    disk, log, batches = prepared()
    disk.room = 100
    with pytest.raises(OSError, match="No space left"):
        replace(disk, log, log.segments[:3], batches)
    disk.heal()
    assert not disk.paths(".cleaned")
    assert read_values(log) == values(range(40))
    assert read_values(reopen(log, disk)) == values(range(40))


def test_a_failure_half_way_is_completed_by_the_next_start() -> None:
    disk, log, batches = prepared()
    end = log.segments[3].base_offset
    disk.fail("remove", errno.EIO)
    with pytest.raises(LogOfflineError, match="next start completes"):
        replace(disk, log, log.segments[:3], batches)
    disk.heal()
    assert read_values(reopen_at(disk, log)) == values(KEPT) + values(range(end, 40))
