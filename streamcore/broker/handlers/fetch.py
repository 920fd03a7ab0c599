"""Fetch 4-18: stored batches as they are, waiting for `min_bytes` or `max_wait_ms`.

Sessions (KIP-227) are answered with session 0: every answer is a full one. Left out: followers, rack awareness.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import OffsetOutOfRangeError, StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Fetch = messages.Fetch
_Partition = _Fetch.PartitionData
_BY_ID_FROM = 13
LEADER_EPOCH = 0  # of a node that has always led


async def fetch(broker: "Broker", request: Any, context: Context) -> Any:
    if request.session_id and request.session_epoch > 0:
        # There are none: the client begins again with a full fetch.
        return _Fetch.Response(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
    topics = [(topic, _name(broker, topic, context.version)) for topic in request.topics]
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + request.max_wait_ms / 1000
    while True:
        responses, size, failed = _read(broker, request, topics)
        remaining_s = deadline_s - loop.time()
        if size >= request.min_bytes or failed or remaining_s <= 0 or not topics:
            break
        tps = [TP(name, p.partition) for topic, name in topics if name is not None for p in topic.partitions]
        if not await broker.node.wait_for_records(tps, remaining_s * 1000):
            responses, size, failed = _read(broker, request, topics)
            break
    return _Fetch.Response(responses=responses)


def _name(broker: "Broker", topic: Any, version: int) -> str | None:
    if version < _BY_ID_FROM:
        return str(topic.topic)
    meta = broker.topic_by_id(topic.topic_id)
    return meta.name if meta is not None else None


def _read(broker: "Broker", request: Any, topics: list[tuple[Any, str | None]]) -> tuple[list[Any], int, bool]:
    """(what to answer, bytes in it, whether something is wrong and must not wait)."""
    left = min(max(request.max_bytes, 0), broker.config.fetch_max_bytes)
    size = 0
    failed = False
    responses: list[Any] = []
    for topic, name in topics:
        partitions: list[Any] = []
        for asked in topic.partitions:
            answer = _partition(broker, name, asked, left, is_first=size == 0)
            partitions.append(answer)
            failed = failed or answer.error_code != ErrorCode.NONE
            size += len(answer.records)
            left -= len(answer.records)
        responses.append(
            _Fetch.FetchableTopicResponse(topic=topic.topic, topic_id=topic.topic_id, partitions=partitions)
        )
    return responses, size, failed


def _partition(broker: "Broker", name: str | None, asked: Any, left: int, *, is_first: bool) -> Any:
    index = asked.partition
    if name is None:
        return _failed(index, ErrorCode.UNKNOWN_TOPIC_ID)
    try:
        log = broker.node.directory.log(name, index)
        if asked.current_leader_epoch > LEADER_EPOCH:
            return _failed(index, ErrorCode.UNKNOWN_LEADER_EPOCH)
        offset, high_watermark = asked.fetch_offset, log.high_watermark
        records: bytes | memoryview = b""
        if left > 0 or is_first:
            # The first batch comes whole, whatever its size (KIP-74).
            records = log.read(offset, min(asked.partition_max_bytes, max(left, 0)))
            if len(records) > left and not is_first:
                records = b""
        elif not log.log_start_offset <= offset <= high_watermark:
            raise OffsetOutOfRangeError(offset, log.log_start_offset, high_watermark)
        return _Partition(
            partition_index=index,
            high_watermark=high_watermark,
            last_stable_offset=high_watermark,
            log_start_offset=log.log_start_offset,
            aborted_transactions=None,
            records=records,
        )
    except StreamcoreError as error:
        return _failed(index, error.code)


def _failed(index: int, code: int) -> Any:
    return _Partition(partition_index=index, error_code=code, high_watermark=-1, aborted_transactions=None, records=b"")


HANDLERS = {_Fetch: fetch}
