"""Commits that go together: each caller is told of its own, whatever becomes of the others."""

import asyncio
from collections.abc import Mapping

import pytest

from streamcore.errors import BrokerUnreachableError, StreamcoreError, UnknownMemberError, UnknownTopicError
from streamcore.transport.base import Committed, Generation
from streamcore.transport.commits import REQUEST_MAX_PARTITIONS, Commits
from streamcore.types import TP


class Coordinator:
    """Takes offsets once it is told to, and refuses those of a topic `gone`."""

    def __init__(self) -> None:
        self.requests: list[dict[TP, Committed]] = []
        self.refusal: StreamcoreError | None = None
        self.open = asyncio.Event()

    async def send(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None) -> None:
        self.requests.append(dict(offsets))
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal
        if any(tp.topic == "gone" for tp in offsets):
            raise UnknownTopicError("gone")


def offsets(topic: str, *partitions: int) -> dict[TP, Committed]:
    return {TP(topic, partition): Committed(partition) for partition in partitions}


async def begin(commits: Commits, *wanted: dict[TP, Committed]) -> list["asyncio.Task[None]"]:
    tasks = [asyncio.create_task(commits.commit("g", each, None)) for each in wanted]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_what_comes_while_a_request_is_under_way_goes_with_the_next() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        commits = Commits(coordinator.send)
        first = await begin(commits, offsets("t", 0))
        later = await begin(commits, offsets("t", 1), offsets("t", 2), offsets("t", 3))
        coordinator.open.set()
        await asyncio.gather(*first, *later)
        assert coordinator.requests == [offsets("t", 0), offsets("t", 1, 2, 3)]

    asyncio.run(main())


def test_one_that_is_refused_does_not_take_the_others_with_it() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        commits = Commits(coordinator.send)
        first = await begin(commits, offsets("t", 0))
        good, bad = await begin(commits, offsets("t", 1), offsets("gone", 2))
        coordinator.open.set()
        await asyncio.gather(*first, good)
        with pytest.raises(UnknownTopicError):
            await bad

    asyncio.run(main())


def test_a_member_that_is_none_is_refused_once_for_all() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        coordinator.refusal = UnknownMemberError("g")
        commits = Commits(coordinator.send)
        tasks = await begin(commits, offsets("t", 0)) + await begin(commits, offsets("t", 1), offsets("t", 2))
        coordinator.open.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in found] == [UnknownMemberError] * 3
        assert len(coordinator.requests) == 2

    asyncio.run(main())


def test_a_caller_that_is_cancelled_is_missed_by_nobody() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        commits = Commits(coordinator.send)
        (cancelled,) = await begin(commits, offsets("t", 0))
        (other,) = await begin(commits, offsets("t", 1))
        cancelled.cancel()
        coordinator.open.set()
        await other
        assert cancelled.cancelled() or cancelled.cancelling()

    asyncio.run(main())


def test_generations_do_not_mix() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        coordinator.open.set()
        commits = Commits(coordinator.send)
        old, new = Generation(1, "m", None), Generation(2, "m", None)
        await asyncio.gather(
            commits.commit("g", offsets("t", 0), old),
            commits.commit("g", offsets("t", 1), new),
            commits.commit("h", offsets("t", 2), new),
        )
        assert len(coordinator.requests) == 3

    asyncio.run(main())


def test_a_request_stays_below_its_size() -> None:
    async def main() -> None:
        coordinator = Coordinator()
        commits = Commits(coordinator.send)
        first = await begin(commits, offsets("t", 0))
        rest = await begin(commits, *(offsets("t", number) for number in range(1, 2 * REQUEST_MAX_PARTITIONS)))
        coordinator.open.set()
        await asyncio.gather(*first, *rest)
        assert max(map(len, coordinator.requests)) == REQUEST_MAX_PARTITIONS

    asyncio.run(main())


def test_closing_ends_whoever_waits() -> None:
    async def main() -> None:
        commits = Commits(Coordinator().send)
        tasks = await begin(commits, offsets("t", 0)) + await begin(commits, offsets("t", 1))
        await commits.close()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(isinstance(each, BrokerUnreachableError) for each in found)

    asyncio.run(main())
