"""The classic consumer group protocol: JoinGroup 0-9, SyncGroup 0-5, Heartbeat 0-4, LeaveGroup 0-5, DescribeGroups 0-6,
ListGroups 0-5, DeleteGroups 0-2, OffsetDelete 0.

The rules are in `coordinator/`; here they meet the wire. Left out: share groups.
"""

from typing import TYPE_CHECKING, Any

from streamcore.broker.handlers.metadata import AUTHORIZED_OPERATIONS_UNKNOWN
from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Join = messages.JoinGroup
_Sync = messages.SyncGroup
_Heartbeat = messages.Heartbeat
_Leave = messages.LeaveGroup
_Describe = messages.DescribeGroups
_List = messages.ListGroups
_Delete = messages.DeleteGroups
_DeleteOffsets = messages.OffsetDelete
_KNOWN_MEMBER_FROM = 4  # a new member is given an id first (KIP-394)
_NULL_PROTOCOL_FROM = 7  # before, "no protocol" is an empty string
_SKIP_ASSIGNMENT_FROM = 9
_MEMBERS_FROM = 3  # several members leave at once (KIP-345)
_NOT_FOUND_FROM = 6  # before, a group that is not there is Dead and no error (KIP-1043)


async def join_group(broker: "Broker", request: Any, context: Context) -> Any:
    result = await broker.coordinator.join(
        request.group_id,
        request.member_id,
        request.group_instance_id,
        context.client_id,
        f"/{context.peer.host}",
        request.session_timeout_ms,
        request.rebalance_timeout_ms,
        request.protocol_type,
        [(protocol.name, bytes(protocol.metadata)) for protocol in request.protocols],
        context.version >= _KNOWN_MEMBER_FROM,
        context.version >= _SKIP_ASSIGNMENT_FROM,
    )
    name = result.protocol_name
    return _Join.Response(
        error_code=result.error_code,
        generation_id=result.generation_id,
        protocol_type=result.protocol_type,
        protocol_name=name if name is not None or context.version >= _NULL_PROTOCOL_FROM else "",
        leader=result.leader,
        skip_assignment=result.skip_assignment,
        member_id=result.member_id,
        members=[
            _Join.JoinGroupResponseMember(
                member_id=member.member_id, group_instance_id=member.group_instance_id, metadata=member.metadata
            )
            for member in result.members
        ],
    )


async def sync_group(broker: "Broker", request: Any, context: Context) -> Any:
    result = await broker.coordinator.sync(
        request.group_id,
        request.generation_id,
        request.member_id,
        request.group_instance_id,
        request.protocol_type,
        request.protocol_name,
        {entry.member_id: bytes(entry.assignment) for entry in request.assignments},
    )
    return _Sync.Response(
        error_code=result.error_code,
        protocol_type=result.protocol_type,
        protocol_name=result.protocol_name,
        assignment=result.assignment,
    )


async def heartbeat(broker: "Broker", request: Any, context: Context) -> Any:
    code = broker.coordinator.heartbeat(
        request.group_id, request.generation_id, request.member_id, request.group_instance_id
    )
    return _Heartbeat.Response(error_code=code)


async def leave_group(broker: "Broker", request: Any, context: Context) -> Any:
    if context.version < _MEMBERS_FROM:
        code, members = broker.coordinator.leave(request.group_id, [(request.member_id, None)])
        return _Leave.Response(error_code=code or members[0].error_code)
    asked = [(member.member_id, member.group_instance_id) for member in request.members]
    code, members = broker.coordinator.leave(request.group_id, asked)
    return _Leave.Response(
        error_code=code,
        members=[
            _Leave.MemberResponse(
                member_id=member.member_id, group_instance_id=member.group_instance_id, error_code=member.error_code
            )
            for member in members
        ],
    )


async def describe_groups(broker: "Broker", request: Any, context: Context) -> Any:
    return _Describe.Response(groups=[_described(broker, group, context.version) for group in request.groups])


def _described(broker: "Broker", group_id: str, version: int) -> Any:
    found = broker.coordinator.describe(group_id)
    is_missing = found.error_code == ErrorCode.GROUP_ID_NOT_FOUND
    return _Describe.DescribedGroup(
        error_code=ErrorCode.NONE if is_missing and version < _NOT_FOUND_FROM else found.error_code,
        error_message=found.error_message or f"Group {group_id} not found." if is_missing else None,
        group_id=group_id,
        group_state=str(found.state),
        protocol_type=found.protocol_type,
        protocol_data=found.protocol_name,
        members=[
            _Describe.DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata,
                member_assignment=member.assignment,
            )
            for member in found.members
        ],
        authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
    )


async def list_groups(broker: "Broker", request: Any, context: Context) -> Any:
    groups = broker.coordinator.list_groups(request.states_filter, request.types_filter)
    return _List.Response(
        groups=[
            _List.ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type,
                group_state=str(group.state),
                group_type=group.type,
            )
            for group in groups
        ],
    )


async def delete_groups(broker: "Broker", request: Any, context: Context) -> Any:
    results: list[Any] = []
    for group_id in request.groups_names:
        code = broker.coordinator.delete(group_id)
        if code == ErrorCode.NONE:
            try:
                await broker.node.delete_group(group_id)
            except StreamcoreError:
                code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        results.append(_Delete.DeletableGroupResult(group_id=group_id, error_code=code))
    return _Delete.Response(results=results)


async def offset_delete(broker: "Broker", request: Any, context: Context) -> Any:
    error = broker.coordinator.missing(request.group_id)
    if error:
        return _DeleteOffsets.Response(error_code=error)
    # What a classic member subscribes to is in its metadata, in a form of its own: its group keeps all of it.
    in_use = broker.coordinator.subscribed_topics(request.group_id)
    topics: list[Any] = []
    taken: list[TP] = []
    for topic in request.topics:
        meta = broker.node.topics.get(topic.name)
        partitions: list[Any] = []
        for partition in topic.partitions:
            index = partition.partition_index
            code: int = ErrorCode.NONE
            if meta is None or not 0 <= index < meta.partitions:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif in_use is None or topic.name in in_use:
                code = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            else:
                taken.append(TP(topic.name, index))
            partitions.append(_DeleteOffsets.OffsetDeleteResponsePartition(partition_index=index, error_code=code))
        topics.append(_DeleteOffsets.OffsetDeleteResponseTopic(name=topic.name, partitions=partitions))
    try:
        await broker.node.delete_offsets(request.group_id, taken)
    except StreamcoreError:
        return _DeleteOffsets.Response(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE)
    return _DeleteOffsets.Response(topics=topics)


HANDLERS = {
    _Join: join_group,
    _Sync: sync_group,
    _Heartbeat: heartbeat,
    _Leave: leave_group,
    _Describe: describe_groups,
    _List: list_groups,
    _Delete: delete_groups,
    _DeleteOffsets: offset_delete,
}
