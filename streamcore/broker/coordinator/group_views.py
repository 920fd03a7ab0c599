"""A group as others see it: in `__consumer_offsets`, in DescribeGroups, in ListGroups."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamcore.broker.coordinator.group_messages import (
    GroupDescription,
    GroupError,
    GroupMetadata,
    ListedGroup,
    MemberDescription,
    StoredMember,
)
from streamcore.broker.coordinator.group_states import EMPTY, STABLE
from streamcore.broker.coordinator.offset_expiry import CONSUMERS, Unused, subscribed_topics

if TYPE_CHECKING:
    from streamcore.broker.coordinator.group_rebalance import Rebalance


def metadata_of(group: "Rebalance", assignments: Mapping[str, bytes]) -> GroupMetadata:
    """The group as it is written, with these assignments by member."""
    return GroupMetadata(
        group.group_id,
        group.generation_id,
        group.protocol_type or "",
        group.protocol_name,
        group.members.leader,
        tuple(
            StoredMember(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout_ms,
                member.session_timeout_ms,
                member.metadata(group.protocol_name),
                assignments.get(member.member_id, b""),
            )
            for member in group.members
        ),
    )


def describe(group: "Rebalance") -> GroupDescription:
    is_stable = group.state is STABLE
    protocol_name = group.protocol_name if is_stable else None
    return GroupDescription(
        GroupError.NONE,
        group.group_id,
        group.state,
        group.protocol_type or "",
        protocol_name or "",
        tuple(
            MemberDescription(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.client_host,
                member.metadata(protocol_name),
                member.assignment,
            )
            for member in group.members
        ),
    )


def unused(group: "Rebalance") -> Unused | None:
    """Which offsets of the group may expire; None where all are in use."""
    if not group.protocol_type:
        return Unused()  # consumers that assign their partitions themselves commit under its name
    if group.state is EMPTY:
        stored = group.stored
        is_known = stored is not None and not stored.members and stored.state_timestamp_ms >= 0
        return Unused(stored.state_timestamp_ms if stored is not None and is_known else None)
    if group.state is not STABLE or group.protocol_type != CONSUMERS:
        return None
    topics: set[str] = set()
    for member in group.members:
        subscribed = subscribed_topics(member.metadata(group.protocol_name))
        if subscribed is None:
            return None
        topics.update(subscribed)
    return Unused(subscribed=frozenset(topics))


def listed(group: "Rebalance") -> ListedGroup:
    return ListedGroup(group.group_id, group.protocol_type or "", group.state)
