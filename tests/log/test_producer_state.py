"""What is next, what was sent before, what is missing. Invariants 28 and 29."""

import struct

import pytest

from streamcore.clock import ManualClock
from streamcore.errors import InvalidProducerEpochError, InvalidRecordError, OutOfOrderSequenceError
from streamcore.log.config import LogConfig
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.partition_log import Appended
from streamcore.log.producer_state import BATCHES_REMEMBERED, PRODUCER_ID_EXPIRATION_MS, Producer, ProducerState
from streamcore.records.batch import CONTROL, BatchHeader, split
from streamcore.records.compression import COMPRESSIONS
from streamcore.records.control import Marker
from tests.log.support import NOW_MS, batch, open_log, read_values, sent

SEQUENCE_MAX = (1 << 31) - 1


def header(producer_id: int, sequence: int, *values: bytes, epoch: int = 0, timestamp_ms: int = NOW_MS) -> BatchHeader:
    return BatchHeader.parse(sent(producer_id, sequence, *values, epoch=epoch, timestamp_ms=timestamp_ms))


def test_a_resend_of_any_of_the_last_five_batches_gets_its_first_answer_and_appends_nothing() -> None:
    """Invariant 28."""
    disk = MemoryDisk()
    log = open_log(disk)
    log.append_as_leader(batch(b"other"))
    batches = [sent(7, 2 * n, b"a%d" % n, b"b%d" % n) for n in range(8)]
    answers = [log.append_as_leader(data) for data in batches]
    assert not any(answer.is_duplicate for answer in answers)
    before = disk.open(log.segments[0].log_path).read_at(0, 1 << 20)
    for data, answer in list(zip(batches, answers, strict=True))[-BATCHES_REMEMBERED:]:
        for _ in range(2):
            assert log.append_as_leader(data) == answer._replace(is_duplicate=True)
    assert disk.open(log.segments[0].log_path).read_at(0, 1 << 20) == before
    assert log.log_end_offset == 17
    # Older ones are not told from gaps, as in Kafka.
    with pytest.raises(OutOfOrderSequenceError):
        log.append_as_leader(batches[2])
    assert log.append_as_leader(sent(7, 16)).base_offset == 17


def test_a_resend_is_known_by_its_whole_range_of_sequences() -> None:
    """Invariant 28: what begins like an earlier batch and ends elsewhere is no resend."""
    log = open_log()
    log.append_as_leader(sent(7, 0, b"a", b"b", b"c"))
    for values in ((b"a",), (b"a", b"b"), (b"a", b"b", b"c", b"d")):
        with pytest.raises(OutOfOrderSequenceError):
            log.append_as_leader(sent(7, 0, *values))
    assert log.append_as_leader(sent(7, 0, b"x", b"y", b"z")).is_duplicate


@pytest.mark.parametrize("sequence", [0, 1, 2, 4, SEQUENCE_MAX])
def test_a_gap_is_refused_and_changes_nothing(sequence: int) -> None:
    """Invariant 29."""
    log = open_log()
    log.append_as_leader(sent(7, 0, b"a", b"b", b"c"))
    before = log.producers.producers[7]
    with pytest.raises(OutOfOrderSequenceError, match=f"sequence {sequence} where 3 is next") as raised:
        log.append_as_leader(sent(7, sequence))
    assert (raised.value.code, raised.value.expected, raised.value.base_sequence) == (45, 3, sequence)
    assert log.log_end_offset == 3
    assert log.producers.producers[7] == before
    assert log.append_as_leader(sent(7, 3)).base_offset == 3


@pytest.mark.parametrize("first", [SEQUENCE_MAX - 3, SEQUENCE_MAX - 1, SEQUENCE_MAX])
def test_sequences_wrap_from_the_largest_int32_to_zero(first: int) -> None:
    """Invariant 29; also in the middle of a batch."""
    log = open_log()
    sequences = [(first + 2 * n) % (SEQUENCE_MAX + 1) for n in range(5)]
    answers = [log.append_as_leader(sent(7, sequence, b"a", b"b")) for sequence in sequences]
    assert [answer.base_offset for answer in answers] == [0, 2, 4, 6, 8]
    for sequence, answer in zip(sequences, answers, strict=True):
        assert log.append_as_leader(sent(7, sequence, b"a", b"b")) == answer._replace(is_duplicate=True)
    with pytest.raises(OutOfOrderSequenceError):
        log.append_as_leader(sent(7, first))


