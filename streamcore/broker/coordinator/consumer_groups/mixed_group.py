"""A consumer group some of whose members still speak the classic protocol: how a group moves to the newer one, or back.

A classic member takes each of its steps by joining again, which its heartbeats tell it to; what it owns is in its
subscription, and its assignment is the answer to its sync. There is no leader: the coordinator assigns.
"""

from collections import Counter
from typing import NamedTuple

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment, assignment_of
from streamcore.broker.coordinator.consumer_groups.group import ConsumerGroup
from streamcore.broker.coordinator.consumer_groups.messages import ClassicMember, GroupRefusedError, MemberMetadata
from streamcore.broker.coordinator.consumer_groups.reconciliation import MemberState
from streamcore.broker.coordinator.consumer_groups.stored_group import ConsumerMember, check_instance
from streamcore.broker.coordinator.consumer_groups.topics import Topics
from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_messages import (
    NO_MEMBER_ID,
    GroupError,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
)
from streamcore.broker.coordinator.offset_expiry import CONSUMERS
from streamcore.protocol.consumer_protocol import Subscription, decode_subscription, encode_assignment
from streamcore.protocol.errors import MalformedMessageError
from streamcore.types import TP


class _Speaker(NamedTuple):
    """Who sends a classic request."""

    member: ConsumerMember
    classic: ClassicMember


class MixedGroup(ConsumerGroup):
    """One consumer group, as classic members speak to it."""

    @property
    def is_classic(self) -> bool:
        """Whether it has members, and none of them needs the newer protocol."""
        return bool(self.members) and all(member.metadata.classic is not None for member in self.members.values())

    def join(self, request: JoinRequest, member_id: str, topics: Topics, now_ms: int) -> JoinResult:
        """A classic member joins, or takes its next step.

        Raises:
            GroupRefusedError: nothing has changed.
        """
        self.check_room(member_id)
        self._check_protocols(request)
        subscription = read_subscription(request.protocols[0][1])
        if request.requires_known_member_id and request.group_instance_id is None and not request.member_id:
            return JoinResult(GroupError.MEMBER_ID_REQUIRED, member_id=member_id)
        known = self.members.get(member_id)
        if request.group_instance_id is not None and request.member_id == NO_MEMBER_ID:
            holder = self.static_member_id(request.group_instance_id)
            known = self.members[holder] if holder is not None else None
        elif request.group_instance_id is not None:
            known = self.static_member(request.group_instance_id)
            check_instance(known, member_id, request.group_instance_id)
        if known is not None and known.member_id != member_id:
            self.replace(known, member_id)
        before = self.members.get(member_id)
        self.update(
            member_id,
            MemberMetadata(
                request.group_instance_id,
                before.metadata.rack_id if before is not None else None,
                request.client_id,
                request.client_host,
                tuple(sorted(set(subscription.topics))),
                None,
                request.rebalance_timeout_ms,
                None,
                ClassicMember(request.session_timeout_ms, request.protocols),
            ),
            topics,
        )
        member = self.members[member_id]
        self.reconcile(member, partitions_of(subscription.owned, topics), now_ms)
        member.join_deadline_ms = NEVER
        member.session_deadline_ms = self.wake_at(now_ms + request.session_timeout_ms)
        member.sync_deadline_ms = self.wake_at(now_ms + request.rebalance_timeout_ms)
        return JoinResult(
            GroupError.NONE, member.current.epoch, CONSUMERS, request.protocols[0][0], member_id=member_id
        )

    def _check_protocols(self, request: JoinRequest) -> None:
        speakers = [member.metadata.classic for member in self.members.values() if member.metadata.classic is not None]
        known = Counter(name for classic in speakers for name in {name for name, _ in classic.protocols})
        if request.protocol_type != CONSUMERS or not any(known[name] == len(speakers) for name, _ in request.protocols):
            raise GroupRefusedError(
                GroupError.INCONSISTENT_GROUP_PROTOCOL, f"Member {request.member_id}'s protocols are not supported."
            )

    def sync(self, request: SyncRequest, topics: Topics, now_ms: int) -> SyncResult:
        """What a classic member has now.

        Raises:
            GroupRefusedError
        """
        member, classic = self._speaker(request.member_id, request.group_instance_id)
        _check_generation(member, request.generation_id)
        name = classic.protocols[0][0]
        if request.protocol_type not in (None, CONSUMERS) or request.protocol_name not in (None, name):
            raise GroupRefusedError(GroupError.INCONSISTENT_GROUP_PROTOCOL, "The protocol is not the one of the join.")
        if self.epoch > member.current.epoch and member.current.state is not MemberState.UNREVOKED_PARTITIONS:
            self._expect_join(member, now_ms)
            raise GroupRefusedError(GroupError.REBALANCE_IN_PROGRESS, "The group has changed since the join.")
        member.sync_deadline_ms = NEVER
        member.session_deadline_ms = self.wake_at(now_ms + classic.session_timeout_ms)
        assignment = encode_assignment(names_of(member.current.assigned, topics))
        return SyncResult(GroupError.NONE, request.protocol_type, request.protocol_name, assignment)

    def classic_heartbeat(self, generation_id: int, member_id: str, instance_id: str | None, now_ms: int) -> GroupError:
        """A classic member is alive; whether it has to join again.

        Raises:
            GroupRefusedError
        """
        member, classic = self._speaker(member_id, instance_id)
        _check_generation(member, generation_id)
        member.session_deadline_ms = self.wake_at(now_ms + classic.session_timeout_ms)
        state = member.current.state
        if (
            member.current.epoch < self.epoch
            or state is MemberState.UNREVOKED_PARTITIONS
            or (state is MemberState.UNRELEASED_PARTITIONS and not self.waits_for_others(member))
        ):
            self._expect_join(member, now_ms)
            return GroupError.REBALANCE_IN_PROGRESS
        return GroupError.NONE

    def _expect_join(self, member: ConsumerMember, now_ms: int) -> None:
        if member.join_deadline_ms == NEVER:
            member.join_deadline_ms = self.wake_at(now_ms + member.metadata.rebalance_timeout_ms)

    def _speaker(self, member_id: str, instance_id: str | None) -> _Speaker:
        if instance_id is None:
            member = self.member(member_id)
        else:
            member = self.static_member(instance_id)
            check_instance(member, member_id, instance_id)
        if member.metadata.classic is None:
            raise GroupRefusedError(
                GroupError.UNKNOWN_MEMBER_ID, f"Member {member_id} does not use the classic protocol."
            )
        return _Speaker(member, member.metadata.classic)

    def adopt(
        self, epoch: int, members: dict[str, tuple[MemberMetadata, Assignment]], topics: Topics, now_ms: int
    ) -> None:
        """Be what a classic group has been, everybody with what it has; who joins now changes it.

        Args:
            members: by id.
        """
        for member_id, (metadata, _) in members.items():
            self.put_member(member_id, metadata)
        self.put_epoch(epoch, topics)
        for member_id, (metadata, assignment) in members.items():
            self.put_assignment(member_id, epoch, assignment)
            if metadata.classic is not None:
                deadline_ms = self.wake_at(now_ms + metadata.classic.session_timeout_ms)
                self.members[member_id].session_deadline_ms = deadline_ms


