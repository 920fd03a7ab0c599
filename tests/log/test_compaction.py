"""The newest record of every key stays, at its offset, whatever happens. Invariant 42."""

import itertools
from collections.abc import Iterator
from dataclasses import replace as changed

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamcore.clock import ManualClock
from streamcore.errors import CorruptRecordError, KeylessRecordError, LogError
from streamcore.log.cleaning import Cleaning, cleanable
from streamcore.log.config import LogConfig
from streamcore.log.offset_map import OffsetMap, keys_within
from streamcore.log.partition_log import PartitionLog
from streamcore.log.producer_state import Producer
from streamcore.records.batch import BatchHeader, seal, split
from streamcore.records.codec import ProducerStamp, decode, encode, encode_first
from streamcore.records.compression import COMPRESSIONS
from streamcore.types import InRecord
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import KEYS_MAX, NOW_MS, clean, open_log, reopen

RETENTION_MS = 10_000
CONFIG = LogConfig(
    segment_bytes=700,
    index_interval_bytes=100,
    cleanup_policy=frozenset({"compact"}),
    delete_retention_ms=RETENTION_MS,
    min_cleanable_dirty_ratio=0.0,
    message_timestamp_after_max_ms=1 << 60,
)
Row = tuple[int, int, bytes | None, bytes | None]  # offset, timestamp, key, value


def batches(log: PartitionLog) -> Iterator[tuple[BatchHeader, list[InRecord]]]:
    """As any consumer reads: on from the last offset of each batch."""
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 1000)
        if not len(data):
            return
        for part in split(data):
            header = BatchHeader.parse(part)
            assert header.last_offset >= offset, "a read goes back"
            offset = header.last_offset + 1
            yield header, decode(part)


def rows(log: PartitionLog) -> list[Row]:
    return [(r.offset, r.timestamp, r.key, r.value) for _, records in batches(log) for r in records]


def put(log: PartitionLog, *pairs: tuple[bytes, bytes | None], timestamp_ms: int = NOW_MS) -> None:
    log.append_as_leader(encode([(key, value, timestamp_ms, ()) for key, value in pairs]))


def fill_keys(log: PartitionLog, count: int, keys: int = 3) -> None:
    for number in range(count):
        put(log, (b"%d" % (number % keys), b"%d" % number * 10), timestamp_ms=NOW_MS + number)


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 1 << 40)), max_size=300))
def test_the_map_is_a_dict_of_the_newest_offsets(puts: list[tuple[bytes, int]]) -> None:
    known: dict[bytes, int] = {}
    newest = OffsetMap(len({key for key, _ in puts}))
    for key, offset in puts:
        newest.put(key, offset)
        known[key] = offset
    assert len(newest) == len(known)
    assert newest.free >= 0
    for key in [*known, b"none of them"]:
        assert newest.get(key) == known.get(key, -1)


