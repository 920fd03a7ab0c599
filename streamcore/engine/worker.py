"""A worker: runs what an app declares, until it is told to stop or something needs a person."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamcore.agents import Agent
from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.config import AppConfig, milliseconds
from streamcore.engine.dead_letters import DEAD_LETTER_CONFIG
from streamcore.engine.metrics import EngineMetrics
from streamcore.engine.producer import Producer
from streamcore.engine.recovery import Recovery, open_store
from streamcore.engine.run import Run
from streamcore.engine.run_state import begin
from streamcore.engine.services import Services, logger
from streamcore.engine.status import read_records, readable, refresh_metrics, status
from streamcore.engine.stream_task import StreamTask
from streamcore.engine.task_tables import TaskTables
from streamcore.engine.topic_outlet import TopicOutlet
from streamcore.engine.watchdog import Watchdog, is_drained
from streamcore.errors import StreamcoreError, UsageError
from streamcore.state.partitions import WindowPartition, decode_key
from streamcore.state.store import Store
from streamcore.tables import Table
from streamcore.topics import Topic
from streamcore.transport import connect
from streamcore.transport.base import LATEST, Transport

# Python's collector looks for cycles after every 700 allocations; records and values have none, and a chunk of them
# would be looked at several times while it lives. Worth a third of the throughput.
GC_THRESHOLD = (50_000, 20, 50)
TICK_S = 0.2  # how finely idle sources and deadlines follow the clock
TASK_RETRY_MAX_S = 30.0  # between starts of a task that keeps failing
CANCEL_S = 0.3  # for what was cancelled to clean up
STOP_MARGIN_S = 1.0  # for final commits and for closing stores, after the drain


@dataclass
class Service:
    """Something that lives as long as the worker, such as its web server."""

    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


@dataclass
class TimerSpec:
    """A function called every `interval_s` seconds."""

    name: str
    interval_s: float
    function: Callable[[], Awaitable[Any]]


@dataclass
class Declarations:
    """Everything that an app has declared."""

    config: AppConfig
    topics: dict[str, Topic] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    timers: list[TimerSpec] = field(default_factory=list)
    tasks: list[tuple[str, Callable[[], Awaitable[Any]]]] = field(default_factory=list)
    pages: list[Any] = field(default_factory=list)
    mounts: list[tuple[str, Any, str | None]] = field(default_factory=list)


class Worker:
    """Runs an app's declarations over a transport.

    `await worker.run()` does everything; `start`, `request_stop` and `stop` are its parts.
    """

    def __init__(
        self,
        declarations: Declarations,
        *,
        clock: Clock = SYSTEM_CLOCK,
        transport: Transport | None = None,
        stores: Callable[[int], Store] | None = None,
        on_recovery: Callable[[str, int, int, int], None] | None = None,
    ) -> None:
        config = declarations.config
        self._declarations = declarations
        self._stores = stores
        self._on_recovery = on_recovery
        self.services = Services(
            config=config,
            transport=transport if transport is not None else connect(config.broker, flush=config.flush, clock=clock),
            clock=clock,
            metrics=EngineMetrics(),
        )
        self.phase = "starting"
        self.started_ms = clock.now_ms()
        self.tasks: list[StreamTask] = []
        self.runs: list[Run] = []
        self.watchdog = Watchdog(self.services, milliseconds(config.watchdog_after))
        self.producer = Producer(self.services)
        self.outlet = TopicOutlet(self.services, self.producer)
        self.table_runtime = TaskTables(self.services, self.tasks)
        self.failing_tasks: dict[str, str] = {}
        self.extra_services: list[Service] = []
        self._recovery: dict[tuple[str, int], tuple[int, int]] = {}
        self._gc_threshold = gc.get_threshold()
        self._stop_requested = asyncio.Event()
        self._background: list[asyncio.Task[Any]] = []
        self._run_tasks: dict[Run, asyncio.Task[None]] = {}
        self._committers: dict[Run, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[None] | None = None

    # -- what pages and tools ask --------------------------------------------------------------------------------------

    @property
    def agents(self) -> dict[str, Agent]:
        return self._declarations.agents

    @property
    def tables(self) -> dict[str, Table]:
        return self._declarations.tables

    @property
    def pages(self) -> Sequence[Any]:
        return self._declarations.pages

    @property
    def mounts(self) -> Sequence[tuple[str, Any, str | None]]:
        return self._declarations.mounts

    @property
    def metrics_registry(self) -> Any:
        """The Prometheus registry with the engine's metrics."""
        return self.services.metrics.registry

    async def refresh_metrics(self) -> None:
        await refresh_metrics(self)

    async def status(self) -> dict[str, Any]:
        return await status(self)

    def healthy(self) -> tuple[bool, str]:
        """Whether everything that should move moves, and what does not."""
        for reason in (
            self.watchdog.reason,
            *(run.group.failing for run in self.runs),
            *(run.failing for run in self.runs),
            self.producer.failing,
            *self.failing_tasks.values(),
        ):
            if reason is not None:
                return False, reason
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether the worker processes events."""
        return self.phase == "running", self.phase

    def recovery_progress(self) -> list[dict[str, Any]]:
        return [
            {"table": table, "partition": partition, "done": done, "total": total}
            for (table, partition), (done, total) in sorted(self._recovery.items())
            if self.phase == "recovering"
        ]

    async def read_records(self, topic: str, partition: int, offset: int, count: int) -> list[dict[str, Any]]:
        return await read_records(self, topic, partition, offset, count)

    async def table_rows(self, table: str, prefix: str, limit: int) -> list[dict[str, Any]]:
        """Rows whose key, as text, begins with `prefix`; committed ones."""
        if not any(table in task.tables for task in self.tasks):
            raise UsageError(f"there is no table {table!r}, or nothing has used it yet")
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            partition = task.tables.get(table)
            if partition is None:
                continue
            for store_key, data in task.store.scan(table):
                key = decode_key(partition.layout.changelog_key(store_key))
                window = None
                if isinstance(partition, WindowPartition):
                    key, window = key
                if not (key if isinstance(key, str) else str(key)).startswith(prefix):
                    continue
                rows.append({"key": key, "window": window, "partition": task.partition, "value": readable(data)})
                if len(rows) >= limit:
                    return rows
        return rows

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, work until a stop is requested or an error needs a person, stop in order.

        Returns:
            0 after an orderly stop.
        Raises:
            StreamcoreError: the worker could not start, or an agent's policy or a task stopped it.
        """
        try:
            await self.start()
            assert self._failed is not None, "start makes it"
            stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop_requested.wait())
            futures: set[asyncio.Future[Any]] = {stopped, self._failed}
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        finally:
            await self.stop()
        if self._failed is not None and self._failed.done():
            self._failed.result()
        return 0

    async def drained(self) -> None:
        """Wait until every agent has done and committed all there is, and no joined row waits for its close."""
        transport = self.services.transport
        while True:
            # A record that is still queued here is input too.
            if self.producer.is_empty:
                ends = await transport.list_offsets({source.tp for run in self.runs for source in run.inputs}, LATEST)
                if all(
                    run.finished or (is_drained(run, ends) and not run.group.has_progress and not run.has_waiting_rows)
                    for run in self.runs
                ):
                    return
            await asyncio.sleep(TICK_S)

    def request_stop(self) -> None:
        """Ask for an orderly stop; safe in a signal handler."""
        self._stop_requested.set()

    async def start(self) -> None:
        """Open the log, declare topics, recover tables, start agents, timers, tasks and pages.

        Raises:
            StreamcoreError: what is wrong with the log, the declarations or the stores.
        """
        loop = asyncio.get_running_loop()
        self._gc_threshold = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLD)
        self._failed = loop.create_future()
        self._failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        await self.services.transport.start()
        await self._declare_topics()
        self.phase = "recovering"
        for topic in self._declarations.topics.values():
            topic.outlet = self.outlet
        for table in self.tables.values():
            table.runtime = self.table_runtime
        for service in self.extra_services:
            await service.start()
        await self._open_tasks()
        self._background.append(loop.create_task(self.producer.run(), name="producer"))
        self._background.append(loop.create_task(self._tick(), name="clock"))
        self._background.append(loop.create_task(self.watchdog.watch(self.runs), name="watchdog"))
        for run in self.runs:
            run.failed = self._failed
            self._run_tasks[run] = loop.create_task(run.run(), name=f"agent {run.name}")
            self._committers[run] = loop.create_task(run.group.keep_committing(), name=f"commit {run.name}")
            self._run_tasks[run].add_done_callback(self._on_end)
            self._committers[run].add_done_callback(self._on_end)
        self.phase = "running"
        for name, function in self._declarations.tasks:
            self._background.append(loop.create_task(self._supervise(name, function), name=f"task {name}"))
        for timer in self._declarations.timers:
            self._background.append(loop.create_task(self._call_every(timer), name=f"timer {timer.name}"))

    async def _declare_topics(self) -> None:
        services, transport = self.services, self.services.transport
        known = await transport.topics()
        for topic in self._declarations.topics.values():
            if topic.name in known:
                if topic.partitions is not None and known[topic.name].partitions != topic.partitions:
                    logger.warning(
                        "topic %s has %d partitions, not the declared %d; it keeps what it has",
                        topic.name, known[topic.name].partitions, topic.partitions,
                    )  # fmt: skip
                continue
            count = topic.partitions if topic.partitions is not None else services.config.topic_partitions
            known[topic.name] = await transport.create_topic(topic.name, partitions=count, config=topic.config)
        dead_letters = services.dead_letter_topic
        if self.agents and dead_letters not in known:
            known[dead_letters] = await transport.create_topic(dead_letters, partitions=1, config=DEAD_LETTER_CONFIG)
        services.topics.update(known)

    async def _open_tasks(self) -> None:
        services = self.services
        counts = {agent.name: services.partitions(agent.topic.name) for agent in self.agents.values()}
        committed = await services.transport.committed(services.group)
        for partition in range(max(counts.values(), default=0)):
            store = self._stores(partition) if self._stores is not None else open_store(services, self._path(partition))
            task = StreamTask(services, partition, store)
            self.tasks.append(task)
            recovery = Recovery(services, task, self.agents, self.tables, self._recovered)
            await recovery.recover(committed)
            for agent in self.agents.values():
                if partition < counts[agent.name]:
                    run = Run(services, task, agent, self.tables)
                    task.runs.append(run)
                    self.runs.append(run)
                    await begin(run, committed)

    def _path(self, partition: int) -> str | None:
        config = self.services.config
        if config.store == "memory://":
            return None
        return str(self.data_directory() / "tables" / str(partition))

    def data_directory(self) -> Path:
        """Where the app keeps its tables: beside the embedded log, unless the app says otherwise."""
        config = self.services.config
        if config.datadir:
            return Path(config.datadir)
        if config.broker.startswith("embedded:"):
            return Path(config.broker.removeprefix("embedded:").removeprefix("//")) / "apps" / config.id
        return Path(f"{config.id}-data")

    def _recovered(self, table: str, partition: int, done: int, total: int) -> None:
        self._recovery[(table, partition)] = (done, total)
        if self._on_recovery is not None:
            self._on_recovery(table, partition, done, total)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ms = self.services.clock.now_ms()
            for run in self.runs:
                run.event_time.tick(now_ms)

    async def _supervise(self, name: str, function: Callable[[], Awaitable[Any]]) -> None:
        """Run a task; when it fails, say so and start it again. A usage error is not worth another try."""
        delay_s = 1.0
        while True:
            try:
                await function()
                self.failing_tasks.pop(name, None)
                return
            except UsageError as error:
                self._fail(error)
                return
            except Exception as error:
                self.failing_tasks[name] = f"task {name} failed: {type(error).__name__}: {error}"
                logger.exception("task %s failed and starts again in %.0f s", name, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(TASK_RETRY_MAX_S, delay_s * 2)

    async def _call_every(self, timer: TimerSpec) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + timer.interval_s
        while True:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            # A call that took longer than the interval does not make the next ones come in a burst.
            due_s = max(due_s + timer.interval_s, loop.time())
            try:
                await timer.function()
                self.failing_tasks.pop(timer.name, None)
            except Exception as error:
                self.failing_tasks[timer.name] = f"timer {timer.name} failed: {type(error).__name__}: {error}"
                logger.exception("timer %s failed; it is called again in %g s", timer.name, timer.interval_s)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A run or a committer ended; with an error it is one that nobody expected, and the worker must not go on."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("%s ended", task.get_name(), exc_info=error)
        self._fail(
            error
            if isinstance(error, StreamcoreError)
            else StreamcoreError(f"{task.get_name()} ended: {type(error).__name__}: {error}")
        )

    def _fail(self, error: StreamcoreError) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def stop(self) -> None:
        """Finish events in flight, commit, flush, close; what does not finish in time is read again next time."""
        if self.phase == "stopped":
            return
        self.phase = "stopping"
        drain_s = milliseconds(self.services.config.drain) / 1000
        await _end(self._background)
        for run in self.runs:
            run.stop()
        if self._run_tasks:
            _, late = await asyncio.wait(self._run_tasks.values(), timeout=drain_s)
            for run, task in self._run_tasks.items():
                if task in late:
                    logger.warning(
                        "agent %s did not finish its event in %g s; it is read again next time", run.name, drain_s
                    )
                    run.is_clean = False
            await _end(late)
        # A run that was cut off in the middle of an event leaves its group at the last commit.
        groups = {run.group for run in self.runs}
        clean = [group for group in groups if all(run.is_clean for run in group.runs)]
        committers = set(self._committers.values())
        try:
            async with asyncio.timeout(STOP_MARGIN_S):
                for group in clean:
                    group.end_committing()
                finishing = {self._committers[run] for group in clean for run in group.runs} & committers
                if finishing:
                    await asyncio.wait(finishing)
                for group in clean:
                    if group.has_progress:
                        await group.commit_when_still()
                await self.producer.finish()
        except TimeoutError:
            logger.error("the last commit did not go through in time; its events are read again next time")
        await _end(committers)
        for group in groups:
            await group.close()
        for service in reversed(self.extra_services):
            await service.stop()
        for stream_task in self.tasks:
            stream_task.store.close()
        for topic in self._declarations.topics.values():
            topic.outlet = None
        for table in self.tables.values():
            table.runtime = None
        await self.services.transport.stop()
        gc.set_threshold(*self._gc_threshold)
        self.phase = "stopped"


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for them; one that does not let itself be cancelled is left behind."""
    tasks = set(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=CANCEL_S)
        for task in stubborn:
            logger.error("%s does not end though it was cancelled: does it catch CancelledError?", task.get_name())
