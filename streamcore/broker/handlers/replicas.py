"""Where replicas and leaders are on a cluster of one node: where they are they stay, and who would move them hears so.

ElectLeaders 0-2 (the leader is the preferred one already), AlterPartitionReassignments 0-1 and
ListPartitionReassignments 0 (to this node is where they are), AlterReplicaLogDirs 1-2 (there is one directory),
DescribeQuorum 0-2 (this node is the only voter on the cluster's metadata).
"""

from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.requests import Context
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Elect = messages.ElectLeaders
_Reassign = messages.AlterPartitionReassignments
_Reassignments = messages.ListPartitionReassignments
_Move = messages.AlterReplicaLogDirs
_Quorum = messages.DescribeQuorum
_METADATA_TOPIC: Final = "__cluster_metadata"  # Kafka's name for it


def _exists(broker: "Broker", topic: str, partition: int) -> bool:
    meta = broker.node.topics.get(topic)
    return meta is not None and 0 <= partition < meta.partitions


async def elect_leaders(broker: "Broker", request: Any, context: Context) -> Any:
    if request.topic_partitions is None:
        # All of them: Kafka leaves out those that need no election.
        return _Elect.Response()
    return _Elect.Response(
        replica_election_results=[
            _Elect.ReplicaElectionResult(
                topic=topic.topic,
                partition_result=[_elected(broker, topic.topic, partition) for partition in topic.partitions],
            )
            for topic in request.topic_partitions
        ]
    )


def _elected(broker: "Broker", topic: str, partition: int) -> Any:
    known = _exists(broker, topic, partition)
    return _Elect.PartitionResult(
        partition_id=partition,
        error_code=ErrorCode.ELECTION_NOT_NEEDED if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        error_message="the preferred leader leads already" if known else f"there is no partition {topic}-{partition}",
    )


async def alter_partition_reassignments(broker: "Broker", request: Any, context: Context) -> Any:
    return _Reassign.Response(
        allow_replication_factor_change=request.allow_replication_factor_change,
        responses=[
            _Reassign.ReassignableTopicResponse(
                name=topic.name,
                partitions=[_reassigned(broker, topic.name, partition) for partition in topic.partitions],
            )
            for topic in request.topics
        ],
    )


def _reassigned(broker: "Broker", topic: str, asked: Any) -> Any:
    node_id = broker.config.node_id
    code, message = ErrorCode.NONE, None
    if not _exists(broker, topic, asked.partition_index):
        code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {topic}-{asked.partition_index}"
    elif asked.replicas is None:
        code, message = ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "there is nothing to cancel"
    elif list(asked.replicas) != [node_id]:
        code, message = ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"node {node_id} is the only one"
    return _Reassign.ReassignablePartitionResponse(
        partition_index=asked.partition_index, error_code=code, error_message=message
    )


async def list_partition_reassignments(broker: "Broker", request: Any, context: Context) -> Any:
    return _Reassignments.Response()


async def alter_replica_log_dirs(broker: "Broker", request: Any, context: Context) -> Any:
    results: dict[str, list[Any]] = {}
    for directory in request.dirs:
        for topic in directory.topics:
            for partition in topic.partitions:
                code = ErrorCode.NONE
                if directory.path != broker.node.directory.path:
                    code = ErrorCode.LOG_DIR_NOT_FOUND
                elif not _exists(broker, topic.name, partition):
                    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                results.setdefault(topic.name, []).append(
                    _Move.AlterReplicaLogDirPartitionResult(partition_index=partition, error_code=code)
                )
    return _Move.Response(
        results=[
            _Move.AlterReplicaLogDirTopicResult(topic_name=name, partitions=partitions)
            for name, partitions in results.items()
        ]
    )


async def describe_quorum(broker: "Broker", request: Any, context: Context) -> Any:
    node_id, endpoint = broker.config.node_id, broker.endpoint
    # The metadata is a file that is replaced as a whole: its log has no records and no offsets but 0.
    now_ms = broker.clock.now_ms()
    topics = []
    for topic in request.topics:
        partitions = []
        for partition in topic.partitions:
            if (topic.topic_name, partition.partition_index) != (_METADATA_TOPIC, 0):
                partitions.append(
                    _Quorum.ResponsePartitionData(
                        partition_index=partition.partition_index,
                        error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        error_message=None,
                    )
                )
                continue
            voter = _Quorum.ReplicaState(replica_id=node_id, log_end_offset=0, last_caught_up_timestamp=now_ms)
            partitions.append(
                _Quorum.ResponsePartitionData(
                    partition_index=0,
                    error_message=None,
                    leader_id=node_id,
                    current_voters=[voter],
                )
            )
        topics.append(_Quorum.TopicData(topic_name=topic.topic_name, partitions=partitions))
    listener = _Quorum.Listener(name=broker.config.security_protocol, host=endpoint.host, port=endpoint.port)
    return _Quorum.Response(
        error_message=None, topics=topics, nodes=[_Quorum.Node(node_id=node_id, listeners=[listener])]
    )


HANDLERS = {
    _Elect: elect_leaders,
    _Reassign: alter_partition_reassignments,
    _Reassignments: list_partition_reassignments,
    _Move: alter_replica_log_dirs,
    _Quorum: describe_quorum,
}
