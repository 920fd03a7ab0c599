"""The coordinator of transactions on a real node over a faulty disk: nothing half, whatever dies when."""

import asyncio
import errno
from collections.abc import Collection, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets_topic import OFFSETS_TP
from streamcore.broker.coordinator.transaction import TransactionRefusedError, TransactionState
from streamcore.broker.coordinator.transaction_log import TRANSACTIONS_TP, TransactionLog
from streamcore.broker.coordinator.transactions import MARKER_RETRY_S, TransactionCoordinator
from streamcore.broker.node import Node, NodeConfig
from streamcore.clock import ManualClock
from streamcore.log.directory import LogDirectory
from streamcore.protocol.error_codes import ErrorCode
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import ProducerStamp, encode_stamped
from streamcore.records.control import Aborted, decode_marker
from streamcore.transport.batches import decode_batches
from streamcore.types import TP
from tests.faults.faulty_disk import FaultyDisk, Killed
from tests.transport.virtual_loop import run_virtually

NOW_MS = 1_700_000_000_000
TIMEOUT_MS = 60_000
DEAD_S = 30.0
A, B, C = TP("t", 0), TP("t", 1), TP("t", 2)


class Cluster:
    """One node and its coordinator; `kill` and `start` again are a crash."""

    def __init__(self, *, flush: str = "interval") -> None:
        self.disk = FaultyDisk()
        self.clock = ManualClock(NOW_MS)
        self._config = NodeConfig(background=False, off_loop=False, flush=flush)  # type: ignore[arg-type]
        self._ids = iter(range(1000, 1_000_000))

    async def start(self) -> "Cluster":
        self.node = Node(lambda: LogDirectory.open("/data", disk=self.disk, clock=self.clock), self._config, self.clock)
        await self.node.start()
        if "t" not in self.node.topics:
            self.node.create_topic("t", 3, {})
        self.coordinator = TransactionCoordinator(
            TransactionLog(self.node, self.clock),
            self.clock,
            lambda: next(self._ids),
            expiration_ms=lambda: 1_000_000,
        )
        await self.coordinator.start()
        return self

    async def crash(self, *, power: bool = False) -> "Cluster":
        await self.coordinator.stop()
        self.node.abandon()
        if power:
            self.disk.lose_power()
        else:
            self.disk.kill()
        return await self.start()

    async def stop(self) -> None:
        await self.coordinator.stop()
        await self.node.stop()

    async def begin(self, name: str = "x", timeout_ms: int = TIMEOUT_MS) -> tuple[int, int]:
        return await self.coordinator.initialise(name, timeout_ms, None)

    async def write(
        self, producer: tuple[int, int], tps: Iterable[TP], value: bytes, name: str = "x", version: int = 2
    ) -> None:
        tps = list(tps)
        await self.coordinator.add_partitions(name, *producer, tps, version)
        for tp in tps:
            self.coordinator.check_write(name, *producer, tp)
            sequence = self.node.directory.log(*tp).producers.next_sequence(*producer)
            stamp = ProducerStamp(*producer, sequence, is_transactional=True)
            batch = encode_stamped([(b"k", value, NOW_MS, ())], stamp)
            (result,) = (await self.node.append({tp: [batch]}, records={tp: 1}, durable=True)).values()
            if isinstance(result, Exception):
                raise result

    async def end(
        self, producer: tuple[int, int], *, commit: bool, name: str = "x", version: int = 2
    ) -> tuple[int, int]:
        return await self.coordinator.end(name, *producer, is_commit=commit, client_version=version)

    def committed(self, tp: TP) -> list[bytes]:
        """What a reader of committed records gets."""
        log = self.node.directory.log(*tp)
        values: list[bytes] = []
        offset = log.log_start_offset
        while data := log.read(offset, 1 << 20, is_committed_only=True):
            found = log.aborted_transactions(offset, log.read_end_offset)
            aborted = [Aborted(one.first_offset, one.producer_id) for one in found]
            records, offset, corrupt = decode_batches(data, offset, aborted)
            assert corrupt is None
            values += [record.value or b"" for record in records.all()]
        return values

    def markers(self, tp: TP) -> list[tuple[int, int, bool]]:
        """(producer id, epoch, whether it commits) of each, in order."""
        log = self.node.directory.log(*tp)
        found: list[tuple[int, int, bool]] = []
        for batch in split(log.read(log.log_start_offset, 1 << 20)) if log.log_end_offset else ():
            header = BatchHeader.parse(batch)
            if header.is_control and (marker := decode_marker(batch)) is not None:
                found.append((header.producer_id, header.producer_epoch, marker.is_commit))
        return found

    def is_stable(self, tps: Collection[TP] = (A, B, C)) -> bool:
        logs = [self.node.directory.log(*tp) for tp in tps]
        return all(log.last_stable_offset == log.high_watermark for log in logs)


