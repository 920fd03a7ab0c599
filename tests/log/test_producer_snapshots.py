"""Producer state outlives every kind of stop. Invariants 13, 14 and 30."""

import errno
import itertools
import logging
import struct
from collections.abc import Callable

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamcore.clock import ManualClock
from streamcore.errors import LogError, OutOfOrderSequenceError
from streamcore.log.config import LogConfig
from streamcore.log.partition_log import PartitionLog
from streamcore.log.producer_snapshots import CorruptSnapshotError, decode, encode
from streamcore.log.producer_state import PRODUCER_ID_EXPIRATION_MS, Producer, ProducerState, SentBatch
from streamcore.records.batch import BatchHeader, split
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.log.support import DIRECTORY, NOW_MS, batch, fill, open_log, reopen, sent

CONFIG = LogConfig(segment_bytes=1000, index_interval_bytes=200)


def told(log: PartitionLog) -> dict[int, tuple[int, SentBatch | None]]:
    """What every kind of restart brings back: a producer's epoch and last batch."""
    return {
        key: (producer.producer_epoch, producer.batches[-1] if producer.batches else None)
        for key, producer in log.producers.producers.items()
    }


def in_log(log: PartitionLog) -> dict[int, tuple[int, SentBatch | None]]:
    """The same, from reading every batch there is."""
    state = ProducerState()
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        headers = [BatchHeader.parse(part) for part in split(log.read(offset, 1 << 20))]
        state.replay((header, None) for header in headers)
        offset = headers[-1].last_offset + 1
    return {key: (p.producer_epoch, p.batches[-1]) for key, p in state.producers.items()}


