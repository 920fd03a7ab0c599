"""Watches that input which waits is being worked on: a process that only looks alive is found out."""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

from streamcore.engine.run import Run
from streamcore.engine.services import Services, logger
from streamcore.errors import StreamcoreError
from streamcore.transport.base import LATEST
from streamcore.types import TP

CHECK_S = 5.0  # or a third of the allowed silence, if that is shorter


class Watchdog:
    """Compares where every run is with where its input ends."""

    def __init__(self, services: Services, after_ms: int) -> None:
        self._services = services
        self._after_ms = after_ms
        self._places: dict[Run, tuple[tuple[int, ...], int]] = {}  # last seen place, and since when
        self.stuck: dict[Run, str] = {}

    @property
    def reason(self) -> str | None:
        """What is stuck, or None."""
        return next(iter(self.stuck.values()), None)

    async def watch(self, runs: Sequence[Run]) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(min(CHECK_S, self._after_ms / 3000))
            try:
                await self.check(runs)
            except StreamcoreError as error:  # a topic was deleted or is offline; its runs say so themselves
                logger.debug("the watchdog cannot look: %s", error)

    async def check(self, runs: Sequence[Run]) -> None:
        """One look at every run."""
        tps = {source.tp for run in runs for source in run.inputs}
        ends = await self._services.transport.list_offsets(tps, LATEST)
        now_ms = self._services.clock.now_ms()
        for run in set(self._places) - set(runs):  # its task is with another worker now
            del self._places[run]
            self.stuck.pop(run, None)
        for run in runs:
            place = (run.events_total, run.errors_total, run.group.commits, *run_positions(run).values())
            before = self._places.get(run)
            if before is None or before[0] != place or is_drained(run, ends):
                self._places[run] = (place, now_ms)
                if self.stuck.pop(run, None):
                    logger.warning("agent %s moves again", run.name)
                continue
            silent_ms = now_ms - before[1]
            if silent_ms >= self._after_ms and run not in self.stuck:
                reason = (
                    f"agent {run.name} has {lag(run, ends)} records to read and has not moved for "
                    f"{silent_ms / 1000:.0f} s ({run.failing or run.group.failing or 'it waits inside its function'})"
                )
                self.stuck[run] = reason
                logger.error("%s; it stands here:\n%s", reason, stack_of(run))


def run_positions(run: Run) -> dict[TP, int]:
    """Where a run is in each input."""
    positions = {source.tp: source.position for source in run.inputs}
    if run.cursors:
        main = run.inputs[0].tp
        positions[main] = run.progress.position if run.agent.concurrency > 1 else run.cursors[0].position
    return positions


def lag(run: Run, ends: dict[TP, int]) -> int:
    """How many records a run has yet to do."""
    return sum(max(0, ends.get(tp, position) - position) for tp, position in run_positions(run).items())


def is_drained(run: Run, ends: dict[TP, int]) -> bool:
    """Whether a run has taken in all there is and waits for more; `take` may hold some of it on purpose."""
    if run.agent.concurrency > 1 and run.progress.in_flight:
        return False
    return run.waiting and all(source.fetch_position >= ends.get(source.tp, 0) for source in run.inputs)


def stack_of(run: Run) -> str:
    """The stacks of a run's tasks, down to where they wait."""
    text = io.StringIO()
    for task in run.tasks():
        task.print_stack(limit=20, file=text)
        coroutine: Any = task.get_coro()
        while coroutine is not None:  # print_stack shows the outermost frame only
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
            if frame is not None:
                text.write(
                    f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_qualname}\n'
                )
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return text.getvalue()
