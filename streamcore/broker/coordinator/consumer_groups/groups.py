"""All consumer groups of a node: what a heartbeat may say, what is due next, how much memory they take.

No I/O and no clock: every call says what time it is, and what has to be stored comes out as changes.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from uuid import uuid4

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING
from streamcore.broker.coordinator.consumer_groups.changes import Change, Changes, Kind
from streamcore.broker.coordinator.consumer_groups.messages import (
    ConsumerGroupDescription,
    ConsumerMemberDescription,
    GroupRefusedError,
    HeartbeatRequest,
    HeartbeatResult,
)
from streamcore.broker.coordinator.consumer_groups.mixed_group import MixedGroup
from streamcore.broker.coordinator.consumer_groups.reconciliation import (
    JOINING_EPOCH,
    LEAVING_EPOCH,
    STATIC_LEAVING_EPOCH,
)
from streamcore.broker.coordinator.consumer_groups.stored_group import check_instance, size_of
from streamcore.broker.coordinator.consumer_groups.topics import Topics, check_regex
from streamcore.broker.coordinator.deadlines import Deadlines
from streamcore.broker.coordinator.group_config import (
    MEMBER_OVERHEAD_BYTES,
    REQUEST_STRINGS_MAX_BYTES,
    GroupConfig,
)
from streamcore.broker.coordinator.group_messages import (
    GroupError,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
)

logger = logging.getLogger(__name__)


class ConsumerGroups:
    """The groups by name. Whoever holds this one drives it in one event loop."""

    def __init__(
        self,
        config: GroupConfig,
        changes: Changes,
        topics: Callable[[], Topics],
        *,
        offset_groups: Callable[[], Collection[str]] = tuple,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """
        Args:
            changes: where everything that has to be stored goes.
            topics: those that there are now.
            offset_groups: the names that have committed offsets; an empty group stays as long as it has some.
            new_id: makes ids for members that bring none.
        """
        self._config = config
        self._changes = changes
        self._topics = topics
        self._offset_groups = offset_groups
        self._new_id = new_id
        self._groups: dict[str, MixedGroup] = {}
        self._members_bytes = 0
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[MixedGroup]:
        return iter(self._groups.values())

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._groups

    def get(self, group_id: str) -> MixedGroup | None:
        return self._groups.get(group_id)

    # --- members ------------------------------------------------------------------------------------------------------

    def heartbeat(
        self, request: HeartbeatRequest, now_ms: int, *, convert: Callable[[], MixedGroup | None]
    ) -> HeartbeatResult:
        """A member joins, is alive or leaves.

        Args:
            convert: makes a consumer group of what else there is under the name, before somebody joins.
        Raises:
            GroupRefusedError: nothing has changed.
        """
        group = self._groups.get(request.group_id)
        topics = self._topics()
        if request.member_epoch in (LEAVING_EPOCH, STATIC_LEAVING_EPOCH):
            if group is None:
                raise not_found(request.group_id)
            before = group.size_bytes
            result = group.leave(request, topics, now_ms)
        else:
            if group is None and request.member_epoch != JOINING_EPOCH:
                raise GroupRefusedError(GroupError.GROUP_ID_NOT_FOUND, f"Consumer group {request.group_id} not found.")
            self._check_memory(group, request)
            if group is None and (group := convert()) is not None:
                self._groups[request.group_id] = group
                self.settle(group, 0)
            if group is None:
                group = MixedGroup(request.group_id, self._config, self._changes)
            before = group.size_bytes
            result = group.heartbeat(request, request.member_id or self._new_id(), topics, now_ms)
            self._groups[request.group_id] = group
        self.settle(group, before)
        return result

    def _check_memory(self, group: MixedGroup | None, request: HeartbeatRequest) -> None:
        if request.topic_names is None and request.topic_regex is None:
            return
        member = group.members.get(request.member_id) if group is not None else None
        freed_bytes = size_of(member.metadata) if member is not None else 0
        more_bytes = MEMBER_OVERHEAD_BYTES + request.strings_bytes - freed_bytes
        is_too_much = self._members_bytes + more_bytes > self._config.members_max_bytes
        if is_too_much or (group is None and len(self._groups) >= self._config.groups_max):
            logger.warning("a member of group %r is refused: the groups take too much memory", request.group_id)
            raise GroupRefusedError(GroupError.COORDINATOR_NOT_AVAILABLE, "The groups take too much memory.")

    def join(self, group: MixedGroup, request: JoinRequest, now_ms: int) -> JoinResult:
        """A classic member joins.

        Raises:
            GroupRefusedError
        """
        before = group.size_bytes
        result = group.join(request, request.member_id or self._new_id(), self._topics(), now_ms)
        self.settle(group, before)
        return result

    def sync(self, group: MixedGroup, request: SyncRequest, now_ms: int) -> SyncResult:
        """A classic member fetches what it has.

        Raises:
            GroupRefusedError
        """
        try:
            return group.sync(request, self._topics(), now_ms)
        finally:
            self.settle(group, group.size_bytes)

    def classic_heartbeat(
        self, group: MixedGroup, generation_id: int, member_id: str, instance_id: str | None, now_ms: int
    ) -> GroupError:
        """
        Raises:
            GroupRefusedError
        """
        error = group.classic_heartbeat(generation_id, member_id, instance_id, now_ms)
        self.settle(group, group.size_bytes)
        return error

    def check(self, request: HeartbeatRequest) -> None:
        """
        Raises:
            GroupRefusedError: no member of any group can say this.
        """
        epoch = request.member_epoch
        if request.makes_its_id or epoch > 0 or epoch == LEAVING_EPOCH:
            _refuse_if(request.member_id == "", "MemberId can't be empty.")
        _refuse_if(request.group_id == "", "GroupId can't be empty.")
        _refuse_if(request.instance_id == "", "InstanceId can't be empty.")
        _refuse_if(request.rack_id == "", "RackId can't be empty.")
        if epoch == JOINING_EPOCH:
            _refuse_if(request.rebalance_timeout_ms == -1, "RebalanceTimeoutMs must be provided in first request.")
            _refuse_if(request.owned is None or request.owned != NOTHING, _NOT_EMPTY)
            _refuse_if(request.topic_names is None and request.topic_regex is None, _NO_SUBSCRIPTION)
        _refuse_if(epoch == STATIC_LEAVING_EPOCH and request.instance_id is None, "InstanceId can't be null.")
        _refuse_if(epoch < STATIC_LEAVING_EPOCH, "MemberEpoch is invalid.")
        if request.topic_regex:
            check_regex(request.topic_regex)
        _refuse_if(
            request.strings_bytes > REQUEST_STRINGS_MAX_BYTES,
            f"a member's names and subscription may take {REQUEST_STRINGS_MAX_BYTES} bytes",
        )
        known = self._config.consumer_assignors
        if request.assignor is not None and request.assignor not in known:
            raise GroupRefusedError(
                GroupError.UNSUPPORTED_ASSIGNOR,
                f"ServerAssignor {request.assignor} is not supported. Supported assignors: {', '.join(known)}.",
            )

    def check_epoch(self, group_id: str, member_id: str, member_epoch: int) -> GroupError:
        """Whether a member may commit or fetch offsets under this epoch."""
        group = self._groups[group_id]
        member = group.members.get(member_id)
        if member is None:
            return GroupError.UNKNOWN_MEMBER_ID
        if member.current.epoch == member_epoch:
            return GroupError.NONE
        is_classic = member.metadata.classic is not None
        return GroupError.ILLEGAL_GENERATION if is_classic else GroupError.STALE_MEMBER_EPOCH

    def remove_members(
        self, group: MixedGroup, members: Iterable[tuple[str, str | None]], now_ms: int
    ) -> list[tuple[tuple[str, str | None], GroupError]]:
        """What the classic LeaveGroup asks for; by it, administrators remove members of either protocol.

        Args:
            members: member id and instance id; a static one also by its instance id alone.
        """
        results: list[tuple[tuple[str, str | None], GroupError]] = []
        gone: list[str] = []
        for member_id, instance_id in members:
            try:
                if instance_id is None:
                    member = group.member(member_id)
                else:
                    member = group.static_member(instance_id)
                    if member_id:
                        check_instance(member, member_id, instance_id)
            except GroupRefusedError as refusal:
                results.append(((member_id, instance_id), refusal.error))
                continue
            if member.member_id not in gone:
                gone.append(member.member_id)
            results.append(((member.member_id, instance_id), GroupError.NONE))
        if gone:
            before = group.size_bytes
            group.remove(gone, self._topics(), now_ms)
            self.settle(group, before)
        return results

    # --- administration -----------------------------------------------------------------------------------------------

    def describe(self, group_id: str) -> ConsumerGroupDescription:
        group = self._groups[group_id]
        return ConsumerGroupDescription(
            GroupError.NONE,
            group_id,
            None,
            group.state,
            group.epoch,
            group.target_epoch,
            group.assignor,
            tuple(
                ConsumerMemberDescription(
                    member.member_id,
                    member.metadata.instance_id,
                    member.metadata.rack_id,
                    member.current.epoch,
                    member.metadata.client_id,
                    member.metadata.client_host,
                    member.metadata.topic_names,
                    member.metadata.topic_regex,
                    member.current.assigned,
                    group.target.get(member.member_id, NOTHING),
                    member.metadata.classic is not None,
                )
                for member in group.members.values()
            ),
        )

    def delete(self, group_id: str) -> GroupError:
        """Forget a group that has no members."""
        group = self._groups[group_id]
        if group.members:
            return GroupError.NON_EMPTY_GROUP
        self.forget(group)
        return GroupError.NONE

    def forget(self, group: MixedGroup) -> None:
        """The group is gone, with its members and everything that is stored of it."""
        self._members_bytes -= group.size_bytes
        group.delete()
        del self._groups[group.group_id]
        self._deadlines.forget(group.group_id)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def next_deadline_ms(self) -> int | None:
        """When `expire` has something to do, at the earliest."""
        return self._deadlines.next_ms

    def expire(self, now_ms: int) -> list[str]:
        """Do everything that is due by now; the groups that have lost members."""
        shrunk: list[str] = []
        for group_id in self._deadlines.due(now_ms):
            group = self._groups[group_id]
            before, members = group.size_bytes, len(group.members)
            group.expire(self._topics(), now_ms)
            if len(group.members) < members:
                logger.info("group %r: %d members are gone", group_id, members - len(group.members))
                shrunk.append(group_id)
            if group.is_expired(now_ms):
                if group_id not in self._offset_groups():
                    self.forget(group)
                    continue
                group.rest(now_ms)
                group.expire(self._topics(), now_ms)
            self.settle(group, before)
        return shrunk

    def settle(self, group: MixedGroup, bytes_before: int) -> None:
        self._members_bytes += group.size_bytes - bytes_before
        self._deadlines.schedule(group.group_id, group.wake_ms)

    # --- the log ------------------------------------------------------------------------------------------------------

    def restore(self, change: Change) -> None:
        """What a record of the log says; later ones overrule earlier ones. `start` follows when all are read."""
        group = self._groups.get(change.group_id)
        if group is None:
            if change.value is None:
                return
            group = self._groups[change.group_id] = MixedGroup(change.group_id, self._config, self._changes)
        group.apply(change)
        if change.kind is Kind.EPOCH and change.value is None and not group.members:
            del self._groups[change.group_id]

    def start(self, now_ms: int) -> None:
        """The restored members have their session timeouts from now on to be heard of."""
        for group in self._groups.values():
            group.start(now_ms)
            self.settle(group, 0)


_NOT_EMPTY = "TopicPartitions must be empty when (re-)joining."
_NO_SUBSCRIPTION = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."


def _refuse_if(is_wrong: bool, message: str) -> None:
    if is_wrong:
        raise GroupRefusedError(GroupError.INVALID_REQUEST, message)


def not_found(group_id: str) -> GroupRefusedError:
    return GroupRefusedError(GroupError.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
