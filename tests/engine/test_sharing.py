"""Several workers of one app: who has what, what moves, and that nothing is counted twice or forgotten."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamcore import App
from streamcore.engine.worker import Worker
from streamcore.errors import FencedInstanceError, UsageError
from streamcore.transport import connect
from streamcore.transport.base import Transport
from streamcore.types import TP, OutRecord
from tests.broker.wire import serving

PARTITIONS = 6
KEYS = 40
PATIENCE_S = 20.0


class Counting:
    """Workers of an app that counts keys; every worker has a directory of its own, as on a machine of its own."""

    def __init__(self, url: str, directory: Path, feed: Transport) -> None:
        self.url = url
        self.directory = directory
        self.feed = feed
        self.sent: Counter[str] = Counter()
        self.workers: dict[str, Worker] = {}
        self.events: list[str] = []

    def app(self, name: str, **settings: Any) -> App:
        app = App(
            "counting", broker=self.url, datadir=str(self.directory / name), web_enabled=False, listen=False,
            topic_partitions=PARTITIONS, session_timeout=6, **settings,
        )  # fmt: skip
        words = app.topic("words", key_type=str, value_type=bytes)
        counts = app.Table("counts", default=int)

        @app.agent(words)
        async def count(stream: Any) -> None:
            async for event in stream.events():
                counts[event.key] += 1

        @app.task(on_leader=True)
        async def lead() -> None:
            self.events.append(f"{name} leads")
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append(f"{name} leads no more")

        return app

    async def start(self, name: str, **settings: Any) -> Worker:
        worker = self.workers[name] = self.app(name, **settings).worker()
        await worker.start()
        return worker

    async def stop(self, name: str) -> None:
        await self.workers.pop(name).stop()

    async def send(self, count: int = 200) -> None:
        batches: dict[TP, list[OutRecord]] = {}
        for _ in range(count):
            key = f"k{random.randrange(KEYS)}"
            self.sent[key] += 1
            batches.setdefault(TP("words", int(key[1:]) % PARTITIONS), []).append((key.encode(), b"", -1, ()))
        for result in (await self.feed.produce(batches)).values():
            assert isinstance(result, int), result

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():  # noqa: ASYNC110 - several workers, none of which tells
                    await asyncio.sleep(0.02)
        except TimeoutError:
            shares = {name: sorted(worker.task_set.assigned) for name, worker in self.workers.items()}
            pytest.fail(f"not within {PATIENCE_S:g} s: {what}; {shares}")

    def shares(self) -> list[int]:
        return sorted(len(worker.task_set.tasks) for worker in self.workers.values())

    async def shared(self, *sizes: int) -> None:
        """Wait until the workers have so many tasks each, all of them together and none twice."""

        def is_so() -> bool:
            tasks = sorted(number for worker in self.workers.values() for number in worker.task_set.tasks)
            return self.shares() == sorted(sizes) and tasks == list(range(PARTITIONS))

        await self.until(is_so, f"shares of {sizes}")

    async def counted(self) -> None:
        """Wait until the tables say what was sent, exactly."""
        assert self.sent
        await self.until(lambda: self.rows() == self.sent, "every record counted once")

    def rows(self) -> Counter[str]:
        rows: Counter[str] = Counter()
        for worker in self.workers.values():
            for task in worker.tasks:
                if "counts" in task.tables:
                    rows.update(dict(task.tables["counts"].items()))  # type: ignore[arg-type]
        return rows


@asynccontextmanager
async def counting(directory: Path) -> AsyncIterator[Counting]:
    async with serving(directory / "log") as server:
        url = f"kafka://127.0.0.1:{server.broker.endpoint.port}"
        feed = connect(url)
        await feed.start()
        await feed.create_topic("words", partitions=PARTITIONS)
        app = Counting(url, directory, feed)
        try:
            yield app
        finally:
            for worker in app.workers.values():
                await worker.stop()
            await feed.stop()


def run(directory: Path, test: Callable[[Counting], Awaitable[None]]) -> None:
    async def main() -> None:
        async with counting(directory) as app:
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
        assert silent.membership is not None
        member_id = silent.membership.member.generation.member_id  # type: ignore[union-attr]
        await remove(app.url, member_id, silent.membership.member.generation.group_instance_id)  # type: ignore[union-attr]
        await app.until(lambda: _member_id(silent) not in ("", member_id), "a member again")
        await app.send()
        await app.shared(3, 3)
        await app.counted()

    run(tmp_path, test)


def _member_id(worker: Worker) -> str:
    generation = worker.membership.member.generation if worker.membership is not None else None
    return generation.member_id if generation is not None else ""


async def remove(url: str, member_id: str, group_instance_id: str | None) -> None:
    """Take a member out of the group, as its coordinator does with one that is silent."""
    from streamcore.protocol import messages

    transport = connect(url)
    await transport.start()
    leave = messages.LeaveGroup
    identity = leave.MemberIdentity(member_id=member_id, group_instance_id=group_instance_id)
    channel = transport.group_channel("counting")
    assert channel is not None
    await channel.ask(leave, leave.Request(group_id="counting", members=[identity]), timeout_s=5)
    await transport.stop()


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


def test_a_group_of_other_consumers_is_not_joined(tmp_path: Path) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")

    async def test(app: Counting) -> None:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": app.url.removeprefix("kafka://"), "group.id": "counting"}
        )
        consumer.subscribe(["words"])
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
                if _member_id(worker):
                    generation = worker.membership.member.generation  # type: ignore[union-attr]
                    await remove(app.url, generation.member_id, generation.group_instance_id)  # type: ignore[union-attr]
            await asyncio.sleep(random.random() * 0.5)
        await app.send()
        await app.counted()

    run(tmp_path, test)
