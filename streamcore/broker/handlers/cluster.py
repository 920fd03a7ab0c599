"""DescribeCluster 0-2 (KIP-700) and DescribeTopicPartitions 0 (KIP-966): what a client's admin shows of the cluster."""

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from streamcore.broker.handlers.metadata import AUTHORIZED_OPERATIONS_UNKNOWN
from streamcore.broker.requests import Context
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Cluster = messages.DescribeCluster
_Topics = messages.DescribeTopicPartitions
_BROKERS = 1
PARTITIONS_MAX = 2000  # of one answer, as Kafka's max.request.partition.size.limit; a cursor leads on


async def describe_cluster(broker: "Broker", request: Any, context: Context) -> Any:
    if request.endpoint_type != _BROKERS:
        return _Cluster.Response(
            error_code=ErrorCode.UNSUPPORTED_VERSION,
            error_message="there are no controllers to be described apart from the brokers",
            cluster_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
        )
    node_id, endpoint = broker.config.node_id, broker.endpoint
    return _Cluster.Response(
        cluster_id=broker.cluster_id,
        controller_id=node_id,
        brokers=[_Cluster.DescribeClusterBroker(broker_id=node_id, host=endpoint.host, port=endpoint.port)],
        cluster_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
        endpoint_type=_BROKERS,
    )


async def describe_topic_partitions(broker: "Broker", request: Any, context: Context) -> Any:
    names = sorted({topic.name for topic in request.topics}) if request.topics else sorted(broker.node.topics)
    start = (request.cursor.topic_name, request.cursor.partition_index) if request.cursor is not None else ("", 0)
    names = names[bisect_left(names, start[0]) :]
    limit = min(max(1, request.response_partition_limit), PARTITIONS_MAX)
    topics: list[Any] = []
    cursor = None
    me = [broker.config.node_id]
    for name in names:
        meta = broker.node.topics.get(name)
        if meta is None:
            topics.append(
                _Topics.DescribeTopicPartitionsResponseTopic(
                    error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    name=name,
                    topic_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
                )
            )
            continue
        first = start[1] if name == start[0] else 0
        last = min(meta.partitions, first + limit)
        topics.append(
            _Topics.DescribeTopicPartitionsResponseTopic(
                name=name,
                topic_id=meta.topic_id,
                is_internal=meta.internal,
                partitions=[
                    _Topics.DescribeTopicPartitionsResponsePartition(
                        partition_index=partition,
                        leader_id=me[0],
                        leader_epoch=0,
                        replica_nodes=me,
                        isr_nodes=me,
                        eligible_leader_replicas=[],
                        last_known_elr=[],
                    )
                    for partition in range(first, last)
                ],
                topic_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
            )
        )
        limit -= last - first
        if last < meta.partitions:
            cursor = _Topics.Cursor(topic_name=name, partition_index=last)
        elif limit <= 0 and name != names[-1]:
            cursor = _Topics.Cursor(topic_name=names[names.index(name) + 1], partition_index=0)
        if limit <= 0:
            break
    return _Topics.Response(topics=topics, next_cursor=cursor)


HANDLERS = {
    _Cluster: describe_cluster,
    _Topics: describe_topic_partitions,
}
