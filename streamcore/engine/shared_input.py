"""The input of an agent with concurrency: its instances take one event each, in the order of the log."""

import asyncio
from typing import TYPE_CHECKING

from streamcore.engine.inputs import Chunk

if TYPE_CHECKING:
    from streamcore.engine.run import Run


class SharedInput:
    """Hands the events of a run's input to whichever instance asks first."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._handing_out = asyncio.Lock()
        self._next: tuple[Chunk, int] | None = None  # the event that is handed out next

    def reset(self) -> None:
        """Forget what was fetched; the input begins again at the last commit."""
        self._next = None

    async def next_event(self) -> tuple[Chunk, int] | None:
        """The place of the next event for one of several instances; None when the worker stops."""
        run = self._run
        async with self._handing_out:
            while not run.stopping:
                if run.group.wanted and run.tables:
                    await run.park()
                    continue
                source = run.inputs[0]
                if self._next is None:
                    chunk = source.next_chunk()
                    if chunk is None:
                        if not await run.fetcher.more():
                            return None
                        continue
                    run.group.progressed()
                    self._next = (chunk, 0)
                chunk, index = self._next
                self._next = (chunk, index + 1) if index + 1 < len(chunk.values) else None
                offset = chunk.records[index].offset
                # Before it is handed out: a commit that it waits for must not wait for it.
                skip = chunk.error is not None
                if skip:
                    run.failures.undecodable(source, chunk, index)
                elif run.failures.known:
                    skip = await run.failures.face((source.tp, offset), source, chunk, index)
                if run.stopping:
                    return None  # it is read again next time
                if self._next is None:
                    source.position = chunk.next_offset
                    run.event_time.advance_to(source.greatest_time(chunk))
                    source.max_timestamp_ms = max(source.max_timestamp_ms, run.event_time.watermark_ms)
                run.progress.hand_out(offset)
                if not skip:
                    run.events_total += 1
                    return chunk, index
                run.progress.done(offset)
            return None