def test_the_newest_of_each_key_stays_and_the_active_segment_is_left_alone() -> None:
    """Invariant 42."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 60)
    log.flush()
    before, end = rows(log), log.segments[-1].base_offset
    assert clean(disk, log) == end
    newest = {key: offset for offset, _, key, _ in before if offset < end}
    assert rows(log) == [row for row in before if row[0] >= end or newest[row[2]] == row[0]]
    assert (log.log_start_offset, log.log_end_offset) == (0, 60)
    found = rows(log)
    assert rows(reopen(log, disk)) == found


def test_small_segments_become_one() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 200)
    log.flush()
    clean(disk, log)
    for _ in range(2):
        fill_keys(log, 10)
        log.flush()
        clean(disk, log)
    assert len(log.segments) <= 4
    assert sum(segment.size_bytes for segment in log.segments) < 2000


def test_what_is_not_synced_or_above_the_limit_is_left_alone() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 60)
    assert cleanable(log, NOW_MS) is None
    log.flush()
    whole = cleanable(log, NOW_MS)
    assert whole is not None
    limited = cleanable(log, NOW_MS, log.segments[3].base_offset + 1)
    assert limited is not None
    assert limited.end_offset == log.segments[3].base_offset < whole.end_offset


def test_young_segments_wait_and_old_ones_do_not() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=changed(CONFIG, min_compaction_lag_ms=1000))
    fill_keys(log, 60)  # a millisecond apart
    log.flush()
    assert cleanable(log, NOW_MS + 500) is None
    third = log.segments[2]
    scope = cleanable(log, third.max_timestamp[0] + 1000)
    assert scope is not None
    assert scope.end_offset == log.segments[3].base_offset
    log.config = changed(CONFIG, min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=1000)
    scope = cleanable(log, NOW_MS + 500)
    assert scope is not None
    assert not scope.is_due(log.config)
    scope = cleanable(log, NOW_MS + 1001)
    assert scope is not None
    assert scope.is_due(log.config)


def test_only_a_log_that_is_dirty_enough_is_due() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 60, keys=30)
    log.flush()
    clean(disk, log)
    log.config = changed(CONFIG, min_cleanable_dirty_ratio=0.5)
    due = []
    for _ in range(20):
        fill_keys(log, 8)
        log.flush()
        scope = cleanable(log, NOW_MS)
        due.append(scope is not None and scope.is_due(log.config))
    assert due == sorted(due)
    assert {False, True} == set(due)


def test_a_tombstone_goes_delete_retention_ms_after_compaction_reached_it() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    put(log, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    put(log, (b"a", None), (b"b", b"2"), timestamp_ms=NOW_MS - 5)
    fill_keys(log, 20)
    log.flush()
    reached_ms = NOW_MS + 1_000_000  # however long it took to get there
    clean(disk, log, reached_ms)
    header, records = list(batches(log))[1]
    assert header.delete_horizon_ms == reached_ms + RETENTION_MS
    assert [(r.offset, r.timestamp, r.key, r.value) for r in records] == [
        (3, NOW_MS - 5, b"a", None),
        (4, NOW_MS - 5, b"b", b"2"),
    ]
    for now_ms, is_there in ((reached_ms + RETENTION_MS - 1, True), (reached_ms + RETENTION_MS, False)):
        fill_keys(log, 20)
        log.flush()
        clean(disk, log, now_ms)
        assert ((3, NOW_MS - 5, b"a", None) in rows(log)) is is_there
        assert (4, NOW_MS - 5, b"b", b"2") in rows(log)
        assert next(header for header, _ in batches(log) if header.base_offset == 3).delete_horizon_ms is not None


def test_a_batch_keeps_its_header_whatever_goes() -> None:
    """Offsets, producer, sequence, epoch, attributes and compression are those of before."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    for compression in COMPRESSIONS:
        records = [(b"%d" % index, b"old" * 5, NOW_MS + index, [("h", b"x")]) for index in range(6)]
        data, _ = encode_first(
            records, compression=compression, max_bytes=1 << 20, producer=ProducerStamp(7, 3, log.log_end_offset)
        )
        log.append_as_leader(data, leader_epoch=5)
        put(log, (b"0", b"new"), (b"3", None), (b"5", b"new"))
        before = {header.base_offset: header for header, _ in batches(log)}
        last = log.log_end_offset - 9
        log.roll()
        put(log, (b"unrelated", b""))
        log.flush()
        clean(disk, log)
        header, kept = next(item for item in batches(log) if item[0].base_offset == last)
        assert [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in kept] == [
            (last + index, NOW_MS + index, b"%d" % index, b"old" * 5, [("h", b"x")]) for index in (1, 2, 4)
        ]
        same = before[last]._replace(
            length=header.length, crc=header.crc, record_count=3, base_timestamp=NOW_MS + 1, max_timestamp=NOW_MS + 4
        )
        assert header == same
        log.producers.expire(1 << 60)


def test_the_last_batch_of_a_producer_stays_without_its_records() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    for sequence in (0, 2):
        data, _ = encode_first(
            [(b"a", b"1", NOW_MS, ()), (b"b", b"1", NOW_MS, ())],
            compression="none", max_bytes=1000, producer=ProducerStamp(9, 0, sequence),
        )  # fmt: skip
        log.append_as_leader(data)
    put(log, (b"a", b"2"), (b"b", b"2"))
    fill_keys(log, 30)
    log.flush()
    known = log.producers.producers[9]
    clean(disk, log)
    (header,) = [header for header, records in batches(log) if header.producer_id == 9 and not records]
    assert (header.base_offset, header.last_offset, header.base_sequence) == (2, 3, 2)
    for path in disk.paths(".snapshot"):
        disk.erase(path)
    log = reopen(log, disk)
    again = log.producers.producers[9]
    assert again.last_sequence == known.last_sequence == 3
    assert again.batches == known.batches[-1:]
    # Forgotten, it is kept no longer.
    log.producers.expire(1 << 60)
    fill_keys(log, 30)
    log.flush()
    clean(disk, log)
    assert not [header for header, _ in batches(log) if header.producer_id == 9]


def test_more_keys_than_memory_take_more_passes() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 200, keys=40)
    log.flush()
    before = rows(log)
    end = log.segments[-1].base_offset
    scope = cleanable(log, NOW_MS)
    assert scope is not None
    cleaning = Cleaning(disk, log, scope, NOW_MS, keys_max=7)
    for replacement in cleaning.steps():
        assert replacement is None or log.replace(replacement)
    assert cleaning.cleaned_offset is not None
    assert 7 <= cleaning.cleaned_offset < end
    assert clean(disk, log, keys_max=7) == end
    newest = {key: offset for offset, _, key, _ in before if offset < end}
    assert rows(log) == [row for row in before if row[0] >= end or newest[row[2]] == row[0]]


