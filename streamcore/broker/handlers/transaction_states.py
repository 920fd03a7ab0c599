"""DescribeTransactions 0, ListTransactions 0-2, DescribeProducers 0, WriteTxnMarkers 1: transactions for whoever keeps
house (KIP-664).

WriteTxnMarkers ends what a partition holds of a transaction, whatever its coordinator says: the way out of one that
hangs.
"""

from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.coordinator.transaction import Transaction, TransactionRefusedError, TransactionState
from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Describe = messages.DescribeTransactions
_List = messages.ListTransactions
_Producers = messages.DescribeProducers
_Markers = messages.WriteTxnMarkers
_STATES_OF_KAFKA: Final = ("Dead", "PrepareEpochFence")  # its own, which are never seen from outside
_KNOWN_STATES: Final = frozenset({*(state.label for state in TransactionState), *_STATES_OF_KAFKA})


async def describe_transactions(broker: "Broker", request: Any, context: Context) -> Any:
    return _Describe.Response(transaction_states=[_described(broker, name) for name in request.transactional_ids])


def _described(broker: "Broker", transactional_id: str) -> Any:
    code: int = ErrorCode.INVALID_REQUEST
    transaction: Transaction | None = None
    if transactional_id:
        try:
            transaction = broker.transactions.describe(transactional_id)
            code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
        except TransactionRefusedError as error:
            code = error.error_code
    if transaction is None:
        return _Describe.TransactionState(error_code=code, transactional_id=transactional_id)
    partitions: dict[str, list[int]] = {}
    for topic, partition in sorted(transaction.partitions):
        partitions.setdefault(topic, []).append(partition)
    return _Describe.TransactionState(
        transactional_id=transactional_id,
        transaction_state=transaction.state.label,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_start_time_ms=transaction.started_ms,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.producer_epoch,
        topics=[_Describe.TopicData(topic=topic, partitions=indexes) for topic, indexes in partitions.items()],
    )


async def list_transactions(broker: "Broker", request: Any, context: Context) -> Any:
    try:
        found = broker.transactions.transactions()
    except TransactionRefusedError as error:
        return _List.Response(error_code=error.error_code)
    states, producer_ids = set(request.state_filters), set(request.producer_id_filters)
    now_ms = broker.clock.now_ms()
    return _List.Response(
        unknown_state_filters=[name for name in request.state_filters if name not in _KNOWN_STATES],
        transaction_states=[
            _List.TransactionState(
                transactional_id=transaction.transactional_id,
                producer_id=transaction.producer_id,
                transaction_state=transaction.state.label,
            )
            for transaction in found
            if (not states or transaction.state.label in states)
            and (not producer_ids or transaction.producer_id in producer_ids)
            and (request.duration_filter < 0 or _is_older(transaction, request.duration_filter, now_ms))
        ],
    )


def _is_older(transaction: Transaction, duration_ms: int, now_ms: int) -> bool:
    """Whether it began so long ago; one that never has began before all time, as in Kafka."""
    return now_ms - transaction.started_ms > duration_ms


async def describe_producers(broker: "Broker", request: Any, context: Context) -> Any:
    return _Producers.Response(
        topics=[
            _Producers.TopicResponse(
                name=topic.name,
                partitions=[_producers(broker, TP(topic.name, index)) for index in topic.partition_indexes],
            )
            for topic in request.topics
        ]
    )


def _producers(broker: "Broker", tp: TP) -> Any:
    try:
        log = broker.node.directory.log(*tp)
    except StreamcoreError as error:
        return _Producers.PartitionResponse(
            partition_index=tp.partition, error_code=error.code, error_message=str(error)
        )
    return _Producers.PartitionResponse(
        partition_index=tp.partition,
        active_producers=[
            _Producers.ProducerState(
                producer_id=producer_id,
                producer_epoch=producer.producer_epoch,
                last_sequence=producer.last_sequence,
                last_timestamp=producer.last_timestamp,
                coordinator_epoch=producer.coordinator_epoch,
                current_txn_start_offset=producer.transaction_first_offset,
            )
            for producer_id, producer in log.producers.producers.items()
        ],
    )


async def write_txn_markers(broker: "Broker", request: Any, context: Context) -> Any:
    return _Markers.Response(
        markers=[
            _Markers.WritableTxnMarkerResult(
                producer_id=marker.producer_id,
                topics=[
                    _Markers.WritableTxnMarkerTopicResult(
                        name=topic.name,
                        partitions=[
                            _Markers.WritableTxnMarkerPartitionResult(
                                partition_index=index, error_code=await _mark(broker, TP(topic.name, index), marker)
                            )
                            for index in topic.partition_indexes
                        ],
                    )
                    for topic in marker.topics
                ],
            )
            for marker in request.markers
        ]
    )


async def _mark(broker: "Broker", tp: TP, marker: Any) -> int:
    try:
        broker.node.append_marker(
            tp,
            marker.producer_id,
            marker.producer_epoch,
            is_commit=marker.transaction_result,
            coordinator_epoch=marker.coordinator_epoch,
        )
        await broker.node.make_durable([tp])
    except StreamcoreError as error:
        return error.code
    return ErrorCode.NONE


HANDLERS = {
    _Describe: describe_transactions,
    _List: list_transactions,
    _Producers: describe_producers,
    _Markers: write_txn_markers,
}