async def refused(awaitable: object) -> str:
    with pytest.raises(TransactionRefusedError) as error:
        await awaitable  # type: ignore[misc]
    return error.value.error_code.name


def test_what_is_committed_is_there_at_once_and_what_is_aborted_never() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        first = await cluster.begin()
        await cluster.write(first, [A, B], b"one")
        assert cluster.committed(A) == []
        second = await cluster.end(first, commit=True)
        assert second == (first[0], first[1] + 1)
        assert cluster.committed(A) == cluster.committed(B) == [b"one"]
        await cluster.write(second, [A, C], b"two")
        third = await cluster.end(second, commit=False)
        await cluster.write(third, [A], b"three")
        await cluster.end(third, commit=True)
        assert cluster.committed(A) == [b"one", b"three"]
        assert cluster.committed(C) == []
        assert cluster.is_stable()
        cluster = await cluster.crash()
        assert cluster.committed(A) == [b"one", b"three"]
        assert await cluster.begin() == (first[0], third[1] + 2), "the epoch grows over a restart"
        await cluster.stop()

    run_virtually(run())


def test_nothing_of_the_last_transaction_counts_for_the_next() -> None:
    """LOG_INVARIANTS 35: a producer's delayed requests come with an epoch that has been used up."""

    async def run() -> None:
        cluster = await Cluster().start()
        first = await cluster.begin()
        await cluster.write(first, [A], b"one")
        second = await cluster.end(first, commit=True)
        assert await refused(cluster.write(first, [A], b"late")) == "PRODUCER_FENCED"
        await cluster.write(second, [A], b"two")
        assert await refused(cluster.end(first, commit=True)) == "PRODUCER_FENCED"
        assert cluster.committed(A) == [b"one"]
        await cluster.end(second, commit=False)
        assert await cluster.end(second, commit=False) == (second[0], second[1] + 1), "its answer was lost"
        assert cluster.committed(A) == [b"one"]
        await cluster.stop()

    run_virtually(run())


def test_a_new_producer_aborts_what_the_old_one_has_open_and_fences_it() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        old = await cluster.begin()
        await cluster.write(old, [A, B], b"old")
        new = await cluster.begin()
        assert new[0] == old[0]
        assert new[1] > old[1] + 1, "the epoch that fenced it is nobody's"
        assert cluster.is_stable()
        assert await refused(cluster.write(old, [A], b"zombie")) == "PRODUCER_FENCED"
        assert await refused(cluster.end(old, commit=True)) == "PRODUCER_FENCED"
        await cluster.write(new, [A], b"new")
        # One that wants to go on, and has been replaced, must not end what its successor has open.
        assert await refused(cluster.coordinator.initialise("x", TIMEOUT_MS, old)) == "PRODUCER_FENCED"
        await cluster.end(new, commit=True)
        assert cluster.committed(A) == [b"new"]
        await cluster.stop()

    run_virtually(run())


def test_a_transaction_that_is_open_for_too_long_is_aborted_before_and_after_a_restart() -> None:
    """LOG_INVARIANTS 36."""

    async def run() -> None:
        cluster = await Cluster().start()
        slow, quick = await cluster.begin("slow", 10_000), await cluster.begin("quick", 1_000)
        await cluster.write(slow, [A], b"slow", "slow")
        await cluster.write(quick, [A], b"quick", "quick")
        await asyncio.sleep(0.9)
        assert not cluster.is_stable()
        await cluster.write(quick, [B], b"growing does not help", "quick")
        await asyncio.sleep(0.2)
        assert cluster.is_stable([B])
        assert not cluster.is_stable([A])
        assert await refused(cluster.end(quick, commit=True, name="quick")) == "PRODUCER_FENCED"
        cluster.clock.advance(9_000)
        cluster = await cluster.crash()
        await asyncio.sleep(1.1)
        assert cluster.is_stable()
        assert cluster.committed(A) == cluster.committed(B) == []
        await cluster.stop()

    run_virtually(run())


