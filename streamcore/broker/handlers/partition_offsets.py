"""ListOffsets 1-10: the offset for a time, at the granularity of a record, with the leader epoch of that offset.

Who reads committed records only (`isolation_level` 1) is told of nothing from the last stable offset on.
"""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker
    from streamcore.log.partition_log import PartitionLog

_ListOffsets = messages.ListOffsets
_Partition = _ListOffsets.ListOffsetsPartitionResponse
READ_COMMITTED = 1
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5
# The version from which a negative time says something other than a time.
_SPECIAL_FROM = {LATEST: 0, EARLIEST: 0, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}


async def list_offsets(broker: "Broker", request: Any, context: Context) -> Any:
    return _ListOffsets.Response(
        topics=[
            _ListOffsets.ListOffsetsTopicResponse(
                name=topic.name,
                partitions=[
                    _partition(broker, topic.name, asked, request, context.version) for asked in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _partition(broker: "Broker", name: str, asked: Any, request: Any, version: int) -> Any:
    index = asked.partition_index
    if asked.timestamp < 0 and version < _SPECIAL_FROM.get(asked.timestamp, version + 1):
        return _Partition(partition_index=index, error_code=ErrorCode.UNSUPPORTED_VERSION)
    try:
        log = broker.node.directory.log(name, index)
        if asked.current_leader_epoch > 0:
            return _Partition(partition_index=index, error_code=ErrorCode.UNKNOWN_LEADER_EPOCH)
        end_offset = log.last_stable_offset if request.isolation_level == READ_COMMITTED else log.high_watermark
        offset, timestamp = _find(log, asked.timestamp, end_offset)
    except StreamcoreError as error:
        return _Partition(partition_index=index, error_code=error.code)
    return _Partition(
        partition_index=index,
        timestamp=timestamp,
        offset=offset,
        leader_epoch=log.epochs.epoch_at(offset) if offset >= 0 else -1,
    )


def _find(log: "PartitionLog", timestamp_ms: int, end_offset: int) -> tuple[int, int]:
    """(offset, timestamp); -1 where there is none."""
    if timestamp_ms == LATEST:
        return end_offset, -1
    if timestamp_ms in (EARLIEST, EARLIEST_LOCAL):
        return log.log_start_offset, -1
    if timestamp_ms == LATEST_TIERED:
        return -1, -1
    found = log.max_timestamp() if timestamp_ms == MAX_TIMESTAMP else log.offset_for_timestamp(timestamp_ms)
    return found if found is not None and found[0] < end_offset else (-1, -1)


HANDLERS = {_ListOffsets: list_offsets}
