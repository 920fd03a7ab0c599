"""A run's event time: its watermarks, what is due when they come far enough, and the clock that moves them on."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamcore.engine.inputs import FOREVER, NO_TIME, Chunk
from streamcore.engine.window_closing import close_due
from streamcore.errors import UsageError

if TYPE_CHECKING:
    from streamcore.engine.cursor import Cursor
    from streamcore.engine.run import Run


class EventTime:
    """How far a run has come in event time.

    Invariant: watermarks never go back, but to the last commit after an error.
    """

    def __init__(self, run: "Run") -> None:
        self.watermark_ms = NO_TIME  # of the input
        self.out_watermark_ms = NO_TIME  # of what reaches the agent's body: behind a join, it is later
        self.join_delay_ms = 0  # how far a join's output lags behind its input
        self.next_deadline_ms = FOREVER  # in the agent's event time
        self.final_ms = NO_TIME  # the watermark at the end of the loaded chunk
        self.is_watched = False  # it matters event by event
        self._run = run
        self._wake_ms = FOREVER
        self._clock_target_ms = NO_TIME

    def restore(self, state: Mapping[str, Any]) -> None:
        """Everything as the last commit left it."""
        self.watermark_ms = state.get("watermark", NO_TIME)
        self.out_watermark_ms = state.get("out_watermark", NO_TIME)
        self.is_watched = False
        self._wake_ms = self.next_deadline_ms = FOREVER
        self._clock_target_ms = NO_TIME

    # -- the watermark -------------------------------------------------------------------------------------------------

    def advance_to(self, watermark_ms: int) -> None:
        """The input has come so far; a time that has been reached already changes nothing."""
        if watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms
        if watermark_ms > self.out_watermark_ms and self._run.join is None:
            self.out_watermark_ms = watermark_ms

    def is_due_at(self, chunk: Chunk, index: int) -> bool:
        """Whether something is due before this event."""
        watermarks = chunk.watermarks
        return watermarks is not None and watermarks[index] >= self.next_deadline_ms

    def next_stop(self, chunk: Chunk, index: int) -> int:
        """The index of the next event before which something is due, as far as can be known now."""
        if self.final_ms < self.next_deadline_ms:
            return len(chunk.values)
        watermarks = chunk.watermarks
        assert watermarks is not None, "a deadline needs event time"
        return max(index + 1, bisect_left(watermarks, self.next_deadline_ms, index))

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def watch(self, cursor: "Cursor") -> None:
        """From now on event time matters to the run, event by event.

        Raises:
            UsageError: several instances of the agent have no order of events.
        """
        run = self._run
        if run.agent.concurrency > 1:
            raise UsageError(f"agent {run.agent.name}: windows and wake_at need events in order, so concurrency is 1")
        if not self.is_watched:
            self.is_watched = True
            if cursor.chunk is not None:
                cursor.input.watermarks(cursor.chunk, self.watermark_ms)
                cursor.times = cursor.chunk.timestamps
                # The loop does not know yet where to stop in this chunk.
                run.interrupt()
                # Up to here nobody had asked; the events before this one count.
                self.advance_to(cursor.watermark_ms())
        self.find_deadline()

    def wake_at(self, time_ms: int) -> None:
        """Have the agent woken when event time reaches `time_ms`."""
        self._wake_ms = min(self._wake_ms, time_ms)
        self.on_deadline(time_ms)

    def pop_wake(self) -> int | None:
        """The moment asked for, if it has come."""
        if self._wake_ms > self.out_watermark_ms:
            return None
        wake_ms, self._wake_ms = self._wake_ms, FOREVER
        self.find_deadline()
        return wake_ms

    def on_deadline(self, deadline_ms: int) -> None:
        """Something wants to be told when event time reaches `deadline_ms`."""
        if deadline_ms < self.next_deadline_ms:
            self.next_deadline_ms = deadline_ms
            if self.final_ms >= deadline_ms:
                self._run.interrupt()

    def find_deadline(self) -> None:
        """Work out anew when something is due next."""
        deadlines = [self._wake_ms]
        for _, table in self._run.window_partitions():
            if (deadline_ms := table.deadline_ms()) is not None:
                deadlines.append(deadline_ms)
        self.next_deadline_ms = min(deadlines)
        if self.final_ms >= self.next_deadline_ms:
            self._run.interrupt()  # the loop looks again where to stop

    def deadline_ms(self) -> int:
        """The input watermark at which something is due."""
        deadline_ms, join = self.next_deadline_ms, self._run.join
        if deadline_ms < FOREVER:
            deadline_ms += self.join_delay_ms
        if join is not None and (closing_ms := join.deadline_ms()) is not None:
            deadline_ms = min(deadline_ms, closing_ms)
        return deadline_ms

    # -- the clock -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """The clock moves on: inputs go idle, and event time follows the clock where nothing else moves it."""
        run = self._run
        if not run.waiting or self.is_behind_clock:
            return
        for source in run.inputs:
            if source.is_caught_up and now_ms - source.last_data_ms >= run.services.idle_after_ms:
                source.idle = True
        deadline_ms = self.deadline_ms()
        if deadline_ms >= FOREVER:
            return
        target_ms = self._candidate(now_ms)
        if target_ms >= deadline_ms and target_ms > self.watermark_ms:
            self._clock_target_ms = target_ms
            run.fetcher.wake()

    def _candidate(self, now_ms: int) -> int:
        """The least event time of the inputs that are not idle; when all are, the greatest moves on by the clock."""
        inputs = self._run.inputs
        active = [source.max_timestamp_ms for source in inputs if not source.idle]
        if active:
            return min(active)
        return max(
            (
                source.max_timestamp_ms + now_ms - source.last_data_ms
                for source in inputs
                if source.max_timestamp_ms > NO_TIME
            ),
            default=NO_TIME,
        )

    @property
    def is_behind_clock(self) -> bool:
        """The clock says that what was due is over."""
        return self._clock_target_ms > self.watermark_ms

    async def follow_clock(self) -> None:
        """Close what the clock says is over.

        The new watermark is committed before anything acts on it, so that a crash in between acts on it again
        instead of waiting for the clock with other data at hand: what was given out stays true.
        """
        self.advance_to(self._clock_target_ms)
        self._clock_target_ms = NO_TIME
        await self._run.commit_now()
        if self._run.join is None:
            await close_due(self._run)
