"""Metadata 0-13: brokers, topics, leaders. Connect to one broker and know them all.

A topic that is not there is made if the broker allows it and the client asks for it. This node leads every partition.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError, UnknownTopicError
from streamcore.log.topics import TopicMeta
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Metadata = messages.Metadata
_NO_ID = UUID(int=0)
AUTHORIZED_OPERATIONS_UNKNOWN = -(1 << 31)


async def metadata(broker: "Broker", request: Any, context: Context) -> Any:
    node_id = broker.config.node_id
    offline = broker.node.directory.offline_partitions  # once: it looks at every partition there is
    asked = request.topics
    if asked is None or (context.version == 0 and not asked):
        topics = [_described(broker, meta, offline) for _, meta in sorted(broker.node.topics.items())]
    else:
        may_create = request.allow_auto_topic_creation and broker.config.auto_create_topics_enable
        # Each once, and what there is before what there is not, as Kafka has it.
        unique = {(topic.name, topic.topic_id): topic for topic in asked}.values()
        topics = [_topic(broker, topic, offline, may_create=may_create) for topic in unique]
        topics.sort(key=lambda topic: topic.error_code != ErrorCode.NONE)
    endpoint = broker.endpoint
    return _Metadata.Response(
        brokers=[_Metadata.MetadataResponseBroker(node_id=node_id, host=endpoint.host, port=endpoint.port)],
        cluster_id=broker.cluster_id,
        controller_id=node_id,
        topics=topics,
    )


def _topic(broker: "Broker", asked: Any, offline: Mapping[TP, str], *, may_create: bool) -> Any:
    name = asked.name
    if name is None or asked.topic_id != _NO_ID:
        found = broker.topic_by_id(asked.topic_id)
        if found is None:
            return _failed(name, asked.topic_id, ErrorCode.UNKNOWN_TOPIC_ID)
        return _described(broker, found, offline)
    meta = broker.node.topics.get(name)
    if meta is not None:
        return _described(broker, meta, offline)
    try:
        broker.node.check_topic_name(name)
        if not may_create:
            raise UnknownTopicError(f"there is no topic {name!r}")
        return _described(broker, broker.node.create_topic(name, broker.config.num_partitions, {}), offline)
    except StreamcoreError as error:
        return _failed(name, _NO_ID, error.code)


def _failed(name: str | None, topic_id: UUID, code: int) -> Any:
    return _Metadata.MetadataResponseTopic(
        error_code=code, name=name, topic_id=topic_id, topic_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN
    )


def _described(broker: "Broker", meta: TopicMeta, offline: Mapping[TP, str]) -> Any:
    me = [broker.config.node_id]
    return _Metadata.MetadataResponseTopic(
        name=meta.name,
        topic_id=meta.topic_id,
        is_internal=meta.internal,
        partitions=[
            _Metadata.MetadataResponsePartition(
                error_code=ErrorCode.LEADER_NOT_AVAILABLE if (meta.name, partition) in offline else ErrorCode.NONE,
                partition_index=partition,
                leader_id=-1 if (meta.name, partition) in offline else me[0],
                leader_epoch=0,
                replica_nodes=me,
                isr_nodes=me,
            )
            for partition in range(meta.partitions)
        ],
        topic_authorized_operations=AUTHORIZED_OPERATIONS_UNKNOWN,
    )


HANDLERS = {_Metadata: metadata}
