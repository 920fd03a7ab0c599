"""A transactional id as a record of `__transaction_state`, byte for byte as Kafka writes it.

The key is `version int16 = 0 | transactional_id string`, the value Kafka's TransactionLogValue: version 1 is written,
0 is read as well. A null value is a tombstone: the id has not been used for so long that it is forgotten.
"""

import struct
from typing import Any, Final

from streamcore.broker.coordinator.transaction import NO_ID, Transaction, TransactionState
from streamcore.errors import CorruptRecordError
from streamcore.protocol.compiler import Structure
from streamcore.protocol.errors import MalformedMessageError
from streamcore.protocol.primitives import read_string, write_string
from streamcore.protocol.schema import record_fields
from streamcore.types import TP, OutRecord

_VERSION = struct.Struct(">h")
_KEY_VERSION: Final = 0
_VALUE_VERSION: Final = 1
_VALUE_VERSIONS: Final = (0, 1)
_FLEXIBLE_FROM: Final = 1

_FIELDS: Final = record_fields(
    """
producer_id int64
previous_producer_id int64 1+ tag 0 = -1
next_producer_id int64 1+ tag 1 = -1
producer_epoch int16
transaction_timeout_ms int32
transaction_status int8
transaction_partitions []PartitionsSchema?
  topic string
  partition_ids []int32
transaction_last_update_timestamp_ms int64
transaction_start_timestamp_ms int64
client_transaction_version int16 1+ tag 2
""",
    _VALUE_VERSIONS,
)
_PARTITIONS: Final = Structure("PartitionsSchema", _FIELDS[6].fields, _FLEXIBLE_FROM, {})
_VALUE: Final = Structure("TransactionLogValue", _FIELDS, _FLEXIBLE_FROM, {"transaction_partitions": _PARTITIONS})


def encode_transaction(transaction: Transaction, now_ms: int) -> OutRecord:
    """The record that says this of the transactional id."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(transaction.partitions):
        by_topic.setdefault(topic, []).append(partition)
    value = _VALUE.type(
        producer_id=transaction.producer_id,
        previous_producer_id=transaction.previous_producer_id,
        next_producer_id=transaction.next_producer_id,
        producer_epoch=transaction.producer_epoch,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_status=int(transaction.state),
        # Kafka's rule: null for an id without a transaction.
        transaction_partitions=None
        if transaction.state is TransactionState.EMPTY
        else [_PARTITIONS.type(topic=topic, partition_ids=ids) for topic, ids in by_topic.items()],
        transaction_last_update_timestamp_ms=transaction.updated_ms,
        transaction_start_timestamp_ms=transaction.started_ms,
        client_transaction_version=transaction.client_version,
    )
    out = bytearray(_VERSION.pack(_VALUE_VERSION))
    _VALUE.writer(_VALUE_VERSION)(value, out)
    return _key(transaction.transactional_id), bytes(out), now_ms, ()


def encode_tombstone(transactional_id: str, now_ms: int) -> OutRecord:
    return _key(transactional_id), None, now_ms, ()


def _key(transactional_id: str) -> bytes:
    out = bytearray(_VERSION.pack(_KEY_VERSION))
    write_string(transactional_id, out)
    return bytes(out)


def decode_key(key: bytes) -> str | None:
    """The transactional id, or None for a key of a later version.

    Raises:
        CorruptRecordError: the bytes are no key at all.
    """
    try:
        (version,) = _VERSION.unpack_from(key)
        if version != _KEY_VERSION:
            return None
        transactional_id, _ = read_string(memoryview(key), _VERSION.size, len(key))
    except (struct.error, MalformedMessageError) as error:
        raise CorruptRecordError(f"a transactional id's key cannot be read: {error}") from error
    return str(transactional_id)


def decode_transaction(transactional_id: str, value: bytes) -> Transaction:
    """
    Raises:
        CorruptRecordError
    """
    try:
        (version,) = _VERSION.unpack_from(value)
        if version not in _VALUE_VERSIONS:
            raise CorruptRecordError(
                f"transactional id {transactional_id!r}: version {version} is unknown, 0 and 1 are"
            )
        found: Any = _VALUE.reader(version)(memoryview(value), _VERSION.size, len(value))[0]
        state = TransactionState(found.transaction_status)
    except (struct.error, IndexError, MalformedMessageError, ValueError) as error:
        raise CorruptRecordError(f"transactional id {transactional_id!r} cannot be read: {error}") from error
    return Transaction(
        transactional_id,
        found.producer_id,
        found.producer_epoch,
        found.transaction_timeout_ms,
        found.transaction_last_update_timestamp_ms,
        state,
        frozenset(TP(part.topic, index) for part in found.transaction_partitions or () for index in part.partition_ids),
        found.transaction_start_timestamp_ms,
        found.previous_producer_id if found.previous_producer_id >= 0 else NO_ID,
        found.next_producer_id if found.next_producer_id >= 0 else NO_ID,
        client_version=found.client_transaction_version,
    )
