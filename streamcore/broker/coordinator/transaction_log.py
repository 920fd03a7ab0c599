"""What transactions do to a node's log: `__transaction_state`, and markers in the partitions they have written to."""

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from streamcore.broker.coordinator.coordinator_log import CoordinatorLog
from streamcore.broker.coordinator.transaction import Transaction
from streamcore.broker.coordinator.transaction_records import (
    decode_key,
    decode_transaction,
    encode_tombstone,
    encode_transaction,
)
from streamcore.clock import Clock
from streamcore.errors import CorruptRecordError, LogOfflineError, StreamcoreError, UnknownTopicError
from streamcore.types import TP, OutRecord

if TYPE_CHECKING:
    from streamcore.broker.node import Node

logger = logging.getLogger(__name__)

TRANSACTIONS_TOPIC: Final = "__transaction_state"
TRANSACTIONS_TP: Final = TP(TRANSACTIONS_TOPIC, 0)
COORDINATOR_EPOCH: Final = 0  # of a node that has always been the coordinator


class OpenTransaction(NamedTuple):
    """What a partition's log knows of a transaction whose marker is missing."""

    tp: TP
    producer_id: int
    producer_epoch: int


class TransactionLog:
    """Of one node; `__transaction_state` is made with the first transactional id."""

    def __init__(self, node: "Node", clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._log: CoordinatorLog | None = None

    def load(self) -> dict[str, Transaction]:
        """Every transactional id, as the log says last.

        Raises:
            LogOfflineError: that cannot be known.
        """
        found: dict[str, Transaction] = {}
        if TRANSACTIONS_TOPIC not in self._node.topics:
            return found
        try:
            for batch in self._open().batches():
                for record in batch.records:
                    try:
                        transactional_id = decode_key(record.key or b"")
                        if transactional_id is None:
                            continue
                        if record.value is None:
                            found.pop(transactional_id, None)
                        else:
                            found[transactional_id] = decode_transaction(transactional_id, record.value)
                    except CorruptRecordError:
                        logger.exception("%s: the record at offset %d is passed over", TRANSACTIONS_TP, record.offset)
        except StreamcoreError as error:
            raise LogOfflineError(f"the transactions cannot be read: {error}") from error
        return found

    async def put(self, transaction: Transaction) -> None:
        """Returns once it is as safe as records with acks=all are.

        Raises:
            LogError: nothing was written.
        """
        await self._put(encode_transaction(transaction, self._clock.now_ms()))

    async def forget(self, transactional_id: str) -> None:
        """As `put`."""
        await self._put(encode_tombstone(transactional_id, self._clock.now_ms()))

    async def _put(self, record: OutRecord) -> None:
        self._open().append([record])
        await self._node.make_durable([TRANSACTIONS_TP])

    def _open(self) -> CoordinatorLog:
        if self._log is None:
            log = self._node.internal_log(TRANSACTIONS_TP)
            self._log = CoordinatorLog(log, TRANSACTIONS_TP)
        return self._log

    async def end(self, transaction: Transaction, partitions: Collection[TP]) -> dict[TP, StreamcoreError]:
        """Write the markers of a prepared transaction; partitions that did not take theirs, and why.

        A partition that is gone has nothing to end.
        """
        failed: dict[TP, StreamcoreError] = {}
        written: list[TP] = []
        for tp in sorted(partitions):
            try:
                self._node.append_marker(
                    tp,
                    transaction.producer_id,
                    transaction.producer_epoch,
                    is_commit=transaction.state.is_commit,
                    coordinator_epoch=COORDINATOR_EPOCH,
                )
                written.append(tp)
            except UnknownTopicError:
                continue
            except StreamcoreError as error:
                failed[tp] = error
        if written:
            # Before anything says that the transaction is complete: a marker that a loss of power takes would leave it
            # open for ever.
            await self._node.make_durable(written)
        return failed

    def open_transactions(self) -> Iterator[OpenTransaction]:
        """In all partitions."""
        for name, meta in self._node.topics.items():
            for partition in range(meta.partitions):
                try:
                    log = self._node.directory.log(name, partition)
                except StreamcoreError:
                    continue  # offline: whoever mends it starts again, and it is looked at then
                for producer_id in log.open_transactions:
                    yield OpenTransaction(
                        TP(name, partition), producer_id, log.producers.producers[producer_id].producer_epoch
                    )
