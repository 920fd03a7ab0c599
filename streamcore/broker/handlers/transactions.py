"""AddPartitionsToTxn 0-5, AddOffsetsToTxn 0-4, TxnOffsetCommit 0-5, EndTxn 0-5: what a transactional producer asks for.

A client of transaction version 2 adds nothing by a request of its own: its Produce (12 and later) and TxnOffsetCommit
(5) do that, and each EndTxn (5) gives it a new epoch (KIP-890). Left out: two-phase commit (KIP-939).
"""

from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets_topic import OFFSETS_TP
from streamcore.broker.coordinator.transaction import EPOCH_BUMPED_FROM, TransactionRefusedError
from streamcore.broker.handlers.offsets import offset_code, offsets_in
from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_AddPartitions = messages.AddPartitionsToTxn
_AddOffsets = messages.AddOffsetsToTxn
_End = messages.EndTxn
_OffsetCommit = messages.TxnOffsetCommit
_BATCHED_FROM: Final = 4  # several transactions at once, between brokers
_FENCED_FROM: Final = 2  # before, a client knows PRODUCER_FENCED by the name of INVALID_PRODUCER_EPOCH (KIP-588)
_BUMPED_FROM: Final = 5  # EndTxn and TxnOffsetCommit of transaction version 2
CLIENT_VERSION: Final = 0  # of a producer that adds partitions by requests of their own


def known_code(error: TransactionRefusedError, version: int) -> int:
    """The code as a client of this version of the transactional APIs knows it."""
    if error.error_code == ErrorCode.PRODUCER_FENCED and version < _FENCED_FROM:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error.error_code


# -- AddPartitionsToTxn ------------------------------------------------------------------------------------------------


async def add_partitions_to_txn(broker: "Broker", request: Any, context: Context) -> Any:
    if context.version < _BATCHED_FROM:
        codes = await _add(
            broker,
            request.v3_and_below_transactional_id,
            (request.v3_and_below_producer_id, request.v3_and_below_producer_epoch),
            request.v3_and_below_topics,
            context.version,
        )
        return _AddPartitions.Response(results_by_topic_v3_and_below=_topic_results(request.v3_and_below_topics, codes))
    results = []
    for asked in request.transactions:
        producer = asked.producer_id, asked.producer_epoch
        if asked.verify_only:
            codes = _verify(broker, asked.transactional_id, producer, asked.topics)
        else:
            codes = await _add(broker, asked.transactional_id, producer, asked.topics, context.version)
        results.append(
            _AddPartitions.AddPartitionsToTxnResult(
                transactional_id=asked.transactional_id, topic_results=_topic_results(asked.topics, codes)
            )
        )
    return _AddPartitions.Response(results_by_transaction=results)


def _tps(topics: Any) -> list[TP]:
    return [TP(topic.name, partition) for topic in topics for partition in topic.partitions]