def test_a_second_transaction_has_its_own_time_and_a_shorter_timeout_counts_at_once() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin("x", 2_000)
        await cluster.write(producer, [A], b"one", version=0)
        await asyncio.sleep(1.5)
        await cluster.end(producer, commit=True, version=0)
        await cluster.write(producer, [A], b"two", version=0)
        await asyncio.sleep(1)
        assert cluster.coordinator.tally().by_state[TransactionState.ONGOING] == 1
        await cluster.end(producer, commit=True, version=0)
        shorter = await cluster.begin("x", 100)
        await cluster.write(shorter, [A], b"three")
        await asyncio.sleep(0.2)
        assert cluster.is_stable()
        assert cluster.committed(A) == [b"one", b"two"]
        await cluster.stop()

    run_virtually(run())


def test_a_partition_that_is_full_gets_its_marker_later_and_meanwhile_the_id_is_busy() -> None:
    """LOG_INVARIANTS 33 and 34."""

    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin()
        await cluster.write(producer, [A, B, C], b"v")
        cluster.disk.fail("write", errno.ENOSPC, path="/data/t-1/", times=2)
        await cluster.end(producer, commit=True)
        assert cluster.committed(A) == cluster.committed(C) == [b"v"]
        assert cluster.committed(B) == []
        assert await refused(cluster.end(producer, commit=True)) == "CONCURRENT_TRANSACTIONS"
        assert await refused(cluster.begin()) == "CONCURRENT_TRANSACTIONS"
        await asyncio.sleep(3 * MARKER_RETRY_S)
        assert cluster.committed(B) == [b"v"]
        assert [len(cluster.markers(tp)) for tp in (A, B, C)] == [1, 1, 1]
        following = await cluster.end(producer, commit=True)
        assert following == (producer[0], producer[1] + 1)
        await cluster.stop()

    run_virtually(run())


def test_a_log_that_takes_no_state_refuses_and_changes_nothing() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin()
        cluster.disk.fail("write", errno.ENOSPC, path="/data/__transaction_state-0/", times=None)
        assert await refused(cluster.write(producer, [A], b"v")) == "COORDINATOR_NOT_AVAILABLE"
        assert await refused(cluster.begin("y")) == "COORDINATOR_NOT_AVAILABLE"
        cluster.disk.heal()
        await cluster.write(producer, [A], b"v")
        await cluster.end(producer, commit=True)
        assert cluster.committed(A) == [b"v"]
        assert cluster.coordinator.describe("y") is None
        await cluster.stop()

    run_virtually(run())


def test_a_topic_that_is_deleted_has_nothing_to_end() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        cluster.node.create_topic("gone", 1, {})
        producer = await cluster.begin()
        await cluster.write(producer, [A, TP("gone", 0)], b"v")
        cluster.node.delete_topic("gone")
        await cluster.end(producer, commit=True)
        found = cluster.coordinator.describe("x")
        assert found is not None
        assert found.state is TransactionState.COMPLETE_COMMIT
        await cluster.stop()

    run_virtually(run())


def test_offsets_count_with_the_marker_and_a_later_commit_is_not_overruled() -> None:
    """LOG_INVARIANTS 38."""

    async def run() -> None:
        cluster = await Cluster().start()
        node = cluster.node
        await node.commit("g", {A: OffsetValue(1), B: OffsetValue(1)})
        producer = await cluster.begin()
        await cluster.coordinator.add_partitions("x", *producer, [OFFSETS_TP], 2)
        await node.commit_in_transaction("g", {A: OffsetValue(5), B: OffsetValue(5), C: OffsetValue(5)}, *producer)
        assert {tp: value.offset for tp, value in node.committed("g", None).items()} == {A: 1, B: 1}
        assert [node.is_unstable("g", tp) for tp in (A, B, C)] == [True, True, True]
        await node.commit("g", {B: OffsetValue(2)})
        cluster = await cluster.crash()
        node = cluster.node
        assert node.is_unstable("g", A)
        await cluster.end(producer, commit=True)
        for _ in range(2):
            assert {tp: value.offset for tp, value in node.committed("g", None).items()} == {A: 5, B: 2, C: 5}
            assert not node.is_unstable("g", A)
            cluster = await cluster.crash()
            node = cluster.node
        await cluster.stop()

    run_virtually(run())


def test_aborted_offsets_never_count() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin()
        await cluster.coordinator.add_partitions("x", *producer, [OFFSETS_TP], 2)
        await cluster.node.commit_in_transaction("g", {A: OffsetValue(5)}, *producer)
        await cluster.end(producer, commit=False)
        assert cluster.node.committed("g", None) == {}
        cluster = await cluster.crash()
        assert cluster.node.committed("g", None) == {}
        await cluster.stop()

    run_virtually(run())


