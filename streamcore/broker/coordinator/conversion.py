"""A classic group as a consumer group and the other way round, with the members and what they have."""

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment
from streamcore.broker.coordinator.consumer_groups.messages import ClassicMember, GroupRefusedError, MemberMetadata
from streamcore.broker.coordinator.consumer_groups.mixed_group import (
    MixedGroup,
    names_of,
    partitions_of,
    read_subscription,
)
from streamcore.broker.coordinator.consumer_groups.topics import Topics
from streamcore.broker.coordinator.group import Group
from streamcore.broker.coordinator.group_members import Member
from streamcore.broker.coordinator.group_messages import GroupError
from streamcore.protocol.consumer_protocol import decode_assignment, encode_assignment
from streamcore.protocol.errors import MalformedMessageError


def members_of_classic(group: Group, topics: Topics) -> dict[str, tuple[MemberMetadata, Assignment]]:
    """What a consumer group has to know of each member of a classic one.

    Raises:
        GroupRefusedError: they are no consumers whose bytes can be read.
    """
    found: dict[str, tuple[MemberMetadata, Assignment]] = {}
    for member in group.members:
        names = [name for name, _ in member.protocols]
        chosen = group.protocol_name if group.protocol_name in names else names[0]
        try:
            assigned = decode_assignment(member.assignment)
        except MalformedMessageError as error:
            raise GroupRefusedError(
                GroupError.GROUP_ID_NOT_FOUND, f"The assignment of member {member.member_id} is malformed: {error}."
            ) from error
        metadata = MemberMetadata(
            member.group_instance_id,
            None,
            member.client_id,
            member.client_host,
            tuple(sorted(set(read_subscription(member.metadata(chosen)).topics))),
            None,
            member.rebalance_timeout_ms,
            None,
            ClassicMember(member.session_timeout_ms, member.protocols),
        )
        found[member.member_id] = metadata, partitions_of(assigned, topics)
    return found


def members_of_consumer(group: MixedGroup, topics: Topics) -> list[Member]:
    """The members of a consumer group all of whom speak the classic protocol."""
    found: list[Member] = []
    for member in group.members.values():
        metadata = member.metadata
        assert metadata.classic is not None, f"{member.member_id} does not speak the classic protocol"
        found.append(
            Member(
                member_id=member.member_id,
                group_instance_id=metadata.instance_id,
                client_id=metadata.client_id,
                client_host=metadata.client_host,
                session_timeout_ms=metadata.classic.session_timeout_ms,
                rebalance_timeout_ms=metadata.rebalance_timeout_ms,
                protocols=metadata.classic.protocols,
                assignment=encode_assignment(names_of(member.current.assigned, topics)),
            )
        )
    return found
