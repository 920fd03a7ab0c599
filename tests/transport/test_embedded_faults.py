"""What a full, failing or forgetful disk does to those who produce, fetch and commit."""

import asyncio
import errno
import random
from pathlib import Path

import pytest

from streamcore.broker import shared_nodes
from streamcore.broker.node import NodeConfig
from streamcore.errors import DirectoryUnusableError, DiskError, LogOfflineError
from streamcore.log.disk import RealDisk
from streamcore.transport.base import Acks, Committed
from streamcore.transport.embedded import EmbeddedTransport
from tests.faults.faulty_disk import FaultyDisk
from tests.transport.support import A0, A1, opened, read_all, records

SEGMENT_OF_A0 = "a-0/00000000000000000000.log"
IN_TEST = NodeConfig(background=False, off_loop=False)


def transport_on(disk: FaultyDisk, flush: str = "interval") -> EmbeddedTransport:
    return EmbeddedTransport("/data", disk=disk, flush=flush, config=IN_TEST)


def die(transport: EmbeddedTransport) -> None:
    """The process ends here, as far as the log can tell."""
    shared_nodes.abandon(transport._shared_name)


def test_a_full_disk_refuses_records_and_takes_them_again_when_there_is_room() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with opened(transport_on(disk), {"a": 2}) as transport:
            await transport.produce({A0: records(b"before")})
            disk.room = 40
            results = await transport.produce({A0: records(b"x" * 1000), A1: records(b"x" * 1000)})
            assert [type(result) for result in results.values()] == [DiskError, DiskError]
            assert await read_all(transport, A0) == [(0, b"before")]
            with pytest.raises(DiskError):
                await transport.commit("g", {A0: Committed(1)})
            assert await transport.committed("g") == {}
            disk.room = None
            assert await transport.produce({A0: records(b"after")}) == {A0: 1}
            await transport.commit("g", {A0: Committed(2)})
            assert await read_all(transport, A0) == [(0, b"before"), (1, b"after")]

    asyncio.run(run())


def test_a_failed_write_puts_its_partition_offline_and_no_other() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with opened(transport_on(disk), {"a": 2}) as transport:
            poll = asyncio.create_task(transport.fetch({A0: 0}, max_wait_ms=3_600_000))
            await asyncio.sleep(0)
            disk.fail("write", errno.EIO, path=SEGMENT_OF_A0)
            results = await transport.produce({A0: records(b"x"), A1: records(b"fine")})
            assert isinstance(results[A0], LogOfflineError)
            assert results[A1] == 0
            again = await transport.produce({A0: records(b"x")})
            assert isinstance(again[A0], LogOfflineError)
            (share,) = await poll
            assert isinstance(share.error, LogOfflineError)
            shares = {share.tp: share for share in await transport.fetch({A0: 0, A1: 0})}
            assert isinstance(shares[A0].error, LogOfflineError)
            assert [r.value for r in shares[A1].records] == [b"fine"]
            offline = {info.tp: info.offline for info in await transport.describe_partitions()}
            assert offline[A1] is None
            assert "a write failed" in (offline[A0] or "")

    asyncio.run(run())


def test_a_failed_sync_is_answered_to_all_who_waited_and_never_tried_again() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with opened(transport_on(disk, "always"), {"a": 2}) as transport:
            disk.fail("sync", errno.EIO, path=SEGMENT_OF_A0)
            one, two = await asyncio.gather(
                transport.produce({A0: records(b"x"), A1: records(b"fine")}), transport.produce({A0: records(b"y")})
            )
            assert isinstance(one[A0], LogOfflineError)
            assert one[A1] == 0
            assert isinstance(two[A0], LogOfflineError)
            later = await transport.produce({A0: records(b"z")}, acks=Acks.LEADER)
            assert isinstance(later[A0], LogOfflineError)
            assert await transport.produce({A1: records(b"fine")}) == {A1: 1}
            assert transport.counters.failed_flushes == 1

    asyncio.run(run())