def test_a_batch_beyond_the_memory_is_an_error_that_says_what_to_do() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    put(log, *[(b"%d" % index, b"") for index in range(20)])
    fill_keys(log, 30)
    log.flush()
    with pytest.raises(LogError, match=r"dedupe\.buffer\.size"):
        clean(disk, log, keys_max=10)
    assert keys_within(128 << 20) > 4_000_000


def test_a_segment_from_which_nothing_goes_is_not_written() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=changed(CONFIG, segment_bytes=300))
    for number in range(20):
        put(log, (b"%d" % number, b"x" * 140))
    log.flush()
    disk.log.clear()
    clean(disk, log)
    assert not [path for operation, path in disk.log if operation == "write" and ".cleaned" in path]


@pytest.mark.parametrize("where", [5, 7, 10, 16, 17, 70], ids=str)
def test_a_damaged_batch_ends_the_pass_and_changes_nothing(where: int) -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 60)
    log.flush()
    path = log.segments[2].log_path
    data = bytearray(disk.contents(path))
    data[where] ^= 1
    disk.set_contents(path, bytes(data))
    before = {path: disk.contents(path) for path in disk.paths(".log")}
    with pytest.raises(CorruptRecordError):
        clean(disk, log)
    assert {path: disk.contents(path) for path in disk.paths(".log")} == before
    assert not disk.paths(".cleaned")


def test_records_that_only_a_reader_can_judge_stay() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    data = bytearray(encode([(b"0", b"x" * 20, NOW_MS, ())]))
    data[61] = 0xFF  # the length of the record
    seal(data, 0, len(data))
    log.config = changed(CONFIG, cleanup_policy=frozenset({"delete"}))
    log.append_as_leader(bytes(data))
    put(log, (b"0", b"1"))
    log.config = CONFIG
    fill_keys(log, 60)
    log.flush()
    clean(disk, log)
    first = next(split(log.read(0, 1)))
    assert BatchHeader.parse(first).base_offset == 0
    assert bytes(first[61:]) == bytes(data[61:])


def test_truncation_and_deletion_during_a_pass_win() -> None:
    for how in ("truncate", "delete"):
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        fill_keys(log, 60)
        log.flush()
        scope = cleanable(log, NOW_MS)
        assert scope is not None
        cleaning = Cleaning(disk, log, scope, NOW_MS, keys_max=KEYS_MAX)
        replacement = next(step for step in cleaning.steps() if step is not None)
        if how == "truncate":
            log.truncate_to(5)
        else:
            log.delete_records(log.segments[1].base_offset)
        expected = rows(log)
        assert not log.replace(replacement)
        cleaning.abandon()
        assert rows(log) == expected
        assert rows(reopen(log, disk)) == expected
        assert not disk.paths(".cleaned")


def test_a_topic_that_is_compacted_no_longer_may_have_gaps() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    fill_keys(log, 60)
    log.flush()
    clean(disk, log)
    log.config = changed(CONFIG, cleanup_policy=frozenset({"delete"}))
    found = rows(log)
    assert rows(reopen(log, disk)) == found


def test_a_segment_ends_in_time_for_max_compaction_lag() -> None:
    log = open_log(config=changed(CONFIG, max_compaction_lag_ms=1000))
    put(log, (b"a", b"1"), timestamp_ms=NOW_MS)
    put(log, (b"a", b"2"), timestamp_ms=NOW_MS + 1000)
    assert len(log.segments) == 1
    put(log, (b"a", b"3"), timestamp_ms=NOW_MS + 1001)
    assert len(log.segments) == 2


def test_a_compacted_topic_takes_no_record_without_a_key() -> None:
    """Invariant 5."""
    log = open_log(config=CONFIG)
    with pytest.raises(KeylessRecordError):
        log.append_as_leader(encode([(b"a", b"1", NOW_MS, ()), (None, b"2", NOW_MS, ())]))
    assert log.log_end_offset == 0


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_death_at_every_step_of_a_pass_loses_no_newest_record(power: bool) -> None:
    def prepared() -> tuple[FaultyDisk, PartitionLog]:
        disk = FaultyDisk(3)
        log = open_log(disk, config=CONFIG)
        fill_keys(log, 60)
        log.flush()
        return disk, log

    _, log = prepared()
    before = rows(log)
    newest = {key: offset for offset, _, key, _ in before}
    for step in itertools.count():
        disk, log = prepared()
        disk.kill_after(step)
        try:
            clean(disk, log)
        except Killed:
            pass
        else:
            break
        if power:
            disk.lose_power()
        again = reopen(log, disk)
        found = rows(again)
        assert set(found) <= set(before)
        assert {key: offset for offset, _, key, _ in found} == newest
        assert again.log_end_offset == 60
        assert not [path for path in disk.paths() if ".cleaned" in path or path.endswith(".swap")]
    assert step > 10


