"""OffsetForLeaderEpoch 2-4 (KIP-320): where an epoch ended, for a consumer that has been away."""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Epochs = messages.OffsetForLeaderEpoch


async def offset_for_leader_epoch(broker: "Broker", request: Any, context: Context) -> Any:
    return _Epochs.Response(
        topics=[
            _Epochs.OffsetForLeaderTopicResult(
                topic=topic.topic, partitions=[_partition(broker, topic.topic, asked) for asked in topic.partitions]
            )
            for topic in request.topics
        ]
    )


def _partition(broker: "Broker", name: str, asked: Any) -> Any:
    answer = _Epochs.EpochEndOffset(partition=asked.partition)
    try:
        log = broker.node.directory.log(name, asked.partition)
    except StreamcoreError as error:
        answer.error_code = error.code
        return answer
    entries = log.epochs.entries
    latest = max(0, log.epochs.latest)
    if asked.current_leader_epoch > latest:
        answer.error_code = ErrorCode.UNKNOWN_LEADER_EPOCH
    elif asked.leader_epoch >= latest:
        answer.leader_epoch, answer.end_offset = (
            (latest, log.high_watermark) if asked.leader_epoch == latest else (-1, -1)
        )
    else:
        # The largest epoch that is not above the one asked for ends where the next one starts.
        for number, (epoch, _) in enumerate(entries):
            if epoch <= asked.leader_epoch and number + 1 < len(entries):
                answer.leader_epoch, answer.end_offset = epoch, entries[number + 1][1]
    return answer


HANDLERS = {_Epochs: offset_for_leader_epoch}
