"""All groups of a node under their names, whichever protocol they follow, and how one becomes the other.

A group without members is what the next member makes of it. One with members changes as the migration policy allows.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from uuid import uuid4

from streamcore.broker.coordinator.consumer_groups.changes import Change, Changes
from streamcore.broker.coordinator.consumer_groups.groups import ConsumerGroups, not_found
from streamcore.broker.coordinator.consumer_groups.messages import (
    ConsumerGroupDescription,
    ConsumerGroupState,
    GroupRefusedError,
    HeartbeatRequest,
    HeartbeatResult,
)
from streamcore.broker.coordinator.consumer_groups.mixed_group import MixedGroup
from streamcore.broker.coordinator.consumer_groups.topics import Topics
from streamcore.broker.coordinator.conversion import members_of_classic, members_of_consumer
from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import (
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
    Reply,
    SyncRequest,
    SyncResult,
    Write,
)
from streamcore.broker.coordinator.groups import Groups
from streamcore.broker.coordinator.offset_expiry import CONSUMERS, Unused

logger = logging.getLogger(__name__)

CONSUMER_TYPE = "consumer"  # beside "classic"; Kafka's names for the protocols


class GroupRegistry:
    """The groups by name. Whoever holds this one drives it in one event loop."""

    def __init__(
        self,
        config: GroupConfig,
        topics: Callable[[], Topics],
        *,
        offset_groups: Callable[[], Collection[str]] = tuple,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        """
        Args:
            topics: those that there are now.
            offset_groups: the names that have committed offsets; they are groups too, though without members.
            new_id: makes member ids unique.
        """
        self.changes = Changes()
        self.consumer = ConsumerGroups(config, self.changes, topics, offset_groups=offset_groups, new_id=new_id)
        self.classic = Groups(
            config,
            offset_groups=lambda: [name for name in offset_groups() if name not in self.consumer],
            new_id=new_id,
        )
        self._config = config
        self._topics = topics

    # --- members of the newer protocol --------------------------------------------------------------------------------

    def consumer_heartbeat(self, request: HeartbeatRequest, now_ms: int) -> HeartbeatResult:
        """A member of the newer protocol joins, is alive or leaves."""
        try:
            self.consumer.check(request)
            if request.group_id in self.classic and request.member_epoch != 0:
                raise _not_consumer(request.group_id)
            result = self.consumer.heartbeat(request, now_ms, convert=lambda: self._upgraded(request, now_ms))
        except GroupRefusedError as refusal:
            return HeartbeatResult(refusal.error, str(refusal))
        if request.member_epoch < 0:
            self._downgrade_if_classic(request.group_id, now_ms)
        return result

    def _upgraded(self, request: HeartbeatRequest, now_ms: int) -> MixedGroup | None:
        """What becomes of a classic group that a member of the newer protocol joins; None for a new group.

        Raises:
            GroupRefusedError: it stays what it is.
        """
        classic = self.classic.get(request.group_id)
        if classic is None:
            return None
        if not classic.members:
            self.classic.forget(classic.group_id)
            return None
        may_change = self._config.consumer_migration_policy.upgrades and classic.protocol_type == CONSUMERS
        if not may_change or len(classic.members) >= self._config.consumer_max_size:
            raise _not_consumer(classic.group_id)
        if request.member_id in classic.members:
            raise GroupRefusedError(
                GroupError.FENCED_MEMBER_EPOCH, f"Member {request.member_id} speaks the classic protocol."
            )
        topics = self._topics()
        members = members_of_classic(classic, topics)
        group = MixedGroup(classic.group_id, self._config, self.changes)
        group.adopt(classic.generation_id, members, topics, now_ms)
        self.classic.forget(classic.group_id)
        logger.info("group %r with %d classic members is a consumer group from now on", group.group_id, len(members))
        return group

    def _downgrade_if_classic(self, group_id: str, now_ms: int) -> None:
        """Without members that need the newer protocol a group goes on as a classic one."""
        group = self.consumer.get(group_id)
        if group is None or not group.is_classic or not self._config.consumer_migration_policy.downgrades:
            return
        if len(group.members) > self._config.group_max_size:
            return
        members, generation_id = members_of_consumer(group, self._topics()), group.epoch
        self.consumer.forget(group)
        self.classic.adopt(group_id, generation_id, members, now_ms)
        logger.info("group %r with %d members is a classic group from now on", group_id, len(members))

    def last_change_of(self, group_id: str) -> int:
        """The number of the latest change of a group, 0 for one that is gone or never was."""
        group = self.consumer.get(group_id)
        return 0 if group is None else group.last_change

    def check_fetch(self, group_id: str, member_id: str | None, member_epoch: int) -> GroupError:
        """Whether this member may fetch committed offsets; who brings neither id nor epoch always may."""
        if group_id not in self.consumer or (member_id is None and member_epoch < 0):
            return GroupError.NONE
        return self.consumer.check_epoch(group_id, member_id or "", member_epoch)

    # --- members of the classic protocol ------------------------------------------------------------------------------

    def join(self, ticket: int, request: JoinRequest, now_ms: int) -> None:
        """The answer comes under `ticket`, now or when the rebalance is complete."""
        group = self.consumer.get(request.group_id)
        if group is not None and group.members:
            self.classic.reply(Reply(ticket, self._join_consumer(group, request, now_ms)))
            return
        if group is not None and not self.classic.join_error(request):
            self.consumer.forget(group)
        self.classic.join(ticket, request, now_ms)

    def _join_consumer(self, group: MixedGroup, request: JoinRequest, now_ms: int) -> JoinResult:
        error = self.classic.request_error(request)
        if error:
            return JoinResult(error, member_id=request.member_id)
        try:
            result = self.consumer.join(group, request, now_ms)
        except GroupRefusedError as refusal:
            return JoinResult(refusal.error, member_id=request.member_id)
        # A static member may have been the last one that needed the newer protocol.
        if request.group_instance_id is not None:
            self._downgrade_if_classic(group.group_id, now_ms)
        return result

    def sync(self, ticket: int, request: SyncRequest, now_ms: int) -> None:
        """The answer comes under `ticket`, now or when the leader's assignment is stored."""
        group = self.consumer.get(request.group_id)
        if group is None:
            self.classic.sync(ticket, request, now_ms)
            return
        try:
            result = self.consumer.sync(group, request, now_ms)
        except GroupRefusedError as refusal:
            result = SyncResult(refusal.error)
        self.classic.reply(Reply(ticket, result))

    def heartbeat(
        self, group_id: str, generation_id: int, member_id: str, group_instance_id: str | None, now_ms: int
    ) -> GroupError:
        group = self.consumer.get(group_id)
        if group is None:
            return self.classic.heartbeat(group_id, generation_id, member_id, group_instance_id, now_ms)
        try:
            return self.consumer.classic_heartbeat(group, generation_id, member_id, group_instance_id, now_ms)
        except GroupRefusedError as refusal:
            return refusal.error

    def leave(self, group_id: str, members: Iterable[tuple[str, str | None]], now_ms: int) -> LeaveResult:
        group = self.consumer.get(group_id)
        if group is None:
            return self.classic.leave(group_id, members, now_ms)
        left = self.consumer.remove_members(group, members, now_ms)
        self._downgrade_if_classic(group_id, now_ms)
        return LeaveResult(GroupError.NONE, [MemberLeft(*member, error) for member, error in left])

    def check_commit(
        self,
        group_id: str,
        member_epoch: int,
        member_id: str,
        group_instance_id: str | None,
        now_ms: int,
        *,
        knows_epochs: bool = True,
    ) -> GroupError:
        """Whether this member may commit offsets now; in a classic group it counts as a sign of life."""
        group = self.consumer.get(group_id)
        if group is None:
            return self.classic.check_commit(group_id, member_epoch, member_id, group_instance_id, now_ms)
        if not group.members and member_epoch < 0:
            return GroupError.NONE  # a consumer that assigns its partitions itself, or an administrator
        error = self.consumer.check_epoch(group_id, member_id, member_epoch)
        if not knows_epochs and error in (GroupError.NONE, GroupError.STALE_MEMBER_EPOCH):
            return GroupError.UNSUPPORTED_VERSION
        return error

    # --- administration -----------------------------------------------------------------------------------------------

    def is_empty(self, group_id: str) -> bool:
        """Whether it has no members, or is none at all."""
        group = self.consumer.get(group_id)
        return self.classic.is_empty(group_id) if group is None else not group.members

    def unused(self, group_id: str) -> Unused | None:
        """Which of the group's offsets may expire; None where all are in use."""
        group = self.consumer.get(group_id)
        if group is None:
            return self.classic.unused(group_id)
        return Unused(subscribed=frozenset(group.subscribed_topics()))

    def missing(self, group_id: str) -> int:
        """GROUP_ID_NOT_FOUND where there is no group of this name."""
        return GroupError.NONE if group_id in self.consumer else self.classic.describe(group_id).error_code

    def subscribed_topics(self, group_id: str) -> Collection[str] | None:
        """The topics whose offsets members use; None for all of them."""
        group = self.consumer.get(group_id)
        if group is None:
            return () if self.classic.is_empty(group_id) else None
        return group.subscribed_topics()

    def describe(self, group_id: str) -> GroupDescription:
        """A classic group; of another one, that it is none."""
        if group_id in self.consumer:
            return GroupDescription(
                GroupError.GROUP_ID_NOT_FOUND,
                group_id,
                GroupState.DEAD,
                error_message=f"Group {group_id} is not a classic group.",
            )
        return self.classic.describe(group_id)

    def describe_consumer(self, group_id: str) -> ConsumerGroupDescription:
        """A consumer group; of another one, that it is none."""
        if not group_id:
            return ConsumerGroupDescription(GroupError.INVALID_GROUP_ID, group_id)
        if group_id in self.consumer:
            return self.consumer.describe(group_id)
        is_classic = self.classic.describe(group_id).error_code == GroupError.NONE
        refusal = _not_consumer(group_id) if is_classic else not_found(group_id)
        return ConsumerGroupDescription(refusal.error, group_id, str(refusal))

    def list_groups(self, states: Collection[str], types: Collection[str]) -> list[ListedGroup]:
        """Every group in one of the states and of one of the types, whatever their case; an empty filter takes all."""
        found = self.classic.list_groups()
        found += (ListedGroup(group.group_id, CONSUMERS, group.state, CONSUMER_TYPE) for group in self.consumer)
        wanted_states, wanted_types = ({name.lower() for name in names} for names in (states, types))
        return sorted(
            group
            for group in found
            if (not wanted_states or group.state.lower() in wanted_states)
            and (not wanted_types or group.type in wanted_types)
        )

    def tally(self) -> GroupTally:
        """How many there are, by state; groups that are only offsets are empty ones."""
        classic = self.classic.tally()
        by_state = Counter(dict.fromkeys(ConsumerGroupState, 0) | dict(classic.by_state))
        by_state.update(group.state for group in self.consumer)
        members = sum(len(group.members) for group in self.consumer)
        return GroupTally(by_state, classic.members + members, classic.generations + self.changes.group_epochs)

    def delete(self, group_id: str) -> GroupError:
        return self.consumer.delete(group_id) if group_id in self.consumer else self.classic.delete(group_id)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def next_deadline_ms(self) -> int | None:
        """When `expire` has something to do, at the earliest."""
        deadlines = [self.classic.next_deadline_ms, self.consumer.next_deadline_ms]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now_ms: int) -> None:
        """Do everything that is due by now."""
        self.classic.expire(now_ms)
        for group_id in self.consumer.expire(now_ms):
            self._downgrade_if_classic(group_id, now_ms)

    # --- what comes out, and the log ----------------------------------------------------------------------------------

    def take_replies(self) -> list[Reply]:
        return self.classic.take_replies()

    def take_writes(self) -> list[Write]:
        return self.classic.take_writes()

    @property
    def has_writes(self) -> bool:
        """Whether there is something to store, of either kind of group."""
        return self.classic.has_writes or bool(self.changes)

    def written(self, write: Write, error: GroupError, now_ms: int) -> None:
        self.classic.written(write, error, now_ms)

    def restore_classic(self, group_id: str, metadata: GroupMetadata | None) -> None:
        self.classic.restore(group_id, metadata)

    def restore_change(self, change: Change) -> None:
        self.consumer.restore(change)

    def start(self, now_ms: int) -> None:
        """The restored members have their session timeouts from now on to be heard of."""
        self.classic.start(now_ms)
        self.consumer.start(now_ms)


def _not_consumer(group_id: str) -> GroupRefusedError:
    return GroupRefusedError(GroupError.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group.")
