"""A run: one agent on one partition, from the last commit to the next error, restart or stop."""

import asyncio
from inspect import isawaitable
from typing import Any

from streamcore.agents import Agent
from streamcore.codecs import codec_for
from streamcore.context import current_cursor
from streamcore.engine.cursor import Cursor
from streamcore.engine.event_time import EventTime
from streamcore.engine.failures import Failures, Identity
from streamcore.engine.fetcher import Fetcher
from streamcore.engine.group import CommitGroup
from streamcore.engine.inputs import Input
from streamcore.engine.progress import Progress
from streamcore.engine.run_state import restore_input
from streamcore.engine.sending import emit
from streamcore.engine.services import Services, logger
from streamcore.engine.shared_input import SharedInput
from streamcore.engine.stream_task import StreamTask
from streamcore.engine.window_closing import close_due
from streamcore.errors import StateError, StreamcoreError, UsageError
from streamcore.operators.interval_join import ClosedTo, IntervalJoin
from streamcore.state.partitions import TablePartition, WindowPartition
from streamcore.streams import Stream
from streamcore.tables import Table
from streamcore.topics import Topic
from streamcore.types import TP

# Per partition, of stored bytes, which are decoded as they are used. 128 KiB cost W1 a tenth, 1 MiB gained it nothing.
FETCH_MAX_BYTES = 512 << 10


