"""A stream task at work: opened, run, and closed or given up."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streamcore.agents import Agent
from streamcore.engine.recovery import OnRecovery, Recovery
from streamcore.engine.run import Run
from streamcore.engine.run_state import begin
from streamcore.engine.services import Services, logger
from streamcore.engine.stream_task import StreamTask
from streamcore.state.store import Store
from streamcore.tables import Table
from streamcore.topics import Topic
from streamcore.types import TP

CANCEL_S = 0.3  # for what was cancelled to clean up
STOP_MARGIN_S = 1.0  # for final commits, after the drain


@dataclass(frozen=True, slots=True)
class Program:
    """What a task runs."""

    agents: Mapping[str, Agent]
    tables: dict[str, Table]
    topics: Mapping[str, Topic]


class TaskRunner:
    """Open, start, stop; in this order, each once.

    Args:
        open_store: opens the task's store, when it is time.
        on_end: told of every asyncio task that ends.
        failed: an exception here stops the worker.
    """

    def __init__(
        self,
        services: Services,
        program: Program,
        partition: int,
        open_store: Callable[[int], Store],
        on_recovery: OnRecovery,
        on_end: Callable[[asyncio.Task[None]], None],
        failed: asyncio.Future[None],
    ) -> None:
        self.partition = partition
        self.task: StreamTask | None = None
        self._services = services
        self._program = program
        self._open_store = open_store
        self._on_recovery = on_recovery
        self._on_end = on_end
        self._failed = failed
        self._is_closed = False
        self._run_tasks: dict[Run, asyncio.Task[None]] = {}
        self._committers: dict[Run, asyncio.Task[None]] = {}

    @property
    def runs(self) -> list[Run]:
        return self.task.runs if self.task is not None else []

    async def open(self) -> None:
        """Open the store, bring the tables to where the last commit left them, put down where the runs begin.

        Raises:
            StreamcoreError: what is wrong with the log or the store.
        """
        services, program, partition = self._services, self._program, self.partition
        self._is_closed = False
        task = self.task = StreamTask(services, partition, self._open_store(partition))
        # Sides of joins are among them; which topics a join reads is known when its agent runs.
        tps = [TP(topic, partition) for topic in program.topics if partition < services.partitions(topic)]
        committed = await services.transport.committed(services.group, tps)
        await Recovery(services, task, program.agents, program.tables, self._on_recovery).recover(committed)
        for agent in program.agents.values():
            if partition < services.partitions(agent.topic.name):
                run = Run(services, task, agent, program.tables)
                task.runs.append(run)
                await begin(run, committed)

    def start(self) -> None:
        """Let the agents at their streams."""
        loop = asyncio.get_running_loop()
        for run in self.runs:
            run.failed = self._failed
            self._run_tasks[run] = loop.create_task(run.run(), name=f"agent {run.name}")
            self._committers[run] = loop.create_task(run.group.keep_committing(), name=f"commit {run.name}")
            self._run_tasks[run].add_done_callback(self._on_end)
            self._committers[run].add_done_callback(self._on_end)

    async def stop(self, drain_s: float) -> None:
        """Finish events in flight, commit, close; what does not finish in time is read again by whoever is next."""
        await self._drain(drain_s)
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
        except TimeoutError:
            logger.error("the last commit did not go through in time; its events are read again next time")
        await self._close()

    async def _drain(self, drain_s: float) -> None:
        for run in self.runs:
            run.stop()
        if not self._run_tasks:
            return
        _, late = await asyncio.wait(self._run_tasks.values(), timeout=drain_s)
        for run, task in self._run_tasks.items():
            if task in late:
                logger.warning(
                    "agent %s did not finish its event in %g s; it is read again next time", run.name, drain_s
                )
                run.is_clean = False
        await end(late)

    async def abandon(self) -> None:
        """Leave everything as the last commit left it: whoever has the task now reads the rest again."""
        await end(self._run_tasks.values())
        await self._close()

    async def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        await end(self._committers.values())
        for group in {run.group for run in self.runs}:
            await group.close()
        if self.task is not None:
            self.task.is_closed = True
            self.task.store.close()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for them; one that does not let itself be cancelled is left behind."""
    tasks = set(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=CANCEL_S)
        for task in stubborn:
            logger.error("%s does not end though it was cancelled: does it catch CancelledError?", task.get_name())
