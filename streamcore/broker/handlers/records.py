"""DeleteRecords 0-2 (KIP-107): a partition's log begins later from now on."""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Delete = messages.DeleteRecords
_HIGH_WATERMARK = -1  # delete everything


async def delete_records(broker: "Broker", request: Any, context: Context) -> Any:
    return _Delete.Response(
        topics=[
            _Delete.DeleteRecordsTopicResult(
                name=topic.name, partitions=[_partition(broker, topic.name, asked) for asked in topic.partitions]
            )
            for topic in request.topics
        ]
    )


def _partition(broker: "Broker", name: str, asked: Any) -> Any:
    tp = TP(name, asked.partition_index)
    result = _Delete.DeleteRecordsPartitionResult(partition_index=asked.partition_index, low_watermark=-1)
    try:
        before = asked.offset
        if before == _HIGH_WATERMARK:
            before = broker.node.directory.log(*tp).high_watermark
        result.low_watermark = broker.node.delete_records(tp, before)
    except StreamcoreError as error:
        result.error_code = error.code
    return result


HANDLERS = {_Delete: delete_records}