def _check_generation(member: ConsumerMember, generation_id: int) -> None:
    if generation_id != member.current.epoch:
        raise GroupRefusedError(
            GroupError.ILLEGAL_GENERATION,
            f"The request generation id {generation_id} is not equal to the member epoch {member.current.epoch} of "
            f"member {member.member_id}.",
        )


def read_subscription(metadata: bytes) -> Subscription:
    """
    Raises:
        GroupRefusedError: INCONSISTENT_GROUP_PROTOCOL, these bytes are no consumer's.
    """
    try:
        return decode_subscription(metadata)
    except MalformedMessageError as error:
        raise GroupRefusedError(
            GroupError.INCONSISTENT_GROUP_PROTOCOL, f"The embedded consumer protocol is malformed: {error}."
        ) from error


def partitions_of(tps: "list[TP] | tuple[TP, ...]", topics: Topics) -> Assignment:
    """By the ids of their topics, without those that there are no more."""
    return assignment_of((topics.by_name[tp.topic].topic_id, [tp.partition]) for tp in tps if tp.topic in topics.names)


def names_of(assignment: Assignment, topics: Topics) -> list[TP]:
    """By the names of their topics, without those that there are no more."""
    return [
        TP(topics.name_of[topic_id], partition)
        for topic_id, partitions in assignment.items()
        if topic_id in topics.name_of
        for partition in sorted(partitions)
    ]
