"""Produce 3-13: batches to partitions, each partition on its own (acks 0, 1, all; idempotent producers).

Nothing here looks into a batch beyond its header. A batch of a transaction is taken while its transaction is open and
has the partition in it; from version 12 on, a Produce puts it there by itself (KIP-890).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamcore.broker.coordinator.transaction import EPOCH_BUMPED_FROM, TransactionRefusedError
from streamcore.broker.requests import CloseConnectionError, Context
from streamcore.errors import (
    InvalidRecordError,
    KeylessRecordError,
    StreamcoreError,
)
from streamcore.log.partition_log import Appended
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.records.batch import HEADER_BYTES, BatchHeader, Buffer
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Produce = messages.Produce
_Partition = _Produce.PartitionProduceResponse
_BY_ID_FROM = 13
_ABORTABLE_FROM = 11  # TRANSACTION_ABORTABLE (KIP-890)
_ADDED_FROM = 12  # the request adds its partitions to the transaction
_COORDINATOR = (ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
ACKS = (-1, 0, 1)
_OLD_MAGIC = (0, 1)  # at the same place as a batch's


async def produce(broker: "Broker", request: Any, context: Context) -> Any:
    refused = _refused(request)
    batches: dict[TP, Sequence[Buffer]] = {}
    records: dict[TP, int] = {}
    transactional: dict[TP, BatchHeader] = {}
    results: dict[TP, Appended | StreamcoreError | int] = {}
    names: list[str | None] = []
    for topic in request.topic_data:
        name = _name(broker, topic, context.version)
        names.append(name)
        for partition in topic.partition_data:
            if name is None or refused:
                continue
            tp = TP(name, partition.index)
            try:
                header = _header(partition.records)
                if header.is_control:
                    raise InvalidRecordError("a client writes no control batches")
                if header.is_transactional:
                    if request.transactional_id is None:
                        results[tp] = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                        continue
                    transactional[tp] = header
                batches[tp], records[tp] = [partition.records], header.record_count
            except StreamcoreError as error:
                results[tp] = error
    if transactional:
        refusals = await _check_transaction(broker, request.transactional_id, transactional, context.version)
        for tp, code in refusals.items():
            results[tp] = code
            del batches[tp]
    if batches:
        results.update(await broker.node.append(batches, records=records, durable=request.acks == -1))
    if request.acks == 0:
        failed = [result for result in results.values() if not isinstance(result, Appended)]
        if failed or refused or None in names:
            # There is no answer that could tell, and the client would go on for ever.
            raise CloseConnectionError(f"a Produce with acks=0 failed: {failed[0] if failed else 'no such topic'}")
        return None
    return _Produce.Response(
        responses=[
            _Produce.TopicProduceResponse(
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=[
                    _answer(partition.index, _result(results, refused, name, partition.index))
                    for partition in topic.partition_data
                ],
            )
            for topic, name in zip(request.topic_data, names, strict=True)
        ]
    )


def _refused(request: Any) -> int:
    if request.acks not in ACKS:
        return ErrorCode.INVALID_REQUIRED_ACKS
    return ErrorCode.NONE


async def _check_transaction(
    broker: "Broker", transactional_id: str, headers: Mapping[TP, BatchHeader], version: int
) -> dict[TP, int]:
    """The partitions whose batches are no part of an open transaction, and the code that says why.

    Nothing must be waited for between the return and the append.
    """
    transactions = broker.transactions
    refusals: dict[TP, int] = {}
    if version >= _ADDED_FROM:
        by_producer: dict[tuple[int, int], list[TP]] = {}
        for tp, header in headers.items():
            by_producer.setdefault((header.producer_id, header.producer_epoch), []).append(tp)
        for producer, tps in by_producer.items():
            try:
                await transactions.add_partitions(transactional_id, *producer, tps, EPOCH_BUMPED_FROM)
            except TransactionRefusedError as error:
                refusals |= dict.fromkeys(tps, _refusal(error, version))
    for tp, header in headers.items():
        if tp not in refusals:
            try:
                transactions.check_write(transactional_id, header.producer_id, header.producer_epoch, tp)
            except TransactionRefusedError as error:
                refusals[tp] = _refusal(error, version)
            else:
                if version >= _ADDED_FROM and _misses_records(broker, tp, header):
                    refusals[tp] = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    return refusals


def _misses_records(broker: "Broker", tp: TP, header: BatchHeader) -> bool:
    """Whether a producer that the partition does not know begins in the middle.

    With a new epoch for each transaction, sequences begin at 0 in each of them (KIP-890).
    """
    log = broker.node.directory.logs.get(tp)
    return log is not None and header.base_sequence != 0 and header.producer_id not in log.producers.producers


def _refusal(error: TransactionRefusedError, version: int) -> int:
    """As a producer of this version understands it."""
    code = error.error_code
    if code == ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if code == ErrorCode.TRANSACTION_ABORTABLE and version < _ABORTABLE_FROM:
        return ErrorCode.INVALID_TXN_STATE
    if code in (ErrorCode.CONCURRENT_TRANSACTIONS, *_COORDINATOR) and version < _ADDED_FROM:
        return ErrorCode.NOT_ENOUGH_REPLICAS  # one to try again after, of those that it knows
    return code


def _name(broker: "Broker", topic: Any, version: int) -> str | None:
    if version < _BY_ID_FROM:
        return str(topic.name)
    meta = broker.topic_by_id(topic.topic_id)
    return meta.name if meta is not None else None


def _header(records: memoryview | None) -> BatchHeader:
    """Of the one batch that a partition's share is (KIP-98).

    Raises:
        InvalidRecordError
    """
    if not records:
        raise InvalidRecordError("a Produce without a batch for a partition")
    if len(records) < HEADER_BYTES:
        raise InvalidRecordError(f"{len(records)} bytes are no batch")
    header = BatchHeader.parse(records)
    if header.magic in _OLD_MAGIC:
        raise InvalidRecordError(f"a message set of the older format {header.magic}; only record batches are taken")
    if header.size_bytes != len(records):
        raise InvalidRecordError(
            f"one batch per partition is taken; {len(records)} bytes came, one has {header.size_bytes}"
        )
    return header


def _result(results: Any, refused: int, name: str | None, partition: int) -> Any:
    if refused:
        return refused
    if name is None:
        return ErrorCode.UNKNOWN_TOPIC_ID
    return results[TP(name, partition)]


def _answer(partition: int, result: Appended | StreamcoreError | int) -> Any:
    if isinstance(result, Appended):
        return _Partition(
            index=partition,
            base_offset=result.base_offset,
            log_append_time_ms=result.log_append_time_ms,
            log_start_offset=result.log_start_offset,
        )
    if isinstance(result, int):
        return _Partition(index=partition, error_code=result, base_offset=-1)
    answer = _Partition(index=partition, error_code=_code(result), base_offset=-1, error_message=str(result))
    if isinstance(result, KeylessRecordError):
        answer.record_errors = [
            _Produce.BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=reason)
            for index, reason in sorted(result.record_errors.items())
        ]
    return answer


def _code(error: StreamcoreError) -> int:
    # The Java client takes an unknown error for one to send again under a new sequence, which doubles (KAFKA-14034).
    return error.code if error.code != ErrorCode.UNKNOWN_SERVER_ERROR else ErrorCode.KAFKA_STORAGE_ERROR


HANDLERS = {_Produce: produce}
