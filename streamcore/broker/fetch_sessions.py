"""What consumers fetch again and again, so that a request names only what changed, and so does its answer (KIP-227).

Pure state. A session begins with a full fetch and goes on with incremental ones, whose epochs count up:

| request's session | epoch | becomes |
| --- | --- | --- |
| any | -1 | a fetch without a session; the one named ends |
| any | 0 | a full fetch, in a new session where there is room; the one named ends |
| unknown | other | FETCH_SESSION_ID_NOT_FOUND |
| known | not the next one | INVALID_FETCH_SESSION_EPOCH |
| known | the next one | an incremental fetch of all the session's partitions |

A partition is *due* when a read of it could find something: it is new, asked for from another offset, has changed, had
more than an answer could hold, or failed. Only those are looked at, so an idle partition costs nothing.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from streamcore.broker.delayed_fetch import Watch
from streamcore.clock import Clock
from streamcore.log.config import INT32_MAX
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

Key = tuple[str | UUID, int]  # a topic by its name, or from Fetch 13 on by its id, and a partition

NO_SESSION: Final = 0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
EVICTION_MS: Final = 120_000  # Kafka's; a session is safe for that long
PARTITIONS_MAX: Final = 200_000  # of all sessions, some 100 MB; what is beyond gets full answers


def next_epoch(epoch: int) -> int:
    return epoch + 1 if epoch < INT32_MAX else 1


@dataclass(slots=True)
class SessionPartition:
    """What a client wants of a partition, and what it was told last."""

    asked: Any  # the request's FetchPartition
    high_watermark: int = -1
    log_start_offset: int = -1
    watched: TP | None = None  # whose changes make it due


@dataclass(slots=True, eq=False)
class FetchSession:
    """One consumer's partitions on this node."""

    id: int
    by_id: bool  # whether topics are named by their ids
    created_ms: int
    used_ms: int
    epoch: int = INITIAL_EPOCH + 1  # of the next request
    partitions: dict[Key, SessionPartition] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    has_ended: bool = False  # whoever waits in it still gets an answer
    _due: dict[Key, None] = field(default_factory=dict)  # in the order in which they have their turn

    def update(self, asked: Iterable[tuple[Key, Any]], forgotten: Iterable[Key]) -> list[SessionPartition]:
        """Take over what a request says; the partitions that it forgets."""
        for key, partition in asked:
            known = self.partitions.get(key)
            if known is None:
                self.partitions[key] = SessionPartition(partition)
            else:
                known.asked = partition
            self._due[key] = None
        dropped = []
        for key in forgotten:
            self._due.pop(key, None)
            known = self.partitions.pop(key, None)
            if known is not None:
                dropped.append(known)
        return dropped

    def due(self) -> list[Key]:
        """What is worth a read now, in turn."""
        for key in self.watch.take():
            if key in self.partitions:
                self._due[key] = None
        return list(self._due)

    def answered(self, answers: Iterable[tuple[Key, Any]]) -> list[tuple[Key, Any]]:
        """Those of the due partitions' answers that tell the client something; they are told from now on."""
        told = []
        for key, answer in answers:
            known = self.partitions.get(key)
            if known is None:
                continue  # forgotten by a request that came on another connection meanwhile
            if answer.error_code:
                # Told again until it is over, and what it is then counts as a change.
                known.high_watermark = -1
                told.append((key, answer))
                continue
            changed = answer.high_watermark != known.high_watermark or answer.log_start_offset != known.log_start_offset
            known.high_watermark, known.log_start_offset = answer.high_watermark, answer.log_start_offset
            if len(answer.records):
                told.append((key, answer))
                # To the end, so that a busy partition does not keep the others from their turn.
                self._due.pop(key, None)
                self._due[key] = None
                continue
            if changed:
                told.append((key, answer))
            if known.asked.fetch_offset >= answer.high_watermark:
                self._due.pop(key, None)
        return told


class FetchSessions:
    """The sessions of a node, as many as there is room for."""

    def __init__(self, slots: int, clock: Clock, *, on_forgotten: Callable[[Watch, TP], None]) -> None:
        """`on_forgotten` is told whose changes a session no longer wants to hear of."""
        self._slots = slots
        self._clock = clock
        self._on_forgotten = on_forgotten
        self._sessions: dict[int, FetchSession] = {}  # the one used longest ago first
        self._partitions = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(
        self,
        session_id: int,
        session_epoch: int,
        *,
        by_id: bool,
        asked: list[tuple[Key, Any]],
        forgotten: Iterable[Key] = (),
    ) -> FetchSession | int:
        """A request has come.

        Returns:
            Its session; or ErrorCode.NONE for a fetch without one, or why it cannot be answered.
        """
        session = self._sessions.get(session_id)
        if session_epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            if session is not None:
                self._end(session)
            if session_epoch == FINAL_EPOCH or not asked:
                return ErrorCode.NONE
            return self._new(by_id, asked)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if session.epoch != session_epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.by_id != by_id:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        before = len(session.partitions)
        for partition in session.update(asked, forgotten):
            self._unwatch(session, partition)
        self._partitions += len(session.partitions) - before
        if not session.partitions:
            self._end(session)
            return ErrorCode.NONE
        session.epoch = next_epoch(session_epoch)
        session.used_ms = self._clock.now_ms()
        self._sessions[session.id] = self._sessions.pop(session.id)
        return session

    def _new(self, by_id: bool, asked: list[tuple[Key, Any]]) -> FetchSession | int:
        now_ms = self._clock.now_ms()
        if not self._make_room(len(asked), now_ms):
            return ErrorCode.NONE
        session_id = NO_SESSION
        while session_id == NO_SESSION or session_id in self._sessions:
            session_id = random.randint(1, INT32_MAX)
        session = self._sessions[session_id] = FetchSession(session_id, by_id, now_ms, now_ms)
        session.update(asked, ())
        self._partitions += len(session.partitions)
        return session

    def _make_room(self, size: int, now_ms: int) -> bool:
        """As Kafka does: for one that is not used any more, or after a while for one with fewer partitions."""
        if self._partitions + size > PARTITIONS_MAX:
            return False
        if len(self._sessions) < self._slots:
            return True
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return False
        if now_ms - oldest.used_ms > EVICTION_MS:
            self._end(oldest)
            return True
        smallest = min(self._sessions.values(), key=lambda session: len(session.partitions))
        if len(smallest.partitions) < size and now_ms - smallest.created_ms > EVICTION_MS:
            self._end(smallest)
            return True
        return False

    def _end(self, session: FetchSession) -> None:
        del self._sessions[session.id]
        session.has_ended = True
        self._partitions -= len(session.partitions)
        for partition in session.partitions.values():
            self._unwatch(session, partition)

    def _unwatch(self, session: FetchSession, partition: SessionPartition) -> None:
        if partition.watched is not None:
            self._on_forgotten(session.watch, partition.watched)
