"""An AppTest whose log and stores fail, or stop dead, at a chosen step."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from streamcore.app import App
from streamcore.errors import StreamcoreError
from streamcore.state.memory import MemoryStore
from streamcore.state.store import Change
from streamcore.testing import AppTest
from streamcore.transport.base import EARLIEST, Committed, Generation, Transport
from streamcore.types import TP, OutRecord


class PowerCut(BaseException):
    """The process ends here."""


class Faults:
    """The steps that a worker takes towards its log and stores, and what is to happen at them."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.cut_at: int | None = None  # the step at which the worker stops dead
        self.is_cut = False
        # Called with the step's name; an error it returns is what the step answers.
        self.answer: Callable[[str], StreamcoreError | None] = lambda step: None

    def reset(self) -> None:
        self.steps = []
        self.cut_at = None
        self.is_cut = False

    def reaches(self, step: str) -> bool:
        """Note a step; True where it is the one to stop at, and ever after."""
        if not self.is_cut:
            self.is_cut = len(self.steps) == self.cut_at
            self.steps.append(step)
        return self.is_cut

    async def wait(self, step: str) -> None:
        if self.reaches(step):
            await asyncio.get_running_loop().create_future()


class FaultyTransport:
    """A log that can be cut off before and after each of its writes, or refuse them."""

    def __init__(self, inner: Transport, faults: Faults) -> None:
        self.inner = inner
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def produce(
        self, batches: Mapping[TP, Sequence[OutRecord]], **options: Any
    ) -> dict[TP, int | StreamcoreError]:
        names = ",".join(sorted(str(tp) for tp in batches))
        await self._faults.wait(f"before produce {names}")
        refused = {tp: error for tp in batches if (error := self._faults.answer(f"produce {tp}")) is not None}
        taken = await self.inner.produce({tp: batches[tp] for tp in batches if tp not in refused}, **options)
        await self._faults.wait(f"after produce {names}")
        return {**taken, **refused}

    async def commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None = None) -> None:
        await self._faults.wait("before commit")
        if (error := self._faults.answer("commit")) is not None:
            raise error
        await self.inner.commit(group, offsets)
        await self._faults.wait("after commit")


class FaultyStore(MemoryStore):
    """A store that can be cut off before and after a write, or refuse it."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def write(self, changes: Iterable[Change]) -> None:
        if self._faults.reaches("before write"):
            raise PowerCut
        if (error := self._faults.answer("write")) is not None:
            raise error
        super().write(changes)
        if self._faults.reaches("after write"):
            raise PowerCut


class FaultyAppTest(AppTest):
    """`faults` says what fails; `put` fills topics past the worker."""

    def __init__(self, app: App, **options: Any) -> None:
        super().__init__(app, **options)
        self.faults = Faults()
        self._transport: Any = FaultyTransport(self._transport, self.faults)

    @property
    def log(self) -> Transport:
        """The log itself, without faults."""
        inner: Transport = self._transport.inner
        return inner

    def now_of(self, work: Any) -> Any:
        """The result of work that waits for nothing."""
        return self._now(work)

    def result_of(self, work: Any) -> Any:
        """The result of work that may take its time."""
        return self._run(work)

    def _store(self, partition: int) -> MemoryStore:
        return self._stores.setdefault(partition, FaultyStore(self.faults))

    def put(self, records: Mapping[TP, Sequence[OutRecord]]) -> None:
        """Records on the log, none of them a step."""
        self._now(self.log.produce(records))

    def crash(self) -> None:
        self.faults.is_cut = True  # whatever still runs while the process dies changes nothing
        super().crash()
        self.faults.reset()

    def crash_and_restart(self, *, lose_tables: bool = False) -> None:
        self.crash()
        if lose_tables:
            self.lose_tables()
        self.restart()

    def replay(self, topic: str, partition: int = 0) -> dict[bytes, bytes]:
        """What a changelog says, read from its very beginning."""
        tp = TP(topic, partition)
        rows: dict[Any, bytes | None] = {}
        position = self._now(self.log.list_offsets([tp], EARLIEST))[tp]
        while fetched := self._now(self.log.fetch({tp: position}, max_wait_ms=0)):
            rows.update({record.key: record.value for record in fetched[0].records})
            position = fetched[0].next_offset
        return {key: value for key, value in rows.items() if value is not None}

    def assert_changelogs_equal_stores(self) -> None:
        """Every table's changelog, replayed from scratch, gives exactly its rows in the store."""
        for task in self.worker.tasks:
            for name, table in task.tables.items():
                stored = {table.layout.changelog_key(key): value for key, value in task.store.scan(name)}
                topic = self.worker.services.changelog_topic(name)
                replayed = self.replay(topic, task.partition) if topic in self._now(self.log.topics()) else {}
                assert replayed == stored, f"table {name}, partition {task.partition}"
