"""What an agent failed at and how often, and what becomes of it: another try, or its end by the agent's policy."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamcore.codecs import codec_for
from streamcore.engine.inputs import Chunk, Input
from streamcore.engine.services import logger
from streamcore.errors import StateError, StreamcoreError
from streamcore.events import Event
from streamcore.operators.interval_join import Joined
from streamcore.tables import Table
from streamcore.types import TP, Headers

if TYPE_CHECKING:
    from streamcore.engine.run import Run

# What failed: (partition, offset) for a record, with a number or CLOSE behind it for a joined row of that record,
# or ("window", table, start, key) for the close of a window's row.
Identity = tuple[Any, ...]

CLOSE = "close"  # the joined row that comes when its record's window closes


@dataclass
class Failure:
    """An event that its agent raised at."""

    error: BaseException
    attempts: int = 0
    is_fresh: bool = True  # not yet waited for since the last attempt


class WindowCloseError(Exception):
    """`on_window_close` raised; carries which window's row it was."""

    def __init__(self, identity: Identity, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.identity = identity
        self.cause = cause


def place_of(identity: Identity) -> str:
    """An identity for people."""
    if identity[0] == "window":
        return f"{identity[0]} {identity[1]}@{identity[2]}"
    place = f"{identity[0]}@{identity[1]}"
    return place if len(identity) == 2 else f"{place} (joined row {identity[2]})"


class Failures:
    """What a run has failed at since it began, until it succeeds or is given up.

    `known` is one dict for the run's whole life: hot loops hold it.
    """

    def __init__(self, run: "Run") -> None:
        self.known: dict[Identity, Failure] = {}
        self._run = run
        self._policy = run.agent.policy
        self._services = run.services

    # -- after an error ------------------------------------------------------------------------------------------------

    def identities(self, error: BaseException, bodies: Sequence[asyncio.Task[None]]) -> list[Identity]:
        """What the run was at when it raised; empty where no event is to blame.

        Args:
            bodies: the tasks of the agent's instances, where there are several.
        """
        cursors = self._run.cursors
        cause = error.cause if isinstance(error, WindowCloseError) else error
        if isinstance(cause, StateError):
            return []  # the store cannot be read, whatever the event
        if isinstance(error, WindowCloseError):
            return [error.identity]
        for cursor in cursors:
            # What `take` still collects has not been given to the agent: an error is the next event's.
            if cursor.held and not cursor.collecting:
                return [(cursor.input.tp, chunk.records[index].offset) for chunk, index in cursor.held]
        # With several instances the one that raised is the one whose body has ended in an exception.
        ended: list[asyncio.Task[None] | None] = [*bodies] if len(cursors) > 1 else [None]
        for cursor, body in zip(cursors, ended, strict=False):
            raised = body is None or (body.done() and not body.cancelled() and body.exception() is error)
            if raised and (subject := cursor.subject()) is not None:
                return [subject]
        return []

    def register(self, error: BaseException, identities: list[Identity]) -> None:
        """Count an error, and another attempt of each of `identities`."""
        run = self._run
        run.errors_total += 1
        self._services.metrics.errors[(run.agent.name,)] += 1
        cause = error.cause if isinstance(error, WindowCloseError) else error
        attempts = 1
        if identities:
            failure = Failure(cause)
            for identity in identities:
                failure.attempts = max(failure.attempts, self.known.get(identity, failure).attempts)
            failure.attempts += 1
            attempts = failure.attempts
            for identity in identities:
                self.known[identity] = failure
        where = ", ".join(map(place_of, identities[:3]))
        logger.warning(
            "agent %s failed at %s, attempt %d: %s: %s",
            run.name, where or "no event", attempts, type(cause).__name__, cause,
            exc_info=cause if attempts == 1 else None,
        )  # fmt: skip

    # -- before the next try -------------------------------------------------------------------------------------------

    def _is_over(self, failure: Failure) -> bool:
        return failure.attempts > self._policy.retries

    async def _pause(self, failure: Failure) -> None:
        """Before a try of what failed: what is done before it is committed."""
        if failure.is_fresh:
            failure.is_fresh = False
            self._run.phase = "retrying"
            await self._run.commit_now()
            await asyncio.sleep(self._policy.backoff(failure.attempts))
            self._run.phase = "running"

    async def face(self, identity: Identity, source: Input, chunk: Chunk, index: int) -> bool:
        """Before an event that failed: what is done before it is committed, then it has its next try, alone.

        Returns:
            True when it has had its last: it is buried by the agent's policy, and passed over.
        """
        failure = self.known.get(identity)
        if failure is None:
            return False
        if self._is_over(failure):
            del self.known[identity]
            self.bury(source.tp, chunk, index, failure.error, failure.attempts)
            return True
        await self._pause(failure)
        return False

    async def face_row(self, event: Event) -> bool:
        """As `face`, for the joined row that comes at a record's close."""
        failure = self.known.get((event.tp, event.offset, CLOSE))
        if failure is None:
            return False
        if self._is_over(failure):
            self._bury_event(event, failure, "its joined row at the close of its window")
            return True
        await self._pause(failure)
        return False

    async def face_pairs(self, event: Event) -> None:
        """Before a record comes into a join: whether a pair of it has failed."""
        for identity, failure in list(self.known.items()):
            if identity[:2] == (event.tp, event.offset) and identity[2:] not in ((), (CLOSE,)):
                if not self._is_over(failure):
                    await self._pause(failure)
                elif self._policy.then == "stop":
                    self.give_up(failure.error)

    def is_dead_pair(self, event: Event, number: int, row: Joined) -> bool:
        """Whether a pair has had its last try: then it is buried, alone."""
        failure = self.known.get((event.tp, event.offset, number))
        if failure is None or not self._is_over(failure):
            return False
        left = row[0]
        self._bury_event(event, failure, f"its joined row number {number}, of {left.tp}@{left.offset}")
        return True

    async def face_window(self, table: Table, identity: Identity, value: Any) -> bool:
        """As `face`, for the close of a window's row; nothing is committed in the middle of a close."""
        failure = self.known.get(identity)
        if failure is None:
            return False
        if self._is_over(failure):
            del self.known[identity]
            self._bury_window(table, identity, value, failure)
            return True
        if failure.is_fresh:
            failure.is_fresh = False
            self._run.phase = "retrying"
            await asyncio.sleep(self._policy.backoff(failure.attempts))
            self._run.phase = "running"
        return False

    # -- after a success -----------------------------------------------------------------------------------------------

    def forget(self, tp: TP, offset: int, part: str | None = None) -> None:
        """A record's joined rows have been given out; with `part` the one at its close."""
        if self.known:
            for identity in list(self.known):
                if identity[:2] == (tp, offset) and (identity[2:] == (CLOSE,)) == (part == CLOSE):
                    del self.known[identity]

    def forget_before(self, tp: TP, offset: int) -> None:
        """What lies before a later event has succeeded."""
        for identity in [i for i in self.known if len(i) == 2 and i[0] == tp and i[1] < offset]:
            del self.known[identity]

    # -- the end -------------------------------------------------------------------------------------------------------

    def undecodable(self, source: Input, chunk: Chunk, index: int) -> None:
        """A record that does not fit its topic's types: no retry would help."""
        assert chunk.error is not None
        self._services.metrics.undecodable[(self._run.agent.name, source.tp.topic)] += 1
        self.bury(source.tp, chunk, index, chunk.error, 1)

    def bury(self, tp: TP, chunk: Chunk, index: int, error: BaseException, attempts: int) -> None:
        """Give up a record of a chunk."""
        record = chunk.records[index]
        self._bury_record(
            tp, record.offset, record.key, record.value, record.timestamp, record.headers, error, attempts
        )

    def _bury_event(self, event: Event, failure: Failure, detail: str) -> None:
        message = event.message
        self._bury_record(
            event.tp, message.offset, message.key, message.value, message.timestamp, message.headers,
            failure.error, failure.attempts, detail=detail,
        )  # fmt: skip

    def _bury_window(self, table: Table, identity: Identity, value: Any, failure: Failure) -> None:
        _, name, start_ms, key = identity
        codec = codec_for(None)
        tp = TP(self._services.changelog_topic(name), self._run.task.partition)
        assert table.window is not None
        self._bury_record(
            tp, -1, codec.dumps(key), table.codec.dumps(value), start_ms + table.window.size_ms - 1, (),
            failure.error, failure.attempts, detail=f"on_window_close of {name}, window start {start_ms} ms",
        )  # fmt: skip

    def _bury_record(
        self,
        tp: TP,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers,
        error: BaseException,
        attempts: int,
        detail: str = "",
    ) -> None:
        """Give a record up, as the agent's policy says."""
        run, services = self._run, self._services
        agent, then = run.agent.name, self._policy.then
        run.group.progressed()
        if then == "stop":
            self.give_up(error)
            return
        if then == "skip":
            services.metrics.skipped[(agent,)] += 1
            logger.error("agent %s skips %s@%d after %d attempts: %s", run.name, tp, offset, attempts, error)
            return
        run.dead_letters_total += 1
        services.metrics.dead_letters[(agent, tp.topic)] += 1
        logger.error("agent %s: %s@%d is dead after %d attempts: %s", run.name, tp, offset, attempts, error)
        letter = services.dead_letter(
            agent, tp, offset, key, value, timestamp_ms, headers, error, attempts, detail=detail
        )
        run.group.send(TP(services.dead_letter_topic, 0), letter)

    def give_up(self, error: BaseException) -> None:
        """Stop the worker: this error needs a person."""
        run = self._run
        run.failing = f"{type(error).__name__}: {error}"
        run.stopping = True
        if run.failed is not None and not run.failed.done():
            run.failed.set_exception(
                error
                if isinstance(error, StreamcoreError)
                else StreamcoreError(f"agent {run.name} stopped the worker: {type(error).__name__}: {error}")
            )