class LogAgainstModel(RuleBasedStateMachine):
    """Any sequence of appends, rolls, passes and deaths: the newest stay, at their offsets."""

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.disk = FaultyDisk(seed)
        self.clock = ManualClock(NOW_MS)
        self.log = open_log(self.disk, config=CONFIG, clock=self.clock)
        self.appended: dict[int, Row] = {}
        self.sequences: dict[int, int] = {}
        self.touched_end = 0
        self.reached: dict[int, int] = {}  # tombstones, and when a pass has met them first

    @rule(
        pairs=st.lists(
            st.tuples(st.sampled_from(b"abcdef"), st.none() | st.binary(max_size=30)), min_size=1, max_size=8
        ),
        producer_id=st.sampled_from([-1, 1, 2]),
        compression=st.sampled_from(COMPRESSIONS),
        step_ms=st.integers(-5, 5),
    )
    def append(self, pairs: list[tuple[int, bytes | None]], producer_id: int, compression: str, step_ms: int) -> None:
        records = [
            (bytes([key]), value, self.clock.now_ms() + step_ms * index, ()) for index, (key, value) in enumerate(pairs)
        ]
        stamp = ProducerStamp(-1, -1, -1)
        if producer_id >= 0:
            stamp = ProducerStamp(producer_id, 0, self.sequences.get(producer_id, 0))
            self.sequences[producer_id] = stamp.base_sequence + len(records)
        data, _ = encode_first(records, compression=compression, max_bytes=1 << 20, producer=stamp)
        base_offset = self.log.append_as_leader(data).base_offset
        assert base_offset == len(self.appended), "an offset is never used again"
        for offset, (key, value, timestamp, _) in enumerate(records, base_offset):
            self.appended[offset] = offset, timestamp, key, value

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule(ms=st.integers(1, RETENTION_MS))
    def time_goes_by(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(keys_max=st.integers(8, 12))
    def clean(self, keys_max: int) -> None:
        self.log.flush()
        states = dict(self.log.producers.producers)
        touched_end = self.touched_end
        self._clean(keys_max)
        self.touched_end = max(touched_end, self.log.cleaned_offset or 0)
        assert dict(self.log.producers.producers) == states

    @rule(keys_max=st.integers(8, 12), steps=st.integers(0, 40), power=st.booleans())
    def clean_and_die(self, keys_max: int, steps: int, power: bool) -> None:
        self.log.flush()
        self.disk.kill_after(steps)
        try:
            self._clean(keys_max)
        except Killed:
            pass
        if power:
            self.disk.lose_power()
        self._start_again()

    @rule()
    def die(self) -> None:
        self._start_again()

    @rule()
    def lose_snapshots(self) -> None:
        self.log.flush()
        for path in self.disk.paths(".snapshot"):
            self.disk.erase(path)
        self._start_again()

    def _clean(self, keys_max: int) -> None:
        # Noted before, as a pass that dies may have stamped them already.
        end = self.touched_end = self.log.segments[-1].base_offset
        for offset, _, _, value in self.appended.values():
            if value is None and offset < end:
                self.reached.setdefault(offset, self.clock.now_ms())
        clean(self.disk, self.log, self.clock.now_ms(), keys_max=keys_max)

    def _start_again(self) -> None:
        log = self.log
        known = {key: last_of(value) for key, value in log.producers.producers.items()}
        self.disk.kill()
        self.log = open_log(
            self.disk,
            config=CONFIG,
            clock=self.clock,
            recovery_point=log.recovery_point,
            log_start_offset=log.log_start_offset,
            cleaned_offset=log.cleaned_offset,
        )
        assert self.log.log_end_offset == log.log_end_offset
        assert {key: last_of(value) for key, value in self.log.producers.producers.items()} == known

    @invariant()
    @precondition(lambda self: hasattr(self, "log"))
    def the_newest_stay(self) -> None:
        found = {row[0]: row for row in rows(self.log)}
        assert set(found.values()) <= set(self.appended.values())
        for offset in range(self.touched_end, self.log.log_end_offset):
            assert offset in found, "above the cleaner's point nothing is touched"
        newest = {row[2]: row for row in self.appended.values()}
        for offset, _, _, value in newest.values():
            if value is not None or self.clock.now_ms() < self.reached.get(offset, 1 << 60) + RETENTION_MS:
                assert offset in found


def last_of(producer: Producer) -> tuple[int, int, int]:
    return producer.producer_epoch, producer.last_sequence, producer.last_offset


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
