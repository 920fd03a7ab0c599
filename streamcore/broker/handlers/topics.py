"""CreateTopics 2-7 and DeleteTopics 1-6."""

from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from streamcore.broker.requests import Context
from streamcore.errors import InvalidConfigError, InvalidPartitionsError, StreamcoreError, TopicExistsError
from streamcore.log.config import LogConfig
from streamcore.log.topics import TopicMeta
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Create = messages.CreateTopics
_Delete = messages.DeleteTopics
_NO_ID = UUID(int=0)
_DEFAULT = -1
_SOURCE_DEFAULT, _SOURCE_TOPIC = 5, 1


class _Refused(StreamcoreError):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = code


async def create_topics(broker: "Broker", request: Any, context: Context) -> Any:
    twice = {name for name, count in Counter(topic.name for topic in request.topics).items() if count > 1}
    results: dict[str, Any] = {}
    for topic in request.topics:
        if topic.name in twice:
            results[topic.name] = _failed(topic.name, ErrorCode.INVALID_REQUEST, "the request names this topic twice")
        else:
            results[topic.name] = _created(broker, topic, validate_only=request.validate_only)
    return _Create.Response(topics=list(results.values()))


def _created(broker: "Broker", topic: Any, *, validate_only: bool) -> Any:
    try:
        empty = [entry.name for entry in topic.configs if entry.value is None]
        if empty:
            raise InvalidConfigError(f"{', '.join(empty)} is null: leave it out for its default")
        config = {entry.name: entry.value for entry in topic.configs}
        partitions = _partition_count(broker, topic)
        if validate_only:
            broker.node.check_topic_name(topic.name)
            if topic.name in broker.node.topics:
                raise TopicExistsError(f"topic {topic.name!r} exists already")
            settings, topic_id = LogConfig.parse(config), _NO_ID
        else:
            meta = broker.node.create_topic(topic.name, partitions, config)
            settings, topic_id = LogConfig.parse(meta.config), meta.topic_id
    except _Refused as error:
        return _failed(topic.name, error.error_code, str(error))
    except StreamcoreError as error:
        return _failed(topic.name, error.code, str(error))
    return _Create.CreatableTopicResult(
        name=topic.name,
        topic_id=topic_id,
        error_message=None,
        num_partitions=partitions,
        replication_factor=1,
        configs=[
            _Create.CreatableTopicConfigs(
                name=name, value=value, config_source=_SOURCE_TOPIC if name in config else _SOURCE_DEFAULT
            )
            for name, value in settings.format().items()
        ],
    )


def _partition_count(broker: "Broker", topic: Any) -> int:
    me = broker.config.node_id
    if topic.assignments:
        if topic.num_partitions != _DEFAULT or topic.replication_factor != _DEFAULT:
            raise _Refused(ErrorCode.INVALID_REQUEST, "a topic has assignments, or counts, not both")
        indexes = sorted(assignment.partition_index for assignment in topic.assignments)
        if indexes != list(range(len(indexes))):
            raise _Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions are numbered from 0 without gaps")
        if any(list(assignment.broker_ids) != [me] for assignment in topic.assignments):
            raise _Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"node {me} is the only one")
        return len(indexes)
    if topic.replication_factor not in (_DEFAULT, 1):
        code = ErrorCode.INVALID_REPLICATION_FACTOR
        raise _Refused(code, f"replication factor {topic.replication_factor}: there is 1 node")
    if topic.num_partitions == _DEFAULT:
        return broker.config.num_partitions
    if topic.num_partitions < 1:
        raise InvalidPartitionsError(f"a topic has at least 1 partition, not {topic.num_partitions}")
    return int(topic.num_partitions)


def _failed(name: str, code: int, message: str) -> Any:
    return _Create.CreatableTopicResult(
        name=name, error_code=code, error_message=message, topic_config_error_code=code, configs=None
    )


async def delete_topics(broker: "Broker", request: Any, context: Context) -> Any:
    asked = [(topic.name, topic.topic_id) for topic in request.topics]
    asked += [(name, _NO_ID) for name in request.topic_names]
    return _Delete.Response(responses=[_deleted(broker, name, topic_id) for name, topic_id in asked])


def _deleted(broker: "Broker", name: str | None, topic_id: UUID) -> Any:
    result = _Delete.DeletableTopicResult(name=name, topic_id=topic_id, error_message=None)
    if not broker.config.delete_topic_enable:
        result.error_code, result.error_message = ErrorCode.TOPIC_DELETION_DISABLED, "delete.topic.enable is false"
        return result
    meta: TopicMeta | None
    if name is None:
        meta = broker.topic_by_id(topic_id)
        if meta is None:
            result.error_code = ErrorCode.UNKNOWN_TOPIC_ID
            return result
        result.name = name = meta.name
    meta = broker.node.topics.get(name)
    try:
        broker.node.delete_topic(name)
        if meta is not None:
            result.topic_id = meta.topic_id
    except StreamcoreError as error:
        result.error_code, result.error_message = error.code, str(error)
    return result


HANDLERS = {_Create: create_topics, _Delete: delete_topics}