def test_a_commit_whose_sync_fails_is_an_error() -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with opened(transport_on(disk, "always"), {"a": 1}) as transport:
            await transport.commit("g", {A0: Committed(1)})
            disk.fail("sync", errno.EIO, path="__consumer_offsets-0/00000000000000000000.log")
            with pytest.raises(LogOfflineError):
                await transport.commit("g", {A0: Committed(2)})
            assert await transport.produce({A0: records(b"fine")}) == {A0: 0}

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_what_was_acknowledged_under_flush_always_survives_a_loss_of_power(seed: int) -> None:
    async def run() -> None:
        disk = FaultyDisk(seed)
        chance = random.Random(seed)
        acknowledged: list[bytes] = []
        committed = 0
        for life in range(4):
            transport = transport_on(disk, "always")
            await transport.start()
            if life == 0:
                await transport.create_topic("a", partitions=1, config={"segment.bytes": "700"})
            kept = [value for _, value in await read_all(transport, A0)]
            assert kept[: len(acknowledged)] == acknowledged
            assert (await transport.committed("g")).get(A0, Committed(0)).offset >= committed
            # Records that nobody was promised may have survived, too.
            acknowledged = [value or b"" for value in kept]
            for _ in range(chance.randrange(1, 12)):
                value = b"%d" % chance.randrange(10**9) * chance.randrange(1, 20)
                acks = Acks.ALL if chance.random() < 0.7 else Acks.LEADER
                (base_offset,) = (await transport.produce({A0: records(value)}, acks=acks)).values()
                if acks is Acks.ALL:
                    acknowledged = [value or b"" for _, value in await read_all(transport, A0)]
                    assert base_offset == len(acknowledged) - 1
                if chance.random() < 0.3:
                    await transport.commit("g", {A0: Committed(len(acknowledged))})
                    committed = len(acknowledged)
            die(transport)
            disk.lose_power()

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(10))
def test_what_was_acknowledged_survives_a_killed_process_under_any_policy(seed: int) -> None:
    async def run() -> None:
        disk = FaultyDisk(seed)
        chance = random.Random(seed)
        expected: list[bytes] = []
        for life in range(4):
            transport = transport_on(disk)
            await transport.start()
            if life == 0:
                await transport.create_topic("a", partitions=1, config={"segment.bytes": "700"})
            assert [value for _, value in await read_all(transport, A0)] == expected
            assert (await transport.committed("g")).get(A0, Committed(0)).offset == len(expected)
            for _ in range(chance.randrange(1, 12)):
                value = b"%d" % chance.randrange(10**9) * chance.randrange(1, 20)
                await transport.produce({A0: records(value)}, acks=Acks.LEADER)
                expected.append(value)
            await transport.commit("g", {A0: Committed(len(expected))})
            die(transport)
            disk.kill()

    asyncio.run(run())


def test_group_commit_syncs_once_for_many_requests_off_the_event_loop(tmp_path: Path) -> None:
    class CountingDisk(RealDisk):
        syncs = 0

        def open(self, path: str, **how: bool):  # type: ignore[no-untyped-def]
            file = super().open(path, **how)
            if path.endswith(".log"):
                sync = file.sync

                def counted() -> None:
                    CountingDisk.syncs += 1
                    sync()

                return _Counted(file, counted)
            return file

    async def run() -> None:
        async with opened(EmbeddedTransport(str(tmp_path), disk=CountingDisk(), flush="always"), {"a": 1}) as transport:
            CountingDisk.syncs = 0
            results = await asyncio.gather(*(transport.produce({A0: records(b"%d" % n)}) for n in range(200)))
            assert sorted(result[A0] for result in results) == list(range(200))
            assert CountingDisk.syncs <= 3

    asyncio.run(run())


def test_a_read_only_directory_is_refused_in_one_sentence() -> None:
    disk = FaultyDisk()
    disk.read_only = True
    with pytest.raises(DirectoryUnusableError, match="let this user write there, or use another directory"):
        asyncio.run(transport_on(disk).start())


class _Counted:
    """A file whose sync is counted."""

    def __init__(self, file, sync) -> None:  # type: ignore[no-untyped-def]
        self._file = file
        self.sync = sync

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._file, name)
