"""The consumer groups of a node for its wire handlers: joins and syncs that wait, deadlines, records that are stored.

Everything that is decided is decided in `groups`; here is the event loop around it. Deadlines follow the loop's time,
which never jumps; only the records' timestamps are wall-clock time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from streamcore.broker.coordinator.consumer_groups.change_writer import ChangeWriter
from streamcore.broker.coordinator.consumer_groups.messages import (
    ConsumerGroupDescription,
    HeartbeatRequest,
    HeartbeatResult,
)
from streamcore.broker.coordinator.consumer_groups.records import decode_change
from streamcore.broker.coordinator.consumer_groups.topics import Topics
from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import (
    GroupDescription,
    GroupError,
    GroupState,
    GroupTally,
    JoinRequest,
    JoinResult,
    LeaveResult,
    ListedGroup,
    SyncRequest,
    SyncResult,
    Write,
)
from streamcore.broker.coordinator.group_records import (
    decode_group,
    decode_group_key,
    encode_group,
    encode_tombstone,
)
from streamcore.broker.coordinator.offset_expiry import Unused
from streamcore.broker.coordinator.registry import GroupRegistry
from streamcore.clock import Clock
from streamcore.errors import BatchTooLargeError, InvalidRecordError, RecordTooLargeError, StreamcoreError
from streamcore.types import InRecord, OutRecord

logger = logging.getLogger(__name__)

Persist = Callable[[Sequence[OutRecord]], Awaitable[None]]


def _no_topics() -> Topics:
    return Topics(0, {})


class GroupCoordinator:
    """Consumer groups of both protocols. `reload` what the log has, then `start`."""

    def __init__(
        self,
        clock: Clock,
        config: GroupConfig | None = None,
        *,
        persist: Persist | None = None,
        topics: Callable[[], Topics] = _no_topics,
        offset_groups: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """
        Args:
            persist: appends records to `__consumer_offsets` and returns once they are safe; without it nothing is kept.
            topics: those that there are now.
            offset_groups: the names of groups that have committed offsets.
        """
        self.config = config or GroupConfig()
        self._clock = clock
        self._persist = persist
        self._groups = GroupRegistry(self.config, topics, offset_groups=offset_groups)
        self._joins: dict[int, asyncio.Future[JoinResult]] = {}  # who waits, by ticket
        self._syncs: dict[int, asyncio.Future[SyncResult]] = {}
        self._last_ticket = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._refusal = GroupError.COORDINATOR_LOAD_IN_PROGRESS
        self._writer: asyncio.Task[None] | None = None
        self._writes_due = asyncio.Event()
        self._changes = ChangeWriter(self._groups.changes, self._writes_due.set)
        self._all_written = asyncio.Event()
        self._all_written.set()

    # --- life -------------------------------------------------------------------------------------------------------

    def reload(self, records: Iterable[InRecord]) -> None:
        """Apply records of `__consumer_offsets` in the order of the log, before `start`; other kinds are passed over.

        Raises:
            CorruptRecordError
        """
        for record in records:
            key, value = record.key or b"", record.value
            group_id = decode_group_key(key)
            change = decode_change(key, value) if group_id is None else None
            if group_id is not None:
                self._groups.restore_classic(group_id, None if value is None else decode_group(group_id, value))
            elif change is not None:
                self._groups.restore_change(change)

    async def start(self) -> None:
        self._refusal = GroupError.NONE
        self._groups.start(self._now_ms())
        if self._persist is not None:
            self._writer = asyncio.create_task(self._write_on(self._persist), name="streamcore-groups-writer")
        self._deliver()

    async def stop(self) -> None:
        """Send everybody who waits away and finish what has to be stored; members find their groups after a restart."""
        self._refusal = GroupError.COORDINATOR_NOT_AVAILABLE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for join in self._joins.values():
            if not join.done():
                join.set_result(JoinResult(self._refusal))
        for sync in self._syncs.values():
            if not sync.done():
                sync.set_result(SyncResult(self._refusal))
        writer, self._writer = self._writer, None
        if writer is not None:
            self._writes_due.set()
            await writer

    async def flush(self) -> None:
        """Wait until everything decided so far is stored, or has failed to be."""
        await self._all_written.wait()

    @property
    def refusal(self) -> int:
        """The error that every request is answered with; 0 while the coordinator runs."""
        return self._refusal

    # --- members ----------------------------------------------------------------------------------------------------

    async def join(
        self,
        group_id: str,
        member_id: str,
        group_instance_id: str | None,
        client_id: str,
        client_host: str,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocol_type: str,
        protocols: Sequence[tuple[str, bytes]],
        requires_known_member_id: bool,
        supports_skip_assignment: bool = False,
    ) -> JoinResult:
        """Be a member of the next generation; returns when it begins, or with an error.

        Args:
            rebalance_timeout_ms: how long the others may take to join; negative is as long as the session's.
            requires_known_member_id: from version 4 of the request on.
            supports_skip_assignment: from version 9 on.
        """
        if self._refusal:
            return JoinResult(self._refusal, member_id=member_id)
        request = JoinRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=group_instance_id,
            client_id=client_id,
            client_host=client_host,
            session_timeout_ms=session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_ms if rebalance_timeout_ms >= 0 else session_timeout_ms,
            protocol_type=protocol_type,
            protocols=tuple(protocols),
            requires_known_member_id=requires_known_member_id,
            supports_skip_assignment=supports_skip_assignment,
        )
        ticket = self._next_ticket()
        answer: asyncio.Future[JoinResult] = asyncio.get_running_loop().create_future()
        self._joins[ticket] = answer
        try:
            self._groups.join(ticket, request, self._now_ms())
            self._deliver()
            result = await answer
        finally:
            del self._joins[ticket]
        # In a consumer group nothing waits for others, but what has changed is to be safe.
        if not await self._changes.stored(self._groups.last_change_of(group_id)):
            return JoinResult(self._refusal or GroupError.COORDINATOR_NOT_AVAILABLE, member_id=member_id)
        return result

    async def sync(
        self,
        group_id: str,
        generation_id: int,
        member_id: str,
        group_instance_id: str | None,
        protocol_type: str | None,
        protocol_name: str | None,
        assignments: dict[str, bytes],
    ) -> SyncResult:
        """Fetch this member's assignment; returns when the leader's is stored, or with an error."""
        if self._refusal:
            return SyncResult(self._refusal)
        request = SyncRequest(
            group_id=group_id,
            generation_id=generation_id,
            member_id=member_id,
            group_instance_id=group_instance_id,
            protocol_type=protocol_type,
            protocol_name=protocol_name,
            assignments=assignments,
        )
        ticket = self._next_ticket()
        answer: asyncio.Future[SyncResult] = asyncio.get_running_loop().create_future()
        self._syncs[ticket] = answer
        try:
            self._groups.sync(ticket, request, self._now_ms())
            self._deliver()
            return await answer
        finally:
            del self._syncs[ticket]

    def heartbeat(self, group_id: str, generation_id: int, member_id: str, group_instance_id: str | None) -> int:
        """A member is alive; the answer tells it when to join again."""
        if self._refusal:
            return self._refusal
        error = self._groups.heartbeat(group_id, generation_id, member_id, group_instance_id, self._now_ms())
        self._deliver()
        return error

    def leave(self, group_id: str, members: Sequence[tuple[str, str | None]]) -> LeaveResult:
        """Members go, by id or, static ones, by instance id with an empty id."""
        if self._refusal:
            return LeaveResult(self._refusal, [])
        result = self._groups.leave(group_id, members, self._now_ms())
        self._deliver()
        return result

    def check_commit(
        self,
        group_id: str,
        generation_id: int,
        member_id: str,
        group_instance_id: str | None,
        *,
        knows_epochs: bool = True,
    ) -> int:
        """Whether this member may commit offsets now; a commit is a sign of life.

        Without a generation (-1) and a member id, a consumer that is no member may, while the group has none.

        Args:
            generation_id: of a member of the newer protocol, its epoch.
            knows_epochs: from version 9 of the request on; members of the newer protocol need it.
        """
        if self._refusal:
            return self._refusal
        error = self._groups.check_commit(
            group_id, generation_id, member_id, group_instance_id, self._now_ms(), knows_epochs=knows_epochs
        )
        self._deliver()
        return error

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> int:
        """Whether a member of a consumer group may fetch offsets; who says nothing of being one always may."""
        return self._refusal or self._groups.check_fetch(group_id, member_id, member_epoch)

    async def consumer_heartbeat(self, request: HeartbeatRequest) -> HeartbeatResult:
        """A member of the newer protocol joins, is alive or leaves; returns when what has changed by it is stored."""
        if self._refusal:
            return HeartbeatResult(self._refusal)
        if not await self._changes.is_well():
            return HeartbeatResult(self._refusal or GroupError.COORDINATOR_NOT_AVAILABLE)
        before = self._groups.changes.last_number
        result = self._groups.consumer_heartbeat(request, self._now_ms())
        number = self._groups.changes.last_number
        if number == before:
            number = self._groups.last_change_of(request.group_id)
        self._deliver()
        if not await self._changes.stored(number):
            return HeartbeatResult(self._refusal or GroupError.COORDINATOR_NOT_AVAILABLE)
        return result

    # --- administration ---------------------------------------------------------------------------------------------

    def describe(self, group_id: str) -> GroupDescription:
        if self._refusal:
            return GroupDescription(self._refusal, group_id, GroupState.DEAD)
        return self._groups.describe(group_id)

    def describe_consumer(self, group_id: str) -> ConsumerGroupDescription:
        if self._refusal:
            return ConsumerGroupDescription(self._refusal, group_id)
        return self._groups.describe_consumer(group_id)

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[ListedGroup]:
        """Groups in one of the states and of one of the types; an empty filter takes all."""
        return self._groups.list_groups(states, types)

    def tally(self) -> GroupTally:
        """All groups in numbers."""
        return self._groups.tally()

    def delete(self, group_id: str) -> int:
        """Forget a group without members; its offsets are the caller's. `flush` waits until that is stored."""
        if self._refusal:
            return self._refusal
        error = self._groups.delete(group_id)
        self._deliver()
        return error

    def unused(self, group_id: str) -> Unused | None:
        """Which of the group's offsets may expire; None where all are in use, or it cannot be known yet."""
        return None if self._refusal else self._groups.unused(group_id)

    def is_empty(self, group_id: str) -> bool:
        """Whether the group has no members, or is none at all."""
        return self._groups.is_empty(group_id)

    def missing(self, group_id: str) -> int:
        """GROUP_ID_NOT_FOUND where there is no group of this name, of either protocol, and no offset of one."""
        return self._refusal or self._groups.missing(group_id)

    def subscribed_topics(self, group_id: str) -> Collection[str] | None:
        """The topics whose offsets the group's members use; None for all of them."""
        return self._groups.subscribed_topics(group_id)

    # --- the event loop ---------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def _next_ticket(self) -> int:
        self._last_ticket += 1
        return self._last_ticket

    def _deliver(self) -> None:
        """Do what the groups want done: answer, store, come back in time."""
        if self._persist is None:
            for write in self._groups.take_writes():
                self._groups.written(write, GroupError.NONE, self._now_ms())
            self._changes.drop()
        elif self._groups.has_writes:
            self._all_written.clear()
            self._writes_due.set()
        for ticket, result in self._groups.take_replies():
            # Whoever has hung up is not here any more, or about to go.
            if isinstance(result, JoinResult):
                join = self._joins.get(ticket)
                if join is not None and not join.done():
                    join.set_result(result)
            else:
                sync = self._syncs.get(ticket)
                if sync is not None and not sync.done():
                    sync.set_result(result)
        self._set_timer()

    def _set_timer(self) -> None:
        deadline_ms = self._groups.next_deadline_ms
        if self._refusal or deadline_ms is None or (self._timer is not None and self._timer_ms <= deadline_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = deadline_ms
        self._timer = asyncio.get_running_loop().call_at(deadline_ms / 1000, self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        # The loop may come a fraction of a millisecond early.
        self._groups.expire(max(self._now_ms(), self._timer_ms))
        self._deliver()

    # --- the log ----------------------------------------------------------------------------------------------------

    async def _write_on(self, persist: Persist) -> None:
        """Store what has to be, all of it that has come up meanwhile at once, until the coordinator stops."""
        while not self._refusal or self._groups.has_writes:
            await self._writes_due.wait()
            self._writes_due.clear()
            # First these: a group that has become a consumer group has both kinds until the other is taken back.
            await self._changes.write(lambda records: self._try(persist, records), self._clock.now_ms())
            now_ms = self._clock.now_ms()
            writes = [_stamped(write, now_ms) for write in self._groups.take_writes()]
            errors = await self._store(persist, writes)
            for write, error in zip(writes, errors, strict=True):
                self._groups.written(write, error, self._now_ms())
            self._deliver()
            if not self._groups.has_writes:
                self._all_written.set()

    async def _store(self, persist: Persist, writes: list[Write]) -> list[GroupError]:
        now_ms = self._clock.now_ms()
        records = [_record(write, now_ms) for write in writes]
        error = await self._try(persist, records) if records else GroupError.NONE
        if error is GroupError.UNKNOWN_SERVER_ERROR and len(records) > 1:
            # One group that is too large must not take the others with it.
            return [await self._try(persist, [record]) for record in records]
        return [error] * len(records)

    async def _try(self, persist: Persist, records: list[OutRecord]) -> GroupError:
        try:
            async with asyncio.timeout(self.config.persist_timeout_ms / 1000):
                await persist(records)
        except (RecordTooLargeError, BatchTooLargeError, InvalidRecordError):
            logger.exception("the metadata of %d groups cannot be stored", len(records))
            return GroupError.UNKNOWN_SERVER_ERROR
        except (StreamcoreError, OSError):  # a timeout is an OSError
            logger.exception("the metadata of %d groups was not stored; their members try again", len(records))
            return GroupError.COORDINATOR_NOT_AVAILABLE
        return GroupError.NONE


def _stamped(write: Write, now_ms: int) -> Write:
    """With the moment from which on the group is in this state."""
    if write.metadata is None:
        return write
    return write._replace(metadata=write.metadata._replace(state_timestamp_ms=now_ms))


def _record(write: Write, now_ms: int) -> OutRecord:
    if write.metadata is None:
        return encode_tombstone(write.group_id, now_ms)
    return encode_group(write.metadata, now_ms)
