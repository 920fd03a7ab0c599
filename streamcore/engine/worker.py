"""A worker: runs what an app declares, until it is told to stop or something needs a person."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamcore.agents import Agent
from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.config import AppConfig, milliseconds
from streamcore.engine.app_tasks import AppTasks, TaskSpec, TimerSpec
from streamcore.engine.changelogs import ensure_topic
from streamcore.engine.commit import commit_again
from streamcore.engine.dead_letters import DEAD_LETTER_CONFIG
from streamcore.engine.host_place import HostPlace
from streamcore.engine.log_status import LogStatus, readable
from streamcore.engine.membership import Membership
from streamcore.engine.metrics import EngineMetrics
from streamcore.engine.producer import Producer
from streamcore.engine.recovery import open_store
from streamcore.engine.run import Run
from streamcore.engine.services import Services, logger
from streamcore.engine.status import refresh_metrics, status
from streamcore.engine.stream_task import StreamTask
from streamcore.engine.task_runner import STOP_MARGIN_S, Program, TaskRunner, end
from streamcore.engine.task_set import TaskSet
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
HOST_CHECK_S = 1.0  # whether the worker that works for this machine has gone
COMMIT_AGAIN_S = 86_400  # a broker forgets offsets that nobody has committed for a week (offsets.retention.minutes)


@dataclass
class Service:
    """Something that lives as long as the worker, such as its web server."""

    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


@dataclass
class Declarations:
    """Everything that an app has declared."""

    config: AppConfig
    topics: dict[str, Topic] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    timers: list[TimerSpec] = field(default_factory=list)
    tasks: list[TaskSpec] = field(default_factory=list)
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
            transport=transport
            if transport is not None
            else connect(config.broker, flush=config.flush, clock=clock, client=config.broker_config),
            clock=clock,
            metrics=EngineMetrics(),
        )
        self.log_status = LogStatus(self.services.transport, clock)
        self.phase = "starting"
        self.started_ms = clock.now_ms()
        self.task_set = TaskSet(self._runner, milliseconds(config.drain) / 1000, self._cannot, self._on_change)
        self.membership: Membership | None = None  # where other workers can share the tasks
        self.watchdog = Watchdog(self.services, milliseconds(config.watchdog_after))
        self.producer = Producer(self.services)
        self.outlet = TopicOutlet(self.services, self.producer)
        self.table_runtime = TaskTables(self.services, self.task_set.tasks)
        self.app_tasks = AppTasks(declarations.tasks, declarations.timers, self._fail)
        self.extra_services: list[Service] = []
        self._recovery: dict[tuple[str, int], tuple[int, int]] = {}
        self._gc_threshold = gc.get_threshold()
        self._stop_requested = asyncio.Event()
        self._background: list[asyncio.Task[Any]] = []
        self.place: HostPlace | None = None  # among the workers on this machine; None where there can be no other
        self._member: asyncio.Task[None] | None = None
        self._cannot_start = asyncio.Event()
        self._failed: asyncio.Future[None] | None = None

    # -- what pages and tools ask --------------------------------------------------------------------------------------

    @property
    def agents(self) -> dict[str, Agent]:
        return self._declarations.agents

    @property
    def tables(self) -> dict[str, Table]:
        return self._declarations.tables

    @property
    def tasks(self) -> list[StreamTask]:
        """The open stream tasks of this worker, by number."""
        return [task for _, task in sorted(self.task_set.tasks.items())]

    @property
    def runs(self) -> list[Run]:
        """What its agents do at the moment."""
        return self.task_set.runs

    @property
    def is_leader(self) -> bool:
        """Whether this worker does what only one of the app's workers does: it is the one with partition 0."""
        return 0 in self.task_set.tasks or self.services.task_count == 0

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
            self.membership.member.failing if self.membership is not None else None,
            *self.task_set.failing.values(),
            *(run.group.failing for run in self.runs),
            *(run.failing for run in self.runs),
            self.producer.failing,
            *self.app_tasks.failing.values(),
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
        return await self.log_status.records(topic, partition, offset, count)

    async def table_rows(self, table: str, prefix: str, limit: int) -> list[dict[str, Any]]:
        """Rows whose key, as text, begins with `prefix`; committed ones."""
        if not any(table in task.tables for task in self.tasks):
            raise UsageError(f"there is no table {table!r} in this worker, or nothing has used it yet")
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
        await self._share_tasks()
        self._background.append(loop.create_task(self.producer.run(), name="producer"))
        self._background.append(loop.create_task(self._tick(), name="clock"))
        self._background.append(loop.create_task(self._stay_known(), name="committed offsets"))
        self._background.append(loop.create_task(self.watchdog.watch(self.runs), name="watchdog"))
        self.phase = "running"
        self.app_tasks.start("worker")
        if self.app_tasks.has("host"):
            self._background.append(loop.create_task(self._work_for_host(), name="once per machine"))
        self._on_change()

    async def _work_for_host(self) -> None:
        """Do what is done once per machine, as soon as no other worker here does."""
        while self.place is not None and not self.place.claim():  # noqa: ASYNC110 - another process's lock
            await asyncio.sleep(HOST_CHECK_S)
        self.app_tasks.start("host")

    def _on_change(self) -> None:
        """A stream task came or went."""
        if self.phase != "running":
            return
        if self.is_leader:
            self.app_tasks.start("leader")
        else:
            self.app_tasks.stop_soon("leader")

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
            known[topic.name] = await ensure_topic(transport, topic.name, count, topic.config)
        dead_letters = services.dead_letter_topic
        if self.agents and dead_letters not in known:
            known[dead_letters] = await ensure_topic(transport, dead_letters, 1, DEAD_LETTER_CONFIG)
        services.topics.update(known)

    async def _share_tasks(self) -> None:
        """Get this worker's share of the stream tasks, or all of them where no other worker can come, and open them."""
        services, loop = self.services, asyncio.get_running_loop()
        topics = {agent.topic.name for agent in self.agents.values()}
        services.task_count = max((services.partitions(topic) for topic in topics), default=0)
        channel = services.transport.group_channel(services.group) if topics else None
        if channel is None:
            await self.task_set.assign(range(services.task_count))
        else:
            self.place = HostPlace(self.data_directory())
            membership = self.membership = Membership(
                services, channel, self.task_set, topics, self._stored, self._instance_id(self.place)
            )
            services.generation_of = lambda: membership.member.generation
            services.on_refused_commit = membership.member.look
            self._member = loop.create_task(membership.member.run(), name=f"member of {services.group}")
            self._member.add_done_callback(self._on_member_end)
            await self._unless_failed(membership.assigned.wait())
        await self._unless_failed(self.task_set.opened())

    async def _unless_failed(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Wait for something that comes while the worker starts, or for the error that prevents it."""
        waiting = asyncio.ensure_future(coroutine)
        cannot = asyncio.ensure_future(self._cannot_start.wait())
        try:
            await asyncio.wait({waiting, cannot}, return_when=asyncio.FIRST_COMPLETED)
            if cannot.done() and self._failed is not None and self._failed.done():
                self._failed.result()
        finally:
            waiting.cancel()
            cannot.cancel()

    def _cannot(self, error: StreamcoreError) -> None:
        """A stream task cannot be opened, or had."""
        self._fail(error)
        self._cannot_start.set()

    def _on_member_end(self, task: asyncio.Task[None]) -> None:
        self._on_end(task)
        self._cannot_start.set()

    def _runner(self, partition: int) -> TaskRunner:
        assert self._failed is not None, "start makes it"
        declared = self._declarations
        return TaskRunner(
            self.services,
            Program(declared.agents, declared.tables, declared.topics),
            partition,
            self._stores or (lambda number: open_store(self.services, self._path(number))),
            self._recovered,
            self._on_end,
            self._failed,
        )

    def _instance_id(self, place: HostPlace) -> str | None:
        """A name under which a worker that was killed and starts again goes on at once with the tasks that it had."""
        config = self.services.config
        if config.group_instance_id:
            return config.group_instance_id
        # Tables in memory leave nothing on this machine that would speak for the same tasks.
        return place.name() if config.store != "memory://" and place.claim() else None

    def _stored(self) -> list[int]:
        """The tasks whose tables lie on this disk."""
        tables = self.data_directory() / "tables"
        if self.services.config.store == "memory://" or not tables.is_dir():
            return []
        return [int(path.name) for path in tables.iterdir() if path.name.isdigit()]

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

    async def _stay_known(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_AGAIN_S)
            for task in self.tasks:
                try:
                    await commit_again(self.services, task)
                except StreamcoreError as error:
                    logger.warning("the offsets of partition %d were not committed again: %s", task.partition, error)

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
        await end(self._background)
        await self.app_tasks.stop()
        if self._member is not None and self.membership is not None and not self.membership.member.retire():
            await end([self._member])
        await self.task_set.stop()
        try:
            async with asyncio.timeout(STOP_MARGIN_S):
                await self.producer.finish()
        except TimeoutError:
            logger.error("not everything that was sent has reached the log in time")
        if self._member is not None and self.membership is not None:
            await end([self._member])
            await self.membership.member.leave()
        for service in reversed(self.extra_services):
            await service.stop()
        for topic in self._declarations.topics.values():
            topic.outlet = None
        for table in self.tables.values():
            table.runtime = None
        if self.place is not None:
            self.place.release()
        await self.services.transport.stop()
        gc.set_threshold(*self._gc_threshold)
        self.phase = "stopped"
