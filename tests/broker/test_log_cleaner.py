"""Compaction in the background of a node: beside produce and fetch, through errors, across a stop."""

import asyncio
import errno
from pathlib import Path

import pytest

from streamcore.broker.node import Node, NodeConfig
from streamcore.clock import SYSTEM_CLOCK, ManualClock
from streamcore.errors import StreamcoreError
from streamcore.log.directory import LogDirectory
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import decode, encode
from streamcore.types import TP
from tests.faults.faulty_disk import FaultyDisk
from tests.transport.virtual_loop import run_virtually

NOW_MS = 1_700_000_000_000
A = TP("a", 0)
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": "400", "min.cleanable.dirty.ratio": "0.3"}


def node_on(disk: FaultyDisk) -> Node:
    clock = ManualClock(NOW_MS)
    return Node(lambda: LogDirectory.open("/data", disk=disk, clock=clock), NodeConfig(off_loop=False), clock)


async def append(node: Node, key: int, value: bytes = b"v" * 30, tp: TP = A) -> None:
    batch = encode([(b"%d" % key, value, NOW_MS, ())])
    result = (await node.append({tp: [batch]}, records={tp: 1}, durable=True))[tp]
    if isinstance(result, StreamcoreError):
        raise result


def newest(node: Node) -> dict[bytes | None, tuple[int, bytes | None]]:
    """By key, read as a consumer does."""
    log = node.directory.log(*A)
    found: dict[bytes | None, tuple[int, bytes | None]] = {}
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 1 << 20)
        assert len(data), f"a reader is stuck at {offset} of {log.log_end_offset}"
        for batch in split(data):
            offset = BatchHeader.parse(batch).last_offset + 1
            found.update({record.key: (record.offset, record.value) for record in decode(batch)})
    return found


def test_a_compacted_topic_shrinks_by_itself_and_outlives_a_crash() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        node.create_topic("a", 1, COMPACTED)
        for number in range(100):
            await append(node, number % 5)
        before = newest(node)
        await asyncio.sleep(40)
        assert newest(node) == before
        assert node.counters.compactions >= 1
        assert node.counters.compaction_bytes > 5000
        assert node.directory.log(*A).size_bytes < 2000
        await node.keep_house()
        assert b"a 0 " in disk.contents("/data/cleaner-offset-checkpoint")
        node.abandon()
        disk.kill()
        again = node_on(disk)
        await again.start()
        assert newest(again) == before
        assert again.directory.log(*A).log_end_offset == 100
        await again.stop()

    run_virtually(run())


def test_a_reader_gets_past_what_was_compacted_away() -> None:
    async def run() -> None:
        node = node_on(FaultyDisk())
        await node.start()
        node.create_topic("a", 1, {**COMPACTED, "delete.retention.ms": "0"})
        for number in range(20):
            await append(node, number % 5)
        batch = encode([(b"%d" % key, None, NOW_MS, ()) for key in range(5)])
        await node.append({A: [batch]}, records={A: 5}, durable=True)
        log = node.directory.log(*A)
        log.roll()
        await node.flush()
        await node.compact()
        for number in range(20):  # the tombstones are due with the next pass
            await append(node, 7, b"%d" % number * 30)
        await node.flush()
        await node.compact()
        assert list(newest(node)) == [b"7"]
        assert log.log_end_offset == 45
        assert not [r for batch in split(log.read(0, 1 << 20)) for r in decode(batch) if r.key != b"7"]
        await node.stop()

    run_virtually(run())


def test_a_full_disk_is_waited_out_and_a_damaged_log_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        node = node_on(disk)
        await node.start()
        node.create_topic("a", 1, COMPACTED)
        for number in range(100):
            await append(node, number % 5)
        await node.flush()
        before = newest(node)
        disk.fail("write", errno.ENOSPC, path=".cleaned", times=None)
        await node.compact()
        assert "tried again later" in caplog.text
        assert newest(node) == before
        assert not [path for path in disk.paths() if ".cleaned" in path]
        disk.heal()
        path = node.directory.log(*A).segments[0].log_path
        good = disk.contents(path)
        disk.set_contents(path, good[:65] + b"\xff" + good[66:])
        await node.compact()
        assert "not compacted any more until the next start" in caplog.text
        assert node.counters.compactions == 0
        disk.set_contents(path, good)
        await node.compact()
        assert node.counters.compactions == 0
        await node.stop()
        again = node_on(disk)
        await again.start()
        await again.compact()
        assert again.counters.compactions == 1
        assert newest(again) == before
        await again.stop()

    run_virtually(run())


def test_producers_and_readers_go_on_beside_the_cleaner(tmp_path: Path) -> None:
    """On a real disk, with the cleaner, the syncs and the loop in their own threads."""

    async def run() -> None:
        node = Node(
            lambda: LogDirectory.open(str(tmp_path), clock=SYSTEM_CLOCK),
            NodeConfig(flush_interval_ms=5, cleaner_interval_ms=10),
            SYSTEM_CLOCK,
        )
        await node.start()
        node.create_topic("a", 1, {**COMPACTED, "segment.bytes": "20000"})
        expected: dict[bytes | None, tuple[int, bytes | None]] = {}
        number = 0
        async with asyncio.timeout(60):
            while node.counters.compactions < 5:
                value = b"%d" % number * 20
                await append(node, number % 50, value)
                expected[b"%d" % (number % 50)] = (number, value)
                number += 1
                if number % 50 == 0:
                    await asyncio.sleep(0.02)
                if number % 500 == 0:
                    assert newest(node) == expected
        assert node.directory.offline_partitions == {}
        await node.stop()
        await node.start()
        assert newest(node) == expected
        assert node.directory.log(*A).log_end_offset == number
        await node.stop()

    asyncio.run(run())