def test_a_new_epoch_begins_at_zero_and_ends_the_one_before() -> None:
    """Invariant 29."""
    log = open_log()
    log.append_as_leader(sent(7, 0, epoch=2))
    with pytest.raises(OutOfOrderSequenceError) as raised:
        log.append_as_leader(sent(7, 1, epoch=3))
    assert (raised.value.producer_epoch, raised.value.expected) == (3, 0)
    assert log.append_as_leader(sent(7, 1, epoch=2)).base_offset == 1
    assert log.append_as_leader(sent(7, 0, epoch=5)).base_offset == 2
    for sequence in (0, 1, 2):
        with pytest.raises(InvalidProducerEpochError) as fenced:
            log.append_as_leader(sent(7, sequence, epoch=2))
        assert (fenced.value.code, fenced.value.current_epoch) == (47, 5)
    assert log.append_as_leader(sent(7, 1, epoch=5)).base_offset == 3
    assert log.log_end_offset == 4


def test_an_unknown_producer_begins_with_any_sequence_and_epoch() -> None:
    """Invariant 29: it may be known no longer because its records are gone."""
    log = open_log()
    assert log.append_as_leader(sent(7, 4711, epoch=3)).base_offset == 0
    with pytest.raises(OutOfOrderSequenceError):
        log.append_as_leader(sent(7, 4711 + 2, epoch=3))
    assert log.append_as_leader(sent(7, 4712, epoch=3)).base_offset == 1


def test_producers_do_not_know_each_other() -> None:
    log = open_log()
    for sequence in range(6):
        for producer_id in (1, 2, 3):
            log.append_as_leader(sent(producer_id, sequence))
    assert [log.append_as_leader(sent(n, 5)).base_offset for n in (1, 2, 3)] == [15, 16, 17]
    assert list(log.producers.producers) == [1, 2, 3]


def test_a_batch_of_a_producer_comes_alone() -> None:
    """Invariant 3: of several, which were new could not be answered."""
    log = open_log()
    for data in (sent(7, 0) + sent(7, 1), batch(b"v") + sent(7, 0), sent(7, 0) + batch(b"v")):
        with pytest.raises(InvalidRecordError, match="one by one"):
            log.append_as_leader(data)
    assert (log.log_end_offset, len(log.producers.producers)) == (0, 0)
    assert log.append_as_leader(batch(b"a") + batch(b"b")).last_offset == 1


def test_a_resend_gets_the_append_time_of_the_first() -> None:
    """Invariant 28."""
    clock = ManualClock(NOW_MS)
    log = open_log(clock=clock, config=LogConfig(message_timestamp_type="LogAppendTime"))
    first = log.append_as_leader(sent(7, 0, timestamp_ms=5))
    clock.advance(1000)
    log.append_as_leader(sent(7, 1, timestamp_ms=6))
    assert log.append_as_leader(sent(7, 0, timestamp_ms=5)) == Appended(0, 0, NOW_MS, 0, True)
    assert first.log_append_time_ms == NOW_MS


def test_with_create_times_a_resend_gets_no_append_time_as_the_first_got_none() -> None:
    log = open_log()
    first = log.append_as_leader(sent(7, 0))
    assert log.append_as_leader(sent(7, 0)) == first._replace(is_duplicate=True)
    assert first.log_append_time_ms == -1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_topics_own_compression_does_not_hide_a_resend(compression: str) -> None:
    log = open_log(config=LogConfig(compression_type="zstd"))
    data = sent(7, 5, b"a" * 100, b"b" * 100, compression=compression)
    log.append_as_leader(data)
    assert log.append_as_leader(data).is_duplicate
    stored = BatchHeader.parse(next(split(log.read(0, 1000))))
    assert (stored.producer_id, stored.base_sequence, stored.compression) == (7, 5, "zstd")


