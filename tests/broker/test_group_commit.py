import asyncio
from collections.abc import Iterable, Mapping

import pytest

from streamcore.broker.group_commit import GroupCommit
from streamcore.errors import LogOfflineError
from streamcore.types import TP

A, B = TP("a", 0), TP("b", 0)


class SlowSync:
    """A sync that ends when the test says so."""

    def __init__(self) -> None:
        self.rounds: list[list[TP]] = []
        self.failing: dict[TP, LogOfflineError] = {}
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, tps: Iterable[TP]) -> Mapping[TP, LogOfflineError]:
        round_ = list(tps)
        self.rounds.append(round_)
        await self.gate.acquire()
        return {tp: error for tp, error in self.failing.items() if tp in round_}


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_that_come_during_a_round_share_the_next_one() -> None:
    async def run() -> None:
        sync = SlowSync()
        commit = GroupCommit(sync)
        first = asyncio.create_task(commit.durable([A]))
        await settle()
        later = [asyncio.create_task(commit.durable([tp])) for tp in (A, B, A, B)]
        await settle()
        assert sync.rounds == [[A]]
        sync.gate.release()
        await first
        await settle()
        assert sync.rounds == [[A], [A, B]]
        assert not any(task.done() for task in later)
        sync.gate.release()
        assert await asyncio.gather(*later) == [{}, {}, {}, {}]
        await commit.close()

    asyncio.run(run())


def test_replies_leave_in_the_order_of_the_requests() -> None:
    async def run() -> None:
        sync = SlowSync()
        commit = GroupCommit(sync)
        order: list[int] = []

        async def request(number: int) -> None:
            await commit.durable([A])
            order.append(number)

        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(request(number)))
            if number % 7 == 0:
                await settle()
                sync.gate.release()
        for _ in range(20):
            sync.gate.release()
        await asyncio.gather(*tasks)
        assert order == list(range(20))

    asyncio.run(run())


def test_a_failed_partition_fails_those_who_wrote_to_it_and_nobody_else() -> None:
    async def run() -> None:
        sync = SlowSync()
        commit = GroupCommit(sync)
        sync.failing = {A: LogOfflineError("EIO")}
        sync.gate.release()
        failed, fine = await asyncio.gather(commit.durable([A, B]), commit.durable([B]))
        assert list(failed) == [A]
        assert fine == {}

    asyncio.run(run())


def test_cancelling_one_request_leaves_the_round_to_the_others() -> None:
    async def run() -> None:
        sync = SlowSync()
        commit = GroupCommit(sync)
        cancelled = asyncio.create_task(commit.durable([A]))
        other = asyncio.create_task(commit.durable([A]))
        await settle()
        cancelled.cancel()
        await settle()
        sync.gate.release()
        assert await other == {}
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(run())


def test_a_sync_that_breaks_tells_its_round_and_the_next_one_works() -> None:
    async def run() -> None:
        broken = True

        async def sync(tps: Iterable[TP]) -> Mapping[TP, LogOfflineError]:
            if broken:
                raise ValueError("a mistake of ours")
            return {}

        commit = GroupCommit(sync)
        with pytest.raises(ValueError, match="a mistake of ours"):
            await commit.durable([A])
        broken = False
        assert await commit.durable([A]) == {}

    asyncio.run(run())