class Run:
    """One agent on one partition.

    Invariants: `position` is the first event not done; between two events (`can_commit`) tables, outputs and
    positions belong to the same prefix of the input.
    """

    def __init__(self, services: Services, task: StreamTask, agent: Agent, declared: dict[str, Table]) -> None:
        self.services = services
        self.task = task
        self.agent = agent
        self.declared = declared
        self.group = CommitGroup(services, task, self)
        now_ms = services.clock.now_ms()
        self.inputs = [Input(TP(agent.topic.name, task.partition), agent.topic, now_ms)]
        self.fetcher = Fetcher(self, FETCH_MAX_BYTES)
        self.cursors: list[Cursor] = []
        self.shared_input = SharedInput(self)  # used with concurrency
        self.progress = Progress(0)
        self.join: IntervalJoin | None = None
        self.join_closed_to: ClosedTo | None = None
        self.tables: dict[str, TablePartition | WindowPartition] = {}
        self.event_time = EventTime(self)
        self.closing_ms: int | None = None  # the time of what on_window_close sends
        self.interrupted = False  # boundary() is due before the next event
        self.stopping = False
        self.finished = False
        self.is_clean = False  # tables, outputs and positions belong together; False from an error to the next start
        self.parked = False
        self.waiting = False
        self.phase = "starting"
        self.failing: str | None = None  # why nothing moves, where something is wrong
        self.failures = Failures(self)
        self.events_total = 0
        self.errors_total = 0
        self.dead_letters_total = 0
        self.late_total = 0
        self.last_progress_ms = now_ms
        self.failed: asyncio.Future[None] | None = None  # set by the worker; an exception here stops it
        self._main: asyncio.Task[None] | None = None
        self._restarting = False
        self._left = asyncio.Event()  # cleared from `restart` until the agent's code has been left
        self._left.set()
        self._rejoining: CommitGroup | None = None  # the group whose roll-back the run waits for
        self._failed_at: list[Identity] = []
        self._bodies: list[asyncio.Task[None]] = []
        self._topic_sinks: list[Topic] = [
            sink.topic if isinstance(sink, Agent) else sink for sink in agent.sinks if isinstance(sink, Topic | Agent)
        ]
        self._function_sinks = [sink for sink in agent.sinks if not isinstance(sink, Topic | Agent)]

    @property
    def name(self) -> str:
        return f"{self.agent.name}[{self.task.partition}]"

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the worker stops: run the agent; after an error, again from the last commit."""
        self._main = asyncio.current_task()
        try:
            await self._run()
        finally:
            self._leave()

    async def _run(self) -> None:
        without_event = 0
        error: Exception | None = None
        while not self.stopping:
            try:
                if self._rejoining is not None:
                    await self._rejoining.wait_rolled_back()
                    self._rejoining = None
                if error is not None:
                    cause, error = error, None
                    await self.group.roll_back(self)
                    without_event = 0 if self._failed_at else without_event + 1
                    if without_event:
                        if isinstance(cause, UsageError | StateError) or without_event > self.agent.policy.retries:
                            self.failures.give_up(cause)
                            break
                        await asyncio.sleep(self.agent.policy.backoff(without_event))
                self._prepare()
                self.phase = "running"
                before = self.events_total
                await self._execute()
                self.obey_restart()
                if self.stopping:
                    break
                if self.events_total == before and not any(c.chunk or c.held for c in self.cursors):
                    logger.error("agent %s returned without reading its stream; it stays stopped", self.name)
                    self.failing = "the agent's function returned without reading its stream"
                    break
                await self._continue_after_return()
                without_event = 0
            except (Exception, asyncio.CancelledError) as raised:
                self.is_clean = self.parked = False
                if self._restarting:
                    # The run that failed rolls the whole group back, this run's own error included.
                    error = None
                    self._rejoining = self.group
                    self._leave()
                elif isinstance(raised, asyncio.CancelledError):
                    raise
                else:
                    error = raised
                    self._failed_at = self.failures.identities(raised, self._bodies)
                    self.failures.register(raised, self._failed_at)
        # From here on a roll-back takes the run to the last commit without asking.
        self.finished = True
        self._leave()
        if error is not None:
            await self.group.roll_back(self)
        if not self.is_clean:
            self._prepare()
        self.phase = "stopped"
        self.group.on_parked()

    def _prepare(self) -> None:
        """Everything as the last commit left it."""
        self.parked = self.waiting = False
        self.join = None
        del self.inputs[1:]
        state, main = self.task.run_states[self.agent.name], self.inputs[0]
        restore_input(main, state)
        main.last_data_ms = self.services.clock.now_ms()
        self.event_time.restore(state)
        self.shared_input.reset()
        self.progress = Progress(main.position)
        self.cursors = [Cursor(self) for _ in range(self.agent.concurrency)]
        # A window that was open must close, also when no event comes that touches its table; and pages show the rows.
        for name in state.get("tables", ()):
            table = self.declared.get(name)
            if table is not None:
                self.attach(table)
                if table.window is not None:
                    self.event_time.watch(self.cursors[0])
        self.is_clean = True
        self.interrupted = bool(self.failures.known) or self.group.wanted

    async def _execute(self) -> None:
        if len(self.cursors) == 1:
            await self._drive(self.cursors[0])
            return
        self._bodies = [asyncio.create_task(self._drive(cursor), name=self.name) for cursor in self.cursors]
        try:
            done, _ = await asyncio.wait(self._bodies, return_when=asyncio.FIRST_EXCEPTION)
            for body in done:
                body.result()
        finally:
            for body in self._bodies:
                body.cancel()
            await asyncio.gather(*self._bodies, return_exceptions=True)

    async def _drive(self, cursor: Cursor) -> None:
        try:
            await self._drive_agent(cursor)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise StreamcoreError(f"agent {self.agent.name} awaited something that was cancelled") from error

    async def _drive_agent(self, cursor: Cursor) -> None:
        current_cursor.set(cursor)
        outputs = self.agent.function(Stream(cursor))
        if not self.agent.is_generator:
            await outputs  # type: ignore[misc]
            return
        topics, functions = self._topic_sinks, self._function_sinks
        async for output in outputs:  # type: ignore[union-attr]
            for topic in topics:
                emit(self, cursor, topic, output)
            for function in functions:
                result = function(output)
                if isawaitable(result):
                    await result

    async def _continue_after_return(self) -> None:
        """The function came to its end: what it was given is done, and it starts again with the next event."""
        if self.join is not None:
            self.cursors[0].row = self.cursors[0].arriving = None
            raise UsageError(f"agent {self.agent.name} returned in the middle of a join: let it read to the end")
        for cursor in self.cursors:
            if cursor.offset is not None:
                self.progress.done(cursor.offset)
                cursor.chunk = cursor.offset = None
            else:
                cursor.leave()
        await self.commit_now()

    def restart(self) -> None:
        """Leave the agent's code, because a run of the same group failed; `left` tells when that is done."""
        self.is_clean = False
        if self._main is not None and not self._main.done() and not self.finished and not self._restarting:
            self.parked = False
            self._restarting = True
            self._left.clear()
            self._main.cancel()

    async def left(self) -> None:
        """Wait until the agent's code does nothing any more."""
        await self._left.wait()

    def back_to_commit(self) -> None:
        """The group has been rolled back; a run that has ended stands at the last commit again."""
        if self.finished:
            self._prepare()

    def _leave(self) -> None:
        if self._restarting:
            self._restarting = False
            if self._main is not None and self._main.cancelling():
                self._main.uncancel()
        self._left.set()

    def obey_restart(self) -> None:
        """An agent that has swallowed its cancellation does not go on with what was rolled back."""
        if self._restarting:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """Take no further event."""
        self.stopping = True
        self.interrupt()
        self.fetcher.wake()

    def tasks(self) -> list[asyncio.Task[None]]:
        """The asyncio tasks that the agent's function runs in."""
        return [task for task in (self._main, *self._bodies) if task is not None and not task.done()]

    def interrupt(self) -> None:
        """Have boundary() looked at before the next event."""
        self.interrupted = True
        for cursor in self.cursors:
            cursor.cut()

    # -- between two events --------------------------------------------------------------------------------------------

    @property
    def can_commit(self) -> bool:
        """The run stands between two events, or has nothing that could be half done."""
        if self.finished:
            return self.is_clean
        if self.agent.concurrency > 1:
            return not self.tables or (self.parked and self.is_clean and self.progress.in_flight == 0)
        return self.parked and self.is_clean

    def refresh_interrupt(self) -> None:
        self.interrupted = False
        if self.stopping or self.group.wanted or self.failures.known:
            self.interrupt()

    async def boundary(self, cursor: Cursor) -> bool:
        """Before the event at the cursor: close what is due, let a commit through, deal with what failed before.

        Returns:
            Whether the event is to be passed over.
        """
        chunk = cursor.chunk
        assert chunk is not None, "there is an event to come"
        time = self.event_time
        time.advance_to(cursor.input.watermarks(chunk, time.watermark_ms)[cursor.index])
        if time.next_deadline_ms <= time.out_watermark_ms:
            await close_due(self)
        skip = False
        if chunk.error is not None:
            self.failures.undecodable(cursor.input, chunk, cursor.index)
            skip = True
        elif self.failures.known:
            offset = chunk.records[cursor.index].offset
            skip = await self.failures.face((cursor.input.tp, offset), cursor.input, chunk, cursor.index)
            self.failures.forget_before(cursor.input.tp, offset)
        if self.group.wanted:
            await self.park()
        self.refresh_interrupt()
        return skip

    async def park(self) -> None:
        """Stand still for a commit."""
        self.obey_restart()
        self.parked = True
        try:
            self.group.on_parked()
            await self.group.wait_open()
        finally:
            self.parked = False

    async def commit_now(self) -> None:
        """Commit what is done before anything else happens."""
        self.obey_restart()
        self.parked = True
        try:
            group = self.group
            group.hurry()
            group.on_parked()
            await group.next_commit()
            await self.group.wait_open()
        finally:
            self.parked = False

    @property
    def has_waiting_rows(self) -> bool:
        """Whether a joined row waits for the watermark."""
        return self.join is not None and self.join.deadline_ms() is not None

    def on_event_done(self) -> None:
        """One of several events in flight is done."""
        self.last_progress_ms = self.services.clock.now_ms()
        self.group.progressed()
        self.group.on_parked()

    def count_late(self) -> None:
        self.late_total += 1
        self.services.metrics.late[(self.agent.name,)] += 1

    # -- tables --------------------------------------------------------------------------------------------------------

    def attach(self, table: Table) -> TablePartition | WindowPartition:
        """The table's partition, on its first use by this run."""
        partition = self.task.attach(self, table)
        self.tables[table.name] = partition
        if isinstance(partition, WindowPartition) and self.event_time.on_deadline not in partition.listeners:
            partition.listeners.append(self.event_time.on_deadline)
        return partition

    def window_partitions(self) -> list[tuple[str, WindowPartition]]:
        """The windowed tables that the run has used, by name."""
        return [(name, table) for name, table in self.tables.items() if isinstance(table, WindowPartition)]

    def attach_state(self, name: str, value_type: Any) -> TablePartition:
        full_name = f"{self.agent.name}-{name}"
        partition = self.tables.get(full_name)
        if partition is None:
            partition = self.tables[full_name] = self.task.attach_state(self, full_name, codec_for(value_type))
        assert isinstance(partition, TablePartition), "a state is a plain table"
        return partition
