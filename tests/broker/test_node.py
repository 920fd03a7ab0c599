"""What a node does by itself: flushing, retention, checkpoints, and a background that does not give up."""

import asyncio
import errno

import pytest

from streamcore.broker import shared_nodes
from streamcore.broker.node import Node, NodeConfig
from streamcore.clock import ManualClock
from streamcore.errors import DiskError, OutOfOrderSequenceError
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import Appended
from streamcore.records.codec import encode
from streamcore.types import TP
from tests.faults.faulty_disk import FaultyDisk
from tests.log.support import sent
from tests.transport.virtual_loop import run_virtually

NOW_MS = 1_700_000_000_000
A = TP("a", 0)
WITH_BACKGROUND = NodeConfig(off_loop=False, flush_interval_ms=1000, housekeeping_interval_ms=60_000)
SMALL_SEGMENTS = {"segment.bytes": "200", "retention.ms": "10000"}


def node_on(disk: FaultyDisk, clock: ManualClock | None = None) -> Node:
    clock = clock or ManualClock(NOW_MS)
    return Node(lambda: LogDirectory.open("/data", disk=disk, clock=clock), WITH_BACKGROUND, clock)


async def append(node: Node, value: bytes, timestamp_ms: int = NOW_MS) -> None:
    batch = encode([(b"key", value, timestamp_ms, ())])
    await node.append({A: [batch]}, records={A: 1}, durable=True)


def test_with_flush_interval_a_loss_of_power_takes_no_more_than_the_interval() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        node.create_topic("a", 1, {})
        await append(node, b"old enough")
        await asyncio.sleep(1.5)
        await append(node, b"too young")
        node.abandon()
        disk.lose_power()
        again = node_on(disk)
        await again.start()
        assert again.directory.log("a", 0).log_end_offset >= 1
        await again.stop()

    run_virtually(run())


def test_retention_frees_old_segments_by_itself() -> None:
    async def run() -> None:
        clock = ManualClock(NOW_MS)
        node = node_on(FaultyDisk(), clock)
        await node.start()
        node.create_topic("a", 1, SMALL_SEGMENTS)
        for number in range(20):
            await append(node, b"x" * 100, NOW_MS + number)
        clock.advance(30_000)
        await append(node, b"x" * 100, NOW_MS + 30_000)
        assert node.log_start_offset(A) == 0
        await asyncio.sleep(61)
        assert node.log_start_offset(A) == 20
        assert node.counters.retention_bytes > 2000
        await node.stop()

    run_virtually(run())


def test_background_work_that_fails_is_reported_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        node.create_topic("a", 1, {})
        await append(node, b"x")
        disk.fail("rename", errno.EIO, path="checkpoint")
        await asyncio.sleep(61)
        assert "the log's background work failed" in caplog.text
        await append(node, b"y")
        renames = [path for operation, path in disk.log if operation == "rename"]
        await asyncio.sleep(60)
        assert len([path for operation, path in disk.log if operation == "rename"]) > len(renames)
        await node.stop()

    run_virtually(run())


def test_an_orderly_stop_needs_no_verification_at_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        node.create_topic("a", 1, {})
        await append(node, b"x")
        await node.stop()
        assert "/data/.kafka_cleanshutdown" in disk.paths()
        disk.lose_power()
        again = node_on(disk)
        await again.start()
        assert again.directory.log("a", 0).log_end_offset == 1
        assert again.partitions()[0][1:] == (0, 1, again.directory.log("a", 0).size_bytes, None)
        await again.stop()

    run_virtually(run())


def test_a_topic_that_cannot_be_made_leaves_nothing_behind() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        disk.room = 0
        with pytest.raises(DiskError):
            node.create_topic("a", 2, {})
        disk.room = None
        assert dict(node.topics) == {}
        node.create_topic("a", 2, {})
        await node.stop()

    run_virtually(run())


def test_a_node_that_does_not_start_is_not_kept() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        disk.fail("list", errno.EIO)
        with pytest.raises(Exception, match="/data"):
            await shared_nodes.acquire("node", lambda: node_on(disk))
        node = await shared_nodes.acquire("node", lambda: node_on(disk))
        assert await shared_nodes.acquire("node", _never) is node
        await shared_nodes.release("node", node)
        await shared_nodes.release("node", node)
        await shared_nodes.release("node", node)  # one too many is harmless
        assert disk.held == {}

    run_virtually(run())


def _never() -> Node:
    raise AssertionError("there is one already")


def test_a_resent_batch_counts_no_records_and_wakes_nobody() -> None:
    async def run() -> None:
        node = node_on(FaultyDisk())
        await node.start()
        node.create_topic("a", 1, {})
        first = (await node.append({A: [sent(7, 0)]}, records={A: 1}, durable=True))[A]
        waiting = asyncio.create_task(node.fetch({A: 1}, max_bytes=100, total_max_bytes=100, max_wait_ms=10_000))
        await asyncio.sleep(0.1)
        woken = []
        node._delayed.wake = woken.append  # type: ignore[method-assign]
        counted = (node.counters_of("a").records_in, node.counters_of("a").bytes_in)
        again = (await node.append({A: [sent(7, 0)]}, records={A: 1}, durable=True))[A]
        assert isinstance(first, Appended)
        assert again == first._replace(is_duplicate=True)
        assert (node.counters_of("a").records_in, node.counters_of("a").bytes_in) == counted
        assert not woken
        assert not waiting.done()
        await node.stop()
        await waiting

    run_virtually(run())


def test_with_flush_always_a_resent_batch_is_answered_after_a_sync_as_well() -> None:
    """Its first append may not have been synced when its request was given up."""

    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        node.config = NodeConfig(off_loop=False, flush="always", background=False)
        await node.start()
        node.create_topic("a", 1, {})
        await node.append({A: [sent(7, 0)]}, records={A: 1}, durable=False)
        log = node.directory.log("a", 0)
        assert log.recovery_point == 0
        await node.append({A: [sent(7, 0)]}, records={A: 1}, durable=True)
        assert log.recovery_point == 1
        await node.stop()

    run_virtually(run())


def test_a_group_of_batches_that_fails_after_a_resent_one_takes_nothing_back() -> None:
    async def run() -> None:
        node = node_on(FaultyDisk())
        await node.start()
        node.create_topic("a", 1, SMALL_SEGMENTS)
        await node.append({A: [sent(7, 0, b"x" * 100)]}, records={A: 1}, durable=True)
        await node.append({A: [sent(7, 1, b"x" * 100)]}, records={A: 1}, durable=True)
        batches = [sent(7, 0, b"x" * 100), sent(7, 9, b"x" * 100)]
        answer = (await node.append({A: batches}, records={A: 2}, durable=True))[A]
        assert isinstance(answer, OutOfOrderSequenceError)
        assert node.directory.log("a", 0).log_end_offset == 2
        await node.stop()

    run_virtually(run())
