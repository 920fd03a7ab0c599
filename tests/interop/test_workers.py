"""Our own workers in a group of Apache Kafka, and of ours: they share, move, die and count every record once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.engine.counting import Counting, counting, member_id, take_out
from tests.interop.cluster import Cluster, fresh

pytestmark = pytest.mark.interop


def run(cluster: Cluster, directory: Path, test: Callable[[Counting], Awaitable[None]]) -> None:
    async def main() -> None:
        async with counting(f"kafka://{cluster.bootstrap}", directory, fresh("counting")) as app:
            await test(app)

    asyncio.run(main())


def test_workers_that_come_and_go_share_the_partitions_and_every_record_counts_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    async def test(app: Counting) -> None:
        await app.start("a")
        await app.shared(6)
        await app.send()
        await app.start("b")
        await app.send()
        await app.start("c")
        await app.send()
        await app.shared(2, 2, 2)
        await app.counted()
        await app.stop("a")
        await app.send()
        await app.shared(3, 3)
        await app.counted()
        await app.start("a")
        await app.shared(2, 2, 2)
        await app.send()
        await app.counted()

    run(cluster, tmp_path, test)


def test_a_worker_that_the_group_gave_up_joins_again(cluster: Cluster, tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        silent, _ = await app.start("a"), await app.start("b")
        await app.shared(3, 3)
        await app.send()
        await app.counted()
        before = member_id(silent)
        await take_out(app, silent)
        await app.until(lambda: member_id(silent) not in ("", before), "a member again")
        await app.send()
        await app.shared(3, 3)
        await app.counted()

    run(cluster, tmp_path, test)


def test_a_worker_that_starts_again_under_its_name_goes_on_without_a_meeting(cluster: Cluster, tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        first, second = await app.start("a", group_instance_id="a"), await app.start("b", group_instance_id="b")
        await app.shared(3, 3)
        await app.send()
        await app.counted()
        had = first.task_set.assigned
        # As if killed: it does not say that it leaves.
        assert first.membership is not None
        first.membership.member._member_id = ""
        await app.stop("a")
        again = await app.start("a", group_instance_id="a")
        assert again.task_set.assigned == had
        assert second.task_set.assigned == frozenset(range(6)) - had
        await app.send()
        await app.counted()

    run(cluster, tmp_path, test)