def test_an_id_that_nobody_uses_is_forgotten() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        await cluster.begin("unused")
        busy = await cluster.begin("open", 900_000_000)
        await cluster.write(busy, [A], b"v", "open")
        cluster.clock.advance(1_000_001)
        assert await cluster.coordinator.expire() == 1
        for _ in range(2):
            assert [t.transactional_id for t in cluster.coordinator.transactions()] == ["open"]
            cluster = await cluster.crash()
        await cluster.stop()

    run_virtually(run())


def test_a_transaction_that_nobody_knows_of_is_ended_by_a_start() -> None:
    """Its `__transaction_state` was lost: nobody else could ever end it."""

    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin()
        await cluster.write(producer, [A], b"orphan")
        for path in cluster.disk.paths():
            if TRANSACTIONS_TP.topic in path and path.endswith(".log"):
                cluster.disk.set_contents(path, b"")
        cluster = await cluster.crash()
        assert cluster.is_stable()
        assert cluster.committed(A) == []
        await cluster.stop()

    run_virtually(run())


def test_without_its_coordinator_every_request_is_told_to_come_back() -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        producer = await cluster.begin()
        await cluster.coordinator.stop()
        assert await refused(cluster.begin()) == "COORDINATOR_NOT_AVAILABLE"
        assert await refused(cluster.end(producer, commit=True)) == "COORDINATOR_NOT_AVAILABLE"
        await cluster.stop()

    run_virtually(run())


@pytest.mark.parametrize("name", ["", "unknown"])
def test_ids_that_are_none(name: str) -> None:
    async def run() -> None:
        cluster = await Cluster().start()
        code = ErrorCode.INVALID_PRODUCER_ID_MAPPING if name else ErrorCode.INVALID_REQUEST
        assert await refused(cluster.write((1, 0), [A], b"v", name)) == code.name
        assert await refused(cluster.end((1, 0), commit=True, name=name)) == code.name
        await cluster.stop()

    run_virtually(run())


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_whatever_dies_when_all_of_a_transaction_is_there_or_nothing(data: st.DataObject) -> None:
    """LOG_INVARIANTS 32 and 33: a kill at any step of the disk, a loss of power where every write is synced."""
    flush = data.draw(st.sampled_from(["interval", "always"]), "flush")

    async def run() -> None:
        cluster = await Cluster(flush=flush).start()
        told: dict[bytes, bool | None] = {}  # by a transaction's value: committed, aborted, or nobody was told
        written: dict[bytes, list[TP]] = {}
        producers: dict[str, tuple[int, int] | None] = {"x": None, "y": None}
        ongoing: dict[str, bytes] = {}
        for number in range(data.draw(st.integers(1, 10), "steps")):
            name = data.draw(st.sampled_from(["x", "y"]), "id")
            kill_after = data.draw(st.none() | st.integers(1, 25), "dies after")
            if kill_after is not None:
                cluster.disk.kill_after(kill_after)
            value = b"%s-%d" % (name.encode(), number)
            try:
                # A death in the task that syncs is seen by nobody else.
                async with asyncio.timeout(DEAD_S):
                    producer = producers[name]
                    if producer is None:
                        if name in ongoing:
                            told[ongoing.pop(name)] = False  # whoever comes next aborts it
                        producers[name] = await cluster.begin(name)
                    elif name not in ongoing:
                        tps = data.draw(st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True), "partitions")
                        ongoing[name] = value
                        written[value], told[value] = tps, None
                        await cluster.write(producer, tps, value, name)
                    else:
                        commit = data.draw(st.booleans(), "commit")
                        value = ongoing.pop(name)
                        producers[name] = None
                        producers[name] = await cluster.end(producer, commit=commit, name=name)
                        told[value] = commit
            except (Killed, TimeoutError):
                producers, ongoing = {"x": None, "y": None}, {}
                cluster = await cluster.crash(power=flush == "always" and data.draw(st.booleans(), "power"))
            cluster.disk.heal()
        cluster = await cluster.crash(power=flush == "always")
        for name in producers:
            await cluster.begin(name)
        assert cluster.is_stable()
        seen = {tp: cluster.committed(tp) for tp in (A, B, C)}
        for value, tps in written.items():
            places = [tp for tp in tps if value in seen[tp]]
            assert places in ([], tps), f"half of {value!r} is there: {places} of {tps}"
            assert told[value] is None or bool(places) == told[value], f"{value!r} was told as {told[value]}"
        for tp in (A, B, C):
            assert len(seen[tp]) == len(set(seen[tp]))
            assert len(cluster.markers(tp)) == len(set(cluster.markers(tp))), "a marker was written twice"
        await cluster.stop()

    run_virtually(run())
