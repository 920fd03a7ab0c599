"""Drive an app in a test: no broker, no threads, no ports, no sleeps.

    def test_counting() -> None:
        with AppTest(app) as test:
            test.send(orders, key="a", value=Order(amount=3))
            test.advance(60)
            assert test.values(totals) == [...]

Time stands until `advance` moves it, and everything that waits (windows, timers, retries, `asyncio.sleep` in the
app's own code) waits for that time. `crash` loses what a killed process would lose; `restart` begins again from it.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from streamcore.app import App
from streamcore.engine.watchdog import is_drained, lag
from streamcore.engine.worker import Worker
from streamcore.events import Event
from streamcore.state.memory import MemoryStore
from streamcore.state.partitions import TablePartition, WindowPartition
from streamcore.tables import Table, WindowedTable
from streamcore.topics import HeadersArg, Topic, headers_of
from streamcore.transport import connect
from streamcore.transport.base import EARLIEST, LATEST, Transport
from streamcore.types import TP
from streamcore.windows import to_ms

T = TypeVar("T")

START = "2026-01-01T00:00:00+00:00"
# An app that still has work after this much virtual time is stuck: a retry without end, or an agent that waits.
SETTLE_MAX_S = 120.0


class _NoWaiting(selectors.SelectSelector):
    """Never blocks: there is nothing outside of the loop to wait for."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is moved by hand."""

    def __init__(self) -> None:
        super().__init__(_NoWaiting())
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def run_ready(self) -> None:
        """Run until nothing is ready at this moment."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready and not self._is_due():  # type: ignore[attr-defined]
                return

    def _next_due_s(self) -> float | None:
        scheduled = [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        return min((handle.when() for handle in scheduled), default=None)

    def _is_due(self) -> bool:
        due_s = self._next_due_s()
        return due_s is not None and due_s <= self._now_s

    def step(self, until_s: float) -> bool:
        """Move to the next timer before `until_s`, or to `until_s`, and run what is due.

        Returns:
            Whether there was such a timer.
        """
        due_s = self._next_due_s()
        has_timer = due_s is not None and due_s <= until_s
        self._now_s = max(self._now_s, due_s if has_timer and due_s is not None else until_s)
        self.run_ready()
        return has_timer


class _LoopClock:
    def __init__(self, loop: VirtualLoop, start_ms: int) -> None:
        self._loop = loop
        self._start_ms = start_ms

    def now_ms(self) -> int:
        return self._start_ms + round(self._loop.time() * 1000)


class _KeptOpen:
    """The log of a test: it outlives the workers that come and go."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def start(self) -> None:
        """It is open already."""

    async def stop(self) -> None:
        """It stays open."""


