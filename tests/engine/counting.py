"""Workers of an app that counts keys, for tests of how they share its partitions."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamcore import App
from streamcore.engine.worker import Worker
from streamcore.protocol import messages
from streamcore.transport import connect
from streamcore.transport.base import Transport
from streamcore.types import TP, OutRecord

PARTITIONS = 6
KEYS = 40
PATIENCE_S = 20.0


class Counting:
    """Workers of an app that counts keys; every worker has a directory of its own, as on a machine of its own."""

    def __init__(self, url: str, directory: Path, feed: Transport, name: str) -> None:
        self.url = url
        self.directory = directory
        self.feed = feed
        self.name = name  # of the app
        self.topic = f"{name}-words"
        self.sent: Counter[str] = Counter()
        self.workers: dict[str, Worker] = {}
        self.events: list[str] = []

    def app(self, name: str, **settings: Any) -> App:
        app = App(
            self.name, broker=self.url, datadir=str(self.directory / name), web_enabled=False, listen=False,
            topic_partitions=PARTITIONS, session_timeout=6, **settings,
        )  # fmt: skip
        words = app.topic(self.topic, key_type=str, value_type=bytes)
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
            batches.setdefault(TP(self.topic, int(key[1:]) % PARTITIONS), []).append((key.encode(), b"", -1, ()))
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
async def counting(url: str, directory: Path, name: str = "counting") -> AsyncIterator[Counting]:
    feed = connect(url)
    await feed.start()
    app = Counting(url, directory, feed, name)
    await feed.create_topic(app.topic, partitions=PARTITIONS)
    try:
        yield app
    finally:
        for worker in app.workers.values():
            await worker.stop()
        await feed.stop()


def member_id(worker: Worker) -> str:
    """Its id in the group; empty while it has none."""
    generation = worker.membership.member.generation if worker.membership is not None else None
    return generation.member_id if generation is not None else ""


async def take_out(app: Counting, worker: Worker) -> None:
    """Take a member out of the group, as its coordinator does with one that is silent."""
    generation = worker.membership.member.generation if worker.membership is not None else None
    assert generation is not None, "it is a member"
    leave = messages.LeaveGroup
    identity = leave.MemberIdentity(member_id=generation.member_id, group_instance_id=generation.group_instance_id)
    channel = app.feed.group_channel(app.name)
    assert channel is not None
    await channel.ask(leave, leave.Request(group_id=app.name, members=[identity]), timeout_s=5)