def test_a_resend_after_a_failed_write_is_appended() -> None:
    """Invariant 7: what was not written has not been sent."""
    from tests.faults.faulty_disk import FaultyDisk

    disk = FaultyDisk()
    log = open_log(disk)
    log.append_as_leader(sent(7, 0))
    disk.room = 10
    with pytest.raises(Exception, match="free some space"):
        log.append_as_leader(sent(7, 1, b"once"))
    disk.heal()
    assert log.append_as_leader(sent(7, 1, b"once")) == Appended(1, 1, -1, 0)
    assert read_values(log) == [b"v", b"once"]


def test_a_producer_is_forgotten_a_day_after_its_last_batch() -> None:
    clock = ManualClock(NOW_MS)
    log = open_log(clock=clock, config=LogConfig(retention_ms=None))
    log.append_as_leader(sent(7, 0))
    log.append_as_leader(sent(8, 0, timestamp_ms=NOW_MS + 1))
    clock.advance(PRODUCER_ID_EXPIRATION_MS - 1)
    log.apply_retention(clock.now_ms())
    assert set(log.producers.producers) == {7, 8}
    clock.advance(1)
    log.apply_retention(clock.now_ms())
    assert set(log.producers.producers) == {8}
    assert log.append_as_leader(sent(7, 100)).base_offset == 2


def test_an_open_transaction_keeps_its_producer() -> None:
    state = ProducerState({7: Producer(0, (), NOW_MS, 3, transaction_first_offset=12), 8: Producer(0, (), NOW_MS)})
    state.expire(NOW_MS * 2)
    assert set(state.producers) == {7}


def test_the_producers_that_are_remembered_are_limited_and_the_most_silent_one_goes_first() -> None:
    """Invariant 45: made-up producer ids do not fill the memory."""
    state = ProducerState(producers_max=3)
    for offset, producer_id in enumerate([1, 2, 3, 1, 4, 5]):
        sequence = 1 if offset == 3 else 0
        state.append(header(producer_id, sequence), offset)
        assert len(state.producers) <= 3
    assert list(state.producers) == [1, 4, 5]
    assert state.check(header(2, 99)) is None


def test_only_five_batches_of_a_producer_are_kept() -> None:
    state = ProducerState()
    for offset in range(100):
        state.append(header(1, offset), offset)
    assert [b.base_offset for b in state.producers[1].batches] == [95, 96, 97, 98, 99]


def test_the_end_of_a_transaction_has_no_sequence() -> None:
    """From logs that Kafka wrote: the marker of the same epoch leaves the sequence, a later epoch begins at 0."""
    marker = bytearray(sent(7, -1, attributes=CONTROL))
    state = ProducerState()
    state.append(header(7, 41), 0)
    state.replay([(BatchHeader.parse(marker)._replace(base_offset=1), Marker(True, 0))])
    assert state.check(header(7, 41)) is not None
    assert state.check(header(7, 42)) is None
    struct.pack_into(">h", marker, 51, 1)
    state.replay([(BatchHeader.parse(marker)._replace(base_offset=2), Marker(True, 0))])
    assert state.producers[7].last_sequence == -1
    assert state.check(header(7, 0, epoch=1)) is None
    with pytest.raises(OutOfOrderSequenceError):
        state.check(header(7, 42, epoch=1))
    with pytest.raises(InvalidProducerEpochError):
        state.check(header(7, 42))


def test_a_truncation_takes_batches_back_and_says_whose_past_has_to_be_read() -> None:
    state = ProducerState()
    for offset, (producer_id, sequence, epoch) in enumerate([(1, 0, 0), (2, 0, 0), (1, 1, 0), (3, 0, 0), (2, 0, 1)]):
        state.append(header(producer_id, sequence, epoch=epoch, timestamp_ms=NOW_MS + offset), offset)
    assert state.truncate(5) == []
    # Producer 2's earlier epoch is not in memory any more.
    assert state.truncate(2) == [3, 2]
    assert {key: p.last_offset for key, p in state.producers.items()} == {1: 0}
    assert state.producers[1].last_timestamp == NOW_MS
    earlier = ProducerState()
    earlier.append(header(1, 0), 0)
    earlier.append(header(2, 0), 1)
    state.restore([3, 2], earlier)
    assert {key: p.last_offset for key, p in state.producers.items()} == {1: 0, 2: 1}


def test_batches_without_a_producer_leave_no_trace() -> None:
    log = open_log()
    for _ in range(3):
        log.append_as_leader(batch(b"v"))
    assert not log.producers.producers
