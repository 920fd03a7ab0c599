"""The newer consumer group protocol (KIP-848): ConsumerGroupHeartbeat 0-1, ConsumerGroupDescribe 0-1.

The rules are in `coordinator/consumer_groups/`; here they meet the wire. Left out: settings of single groups.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment, assignment_of
from streamcore.broker.coordinator.consumer_groups.messages import ConsumerMemberDescription, HeartbeatRequest
from streamcore.broker.handlers.metadata import AUTHORIZED_OPERATIONS_UNKNOWN
from streamcore.broker.requests import Context
from streamcore.protocol import messages

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Heartbeat = messages.ConsumerGroupHeartbeat
_Describe = messages.ConsumerGroupDescribe
_OWN_ID_FROM = 1  # the member makes its id (KIP-1082)
_CLASSIC, _CONSUMER = 0, 1  # types of members


async def consumer_group_heartbeat(broker: "Broker", request: Any, context: Context) -> Any:
    result = await broker.coordinator.consumer_heartbeat(
        HeartbeatRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            member_epoch=request.member_epoch,
            client_id=context.client_id,
            client_host=f"/{context.peer.host}",
            makes_its_id=context.version >= _OWN_ID_FROM,
            instance_id=request.instance_id,
            rack_id=request.rack_id,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            topic_names=None if request.subscribed_topic_names is None else tuple(request.subscribed_topic_names),
            topic_regex=request.subscribed_topic_regex,
            assignor=request.server_assignor,
            owned=None if request.topic_partitions is None else _owned(request.topic_partitions),
        )
    )
    return _Heartbeat.Response(
        error_code=result.error_code,
        error_message=result.error_message,
        member_id=result.member_id,
        member_epoch=result.member_epoch,
        heartbeat_interval_ms=result.heartbeat_interval_ms,
        assignment=None
        if result.assignment is None
        else _Heartbeat.Assignment(
            topic_partitions=[
                _Heartbeat.TopicPartitions(topic_id=topic_id, partitions=sorted(partitions))
                for topic_id, partitions in result.assignment.items()
            ]
        ),
    )


def _owned(topics: Iterable[Any]) -> Assignment:
    return assignment_of((topic.topic_id, topic.partitions) for topic in topics)


async def consumer_group_describe(broker: "Broker", request: Any, context: Context) -> Any:
    return _Describe.Response(groups=[_described(broker, group_id) for group_id in request.group_ids])


def _described(broker: "Broker", group_id: str) -> Any:
    found = broker.coordinator.describe_consumer(group_id)
    return _Describe.DescribedGroup(
        error_code=found.error_code,
        error_message=found.error_message,
        group_id=group_id,
        group_state=str(found.state or ""),
        group_epoch=found.group_epoch,
        assignment_epoch=found.target_epoch,
        assignor_name=found.assignor,
        members=[_member(broker, member) for member in found.members],
        authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
    )


def _member(broker: "Broker", member: ConsumerMemberDescription) -> Any:
    return _Describe.Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=list(member.topic_names),
        subscribed_topic_regex=member.topic_regex,
        assignment=_assignment(broker, member.assigned),
        target_assignment=_assignment(broker, member.target),
        member_type=_CLASSIC if member.is_classic else _CONSUMER,
    )


def _assignment(broker: "Broker", assignment: Assignment) -> Any:
    """Without topics that have been deleted."""
    known = ((broker.topic_by_id(topic_id), partitions) for topic_id, partitions in assignment.items())
    return _Describe.Assignment(
        topic_partitions=[
            _Describe.TopicPartitions(topic_id=meta.topic_id, topic_name=meta.name, partitions=sorted(partitions))
            for meta, partitions in known
            if meta is not None
        ]
    )


HANDLERS = {_Heartbeat: consumer_group_heartbeat, _Describe: consumer_group_describe}
