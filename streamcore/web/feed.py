"""The live feed: the worker's status once per tick, computed only while somebody asks, and shared by all who do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from streamcore.clock import Clock
from streamcore.web.explain import explain, summarise
from streamcore.web.payload import dump
from streamcore.web.rates import Rates
from streamcore.web.views import WebWorker

logger = logging.getLogger(__name__)

Events = list[tuple[str, bytes]]  # event name, JSON

TICK_S = 1.0
LISTENERS_MAX = 100  # each costs a copy of the status per tick
RETRY_MS = 1500  # how soon a browser asks again after the connection is lost
HEARTBEAT_TICKS = 10  # a comment at least this often keeps proxies from closing a quiet connection


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The worker's status at one tick."""

    number: int
    status: dict[str, Any]  # worker.status() with "rates", "why" and "summary"
    full: bytes  # all of it as JSON
    brief: bytes  # without topics, groups, agents and tables


class Feed:
    """Hands out snapshots.

    Nothing is queued for a listener: each asks for the newest snapshot when its socket has taken the one before, so a
    slow browser misses ticks and costs no memory.
    """

    def __init__(self, worker: WebWorker, clock: Clock, *, tick_s: float = TICK_S) -> None:
        self._worker = worker
        self._clock = clock
        self._tick_s = tick_s
        self._rates = Rates()
        self._lock = asyncio.Lock()
        self._tick = -1  # of the newest snapshot
        self._snapshot: Snapshot | None = None
        self._stopping = asyncio.Event()
        self.listeners = 0
        self.computed_total = 0

    def stop(self) -> None:
        """End every stream; browsers come back by themselves when the server does."""
        self._stopping.set()

    async def current(self) -> Snapshot:
        """The snapshot of this tick."""
        async with self._lock:
            tick = int(asyncio.get_running_loop().time() / self._tick_s)
            if self._snapshot is None or tick != self._tick:
                self._snapshot = await self._compute()
                self._tick = tick
            return self._snapshot

    async def _compute(self) -> Snapshot:
        status = await self._worker.status()
        rates = self._rates.update(status)
        findings = explain(status)
        status = status | {"rates": rates, "why": findings, "summary": summarise(status, findings)}
        brief = {
            name: value for name, value in status.items() if name not in ("topics", "groups", "agents", "tables", "why")
        }
        brief["rates"] = {"at_ms": rates["at_ms"], "events": rates["events"]}
        brief["events_total"] = sum(agent.get("events_total") or 0 for agent in status["agents"])
        self.computed_total += 1
        return Snapshot(self.computed_total, status, dump(status), dump(brief))

    def response(self, more: Callable[[], Awaitable[Events]] | None = None) -> Response:
        """A stream of server-sent events.

        Args:
            more: what else goes out each tick; the status is then sent in its brief form.
        """
        if self.listeners >= LISTENERS_MAX:
            return PlainTextResponse(
                f"{LISTENERS_MAX} pages are listening already; close some.\n", 503, {"Retry-After": "10"}
            )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold events back
        return StreamingResponse(self.stream(more), headers=headers, media_type="text/event-stream")

    async def stream(self, more: Callable[[], Awaitable[Events]] | None = None) -> AsyncIterator[bytes]:
        """The bytes of one listener's stream."""
        self.listeners += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            if more is None:
                await self.current()
                yield message("history", dump(list(self._rates.history)))
            quiet = 0
            while not self._stopping.is_set():
                sent = await self._messages(more)
                quiet = 0 if sent else quiet + 1
                if sent:
                    yield sent
                elif quiet % HEARTBEAT_TICKS == 0:
                    yield b": still here\n\n"
                await self._next_tick()
        finally:
            self.listeners -= 1

    async def _messages(self, more: Callable[[], Awaitable[Events]] | None) -> bytes:
        try:
            snapshot = await self.current()
            # The status comes last: a page draws when it has it, and then has everything of this tick.
            events = [] if more is None else await more()
            events = [*events, ("status", snapshot.full if more is None else snapshot.brief)]
        except Exception as error:  # a page that shows the trouble is worth more than one that goes dark
            logger.exception("the status of the worker could not be read for its pages")
            events = [("problem", dump({"reason": f"{type(error).__name__}: {error}"}))]
        return b"".join(message(name, data) for name, data in events)

    async def _next_tick(self) -> None:
        # All listeners wake at the same boundary, so one computation serves them all.
        loop = asyncio.get_running_loop()
        wait_s = self._tick_s - loop.time() % self._tick_s
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            pass


def message(event: str, data: bytes) -> bytes:
    """One server-sent event; JSON has no raw line breaks, so one data line holds it."""
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
