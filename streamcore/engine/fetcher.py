"""Brings a run its input: fetches where it has run out, and waits where there is none."""

import asyncio
from typing import TYPE_CHECKING, Any

from streamcore.engine.services import logger
from streamcore.errors import OffsetOutOfRangeError
from streamcore.transport.base import Fetched
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.run import Run

# How long a fetch may wait in the log for data; it is woken by data, so this only bounds a lost wake-up.
FETCH_WAIT_MS = 30_000
FETCH_RETRY_S = 1.0  # after an error that may pass


class Fetcher:
    """Fetches for the inputs of one run.

    Args:
        max_bytes: per partition and fetch.
    """

    def __init__(self, run: "Run", max_bytes: int) -> None:
        self._run = run
        self._max_bytes = max_bytes
        self._signal: asyncio.Future[None] | None = None  # ends the wait; None while nobody waits

    def wake(self) -> None:
        """Look at what has changed."""
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    async def more(self, timeout_s: float | None = None) -> bool:
        """Wait for input, for a deadline by the clock, or for `timeout_s`.

        Returns:
            False when the worker stops.
        """
        run, transport = self._run, self._run.services.transport
        run.obey_restart()
        while not run.stopping:
            wanted = {source.tp: source.fetch_position for source in run.inputs if source.is_empty}
            fetched: list[Fetched] = []
            # Where the last fetch has reached the end, this one can wait there for more.
            if not all(source.is_caught_up for source in run.inputs):
                fetched = await transport.fetch(wanted, max_bytes=self._max_bytes, max_wait_ms=0)
            await asyncio.sleep(0)  # every partition has its turn
            if run.group.wanted:
                await run.park()
            if run.stopping:
                return False
            if self._take_in(fetched):
                return True
            if any(source.fetch_position != wanted.get(source.tp, source.fetch_position) for source in run.inputs):
                continue  # a place was gone, or a gap: what `wanted` says is out of date
            answered = {part.tp for part in fetched}
            for source in run.inputs:
                if source.tp in wanted and source.tp not in answered:
                    source.high_watermark = source.fetch_position  # nothing came: that was all
            if any(not source.is_empty for source in run.inputs):
                return True
            fetched, timed_out = await self._wait(wanted, timeout_s)
            if run.stopping:
                return False
            if run.event_time.is_behind_clock:
                await run.event_time.follow_clock()
                return True
            if self._take_in(fetched) or timed_out:
                return True
            if run.failing is not None:
                await asyncio.sleep(FETCH_RETRY_S)
        return False

    async def _wait(self, wanted: dict[TP, int], timeout_s: float | None) -> tuple[list[Fetched], bool]:
        """Nothing to do until the log, the clock or the worker says so; commits go through meanwhile."""
        run, loop = self._run, asyncio.get_running_loop()
        self._signal = loop.create_future()
        run.phase = "idle"
        run.parked = run.waiting = True
        run.group.on_parked()
        run.group.drained()
        poll = loop.create_task(
            run.services.transport.fetch(wanted, max_bytes=self._max_bytes, max_wait_ms=FETCH_WAIT_MS),
            name=f"fetch {run.name}",
        )
        try:
            futures: set[asyncio.Future[Any]] = {poll, self._signal}
            await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            timed_out = not poll.done() and not self._signal.done()
            run.waiting = False
            run.phase = "running"
            await run.group.wait_open()
        finally:
            # Also where the agent's own timeout ends the wait: it goes on, and must not be taken for still.
            run.parked = run.waiting = False
            self._signal = None
            if not poll.done():
                poll.cancel()
        if poll.done() and not poll.cancelled():
            return poll.result(), False
        return [], timed_out

    def _take_in(self, fetched: list[Fetched]) -> bool:
        """Hand fetched records to their inputs; True if there are any."""
        run = self._run
        now_ms = run.services.clock.now_ms()
        has_records = False
        failing: str | None = None
        for part in fetched:
            source = next(source for source in run.inputs if source.tp == part.tp)
            if part.error is None:
                has_records = source.offer(part, now_ms) or has_records
            elif isinstance(part.error, OffsetOutOfRangeError):
                low, high = part.error.log_start_offset, part.error.log_end_offset
                target = low if source.fetch_position < low else high
                logger.warning(
                    "%s: %s has no offset %d any more (retention, or a shorter log); going on at %d",
                    run.name, part.tp, source.fetch_position, target,
                )  # fmt: skip
                source.seek(target)
                run.group.progressed()
                return self._take_in([])
            else:
                failing = f"{part.tp}: {part.error}"
                if run.failing != failing:
                    logger.error("%s cannot read %s: %s", run.name, part.tp, part.error)
        run.failing = failing
        return has_records