class AppTest:
    """An app under test, with its own log, stores and time.

    Args:
        app: a real app, as its module declares it.
        start: the moment at which the test begins: datetime, ISO text or Unix seconds.
        settings: settings that win over the app's, such as `commit_interval`.
    """

    def __init__(self, app: App, *, start: datetime | str | float = START, **settings: Any) -> None:
        self.app = app
        self._settings = {**settings, "broker": "memory:", "store": "memory://", "web_enabled": False}
        self._loop = VirtualLoop()
        self._clock = _LoopClock(self._loop, to_ms(start))
        self._transport = connect("memory:", clock=self._clock)
        self._stores: dict[int, MemoryStore] = {}
        self._worker: Worker | None = None
        self._read: dict[TP, int] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._run(self._transport.start())
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._worker is not None:
                self._run(self._worker.stop())
            self._run(self._transport.stop())
        finally:
            self._kill()
            self._loop.close()
            self.app.bind(None)

    def restart(self) -> None:
        """Start a worker on what is there; after `crash`, or after an orderly stop of the one before."""
        if self._worker is not None:
            self._run(self._worker.stop())
        declarations = self.app.declarations(**self._settings)
        transport: Any = _KeptOpen(self._transport)
        worker = self._worker = Worker(declarations, clock=self._clock, transport=transport, stores=self._store)
        self.app.bind(worker)
        self._run(worker.start())
        self.settle()

    def crash(self) -> None:
        """Lose everything that was not committed, as `kill -9` would; then `restart`."""
        self._worker = None
        self._kill()

    def lose_tables(self) -> None:
        """Lose the stores too, as a new machine would have none; the next start rebuilds them from the changelogs."""
        assert self._worker is None, "crash first: a running worker holds its stores"
        self._stores.clear()

    def _store(self, partition: int) -> MemoryStore:
        return self._stores.setdefault(partition, MemoryStore())

    def _kill(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_ready()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, moving the time on when it waits."""
        task = self._loop.create_task(work)
        self._loop.run_ready()
        limit_s = self._loop.time() + SETTLE_MAX_S
        while not task.done():
            if not self._loop.step(limit_s):
                task.cancel()
                self._loop.run_ready()
                raise TimeoutError(f"{work!r} still waits after {SETTLE_MAX_S:g} s of virtual time")
        return task.result()

    @property
    def worker(self) -> Worker:
        """The running worker."""
        assert self._worker is not None, "the app has crashed: restart it"
        return self._worker

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The test's time, Unix seconds."""
        return self._clock.now_ms() / 1000

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due in it happens in its order."""
        self.settle()
        self.pass_time(seconds)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        """As `advance`, for an app that is kept from finishing its work."""
        self._loop.run_ready()
        until_s = self._loop.time() + seconds
        while self._loop.step(until_s):
            pass

    def run_ready(self) -> None:
        """Run what can run at this moment; no time passes."""
        self._loop.run_ready()

    def settle(self) -> None:
        """Let the app process and commit everything there is. Takes a few virtual milliseconds.

        Raises:
            TimeoutError: it is not done after two virtual minutes.
        """
        self._loop.run_ready()
        limit_s = self._loop.time() + SETTLE_MAX_S
        while not self._is_settled():
            if self._loop.time() >= limit_s:
                raise TimeoutError(f"the app is not done after {SETTLE_MAX_S:g} s of virtual time: {self._unsettled()}")
            self._loop.step(limit_s)

    def _is_settled(self) -> bool:
        return self._worker is None or not self._unsettled()

    def _unsettled(self) -> str:
        worker = self.worker
        if not worker.producer.is_empty:
            return "records wait to be sent"
        tps = {source.tp for run in worker.runs for source in run.inputs}
        ends = self._now(worker.services.transport.list_offsets(tps, LATEST))
        for run in worker.runs:
            if not run.finished and (not is_drained(run, ends) or run.group.has_progress):
                return f"agent {run.name}: {lag(run, ends)} records to read, phase {run.phase}"
        return ""

    def _now(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that waits for nothing: the memory log answers at once."""
        task = self._loop.create_task(work)
        self._loop.run_ready()
        return task.result()

    # -- records -------------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: Topic,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | datetime | None = None,
        headers: HeadersArg = None,
        settle: bool = True,
    ) -> None:
        """Put a record on the log, and let the app work on it unless `settle` is False."""
        encoded = topic.encode(key, value, timestamp)
        self._now(self.worker.outlet.send(topic, partition, *encoded, headers_of(headers)))
        if settle:
            self.settle()

    def events(self, topic: Topic | str) -> list[Event]:
        """The events of a topic that this method has not returned before, partition by partition."""
        self.settle()
        return list(self._events(topic, only_new=True))

    def values(self, topic: Topic | str) -> list[Any]:
        """As `events`, the values alone."""
        return [event.value for event in self.events(topic)]

    def all_events(self, topic: Topic | str) -> list[Event]:
        """Every event of a topic, partition by partition."""
        self.settle()
        return list(self._events(topic, only_new=False))

    def _events(self, topic: Topic | str, *, only_new: bool) -> Iterator[Event]:
        declared = topic if isinstance(topic, Topic) else self.app.topics.get(topic) or Topic(topic, value_type=bytes)
        infos = self._now(self._transport.topics())
        for partition in range(infos[declared.name].partitions if declared.name in infos else 0):
            tp = TP(declared.name, partition)
            start = self._now(self._transport.list_offsets([tp], EARLIEST))[tp]
            position = self._read.get(tp, start) if only_new else start
            while fetched := self._now(self._transport.fetch({tp: position}, max_wait_ms=0)):
                for record in fetched[0].records:
                    key = None if record.key is None else declared.key_codec.loads(record.key)
                    value = None if record.value is None else declared.value_codec.loads(record.value)
                    yield Event(tp, record, key, value, record.timestamp)
                position = fetched[0].next_offset
            if only_new:
                self._read[tp] = position

    def committed(self, topic: Topic | str) -> dict[int, int]:
        """The group's committed offsets in a topic, by partition."""
        name = topic if isinstance(topic, str) else topic.name
        offsets = self._now(self._transport.committed(self.app.id))
        return {tp.partition: place.offset for tp, place in sorted(offsets.items()) if tp.topic == name}

    def dead_letters(self) -> list[Event]:
        """The app's dead letters that this method has not returned before."""
        return self.events(f"{self.app.id}-dead-letters")

    # -- tables --------------------------------------------------------------------------------------------------------

    def table(self, table: Table | WindowedTable | str) -> dict[Any, Any]:
        """A table's rows; those of open windows are keyed by (key, window start in seconds)."""
        self.settle()
        name = table if isinstance(table, str) else table.name
        rows: dict[Any, Any] = {}
        for task in self.worker.tasks:
            partition = task.tables.get(name)
            if isinstance(partition, TablePartition):
                rows.update(partition.items())
            elif isinstance(partition, WindowPartition):
                rows.update({(key, start_ms / 1000): value for (key, start_ms), value in partition.items()})
        return rows