async def _add(
    broker: "Broker", transactional_id: str, producer: tuple[int, int], topics: Any, version: int
) -> dict[TP, int]:
    tps = _tps(topics)
    unknown = [tp for tp in tps if not _exists(broker, tp)]
    if unknown:
        # All or none of them, so that a producer never believes in half a request.
        codes: dict[TP, int] = dict.fromkeys(tps, ErrorCode.OPERATION_NOT_ATTEMPTED)
        return codes | dict.fromkeys(unknown, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    try:
        await broker.transactions.add_partitions(transactional_id, *producer, tps, CLIENT_VERSION)
    except TransactionRefusedError as error:
        return dict.fromkeys(tps, known_code(error, version))
    return dict.fromkeys(tps, ErrorCode.NONE)


def _verify(broker: "Broker", transactional_id: str, producer: tuple[int, int], topics: Any) -> dict[TP, int]:
    codes: dict[TP, int] = {}
    for tp in _tps(topics):
        try:
            broker.transactions.check_write(transactional_id, *producer, tp)
            codes[tp] = ErrorCode.NONE
        except TransactionRefusedError as error:
            codes[tp] = error.error_code
    return codes


def _exists(broker: "Broker", tp: TP) -> bool:
    meta = broker.node.topics.get(tp.topic)
    return meta is not None and 0 <= tp.partition < meta.partitions


def _topic_results(topics: Any, codes: dict[TP, int]) -> list[Any]:
    return [
        _AddPartitions.AddPartitionsToTxnTopicResult(
            name=topic.name,
            results_by_partition=[
                _AddPartitions.AddPartitionsToTxnPartitionResult(
                    partition_index=partition, partition_error_code=codes[TP(topic.name, partition)]
                )
                for partition in topic.partitions
            ],
        )
        for topic in topics
    ]


# -- offsets in a transaction ------------------------------------------------------------------------------------------


async def add_offsets_to_txn(broker: "Broker", request: Any, context: Context) -> Any:
    # The group's name is looked at when its offsets come, as in Kafka.
    try:
        await broker.transactions.add_partitions(
            request.transactional_id, request.producer_id, request.producer_epoch, [OFFSETS_TP], CLIENT_VERSION
        )
    except TransactionRefusedError as error:
        return _AddOffsets.Response(error_code=known_code(error, context.version))
    return _AddOffsets.Response()


async def txn_offset_commit(broker: "Broker", request: Any, context: Context) -> Any:
    codes, taken = offsets_in(broker, request.topics)
    if taken:
        codes |= dict.fromkeys(taken, await _commit(broker, request, context.version, taken))
    return _OffsetCommit.Response(
        topics=[
            _OffsetCommit.TxnOffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    _OffsetCommit.TxnOffsetCommitResponsePartition(
                        partition_index=p.partition_index, error_code=codes[TP(topic.name, p.partition_index)]
                    )
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


async def _commit(broker: "Broker", request: Any, version: int, offsets: dict[TP, OffsetValue]) -> int:
    if not request.group_id:
        return ErrorCode.INVALID_GROUP_ID
    producer = request.producer_id, request.producer_epoch
    transactions = broker.transactions
    try:
        if version >= _BUMPED_FROM:
            await transactions.add_partitions(request.transactional_id, *producer, [OFFSETS_TP], EPOCH_BUMPED_FROM)
        # A client that says nothing of a member is one from before KIP-447, whose fencing is its transactional id.
        if request.generation_id >= 0 or request.member_id or request.group_instance_id is not None:
            refused = broker.coordinator.check_commit(
                request.group_id, request.generation_id, request.member_id, request.group_instance_id
            )
            if refused == ErrorCode.GROUP_ID_NOT_FOUND:
                refused = ErrorCode.ILLEGAL_GENERATION
            if refused:
                return refused
        # Last, with nothing to wait for between it and the log.
        transactions.check_write(request.transactional_id, *producer, OFFSETS_TP)
        await broker.node.commit_in_transaction(request.group_id, offsets, *producer)
    except TransactionRefusedError as error:
        return _write_code(error)
    except StreamcoreError as error:
        return offset_code(error)
    return ErrorCode.NONE


def _write_code(error: TransactionRefusedError) -> int:
    code = error.error_code
    if code == ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code


# -- EndTxn ------------------------------------------------------------------------------------------------------------


async def end_txn(broker: "Broker", request: Any, context: Context) -> Any:
    is_bumped = context.version >= _BUMPED_FROM
    try:
        producer_id, epoch = await broker.transactions.end(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            is_commit=request.committed,
            client_version=EPOCH_BUMPED_FROM if is_bumped else CLIENT_VERSION,
        )
    except TransactionRefusedError as error:
        return _End.Response(error_code=known_code(error, context.version))
    return _End.Response(producer_id=producer_id, producer_epoch=epoch)


HANDLERS = {
    _AddPartitions: add_partitions_to_txn,
    _AddOffsets: add_offsets_to_txn,
    _OffsetCommit: txn_offset_commit,
    _End: end_txn,
}