def send(log: PartitionLog, rounds: int, *, first: int = 0) -> None:
    """Three producers, one of which changes its epoch, and batches without one in between."""
    for number in range(first, first + rounds):
        log.append_as_leader(sent(1, 2 * number, b"a" * 50, b"b"))
        log.append_as_leader(sent(2, number % 4, b"c" * 20, epoch=number // 4))
        log.append_as_leader(batch(b"plain" * 5))
    log.append_as_leader(sent(100 + first, 7))


def snapshots(disk: FaultyDisk) -> list[str]:
    return disk.paths(".snapshot")


def offsets(disk: FaultyDisk) -> list[int]:
    return [int(path.rsplit("/", 1)[1].removesuffix(".snapshot")) for path in snapshots(disk)]


# ---- the format

ids = st.integers(0, (1 << 63) - 1)
producers = st.builds(
    lambda epoch, last, delta, offset, timestamp, coordinator: Producer(
        epoch,
        (SentBatch((last - delta) % (1 << 31), last, offset, offset + delta, timestamp),),
        timestamp,
        coordinator,
    ),
    st.integers(0, 32767),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, 10_000),
    st.integers(0, 1 << 50),
    st.integers(-1, 1 << 50),
    st.integers(-1, 100),
)


without_batches = st.builds(lambda epoch, time: Producer(epoch, (), time), st.integers(0, 32767), st.integers(-1, 99))


@given(st.dictionaries(ids, producers | without_batches))
def test_decoding_inverts_encoding(known: dict[int, Producer]) -> None:
    assert decode(encode(known)) == known


def test_the_bytes_are_those_of_kafkas_version_1() -> None:
    data = encode({5: Producer(3, (SentBatch(10, 12, 100, 102, NOW_MS),), NOW_MS)})
    entry = struct.pack(">qhiqiqiq", 5, 3, 12, 102, 2, NOW_MS, -1, -1)
    rest = struct.pack(">i", 1) + entry
    assert data == struct.pack(">hI", 1, crc32c(rest)) + rest
    assert encode({}) == struct.pack(">hIi", 1, crc32c(bytes(4)), 0)


def test_only_the_last_batch_of_a_producer_is_kept() -> None:
    state = ProducerState()
    for number in range(3):
        state.append(BatchHeader.parse(sent(1, number)), number)
    assert decode(encode(state.producers))[1].batches == state.producers[1].batches[-1:]


def test_damage_at_every_byte_is_noticed() -> None:
    data = encode({5: Producer(3, (SentBatch(10, 12, 100, 102, NOW_MS),), NOW_MS)})
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        for damaged in (bytes(flipped), data[:position], data + bytes(position + 1)):
            with pytest.raises(CorruptSnapshotError):
                decode(damaged)


# ---- when they are written, and when they go


def test_a_snapshot_is_written_when_a_segment_rolls_and_at_an_orderly_close() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    assert not snapshots(disk)
    number = 0
    while len(log.segments) < 3:
        send(log, 1, first=number)
        number += 1
    assert offsets(disk) == [segment.base_offset for segment in log.segments[1:]]
    log.close()
    assert offsets(disk)[-1] == log.log_end_offset
    last = decode(disk.contents(snapshots(disk)[-1]))
    assert {key: (p.producer_epoch, p.batches[-1]) for key, p in last.items()} == told(log)


def test_an_empty_log_and_an_unchanged_one_get_none() -> None:
    disk = FaultyDisk()
    open_log(disk).close()
    assert not snapshots(disk)
    log = open_log(disk, clean=True)
    fill(log, 3)
    log.close()
    assert offsets(disk) == [3]
    disk.log.clear()
    reopen(log, disk, clean=True).close()
    assert not [entry for entry in disk.log if entry[0] == "write" and entry[1].endswith(".snapshot")]


def test_the_newest_two_are_kept_and_the_newest_that_is_synced() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    while len(log.segments) < 3:
        fill(log, 1)
    log.flush()
    synced = log.segments[-1].base_offset
    for _ in range(60):
        fill(log, 1)
        assert len(snapshots(disk)) <= 3
    bases = [segment.base_offset for segment in log.segments]
    assert offsets(disk) == [synced, *bases[-2:]]
    log.flush()
    while log.segments[-1].base_offset in bases:
        fill(log, 1)
    assert offsets(disk) == [bases[-1], log.segments[-1].base_offset]


def test_they_go_with_their_segments() -> None:
    """Invariant 30: the state does not, nor after a restart."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    send(log, 1)
    while len(log.segments) < 4:
        fill(log, 1)
    before = told(log)
    assert set(before) == {1, 2, 100}
    log.delete_records(log.log_end_offset)
    assert len(log.segments) == 1
    assert offsets(disk) == [log.segments[0].base_offset]
    assert told(log) == before
    assert in_log(log) == {}
    for clean in (False, True):
        if clean:
            log.close()
        log = reopen(log, disk, clean=clean)
        assert told(log) == before
        assert log.append_as_leader(sent(1, 0, b"a" * 50, b"b")).base_offset == 0
        with pytest.raises(OutOfOrderSequenceError):
            log.append_as_leader(sent(1, 17))


def test_retention_of_everything_forgets_nobody() -> None:
    """Invariant 30."""
    disk = FaultyDisk()
    clock = ManualClock(NOW_MS)
    log = open_log(disk, config=LogConfig(retention_ms=1000), clock=clock)
    send(log, 2)
    before = told(log)
    clock.advance(2000)
    log.apply_retention(clock.now_ms())
    assert log.log_start_offset == log.log_end_offset
    assert told(log) == before
    assert told(reopen(log, disk)) == before


def test_a_full_disk_costs_the_snapshot_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    for operation in ("open", "write", "truncate"):
        disk = FaultyDisk()
        log = open_log(disk, config=CONFIG)
        disk.fail(operation, errno.ENOSPC, path=".snapshot", times=None)  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING):
            send(log, 8)
        assert "was not written" in caplog.text
        assert len(log.segments) > 2
        assert not snapshots(disk)
        before = told(log)
        log.close()
        disk.heal()
        for clean in (True, False):
            assert told(reopen(log, disk, clean=clean)) == before


def test_a_snapshot_that_cannot_be_removed_is_in_nobodys_way() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    disk.fail("remove", errno.EIO, path=".snapshot", times=None)
    send(log, 30)
    assert len(snapshots(disk)) > 3
    assert log.offline_reason is None
    disk.heal()
    end = log.segments[1].base_offset
    log.truncate_to(end)
    assert max(offsets(disk)) <= end


def test_a_flush_syncs_them_before_it_answers() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    send(log, 10)
    disk.log.clear()
    log.flush()
    synced = {path for operation, path in disk.log if operation == "sync" and path.endswith(".snapshot")}
    assert synced == set(snapshots(disk))
    disk.log.clear()
    fill(log, 1)
    log.flush()
    assert not [entry for entry in disk.log if entry[1].endswith(".snapshot")]


def test_a_snapshot_whose_sync_fails_puts_nothing_offline() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    send(log, 10)
    disk.fail("sync", errno.EIO, path=".snapshot", times=None)
    assert log.flush() == log.log_end_offset


# ---- restarts

Damage = Callable[[FaultyDisk], None]


def nothing(disk: FaultyDisk) -> None:
    pass


def erase_all(disk: FaultyDisk) -> None:
    for path in snapshots(disk):
        disk.erase(path)


def erase_newest(disk: FaultyDisk) -> None:
    disk.erase(snapshots(disk)[-1])


def flip_all(disk: FaultyDisk) -> None:
    for path in snapshots(disk):
        data = bytearray(disk.contents(path))
        data[-1] ^= 4
        disk.set_contents(path, bytes(data))


def flip_newest(disk: FaultyDisk) -> None:
    data = bytearray(disk.contents(snapshots(disk)[-1]))
    data[len(data) // 2] ^= 4
    disk.set_contents(snapshots(disk)[-1], bytes(data))


def empty_newest(disk: FaultyDisk) -> None:
    disk.set_contents(snapshots(disk)[-1], b"")


@pytest.mark.parametrize("damage", [nothing, erase_all, erase_newest, flip_all, flip_newest, empty_newest])
@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("rounds", [1, 7, 30])
def test_the_state_is_the_same_after_a_restart_with_and_without_snapshots(
    damage: Damage, clean: bool, rounds: int
) -> None:
    """Invariant 30."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    send(log, rounds)
    log.flush()
    send(log, 1, first=rounds)
    expected = told(log)
    assert set(expected) == {1, 2, 100, 100 + rounds}
    if clean:
        log.close()
    if snapshots(disk):
        damage(disk)
    again = reopen(log, disk, clean=clean)
    assert told(again) == expected == in_log(again)
    end = again.log_end_offset
    for producer_id, (epoch, last) in expected.items():
        assert last is not None
        count = last.last_offset - last.base_offset + 1
        resent = again.append_as_leader(sent(producer_id, last.base_sequence, *[b"x"] * count, epoch=epoch))
        assert (resent.base_offset, resent.last_offset, resent.is_duplicate) == (last.base_offset, last.last_offset, 1)
        with pytest.raises(OutOfOrderSequenceError):
            again.append_as_leader(sent(producer_id, last.last_sequence + 2, epoch=epoch))
    assert again.log_end_offset == end
    send(again, 3, first=rounds + 1)
    assert told(reopen(again, disk)) == told(again)


def test_after_an_orderly_stop_older_duplicates_are_answered_as_kafka_does() -> None:
    """A snapshot has the last batch alone, so a resend of the one before it is out of order."""
    disk = FaultyDisk()
    log = open_log(disk)
    for sequence in range(3):
        log.append_as_leader(sent(1, sequence))
    assert log.append_as_leader(sent(1, 1)).is_duplicate
    log.close()
    again = reopen(log, disk, clean=True)
    assert again.append_as_leader(sent(1, 2)).is_duplicate
    with pytest.raises(OutOfOrderSequenceError):
        again.append_as_leader(sent(1, 1))
    # Read from the batches, all of them are known.
    erase_all(disk)
    again = reopen(log, disk, clean=True)
    assert all(again.append_as_leader(sent(1, n)).base_offset == n for n in range(3))


def test_an_orderly_start_reads_the_snapshot_and_no_batches_for_it() -> None:
    """Invariant 14."""
    disk = FaultyDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=20_000))
    send(log, 300)
    log.close()
    disk.log.clear()
    again = reopen(log, disk, clean=True)
    assert told(again) == told(log)
    reads = [path for operation, path in disk.log if operation == "read"]
    assert {path for path in reads if path.endswith(".log")} == {log.segments[-1].log_path}
    assert len([path for path in reads if path.endswith(".log")]) <= 5
    assert [path for path in reads if path.endswith(".snapshot")] == snapshots(disk)[-1:]


