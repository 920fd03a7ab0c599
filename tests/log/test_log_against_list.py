"""The log does what a list does, through appends, cuts, crashes and damage.

A plain list of (offset, value, timestamp) is the model. A crash may take from the end what was not synced, only that.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamcore.clock import ManualClock
from streamcore.errors import BatchTooLargeError, DiskError, LogError, OffsetOutOfRangeError
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import PartitionLog
from streamcore.records.codec import encode
from streamcore.records.compression import COMPRESSIONS
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import NOW_MS, read_records

Entry = tuple[int, bytes, int]  # offset, value, timestamp
SETTINGS = {
    "segment.bytes": "700",
    "index.interval.bytes": "150",
    "retention.ms": "-1",
    "message.timestamp.after.max.ms": str(1 << 60),
}
values = st.binary(max_size=60)
batches = st.lists(st.lists(values, min_size=1, max_size=5), min_size=1, max_size=3)

times = st.lists(st.integers(0, 500), min_size=15, max_size=15)  # as many as there may be records in an append


class LogAgainstList(RuleBasedStateMachine):
    """One partition in a directory on a disk that forgets."""

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.disk = FaultyDisk(seed)
        self.clock = ManualClock(NOW_MS)
        self.directory = LogDirectory.open("/data", disk=self.disk, clock=self.clock)
        self.directory.create_topic("topic", 1, SETTINGS)
        self.records: list[Entry] = []
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.synced_offset = 0

    @property
    def log(self) -> PartitionLog:
        return self.directory.log("topic", 0)

    # ---- writing

    @rule(batches=batches, times=times, codec=st.sampled_from(COMPRESSIONS))
    def append(self, batches: list[list[bytes]], times: list[int], codec: str) -> None:
        data, expected = self._encoded(batches, times, codec)
        try:
            appended = self.log.append_as_leader(data)
        except LogError:
            # Too large for a segment, all together: nothing may have happened.
            assert len(data) > 700
            return
        assert appended.base_offset == self.log_end_offset
        assert appended.last_offset == self.log_end_offset + len(expected) - 1
        self.records += expected
        self.log_end_offset += len(expected)

    @rule(room=st.integers(0, 300), batches=batches)
    def append_to_a_full_disk(self, room: int, batches: list[list[bytes]]) -> None:
        data, expected = self._encoded(batches, list(range(15)), "none")
        self.disk.room = room
        try:
            self.log.append_as_leader(data)
        except (DiskError, BatchTooLargeError):
            pass
        else:
            self.records += expected
            self.log_end_offset += len(expected)
        self.disk.heal()

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule()
    def flush(self) -> None:
        assert self.log.flush() == self.log_end_offset
        self.synced_offset = self.log_end_offset

    @rule()
    def checkpoint(self) -> None:
        self.directory.checkpoint()

    # ---- forgetting

    @rule(back=st.integers(0, 12))
    def truncate(self, back: int) -> None:
        offset = max(0, self.log_end_offset - back)
        before = self.log_end_offset
        self.log.truncate_to(offset)
        end = self.log.log_end_offset
        assert end <= offset or offset >= before
        # A batch goes whole; it has at most five records.
        assert offset - end < 5
        self._cut(end)

    @rule(fraction=st.floats(0, 1))
    def delete_records(self, fraction: float) -> None:
        offset = self.log_start_offset + int((self.log_end_offset - self.log_start_offset) * fraction)
        assert self.log.delete_records(offset) == offset
        self._forget(offset)

    @rule(keep_bytes=st.integers(0, 2000))
    def retain(self, keep_bytes: int) -> None:
        self.directory.alter_config("topic", {"retention.bytes": str(keep_bytes)})
        segments = self.log.segments
        self.directory.apply_retention(self.clock.now_ms())
        assert self.log.size_bytes <= keep_bytes + segments[-1].size_bytes + 700
        self._forget(self.log.log_start_offset)
        self.directory.alter_config("topic", {"retention.bytes": None})

    # ---- stopping

    @rule()
    def restart_in_order(self) -> None:
        self.directory.close()
        self.synced_offset = self.log_end_offset
        self._start()
        assert self.log.log_end_offset == self.log_end_offset

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        self._start()
        assert self.log.log_end_offset == self.log_end_offset

    @rule()
    def lose_power(self) -> None:
        self.disk.lose_power()
        self._start()
        end = self.log.log_end_offset
        assert self.synced_offset <= end <= self.log_end_offset, (self.synced_offset, end, self.log_end_offset)
        self._cut(end)

    @rule(steps=st.integers(0, 12), batches=batches, power=st.booleans())
    def die_while_appending(self, steps: int, batches: list[list[bytes]], power: bool) -> None:
        data, expected = self._encoded(batches, list(range(15)), "none")
        self.disk.kill_after(steps)
        try:
            self.log.append_as_leader(data)
            self.log.flush()
            self.directory.checkpoint()
        except (Killed, LogError):
            pass
        self.disk.lose_power() if power else self.disk.kill()
        self._start()
        end = self.log.log_end_offset
        # Perhaps written, perhaps acknowledged by nobody; in whole batches, and before it everything that was synced.
        assert self.synced_offset <= end <= self.log_end_offset + len(expected)
        if not power:
            assert end >= self.log_end_offset
        self.records += expected
        self._cut(end)

    @precondition(lambda self: self.log_end_offset > self.log_start_offset)
    @rule(which=st.sampled_from(["", "offset", "time"]), in_order=st.booleans())
    def lose_the_indexes(self, which: str, in_order: bool) -> None:
        suffix = {"": "index", "offset": ".index", "time": ".timeindex"}[which]
        if in_order:
            self.directory.close()
            self.synced_offset = self.log_end_offset
        else:
            self.disk.kill()
        for path in self.disk.paths(suffix):
            self.disk.erase(path)
        self._start()
        assert self.log.log_end_offset == self.log_end_offset

    # ---- what must hold

    @invariant()
    def every_record_is_read_as_it_was_written(self) -> None:
        assert self.log.log_start_offset == self.log_start_offset
        assert self.log.log_end_offset == self.log_end_offset
        found = read_records(self.log, max_bytes=200)
        assert [(r.offset, r.value, r.timestamp) for r in found] == self.records
        for offset, value, timestamp in self.records[:: max(1, len(self.records) // 7)]:
            first = next(record for record in read_records(self.log, offset, 1) if record.offset == offset)
            assert (first.value, first.timestamp) == (value, timestamp)

    @invariant()
    def times_are_found_as_in_the_list(self) -> None:
        for time in (0, 100, 250, 499):
            expected = next(((offset, at) for offset, _, at in self.records if at >= NOW_MS + time), None)
            assert self.log.offset_for_timestamp(NOW_MS + time) == expected
        largest = max(((offset, at) for offset, _, at in self.records), key=lambda r: (r[1], -r[0]), default=None)
        assert self.log.max_timestamp() == largest

    @invariant()
    def outside_is_out_of_range(self) -> None:
        for offset in (self.log_start_offset - 1, self.log_end_offset + 1):
            try:
                self.log.read(offset, 100)
            except OffsetOutOfRangeError:
                continue
            raise AssertionError(offset)

    @invariant()
    def nothing_is_promised_that_is_not_synced(self) -> None:
        assert self.log.recovery_point <= max(self.synced_offset, self.log_end_offset)
        assert not self.directory.offline_partitions

    # ---- inside

    def _encoded(self, batches: list[list[bytes]], times: list[int], codec: str) -> tuple[bytes, list[Entry]]:
        data = b""
        expected: list[Entry] = []
        for batch in batches:
            first = len(expected)
            stamps = [NOW_MS + times[first + index] for index in range(len(batch))]
            data += encode([(b"k", value, at, ()) for value, at in zip(batch, stamps, strict=True)], compression=codec)
            expected += [
                (self.log_end_offset + first + index, value, at)
                for index, (value, at) in enumerate(zip(batch, stamps, strict=True))
            ]
        return data, expected

    def _start(self) -> None:
        self.disk.kill()
        self.directory = LogDirectory.open("/data", disk=self.disk, clock=self.clock)
        # What a start finds and believes is what the next crash is measured against, as far as it is promised.
        self.synced_offset = min(self.synced_offset, self.log_end_offset)

    def _cut(self, end_offset: int) -> None:
        self.records = [record for record in self.records if record[0] < end_offset]
        self.log_end_offset = end_offset
        self.log_start_offset = min(self.log_start_offset, end_offset)
        self.synced_offset = min(self.synced_offset, end_offset)

    def _forget(self, before_offset: int) -> None:
        self.records = [record for record in self.records if record[0] >= before_offset]
        self.log_start_offset = before_offset
        # A deletion outlives every crash, so the log cannot end before it.
        self.synced_offset = max(self.synced_offset, before_offset)


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
