"""An agent instance's place in its partition: the hot loop, and what tables and topics see from inside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from streamcore.engine.failures import Identity
from streamcore.engine.inputs import Chunk, Input
from streamcore.engine.interval_join_source import joined_rows
from streamcore.engine.sending import forward, send
from streamcore.errors import UsageError
from streamcore.events import Event, Watermark
from streamcore.joins import IntervalJoinSpec
from streamcore.state.partitions import TablePartition, WindowPartition
from streamcore.tables import Table
from streamcore.topics import Topic
from streamcore.types import Headers

if TYPE_CHECKING:
    from streamcore.engine.run import Run


class Cursor:
    """Where one instance of an agent is. With concurrency 1 there is one per run."""

    __slots__ = (
        "_index", "_segment", "arriving", "chunk", "collecting", "event_time", "held", "input", "late_seen", "loop",
        "offset", "part", "row", "run", "segment_end", "times",
    )  # fmt: skip

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.event_time = run.event_time
        self.input: Input = run.inputs[0]
        self.chunk: Chunk | None = None
        self._index = 0
        # What the hot loop iterates over, and where in the chunk that ends. A list's iterator knows how much is left,
        # so that the loop itself need not count.
        self._segment: list[Any] = []
        self.loop: Any = None
        self.segment_end = 0
        self.times: list[int] | None = None  # event times of the chunk, where they are made already
        self.row: Event | None = None  # of a joined row; it wins over the chunk's
        self.arriving: Event | None = None  # the record whose pairs are being given out
        self.part: int | str | None = None  # which of them, or CLOSE
        self.held: list[tuple[Chunk, int]] = []  # events of a list that `take` collects or has given out
        self.collecting = False  # `held` has not been given out
        self.offset: int | None = None  # handed out, with concurrency
        self.late_seen: int | None = None  # the event whose lateness has been counted

    @property
    def index(self) -> int:
        """The current event's place in the chunk."""
        return self._index if self.loop is None else self.segment_end - 1 - self.loop.__length_hint__()

    @index.setter
    def index(self, index: int) -> None:
        self._index = index
        self.loop = None

    def cut(self) -> None:
        """Let the hot loop end with the event it is at."""
        if self.loop is not None and (left := self.loop.__length_hint__()):
            del self._segment[-left:]
            self.segment_end -= left

    # -- the place -----------------------------------------------------------------------------------------------------

    @property
    def partition(self) -> int:
        return self.run.task.partition

    @property
    def position(self) -> int:
        """The offset of the first event of the main input that is not done."""
        if self.held:
            chunk, index = self.held[0]
            return chunk.records[index].offset
        if self.chunk is not None:
            return self.chunk.records[self.index].offset
        return self.input.position

    @property
    def value(self) -> Any:
        if self.row is not None:
            return self.row.value
        return self.chunk.values[self.index] if self.chunk is not None else None

    def event(self) -> Event | None:
        if self.row is not None:
            return self.row
        return self.input.event(self.chunk, self.index) if self.chunk is not None else None

    def subject(self) -> Identity | None:
        """Which record, or which joined row of it, is being worked on."""
        record = self.arriving or self.row
        if record is not None:
            place = (record.tp, record.offset)
            return place if self.part is None else (*place, self.part)
        if self.chunk is not None:
            return self.input.tp, self.chunk.records[self.index].offset
        return None

    def time_ms(self) -> int:
        if self.run.closing_ms is not None:
            return self.run.closing_ms
        if self.row is not None:
            return self.row.timestamp
        if self.chunk is None:
            return self.event_time.out_watermark_ms
        timestamps = self.chunk.timestamps
        return self.chunk.records[self.index].timestamp if timestamps is None else timestamps[self.index]

    def watermark_ms(self) -> int:
        chunk = self.chunk
        if chunk is not None and chunk.watermarks is not None:
            return max(chunk.watermarks[self.index], self.event_time.out_watermark_ms)
        return self.event_time.out_watermark_ms

    def now_ms(self) -> int:
        return self.run.services.clock.now_ms()

    def leave(self) -> None:
        """A loop over the stream has ended: what it was given last is done, and the next one begins behind it."""
        chunk = self.chunk
        if self.held and self.collecting:
            # A list that was still being collected was never given out.
            first, at = self.held[0]
            self.input.seek(first.records[at].offset)
        elif self.held:
            last, end = self.held[-1]
            self._leave(last, end + 1)
        elif chunk is not None:
            self._leave(chunk, self.index + 1)
        self.chunk = self.times = None
        self.held = []
        self.collecting = False

    # -- chunks --------------------------------------------------------------------------------------------------------

    def _load(self, chunk: Chunk) -> None:
        """A chunk's events are next."""
        run, time, source = self.run, self.event_time, self.input
        self.chunk = chunk
        self.index = 0
        time.final_ms = max(time.watermark_ms, source.greatest_time(chunk))
        run.group.progressed()
        if time.is_watched:
            source.watermarks(chunk, time.watermark_ms)
        self.times = chunk.timestamps
        if chunk.error is not None:
            run.interrupt()

    def _unload(self, chunk: Chunk) -> None:
        """All of a chunk's events are done, or held."""
        run, time, source = self.run, self.event_time, self.input
        self.chunk = self.times = None
        source.position = chunk.next_offset
        time.advance_to(time.final_ms)
        source.max_timestamp_ms = max(source.max_timestamp_ms, time.final_ms)
        run.events_total += len(chunk.values)
        run.last_progress_ms = run.services.clock.now_ms()

    def _leave(self, chunk: Chunk, done: int) -> None:
        """The first `done` events of a loaded chunk are done; the others are given out again."""
        time, source = self.event_time, self.input
        time.advance_to(max(source.times(chunk)[:done]))
        source.max_timestamp_ms = max(source.max_timestamp_ms, time.watermark_ms)
        source.put_back(chunk, done)
        self.run.events_total += done

    # -- the hot loop --------------------------------------------------------------------------------------------------

    async def values(self) -> AsyncIterator[Any]:
        """The values of the input; asking for the next one says that the last one is done."""
        run, time, known_failures = self.run, self.event_time, self.run.failures.known
        if run.agent.concurrency > 1:
            async for value in self._shared_values():
                yield value
            return
        self.leave()
        while True:
            while (wake_ms := time.pop_wake()) is not None:
                yield Watermark(wake_ms)
            chunk = self.input.next_chunk()
            if chunk is None:
                if not await run.fetcher.more():
                    return
                continue
            self._load(chunk)
            values, index, count = chunk.values, 0, len(chunk.values)
            while index < count:
                self.index = index
                if run.interrupted or time.is_due_at(chunk, index):
                    skip = await run.boundary(self)
                    while (wake_ms := time.pop_wake()) is not None:
                        yield Watermark(wake_ms)
                    if run.stopping:
                        return
                    if skip:
                        index += 1
                        continue
                stop = index + 1 if run.interrupted or known_failures else time.next_stop(chunk, index)
                # Nothing is done for an event but to give it out: whoever wants to know the place asks the iterator,
                # and whoever wants the loop to end cuts the list.
                self._segment = values[index:stop]
                self.segment_end = stop
                self.loop = loop = iter(self._segment)
                for value in loop:
                    yield value
                index = self.segment_end
            self._unload(chunk)

    async def _shared_values(self) -> AsyncIterator[Any]:
        """As `values`, with other instances beside this one."""
        run = self.run
        while True:
            if self.offset is not None:
                run.progress.done(self.offset)
                run.failures.forget(self.input.tp, self.offset)
                self.offset = None
                self.chunk = None
                run.on_event_done()
            place = await run.shared_input.next_event()
            if place is None:
                return
            self.chunk, self.index = place
            self.offset = self.chunk.records[self.index].offset
            yield self.chunk.values[self.index]

    async def batches(
        self, max_: int, within_ms: int | None, accept: Callable[[Any], bool] | None
    ) -> AsyncIterator[list[Any]]:
        """Lists of values; their events are held, and so not done, until the agent asks for the next list."""
        run, time = self.run, self.event_time
        if run.agent.concurrency > 1:
            raise UsageError(f"agent {run.agent.name}: take and concurrency do not go together; take gives the batches")
        loop = asyncio.get_running_loop()
        batch: list[Any] = []
        deadline_s = 0.0
        self.leave()
        self.collecting = True
        while True:
            chunk = self.input.next_chunk()
            if chunk is None:
                if batch and within_ms is not None:
                    # What is held has had no effect yet: the run stands still for a commit while it waits.
                    alive = await run.fetcher.more(timeout_s=max(0.0, deadline_s - loop.time()))
                else:
                    alive = await run.fetcher.more()
                if not alive:
                    return
                if batch and within_ms is not None and loop.time() >= deadline_s:
                    self.collecting = False
                    yield batch
                    batch = []
                    self._release()
                continue
            self._load(chunk)
            for self.index, value in enumerate(chunk.values):
                if run.interrupted or time.is_due_at(chunk, self.index):
                    skip = await run.boundary(self)
                    if run.stopping:
                        return
                    if skip:
                        continue
                if accept is not None and not accept(value):
                    continue
                if not batch and within_ms is not None:
                    deadline_s = loop.time() + within_ms / 1000
                self.held.append((chunk, self.index))
                batch.append(value)
                if len(batch) == max_:
                    self.collecting = False
                    yield batch
                    batch = []
                    self._release()
            self._unload(chunk)

    def _release(self) -> None:
        self.held = []
        self.collecting = True
        self.run.on_event_done()

    def joined(self, spec: IntervalJoinSpec, accept: Callable[[Any], bool] | None) -> AsyncIterator[Any]:
        if self.run.agent.concurrency > 1:
            raise UsageError(f"agent {self.run.agent.name}: a join keeps the order of events, so concurrency is 1")
        return joined_rows(self, spec, accept)

    # -- tables, state and sending -------------------------------------------------------------------------------------

    def table(self, table: Table) -> TablePartition:
        partition = self.run.tables.get(table.name)
        if partition is None:
            if table.window is not None:
                raise UsageError(f"table {table.name} is windowed: use what .tumbling() or .hopping() returned")
            partition = self.run.attach(table)
        return partition  # type: ignore[return-value]

    def windows(self, table: Table) -> WindowPartition:
        partition = self.run.tables.get(table.name)
        if partition is None:
            partition = self.run.attach(table)
            self.event_time.watch(self)
        return partition  # type: ignore[return-value]

    def state(self, name: str, value_type: Any) -> TablePartition:
        return self.run.attach_state(name, value_type)

    def wake_at(self, time_ms: int) -> None:
        self.event_time.watch(self)
        self.event_time.wake_at(time_ms)

    def late(self, policy: Any) -> None:
        run = self.run
        subject = self.subject()
        offset: int | None = None if subject is None else subject[1]
        if offset is not None and offset == self.late_seen:
            return  # an event that is late for two windows is one late event
        self.late_seen = offset
        run.count_late()
        event = self.event()
        if policy != "drop" and event is not None:
            forward(run, policy, event)

    def send(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> Awaitable[Any]:
        return send(self.run, topic, partition, key, value, self.time_ms() if time_ms is None else time_ms, headers)