def test_after_a_kill_batches_are_read_from_the_newest_snapshot_on() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    send(log, 60)
    log.flush()
    send(log, 1, first=60)
    disk.log.clear()
    assert told(reopen(log, disk)) == told(log)
    read = {path for operation, path in disk.log if operation == "read" and path.endswith(".log")}
    assert len(read) <= 2


def test_producers_expire_at_a_start_too() -> None:
    for clean in (True, False):
        disk = FaultyDisk()
        log = open_log(disk)
        log.append_as_leader(sent(1, 0))
        log.append_as_leader(sent(2, 0, timestamp_ms=NOW_MS + 1000))
        if clean:
            log.close()
        clock = ManualClock(NOW_MS + PRODUCER_ID_EXPIRATION_MS)
        disk.kill()
        assert set(open_log(disk, clean=clean, clock=clock).producers.producers) == {2}


@pytest.mark.parametrize("removable", [True, False])
def test_a_snapshot_from_before_the_first_segment_is_not_believed(removable: bool) -> None:
    """It may know a producer, and not the batches that followed: such a producer could never write again."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    log.append_as_leader(sent(1, 0))
    log.close()
    stale = disk.contents(snapshots(disk)[-1])
    log = reopen(log, disk, clean=True)
    log.append_as_leader(sent(1, 1))
    while len(log.segments) < 3:
        fill(log, 1)
    log.delete_records(log.log_end_offset)
    erase_all(disk)
    disk.set_contents(f"{DIRECTORY}/00000000000000000001.snapshot", stale)
    if not removable:
        disk.fail("remove", errno.EIO, path=".snapshot", times=None)
    again = reopen(log, disk)
    assert told(again) == {}
    assert bool(snapshots(disk)) is not removable
    assert again.append_as_leader(sent(1, 2)).base_offset == log.log_end_offset


# ---- truncation


@pytest.mark.parametrize("restart", [None, True, False], ids=["running", "closed", "killed"])
def test_after_a_truncation_the_state_is_that_of_what_is_left(restart: bool | None) -> None:
    """Invariant 30, at every offset."""
    disk = FaultyDisk()
    whole = open_log(disk, config=CONFIG)
    send(whole, 15)
    whole.flush()
    for end in range(whole.log_end_offset):
        copy = disk.copy()
        log = open_log(copy, config=CONFIG, recovery_point=whole.recovery_point)
        log.truncate_to(end)
        assert max(offsets(copy), default=0) <= log.log_end_offset
        if restart:
            log.close()
        if restart is not None:
            log = reopen(log, copy, clean=restart)
        assert told(log) == in_log(log), end
        # What was cut off can be sent again, and what is left cannot.
        for producer_id, (epoch, last) in told(log).items():
            assert last is not None
            sequence = last.last_sequence + 1
            assert not log.append_as_leader(sent(producer_id, sequence, epoch=epoch)).is_duplicate
        expected = in_log(log)
        assert told(log) == expected
        assert told(reopen(log, copy)) == expected


def test_a_truncation_keeps_whom_only_the_snapshots_above_it_knew() -> None:
    """Invariant 30: their records went with retention, and older snapshots with the newer ones."""
    disk = FaultyDisk()
    log = open_log(disk, config=CONFIG)
    log.append_as_leader(sent(1, 5))
    while len(log.segments) < 5:
        fill(log, 1)
    log.delete_records(log.segments[1].base_offset)
    cut = log.segments[2].base_offset - 1
    assert min(offsets(disk)) > cut
    log.truncate_to(cut)
    assert set(told(log)) == {1}
    assert in_log(log) == {}
    assert told(reopen(log, disk)) == told(log)


def test_damage_before_a_snapshot_does_not_bring_older_batches_back() -> None:
    """Reads of the damage fail; producers that wrote after it go on."""
    disk = FaultyDisk()
    config = LogConfig(index_interval_bytes=1000)
    log = open_log(disk, config=config)
    for number in range(40):
        log.append_as_leader(sent(1, number, b"x" * 50))
    log.close()
    log = reopen(log, disk, clean=True)
    for number in range(40, 60):
        log.append_as_leader(sent(2, number, b"x" * 50))
    log.close()
    erase_newest(disk)
    path = log.segments[0].log_path
    data = bytearray(disk.contents(path))
    size = len(data) // 60
    data[size * 37 + 8 : size * 37 + 12] = b"\xff" * 4
    disk.set_contents(path, bytes(data))
    again = reopen(log, disk, clean=True)
    assert again.append_as_leader(sent(1, 40)).base_offset == 60


def test_the_sequences_of_truncated_batches_are_used_again_over_a_loss_of_power() -> None:
    """No snapshot of the batches that were cut off may come back in front of those that took their offsets."""
    for seed in range(100):
        disk = FaultyDisk(seed)
        log = open_log(disk, config=CONFIG)
        send(log, 8)
        log.flush()
        cut = log.segments[1].base_offset + seed % 3
        log.truncate_to(cut)
        start = log.log_end_offset
        for number in range(seed % 40):
            log.append_as_leader(sent(900 + seed, number, b"d" * 60))
        if seed % 2:
            log.flush()
        disk.lose_power()
        again = open_log(disk, config=CONFIG, recovery_point=log.recovery_point)
        assert again.log_end_offset >= start
        assert told(again) == in_log(again), seed


def test_a_log_that_begins_anew_above_everything_lost_knows_nobody() -> None:
    disk = FaultyDisk()
    log = open_log(disk)
    send(log, 3)
    log.delete_records(8)
    disk.set_contents(f"{DIRECTORY}/00000000000000000000.log", b"")
    disk.set_contents(f"{DIRECTORY}/00000000000000000007.snapshot", encode(log.producers.producers))
    again = reopen(log, disk)
    assert (again.log_start_offset, again.log_end_offset, told(again)) == (8, 8, {})
    assert not snapshots(disk)


def test_a_truncation_of_a_log_without_producers_reads_no_batches_for_them() -> None:
    disk = FaultyDisk()
    log = open_log(disk, config=LogConfig(segment_bytes=20_000))
    fill(log, 100)
    disk.log.clear()
    log.truncate_to(90)
    assert not [entry for entry in disk.log if entry[1].endswith(".snapshot")]


# ---- crashes


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_death_at_every_step_leaves_the_state_of_what_is_in_the_log(power: bool) -> None:
    """Invariants 13 and 30: through appends, rolls, syncs, truncations, deletions and closing."""
    for step in itertools.count():
        disk = FaultyDisk(step)
        log = open_log(disk, config=CONFIG)
        answers: list[tuple[bytes, int]] = []  # acknowledged after the last truncation

        def work(log: PartitionLog, answers: list[tuple[bytes, int]]) -> None:
            send(log, 5)
            log.flush()
            send(log, 3, first=5)
            log.truncate_to(20)
            for number in range(12):
                data = sent(50, number, b"e" * 80)
                answers.append((data, log.append_as_leader(data).base_offset))
            log.flush()
            log.delete_records(10)
            log.append_as_leader(sent(51, 3))
            log.close()

        disk.kill_after(step)
        finished = False
        try:
            work(log, answers)
            finished = True
        except (Killed, LogError):
            pass
        disk.lose_power() if power else disk.kill()
        again = open_log(
            disk,
            config=CONFIG,
            clean=finished,
            recovery_point=log.recovery_point,
            log_start_offset=log.log_start_offset,
        )
        for key, (epoch, last) in in_log(again).items():
            assert told(again)[key] == (epoch, last), (step, key)
        # Of producers whose records are gone, what was true may be remembered.
        for key, (_, last) in told(again).items():
            assert key in in_log(again) or (last is not None and last.last_offset < again.log_start_offset), step
        if answers and not power:
            data, base_offset = answers[-1]
            resent = again.append_as_leader(data)
            assert (resent.base_offset, resent.is_duplicate) == (base_offset, True), step
        assert told(reopen(again, disk)) == told(again)
        if finished:
            break
    assert step > 60


def test_what_was_synced_is_recognised_after_any_loss_of_power() -> None:
    """Invariant 28 over a crash: the client resends what it has no answer for, and nothing is doubled."""
    for seed in range(150):
        disk = FaultyDisk(seed)
        log = open_log(disk, config=CONFIG)
        for number in range(seed % 23 + 1):
            log.append_as_leader(sent(1, number, b"f" * 70))
        log.flush()
        last = log.log_end_offset - 1
        for number in range(last + 1, last + 1 + seed % 3):
            log.append_as_leader(sent(1, number, b"g" * 70))
        disk.lose_power()
        again = open_log(disk, config=CONFIG, recovery_point=log.recovery_point)
        known = again.log_end_offset
        for number in range(last if known == last + 1 else known - 1, last + 3):
            assert again.append_as_leader(sent(1, number, b"h" * 70)).base_offset == number, seed
        assert told(again) == in_log(again)
