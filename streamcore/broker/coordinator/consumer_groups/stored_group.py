"""What a consumer group is: its changes make it, as they come up and again when they are read back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment, difference
from streamcore.broker.coordinator.consumer_groups.changes import Change, Changes, Kind, Value
from streamcore.broker.coordinator.consumer_groups.messages import (
    ConsumerGroupState,
    GroupEpoch,
    GroupRefusedError,
    MemberMetadata,
    ResolvedRegex,
)
from streamcore.broker.coordinator.consumer_groups.reconciliation import CurrentAssignment
from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_config import MEMBER_OVERHEAD_BYTES, GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError

NO_METADATA: Final = MemberMetadata(None, None, "", "", (), None, -1, None)
NO_TOPICS_YET: Final = -1  # a revision that no topics have


@dataclass(slots=True)
class ConsumerMember:
    """One consumer: what it is, how far it has come, and until when it has to be heard of."""

    member_id: str
    metadata: MemberMetadata = NO_METADATA
    current: CurrentAssignment = field(default_factory=CurrentAssignment)
    session_deadline_ms: int = NEVER
    rebalance_deadline_ms: int = NEVER  # to let go of what it has to let go of
    join_deadline_ms: int = NEVER  # of a classic member that has to join again
    sync_deadline_ms: int = NEVER  # and of one that has joined

    @property
    def deadline_ms(self) -> int:
        return min(self.session_deadline_ms, self.rebalance_deadline_ms, self.join_deadline_ms, self.sync_deadline_ms)

    @property
    def subscription(self) -> tuple[tuple[str, ...], str | None]:
        return self.metadata.topic_names, self.metadata.topic_regex or None


class StoredGroup:
    """The members of one group, its epochs, and who has and who shall have which partitions."""

    def __init__(self, group_id: str, config: GroupConfig, changes: Changes) -> None:
        self.group_id = group_id
        self.config = config
        self.epoch = 0
        self.target_epoch = 0
        self.members: dict[str, ConsumerMember] = {}
        self.target: dict[str, Assignment] = {}
        self.wake_ms = NEVER  # nothing here is due before
        self.size_bytes = 0
        self.last_change = 0  # the number of the latest change that was made here
        self._changes = changes
        self._static: dict[str, str] = {}
        # Who has a partition, or may still have it: nobody else is given it.
        self._owners: dict[UUID, dict[int, str]] = {}
        self._retention_deadline_ms = NEVER  # counts while there is no member
        self._topics_hash = 0
        self._regexes: dict[str, ResolvedRegex] = {}
        self._seen_revision = NO_TOPICS_YET
        self._seen_names: frozenset[str] = frozenset()
        self._subscriptions: Counter[tuple[tuple[str, ...], str | None]] = Counter()
        self._assignors: Counter[str] = Counter()

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConsumerGroupState:
        if not self.members:
            return ConsumerGroupState.EMPTY
        if self.epoch > self.target_epoch:
            return ConsumerGroupState.ASSIGNING
        if all(member.current.is_at(self.target_epoch) for member in self.members.values()):
            return ConsumerGroupState.STABLE
        return ConsumerGroupState.RECONCILING

    @property
    def assignor(self) -> str:
        """What most members ask for, of those that ask."""
        asked = [name for name, _ in self._assignors.most_common() if name in self.config.consumer_assignors]
        return asked[0] if asked else self.config.consumer_assignors[0]

    def subscribed_topics(self) -> set[str]:
        """The names of all topics that somebody subscribes to, whether they exist or not."""
        return {name for subscription in self._subscriptions for name in self._topics_of(subscription)}

    def member(self, member_id: str) -> ConsumerMember:
        """
        Raises:
            GroupRefusedError: UNKNOWN_MEMBER_ID.
        """
        found = self.members.get(member_id)
        if found is None:
            raise GroupRefusedError(
                GroupError.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {self.group_id}."
            )
        return found

    def static_member_id(self, instance_id: str) -> str | None:
        return self._static.get(instance_id)

    def static_member(self, instance_id: str) -> ConsumerMember:
        """
        Raises:
            GroupRefusedError: UNKNOWN_MEMBER_ID.
        """
        member_id = self._static.get(instance_id)
        if member_id is None:
            raise GroupRefusedError(GroupError.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
        return self.members[member_id]

    def _topics_of(self, subscription: tuple[tuple[str, ...], str | None]) -> Sequence[str]:
        names, regex = subscription
        resolved = self._regexes.get(regex) if regex is not None else None
        return names if resolved is None else (*names, *resolved.topics)

    def waits_for_others(self, member: ConsumerMember) -> bool:
        """Whether somebody still has a partition that the member shall have."""
        lacking = difference(self.target.get(member.member_id, NOTHING), member.current.assigned)
        return any(
            not self._is_free(topic_id, partition)
            for topic_id, partitions in lacking.items()
            for partition in partitions
        )

    def _is_free(self, topic_id: UUID, partition: int) -> bool:
        return partition not in self._owners.get(topic_id, {})

    # --- changes ------------------------------------------------------------------------------------------------------

    def _change(self, kind: Kind, name: str, value: Value | None) -> None:
        change = Change(kind, self.group_id, name, value)
        self.apply(change)
        self.last_change = self._changes.add(change)

    def _drop(self, member_id: str) -> None:
        for kind in (Kind.CURRENT, Kind.TARGET, Kind.MEMBER):
            self._change(kind, member_id, None)

    def apply(self, change: Change) -> None:
        """Be what a change makes of the group; also what it says when it is read back."""
        name, value = change.name, change.value
        match change.kind:
            case Kind.EPOCH:
                assert value is None or isinstance(value, GroupEpoch)
                self.epoch, self._topics_hash = value or GroupEpoch(0)
            case Kind.TARGET_EPOCH:
                assert value is None or isinstance(value, int)
                self.target_epoch = value or 0
            case Kind.TARGET:
                if value is None:
                    self.target.pop(name, None)
                else:
                    assert not isinstance(value, int | tuple)
                    self.target[name] = value
            case Kind.REGEX:
                if value is None:
                    self._regexes.pop(name, None)
                else:
                    assert isinstance(value, ResolvedRegex)
                    self._regexes[name] = value
            case Kind.MEMBER:
                assert value is None or isinstance(value, MemberMetadata)
                self._set_metadata(name, value)
            case Kind.CURRENT:
                assert value is None or isinstance(value, CurrentAssignment)
                self._set_current(name, value or CurrentAssignment())

    def _set_metadata(self, member_id: str, metadata: MemberMetadata | None) -> None:
        member = self.members.get(member_id)
        if member is not None:
            self._count(member, -1)
            instance_id = member.metadata.instance_id
            if instance_id is not None and self._static.get(instance_id) == member_id:
                del self._static[instance_id]
        if metadata is None:
            self._set_current(member_id, CurrentAssignment())
            self.members.pop(member_id, None)
            return
        if member is None:
            member = self.members[member_id] = ConsumerMember(member_id)
        member.metadata = metadata
        if metadata.instance_id is not None:
            self._static[metadata.instance_id] = member_id
        self._count(member, 1)

    def _count(self, member: ConsumerMember, one: int) -> None:
        self.size_bytes += one * size_of(member.metadata)
        self._subscriptions[member.subscription] += one
        if not self._subscriptions[member.subscription]:
            del self._subscriptions[member.subscription]
        if member.metadata.assignor is not None:
            self._assignors[member.metadata.assignor] += one
            if not self._assignors[member.metadata.assignor]:
                del self._assignors[member.metadata.assignor]

    def _set_current(self, member_id: str, current: CurrentAssignment) -> None:
        member = self.members.get(member_id)
        if member is None:
            if current == CurrentAssignment():
                return
            member = self.members[member_id] = ConsumerMember(member_id)
            self._count(member, 1)
        for assignment in (member.current.assigned, member.current.revoking):
            for topic_id, partitions in assignment.items():
                owners = self._owners.get(topic_id, {})
                for partition in partitions:
                    if owners.get(partition) == member_id:
                        del owners[partition]
                if not owners:
                    self._owners.pop(topic_id, None)
        for assignment in (current.assigned, current.revoking):
            for topic_id, partitions in assignment.items():
                self._owners.setdefault(topic_id, {}).update(dict.fromkeys(partitions, member_id))
        member.current = current

    def wake_at(self, deadline_ms: int) -> int:
        self.wake_ms = min(self.wake_ms, deadline_ms)
        return deadline_ms


def check_instance(member: ConsumerMember, member_id: str, instance_id: str) -> None:
    """
    Raises:
        GroupRefusedError: FENCED_INSTANCE_ID, another one has this static member's place.
    """
    if member.member_id != member_id:
        raise GroupRefusedError(
            GroupError.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}.",
        )


def size_of(metadata: MemberMetadata) -> int:
    """What a member takes in memory, about, without its assignment."""
    protocols = metadata.classic.protocols if metadata.classic is not None else ()
    return (
        MEMBER_OVERHEAD_BYTES
        + sum(map(len, metadata.topic_names))
        + len(metadata.topic_regex or "")
        + sum(len(name) + len(data) for name, data in protocols)
    )
