"""Idempotent producers do what a simple model says, through resends, gaps, epochs, truncations, retention and crashes.

The model is the list of batches in the order of the log and, per producer, which of them it can still be known by.
"""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamcore.clock import ManualClock
from streamcore.errors import InvalidProducerEpochError, LogError, OutOfOrderSequenceError
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import Appended, PartitionLog
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import NOW_MS, batch, sent

SETTINGS = {"segment.bytes": "700", "index.interval.bytes": "150", "retention.ms": "-1"}
SEQUENCES = 1 << 31
producer_ids = st.integers(1, 4)
counts = st.integers(1, 4)


class Sent(NamedTuple):
    """One batch in the model's log."""

    producer_id: int
    epoch: int
    base_sequence: int
    count: int
    base_offset: int
    life: int  # the process that appended it: a later one may know only the producer's last

    @property
    def end_offset(self) -> int:
        return self.base_offset + self.count

    @property
    def next_sequence(self) -> int:
        return (self.base_sequence + self.count) % SEQUENCES

    def encoded(self) -> bytes:
        return sent(self.producer_id, self.base_sequence, *[b"v" * 20] * self.count, epoch=self.epoch)


class ProducersAgainstModel(RuleBasedStateMachine):
    """One partition in a directory on a disk that forgets."""

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.disk = FaultyDisk(seed)
        self.clock = ManualClock(NOW_MS)
        self.directory = LogDirectory.open("/data", disk=self.disk, clock=self.clock)
        self.directory.create_topic("topic", 1, SETTINGS)
        self.life = 0
        self.end_offset = 0
        self.synced_offset = 0
        self.history: dict[int, list[Sent]] = {}  # by producer; the last one's epoch is the producer's
        self.forgotten: dict[int, list[Sent]] = {}

    @property
    def log(self) -> PartitionLog:
        return self.directory.log("topic", 0)

    # ---- sending

    def _next(self, producer_id: int, count: int, first: int) -> Sent:
        known = self.history.get(producer_id)
        epoch, sequence = (known[-1].epoch, known[-1].next_sequence) if known else (0, first)
        return Sent(producer_id, epoch, sequence, count, self.end_offset, self.life)

    def _appended(self, new: Sent) -> None:
        self.history.setdefault(new.producer_id, []).append(new)
        self.end_offset = new.end_offset

    @rule(producer_id=producer_ids, count=counts, first=st.sampled_from([0, 5, SEQUENCES - 6, SEQUENCES - 1]))
    def send(self, producer_id: int, count: int, first: int) -> None:
        new = self._next(producer_id, count, first)
        answer = self.log.append_as_leader(new.encoded())
        assert answer == Appended(self.end_offset, new.end_offset - 1, -1, self.log.log_start_offset)
        self._appended(new)

    @rule(count=counts)
    def send_without_an_id(self, count: int) -> None:
        assert self.log.append_as_leader(batch(*[b"v"] * count)).base_offset == self.end_offset
        self.end_offset += count

    @rule(producer_id=producer_ids, back=st.integers(1, 8))
    def resend(self, producer_id: int, back: int) -> None:
        known = self.history.get(producer_id, [])
        if len(known) < back:
            return
        old, epoch = known[-back], known[-1].epoch
        try:
            answer = self.log.append_as_leader(old.encoded())
        except InvalidProducerEpochError:
            assert old.epoch < epoch
        except OutOfOrderSequenceError:
            assert old.epoch == epoch
            assert back > 5 or (back > 1 and old.life < self.life)
        else:
            assert answer[:2] == (old.base_offset, old.end_offset - 1)
            assert answer.is_duplicate
            assert old.epoch == epoch
            assert back <= 5

    @rule(producer_id=producer_ids, gap=st.integers(1, 5) | st.just(SEQUENCES // 2))
    def send_with_a_gap(self, producer_id: int, gap: int) -> None:
        if producer_id in self.history:
            new = self._next(producer_id, 1, 0)
            self._refused(new._replace(base_sequence=(new.base_sequence + gap) % SEQUENCES), OutOfOrderSequenceError)

    @rule(producer_id=producer_ids, count=counts)
    def begin_an_epoch(self, producer_id: int, count: int) -> None:
        if producer_id in self.history:
            new = self._next(producer_id, count, 0)
            new = new._replace(epoch=new.epoch + 1, base_sequence=0)
            self._refused(new._replace(base_sequence=3), OutOfOrderSequenceError)
            assert not self.log.append_as_leader(new.encoded()).is_duplicate
            self._appended(new)

    @rule(producer_id=producer_ids)
    def send_with_an_old_epoch(self, producer_id: int) -> None:
        new = self._next(producer_id, 1, 0)
        if new.epoch:
            self._refused(new._replace(epoch=new.epoch - 1), InvalidProducerEpochError)

    def _refused(self, new: Sent, error: type[LogError]) -> None:
        try:
            self.log.append_as_leader(new.encoded())
        except error:
            return
        raise AssertionError(new)

    # ---- the disk

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule()
    def flush(self) -> None:
        self.synced_offset = self.log.flush()

    @rule(back=st.integers(0, 20))
    def truncate(self, back: int) -> None:
        self.log.truncate_to(max(0, self.end_offset - back))
        self._cut()

    @rule(keep_bytes=st.integers(0, 1500))
    def retain(self, keep_bytes: int) -> None:
        self.directory.alter_config("topic", {"retention.bytes": str(keep_bytes)})
        self.directory.apply_retention(self.clock.now_ms())
        self.directory.alter_config("topic", {"retention.bytes": None})
        self.synced_offset = max(self.synced_offset, self.log.log_start_offset)

    @rule()
    def delete_records(self) -> None:
        self.log.delete_records(self.end_offset)
        self.synced_offset = self.end_offset

    # ---- stopping

    @rule()
    def restart_in_order(self) -> None:
        self.directory.close()
        self.synced_offset = self.end_offset
        self._start()
        self._cut()

    @rule()
    def kill(self) -> None:
        self._start()
        assert self.log.log_end_offset == self.end_offset

    @rule()
    def lose_power(self) -> None:
        self.disk.lose_power()
        self._start()
        assert self.synced_offset <= self.log.log_end_offset <= self.end_offset
        self._cut()

    @rule(producer_id=producer_ids, count=counts, steps=st.integers(0, 20), power=st.booleans())
    def die_while_sending(self, producer_id: int, count: int, steps: int, power: bool) -> None:
        new = self._next(producer_id, count, 0)
        self.disk.kill_after(steps)
        acknowledged = False
        try:
            self.log.append_as_leader(new.encoded())
            acknowledged = True
            self.log.roll()
            self.log.flush()
            self.log.truncate_to(self.end_offset + count)
            self.directory.checkpoint()
        except (Killed, LogError):
            pass
        self.disk.lose_power() if power else self.disk.kill()
        self._start()
        if not power:
            assert self.log.log_end_offset >= (new.end_offset if acknowledged else self.end_offset)
        if self.log.log_end_offset == new.end_offset:
            self._appended(new._replace(life=self.life - 1))
        self._cut()

    @rule(in_order=st.booleans(), newest_only=st.booleans(), damage=st.sampled_from(["erase", "flip", "empty"]))
    def damage_snapshots(self, in_order: bool, newest_only: bool, damage: str) -> None:
        if in_order:
            self.directory.close()
            self.synced_offset = self.end_offset
        self.disk.kill()
        for path in self.disk.paths(".snapshot")[-1 if newest_only else 0 :]:
            if damage == "erase":
                self.disk.erase(path)
            else:
                data = bytearray(self.disk.contents(path)) if damage == "flip" else bytearray()
                for position in range(0, len(data), 7):
                    data[position] ^= 1
                self.disk.set_contents(path, bytes(data))
        self._start()
        self._cut()

    # ---- what must hold

    @invariant()
    def every_producer_is_known_by_its_last_batch(self) -> None:
        assert self.log.log_end_offset == self.end_offset
        producers = self.log.producers.producers
        assert set(producers) == set(self.history)
        for producer_id, producer in producers.items():
            known = self.history[producer_id][-1]
            last = producer.batches[-1]
            assert (producer.producer_epoch, last.base_sequence) == (known.epoch, known.base_sequence)
            assert (last.base_offset, last.last_offset + 1) == (known.base_offset, known.end_offset)
            assert len(producer.batches) <= 5
        offsets = [producer.last_offset for producer in producers.values()]
        assert offsets == sorted(offsets)

    @invariant()
    def snapshots_are_few_and_within_the_log(self) -> None:
        names = [path.rsplit("/", 1)[1] for path in self.disk.paths(".snapshot")]
        assert len(names) <= 3
        for name in names:
            assert self.log.segments[0].base_offset <= int(name[:20]) <= self.end_offset
        assert not self.directory.offline_partitions

    # ---- inside

    def _start(self) -> None:
        self.disk.kill()
        self.directory = LogDirectory.open("/data", disk=self.disk, clock=self.clock)
        self.life += 1

    def _cut(self) -> None:
        """The log may be shorter; and who has no batch in a file any more may be forgotten, if snapshots were lost.

        A loss of power may bring files back that retention had removed, and whom their batches are of with them.
        """
        end_offset = self.log.log_end_offset
        self.end_offset = end_offset
        self.synced_offset = min(self.synced_offset, end_offset)
        first_offset = self.log.segments[0].base_offset
        known = self.log.producers.producers
        for producer_id in list(self.history):
            left = [one for one in self.history[producer_id] if one.end_offset <= end_offset]
            if left and producer_id not in known and left[-1].end_offset <= first_offset:
                self.forgotten[producer_id] = left
                left = []
            self.history[producer_id] = left
            if not left:
                del self.history[producer_id]
        for producer_id in known.keys() - self.history.keys() & self.forgotten.keys():
            left = [one for one in self.forgotten[producer_id] if first_offset < one.end_offset <= end_offset]
            if left:
                self.history[producer_id] = left


TestProducersAgainstModel = ProducersAgainstModel.TestCase
TestProducersAgainstModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
