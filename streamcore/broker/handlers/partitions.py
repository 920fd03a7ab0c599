"""CreatePartitions 0-3: more partitions for a topic."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import InvalidPartitionsError, StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Create = messages.CreatePartitions


async def create_partitions(broker: "Broker", request: Any, context: Context) -> Any:
    counts = Counter(topic.name for topic in request.topics)
    results: dict[str, Any] = {}
    for topic in request.topics:
        result = _Create.CreatePartitionsTopicResult(name=topic.name, error_message=None)
        if counts[topic.name] > 1:
            result.error_code = ErrorCode.INVALID_REQUEST
            result.error_message = "the request names this topic twice"
        elif topic.assignments is not None and any(
            list(assignment.broker_ids) != [broker.config.node_id] for assignment in topic.assignments
        ):
            result.error_code = ErrorCode.INVALID_REPLICA_ASSIGNMENT
            result.error_message = f"node {broker.config.node_id} is the only one"
        else:
            try:
                _grow(broker, topic, validate_only=request.validate_only)
            except StreamcoreError as error:
                result.error_code, result.error_message = error.code, str(error)
        results[topic.name] = result
    return _Create.Response(results=list(results.values()))


def _grow(broker: "Broker", topic: Any, *, validate_only: bool) -> None:
    meta = broker.node.topic(topic.name)
    if topic.count <= meta.partitions:
        raise InvalidPartitionsError(
            f"topic {topic.name!r} has {meta.partitions} partitions; {topic.count} would not be more"
        )
    if not validate_only:
        broker.node.add_partitions(topic.name, topic.count)


HANDLERS = {_Create: create_partitions}
