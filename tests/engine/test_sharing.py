"""Several workers of one app: who has what, what moves, and that nothing is counted twice or forgotten."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streamcore.errors import FencedInstanceError, GroupNotEmptyError, UsageError
from streamcore.transport.base import Committed
from streamcore.types import TP
from tests.broker.wire import serving
from tests.engine.counting import PARTITIONS, PATIENCE_S, Counting, counting, member_id, take_out


def run(directory: Path, test: Callable[[Counting], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(directory / "log") as server:
            url = f"kafka://127.0.0.1:{server.broker.endpoint.port}"
            async with counting(url, directory) as app:
                await test(app)

    asyncio.run(main())


def test_workers_that_come_and_go_share_the_partitions_and_every_record_counts_once(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        await app.start("a")
        await app.shared(6)
        await app.send()
        await app.start("b")
        await app.send()
        await app.shared(3, 3)
        await app.start("c")
        await app.send()
        await app.shared(2, 2, 2)
        await app.counted()
        await app.stop("a")
        await app.send()
        await app.shared(3, 3)
        await app.counted()

    run(tmp_path, test)


def test_a_task_that_comes_back_follows_from_where_its_old_store_stood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(app: Counting) -> None:
        await app.start("a")
        await app.send()
        await app.counted()
        await app.stop("a")
        await app.start("b")
        await app.send()
        await app.counted()
        await app.stop("b")
        with caplog.at_level("INFO"):
            await app.start("a")
        assert "follows from" in caplog.text
        await app.send()
        await app.counted()

    run(tmp_path, test)


def test_more_workers_than_partitions_wait_and_take_over(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        for number in range(PARTITIONS + 1):
            await app.start(f"w{number}")
        await app.shared(0, *[1] * PARTITIONS)
        await app.send()
        await app.counted()
        busy = next(name for name, worker in app.workers.items() if worker.task_set.tasks)
        await app.stop(busy)
        await app.shared(*[1] * PARTITIONS)
        await app.send()
        await app.counted()

    run(tmp_path, test)


def test_a_worker_that_the_group_gave_up_commits_nothing_more_and_joins_again(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        silent, _ = await app.start("a"), await app.start("b")
        await app.shared(3, 3)
        await app.send()
        await app.counted()
        # As after a pause longer than the session timeout: the others have gone on without it.
        before = member_id(silent)
        await take_out(app, silent)
        await app.until(lambda: member_id(silent) not in ("", before), "a member again")
        await app.send()
        await app.shared(3, 3)
        await app.counted()

    run(tmp_path, test)


def test_a_task_on_the_leader_runs_in_one_worker_and_moves_with_partition_0(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        await app.start("a")
        await app.start("b")
        await app.shared(3, 3)
        await app.until(lambda: app.events != [], "a leader")
        first = next(name for name, worker in app.workers.items() if worker.is_leader)
        assert app.events == [f"{first} leads"]
        await app.stop(first)
        await app.shared(6)
        (other,) = app.workers
        await app.until(lambda: app.events[-1] == f"{other} leads", "another leader")
        assert app.events == [f"{first} leads", f"{first} leads no more", f"{other} leads"]

    run(tmp_path, test)


def test_two_workers_with_one_group_instance_id_are_told_apart(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        first = await app.start("a", group_instance_id="same")
        failed = asyncio.ensure_future(first._failed)  # type: ignore[arg-type]
        await app.start("b", group_instance_id="same")
        with pytest.raises(FencedInstanceError, match="group_instance_id of its own"):
            await asyncio.wait_for(failed, PATIENCE_S)
        await app.stop("a")
        await app.shared(6)

    run(tmp_path, test)


def test_nobody_outside_moves_or_deletes_a_group_that_has_members(tmp_path: Path) -> None:
    async def test(app: Counting) -> None:
        await app.start("a")
        for change in (
            app.feed.commit("counting", {TP(app.topic, 0): Committed(0)}),
            app.feed.delete_group("counting"),
        ):
            with pytest.raises(GroupNotEmptyError, match="stop its workers"):
                await change

    run(tmp_path, test)


def test_a_group_of_other_consumers_is_not_joined(tmp_path: Path) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")

    async def test(app: Counting) -> None:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": app.url.removeprefix("kafka://"), "group.id": app.name}
        )
        consumer.subscribe([app.topic])
        await app.until(lambda: consumer.poll(0) is None and bool(consumer.assignment()), "the other consumer")
        with pytest.raises(UsageError, match="give the app another id"):
            await app.start("a")
        await asyncio.to_thread(consumer.close)

    run(tmp_path, test)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_and_goes_and_dies_every_record_counts_once(tmp_path: Path, seed: int) -> None:
    random.seed(seed)

    async def test(app: Counting) -> None:
        await app.start("w0")
        for step in range(1, 9):
            await app.send(random.randrange(1, 300))
            names = sorted(app.workers)
            if len(names) < 4 and (len(names) < 2 or random.random() < 0.5):
                # Some of them on a machine that has been in the group before, with what it left there.
                await app.start(f"w{step % 5}" if f"w{step % 5}" not in names else f"x{step}")
            elif random.random() < 0.5:
                await app.stop(random.choice(names))
            else:
                worker = app.workers[random.choice(names)]
                if member_id(worker):
                    await take_out(app, worker)
            await asyncio.sleep(random.random() * 0.5)
        await app.send()
        await app.counted()

    run(tmp_path, test)
