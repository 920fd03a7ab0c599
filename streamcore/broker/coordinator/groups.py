"""All classic groups of a node: who may make one, what is due next, how much memory they take.

No I/O and no clock: every call says what time it is. What waits is answered through `take_replies`, what has to be
stored comes out of `take_writes` and is reported to `written`.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from uuid import uuid4

from streamcore.broker.coordinator.deadlines import Deadlines
from streamcore.broker.coordinator.group import Group
from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_members import Member, protocols_bytes
from streamcore.broker.coordinator.group_messages import (
    NO_MEMBER_ID,
    GroupDescription,
    GroupError,
    GroupMetadata,
    GroupState,
    GroupTally,
    JoinRequest,
    JoinResult,
    LeaveResult,
    ListedGroup,
    MemberLeft,
    Outbox,
    Reply,
    SyncRequest,
    SyncResult,
    Write,
)
from streamcore.broker.coordinator.group_views import describe, listed, unused
from streamcore.broker.coordinator.offset_expiry import Unused

logger = logging.getLogger(__name__)


class Groups:
    """The groups by name. Whoever holds this one drives it in one event loop."""

    def __init__(
        self,
        config: GroupConfig,
        *,
        offset_groups: Callable[[], Collection[str]] = tuple,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """
        Args:
            offset_groups: the names that have committed offsets; they are groups too, though without members.
            new_id: makes member ids unique.
        """
        self.config = config
        self._offset_groups = offset_groups
        self._new_id = new_id
        self._outbox = Outbox()
        self._groups: dict[str, Group] = {}
        self._members_bytes = 0
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._groups

    # --- members ----------------------------------------------------------------------------------------------------

    def join(self, ticket: int, request: JoinRequest, now_ms: int) -> None:
        """The answer comes under `ticket`, now or when the rebalance is complete."""
        error = self.join_error(request)
        if error:
            self._outbox.replies.append(Reply(ticket, JoinResult(error, member_id=request.member_id)))
            return
        group = self._groups.get(request.group_id)
        if group is None:
            group = Group(request.group_id, self.config, self._outbox, self._new_id)
            self._groups[request.group_id] = group
        before = group.members.size_bytes
        group.join(ticket, request, now_ms)
        self._settle(group, before)

    def join_error(self, request: JoinRequest) -> GroupError:
        """What refuses a join whatever the group's members are, or NONE."""
        error = self.request_error(request)
        if error:
            return error
        if request.group_id not in self._groups:
            if request.member_id != NO_MEMBER_ID:
                return GroupError.UNKNOWN_MEMBER_ID
            if len(self._groups) >= self.config.groups_max:
                logger.warning("group %r is refused: there are %d already", request.group_id, len(self._groups))
                return GroupError.COORDINATOR_NOT_AVAILABLE
        return GroupError.NONE

    def request_error(self, request: JoinRequest) -> GroupError:
        """What refuses a join to a group of either protocol, or NONE."""
        config = self.config
        if not request.group_id:
            return GroupError.INVALID_GROUP_ID
        if not config.group_min_session_timeout_ms <= request.session_timeout_ms <= config.group_max_session_timeout_ms:
            return GroupError.INVALID_SESSION_TIMEOUT
        if self._is_too_much(protocols_bytes(request.protocols)):
            return GroupError.COORDINATOR_NOT_AVAILABLE
        return GroupError.NONE

    def sync(self, ticket: int, request: SyncRequest, now_ms: int) -> None:
        """The answer comes under `ticket`, now or when the leader's assignment is stored."""
        group = self._groups.get(request.group_id)
        error = _missing(request.group_id, group)
        if not error and self._is_too_much(sum(map(len, request.assignments.values()))):
            error = GroupError.COORDINATOR_NOT_AVAILABLE
        if error or group is None:
            self._outbox.replies.append(Reply(ticket, SyncResult(error)))
            return
        before = group.members.size_bytes
        group.sync(ticket, request, now_ms)
        self._settle(group, before)

    def heartbeat(
        self, group_id: str, generation_id: int, member_id: str, group_instance_id: str | None, now_ms: int
    ) -> GroupError:
        group = self._groups.get(group_id)
        if group is None:
            return _missing(group_id, group)
        error = group.heartbeat(generation_id, member_id, group_instance_id, now_ms)
        self._schedule(group)
        return error

    def leave(self, group_id: str, members: Iterable[tuple[str, str | None]], now_ms: int) -> LeaveResult:
        if not group_id:
            return LeaveResult(GroupError.INVALID_GROUP_ID, [])
        leaving = list(members)
        group = self._groups.get(group_id)
        if group is None:
            errors = [GroupError.UNKNOWN_MEMBER_ID] * len(leaving)
        else:
            before = group.members.size_bytes
            errors = group.leave(leaving, now_ms)
            self._settle(group, before)
        left = [MemberLeft(*member, error) for member, error in zip(leaving, errors, strict=True)]
        return LeaveResult(GroupError.NONE, left)

    def check_commit(
        self, group_id: str, generation_id: int, member_id: str, group_instance_id: str | None, now_ms: int
    ) -> GroupError:
        """Whether this member may commit offsets now; it counts as a sign of life."""
        group = self._groups.get(group_id)
        if group is None:
            # Whoever commits without a generation needs no group but its offsets, and not even a name for it.
            if generation_id < 0:
                return GroupError.NONE
            return GroupError.UNKNOWN_MEMBER_ID if group_id in self._offset_groups() else GroupError.GROUP_ID_NOT_FOUND
        error = group.check_commit(generation_id, member_id, group_instance_id, now_ms)
        self._schedule(group)
        return error

    # --- administration ---------------------------------------------------------------------------------------------

    def is_empty(self, group_id: str) -> bool:
        """Whether it has no members, or is none at all."""
        group = self._groups.get(group_id)
        return group is None or group.state is GroupState.EMPTY

    def unused(self, group_id: str) -> Unused | None:
        """Which of the group's offsets may expire; None where all are in use."""
        group = self._groups.get(group_id)
        return Unused() if group is None else unused(group)

    def describe(self, group_id: str) -> GroupDescription:
        group = self._groups.get(group_id)
        if group is not None:
            return describe(group)
        if group_id in self._offset_groups():
            return GroupDescription(GroupError.NONE, group_id, GroupState.EMPTY)
        return GroupDescription(GroupError.GROUP_ID_NOT_FOUND, group_id, GroupState.DEAD)

    def list_groups(self) -> list[ListedGroup]:
        """Every group, those that are only offsets included."""
        found = [listed(group) for group in self._groups.values()]
        found += (ListedGroup(name, "", GroupState.EMPTY) for name in self._offset_groups() if name not in self._groups)
        return found

    def tally(self) -> GroupTally:
        """How many there are, by state; groups that are only offsets are empty ones."""
        by_state: dict[str, int] = dict.fromkeys(GroupState, 0)
        for group in self._groups.values():
            by_state[group.state] += 1
        by_state[GroupState.EMPTY] += sum(name not in self._groups for name in self._offset_groups())
        members = sum(len(group.members) for group in self._groups.values())
        return GroupTally(by_state, members, self._outbox.generations)

    def delete(self, group_id: str) -> GroupError:
        group = self._groups.get(group_id)
        if group is None:
            return GroupError.NONE if group_id in self._offset_groups() else GroupError.GROUP_ID_NOT_FOUND
        error = group.delete()
        if not error:
            self._forget(group)
        return error

    def get(self, group_id: str) -> Group | None:
        return self._groups.get(group_id)

    def adopt(self, group_id: str, generation_id: int, members: Iterable[Member], now_ms: int) -> None:
        """A consumer group goes on as a classic one, with these members; they have to join again."""
        group = self._groups[group_id] = Group(group_id, self.config, self._outbox, self._new_id)
        group.adopt(generation_id, members, now_ms)
        self._settle(group, 0)

    def forget(self, group_id: str) -> None:
        """The group is gone, for its members as well."""
        group = self._groups[group_id]
        group.retire()
        self._members_bytes -= group.members.size_bytes
        self._forget(group)

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def next_deadline_ms(self) -> int | None:
        """When `expire` has something to do, at the earliest."""
        return self._deadlines.next_ms

    def expire(self, now_ms: int) -> None:
        """Do everything that is due by now."""
        for group_id in self._deadlines.due(now_ms):
            group = self._groups[group_id]
            before = group.members.size_bytes
            group.expire(now_ms)
            if group.is_expired(now_ms):
                if group_id not in self._offset_groups():
                    self._forget(group)
                    continue
                group.rest(now_ms)
                group.expire(now_ms)
            self._settle(group, before)

    def _schedule(self, group: Group) -> None:
        self._deadlines.schedule(group.group_id, group.wake_ms)

    # --- what comes out ---------------------------------------------------------------------------------------------

    def reply(self, reply: Reply) -> None:
        self._outbox.replies.append(reply)

    def take_replies(self) -> list[Reply]:
        replies, self._outbox.replies = self._outbox.replies, []
        return replies

    def take_writes(self) -> list[Write]:
        writes, self._outbox.writes = self._outbox.writes, {}
        return list(writes.values())

    @property
    def has_writes(self) -> bool:
        return bool(self._outbox.writes)

    def written(self, write: Write, error: GroupError, now_ms: int) -> None:
        group = self._groups.get(write.group_id)
        if group is not None:
            before = group.members.size_bytes
            group.written(write, error, now_ms)
            self._settle(group, before)

    # --- the log ----------------------------------------------------------------------------------------------------

    def restore(self, group_id: str, metadata: GroupMetadata | None) -> None:
        """What a record of the log says; later ones overrule earlier ones. `start` follows when all are read."""
        old = self._groups.pop(group_id, None)
        if old is not None:
            self._members_bytes -= old.members.size_bytes
        if metadata is not None:
            group = Group(group_id, self.config, self._outbox, self._new_id)
            group.restore(metadata)
            self._groups[group_id] = group
            self._members_bytes += group.members.size_bytes

    def start(self, now_ms: int) -> None:
        """The restored members have their session timeouts from now on to be heard of."""
        for group in self._groups.values():
            group.start(now_ms)
            self._schedule(group)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _is_too_much(self, more_bytes: int) -> bool:
        return self._members_bytes + more_bytes > self.config.members_max_bytes

    def _settle(self, group: Group, bytes_before: int) -> None:
        self._members_bytes += group.members.size_bytes - bytes_before
        if group.is_vacant:
            self._forget(group)
        else:
            self._schedule(group)

    def _forget(self, group: Group) -> None:
        del self._groups[group.group_id]
        self._deadlines.forget(group.group_id)
        if group.has_record:
            self._outbox.write(group.group_id, None)


def _missing(group_id: str, group: Group | None) -> GroupError:
    if not group_id:
        return GroupError.INVALID_GROUP_ID
    return GroupError.UNKNOWN_MEMBER_ID if group is None else GroupError.NONE
