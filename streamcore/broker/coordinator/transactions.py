"""The coordinator of transactions (KIP-98, KIP-360, KIP-890): who has a transactional id, and how transactions end.

What may happen is decided in `transaction`; here is the event loop around it. A change counts once its record is on the
log. The end of a transaction goes in three steps, each on the log before the next: the prepared state, from which there
is no way back; a marker in every partition; the complete state. The first two can fail half way, and are gone on with:
by a retry, or by the next start. As long as they are, the transactional id is busy (CONCURRENT_TRANSACTIONS).
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from streamcore.broker.coordinator.transaction import (
    NO_EPOCH,
    Transaction,
    TransactionRefusedError,
    TransactionState,
    check_expected,
    check_producer,
    completed,
    ended,
    fenced,
    initialised,
    with_partitions,
)
from streamcore.broker.coordinator.transaction_log import OpenTransaction, TransactionLog
from streamcore.clock import Clock
from streamcore.errors import StreamcoreError
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

logger = logging.getLogger(__name__)

# How often markers that a partition did not take are tried again.
MARKER_RETRY_S: Final = 0.5
# Some 500 bytes each; ids that are never used again are forgotten after transactional.id.expiration.ms.
TRANSACTIONAL_IDS_MAX: Final = 100_000
_EXPIRY_BATCH: Final = 1000  # ids that are forgotten at a time, so that others are served in between


class TransactionTally(NamedTuple):
    """Transactions in numbers."""

    by_state: dict[TransactionState, int]
    oldest_started_ms: int | None  # of those that are open or not complete


class TransactionCoordinator:
    """`start` brings back what the log knows."""

    def __init__(
        self,
        log: TransactionLog,
        clock: Clock,
        new_producer_id: Callable[[], int],
        *,
        expiration_ms: Callable[[], int],
    ) -> None:
        """
        Args:
            new_producer_id: an id that no producer has had; raises OSError.
            expiration_ms: how long an id that is not used is remembered.
        """
        self._log = log
        self._clock = clock
        self._new_producer_id = new_producer_id
        self._expiration_ms = expiration_ms
        self._transactions: dict[str, Transaction] = {}
        self._changing: set[str] = set()  # whose record is being written
        self._unmarked: dict[str, set[TP]] = {}  # prepared ones, and where their markers are missing
        self._going_on: set[str] = set()  # prepared ones that are being completed at the moment
        self._deadlines: dict[str, float] = {}  # loop time at which the open transaction is too old
        self._alarms: list[tuple[float, str]] = []  # heap; one that rings too early is set again
        self._is_due = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._refusal: ErrorCode | None = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, end what was about to end, and what nobody can end any more.

        Raises:
            LogOfflineError: nothing can be known of the transactions.
        """
        self._transactions = self._log.load()
        still_open = list(self._log.open_transactions())
        for transaction in list(self._transactions.values()):
            if transaction.state is TransactionState.ONGOING:
                age_ms = max(0, self._clock.now_ms() - transaction.started_ms)
                self._watch(transaction, max(0, transaction.timeout_ms - age_ms))
            elif transaction.state.is_prepared:
                # Where the log has no open transaction of the producer, the marker is written already.
                self._unmarked[transaction.transactional_id] = {
                    tp for tp, producer_id, _ in still_open if producer_id == transaction.producer_id
                } & transaction.partitions
        await self._end_hanging(still_open)
        for transactional_id in list(self._unmarked):
            await self._go_on(self._transactions[transactional_id])
        self._refusal = None
        self._ending = asyncio.create_task(self._end_on(), name="streamcore-transactions")

    async def _end_hanging(self, still_open: Iterable[OpenTransaction]) -> None:
        """Transactions that no transactional id knows of would keep their partitions' readers waiting for ever.

        They come from a loss of power that took a marker and not the complete state that followed it: then that state
        says how the transaction has ended. Or from a `__transaction_state` that was lost: then nobody has been told
        that it was committed, or nobody can know.
        """
        by_producer: dict[int, Transaction] = {}
        for transaction in self._transactions.values():
            by_producer[transaction.producer_id] = transaction
        for tp, producer_id, producer_epoch in still_open:
            known = by_producer.get(producer_id)
            if known is not None and not known.state.is_at_rest and tp in known.partitions:
                continue
            is_last = known is not None and producer_epoch in (known.producer_epoch, known.producer_epoch - 1)
            state = known.state if known is not None and is_last else TransactionState.COMPLETE_ABORT
            end = Transaction("", producer_id, producer_epoch, 0, 0, state)
            failed = await self._log.end(end, [tp])
            logger.warning(
                "%s: a transaction of producer %d that nobody would have ended is %s%s",
                tp,
                producer_id,
                "committed" if state.is_commit else "aborted",
                f", which failed: {failed[tp]}" if failed else "",
            )

    async def stop(self) -> None:
        """Transactions stay as they are; the next start goes on with them."""
        self._refusal = ErrorCode.COORDINATOR_NOT_AVAILABLE
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    # --- producers --------------------------------------------------------------------------------------------------

    async def initialise(
        self, transactional_id: str, timeout_ms: int, expected: tuple[int, int] | None
    ) -> tuple[int, int]:
        """(producer id, epoch) of who has the transactional id from now on; an open transaction is aborted.

        Raises:
            TransactionRefusedError
        """
        self._check_running()
        if not transactional_id:
            raise TransactionRefusedError(ErrorCode.INVALID_REQUEST, "a transactional id has at least one character")
        transaction = self._transactions.get(transactional_id)
        now_ms = self._clock.now_ms()
        if transaction is None:
            if len(self._transactions) >= TRANSACTIONAL_IDS_MAX:
                raise TransactionRefusedError(
                    ErrorCode.COORDINATOR_NOT_AVAILABLE, f"there are {TRANSACTIONAL_IDS_MAX} transactional ids already"
                )
            transaction = Transaction(transactional_id, self._producer_id(), NO_EPOCH, timeout_ms, now_ms)
        self._check_free(transactional_id)
        check_expected(transaction, expected)
        if transaction.state is TransactionState.ONGOING:
            if expected is not None:
                # Before anything is aborted: a producer that has been replaced must not end its successor's work.
                check_producer(transaction, *expected)
            await self._end(fenced(transaction, now_ms))
            transaction, expected = self._transactions[transactional_id], None
            self._check_free(transactional_id)
        if transaction.state.is_prepared:
            raise TransactionRefusedError(
                ErrorCode.CONCURRENT_TRANSACTIONS,
                f"transactional id {transactional_id!r}: its last transaction is not complete yet; try again",
            )
        changed = initialised(transaction, expected, timeout_ms, now_ms, self._producer_id)
        await self._change(changed)
        return changed.result

    async def add_partitions(
        self, transactional_id: str, producer_id: int, producer_epoch: int, tps: Collection[TP], client_version: int
    ) -> None:
        """Partitions that the transaction is about to write to; the first ones open it.

        Raises:
            TransactionRefusedError
        """
        transaction = self._found(transactional_id)
        check_producer(transaction, producer_id, producer_epoch)
        self._check_free(transactional_id)
        changed = with_partitions(transaction, tps, client_version, self._clock.now_ms())
        if changed is not None:
            await self._change(changed)
            if transaction.state is not TransactionState.ONGOING:
                self._watch(changed, changed.timeout_ms)

    def check_write(self, transactional_id: str, producer_id: int, producer_epoch: int, tp: TP) -> None:
        """Whether the producer's transaction may write to a partition now.

        Raises:
            TransactionRefusedError: as `add_partitions`; TRANSACTION_ABORTABLE where the partition is not in it.
        """
        transaction = self._found(transactional_id)
        check_producer(transaction, producer_id, producer_epoch)
        if transaction.state is not TransactionState.ONGOING or tp not in transaction.partitions:
            raise TransactionRefusedError(
                ErrorCode.TRANSACTION_ABORTABLE,
                f"transactional id {transactional_id!r}: {tp} is not in its transaction",
            )

    async def end(
        self, transactional_id: str, producer_id: int, producer_epoch: int, *, is_commit: bool, client_version: int
    ) -> tuple[int, int]:
        """Commit or abort; (producer id, epoch) to go on with.

        Raises:
            TransactionRefusedError
        """
        transaction = self._found(transactional_id)
        prepared = ended(
            transaction,
            producer_id,
            producer_epoch,
            is_commit=is_commit,
            client_version=client_version,
            now_ms=self._clock.now_ms(),
            new_producer_id=self._producer_id,
        )
        if prepared is None:
            return transaction.result
        self._check_free(transactional_id)
        await self._end(prepared)
        return self._transactions[transactional_id].result

    # --- administration ---------------------------------------------------------------------------------------------

    def describe(self, transactional_id: str) -> Transaction | None:
        """
        Raises:
            TransactionRefusedError: the coordinator does not run.
        """
        self._check_running()
        return self._transactions.get(transactional_id)

    def transactions(self) -> list[Transaction]:
        """As `describe`, all of them."""
        self._check_running()
        return list(self._transactions.values())

    def tally(self) -> TransactionTally:
        by_state = dict.fromkeys(TransactionState, 0)
        started: list[int] = []
        for transaction in self._transactions.values():
            by_state[transaction.state] += 1
            if not transaction.state.is_at_rest:
                started.append(transaction.started_ms)
        return TransactionTally(by_state, min(started, default=None))

    async def expire(self) -> int:
        """Forget transactional ids that have not been used for so long; how many."""
        if self._refusal is not None:
            return 0
        oldest_ms = self._clock.now_ms() - self._expiration_ms()
        unused = [
            transaction.transactional_id
            for transaction in self._transactions.values()
            if transaction.state.is_at_rest
            and transaction.updated_ms <= oldest_ms
            and transaction.transactional_id not in self._changing
        ]
        for number, transactional_id in enumerate(unused):
            await self._log.forget(transactional_id)
            del self._transactions[transactional_id]
            if number % _EXPIRY_BATCH == _EXPIRY_BATCH - 1:
                await asyncio.sleep(0)
        return len(unused)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._refusal is not None:
            raise TransactionRefusedError(self._refusal, "the coordinator of transactions does not run")

    def _found(self, transactional_id: str) -> Transaction:
        self._check_running()
        if not transactional_id:
            raise TransactionRefusedError(ErrorCode.INVALID_REQUEST, "a transactional id has at least one character")
        transaction = self._transactions.get(transactional_id)
        if transaction is None:
            raise TransactionRefusedError(
                ErrorCode.INVALID_PRODUCER_ID_MAPPING, f"transactional id {transactional_id!r} is unknown"
            )
        return transaction

    def _check_free(self, transactional_id: str) -> None:
        if transactional_id in self._changing:
            raise TransactionRefusedError(
                ErrorCode.CONCURRENT_TRANSACTIONS, f"transactional id {transactional_id!r} is being changed; try again"
            )

    def _producer_id(self) -> int:
        try:
            return self._new_producer_id()
        except OSError as error:
            raise TransactionRefusedError(
                ErrorCode.COORDINATOR_NOT_AVAILABLE, f"no producer id can be given out: {error}"
            ) from error

    async def _change(self, transaction: Transaction) -> None:
        """It counts once it is on the log.

        Raises:
            TransactionRefusedError: COORDINATOR_NOT_AVAILABLE, the log did not take it.
        """
        transactional_id = transaction.transactional_id
        self._changing.add(transactional_id)
        try:
            await self._log.put(transaction)
        except StreamcoreError as error:
            logger.error("transactional id %r: its state was not stored: %s", transactional_id, error)
            raise TransactionRefusedError(ErrorCode.COORDINATOR_NOT_AVAILABLE, str(error)) from error
        finally:
            self._changing.discard(transactional_id)
        self._transactions[transactional_id] = transaction
        if transaction.state.is_prepared:
            self._unmarked[transactional_id] = set(transaction.partitions)

    async def _end(self, prepared: Transaction) -> None:
        """From the prepared state on; what fails after it is gone on with by and by."""
        await self._change(prepared)
        await self._go_on(prepared)

    async def _go_on(self, prepared: Transaction) -> None:
        transactional_id = prepared.transactional_id
        self._going_on.add(transactional_id)
        try:
            failed = await self._log.end(prepared, self._unmarked[transactional_id])
            self._unmarked[transactional_id] = set(failed)
            if failed:
                logger.error("transactional id %r: markers are missing, trying on: %s", transactional_id, failed)
                return
            await self._change(completed(prepared, self._clock.now_ms()))
            del self._unmarked[transactional_id]
        except StreamcoreError as error:
            logger.error("transactional id %r: its end is not complete, trying on: %s", transactional_id, error)
        finally:
            self._going_on.discard(transactional_id)
            if transactional_id in self._unmarked:
                self._is_due.set()

    def _watch(self, transaction: Transaction, timeout_ms: int) -> None:
        """Abort the transaction if it is still open in so many ms."""
        transactional_id = transaction.transactional_id
        deadline_s = asyncio.get_running_loop().time() + timeout_ms / 1000
        known_s = self._deadlines.get(transactional_id)
        self._deadlines[transactional_id] = deadline_s
        if known_s is None or deadline_s < known_s:  # or else an alarm is set already that rings before
            heapq.heappush(self._alarms, (deadline_s, transactional_id))
            if self._alarms[0][1] == transactional_id:
                self._is_due.set()

    async def _end_on(self) -> None:
        """Abort what has been open for too long, and complete what could not be completed at once."""
        loop = asyncio.get_running_loop()
        while True:
            self._is_due.clear()
            while self._alarms and self._alarms[0][0] <= loop.time():
                await self._time_out(heapq.heappop(self._alarms)[1])
            for transactional_id in list(self._unmarked):
                if transactional_id not in self._going_on:
                    await self._go_on(self._transactions[transactional_id])
            wait_s = max(0.0, self._alarms[0][0] - loop.time()) if self._alarms else None
            if self._unmarked:
                self._is_due.clear()
                wait_s = MARKER_RETRY_S if wait_s is None else min(MARKER_RETRY_S, wait_s)
            try:
                async with asyncio.timeout(wait_s):
                    await self._is_due.wait()
            except TimeoutError:
                pass

    async def _time_out(self, transactional_id: str) -> None:
        deadline_s = self._deadlines.pop(transactional_id, None)
        transaction = self._transactions.get(transactional_id)
        if deadline_s is None or transaction is None or transaction.state is not TransactionState.ONGOING:
            return
        now_s = asyncio.get_running_loop().time()
        if deadline_s > now_s:  # a later transaction than the one that the alarm was set for
            self._watch(transaction, int(1000 * (deadline_s - now_s)) + 1)
        elif transactional_id in self._changing:
            self._watch(transaction, int(1000 * MARKER_RETRY_S))
        else:
            logger.warning(
                "transactional id %r: its transaction has been open for more than %d ms and is aborted",
                transactional_id,
                transaction.timeout_ms,
            )
            try:
                await self._end(fenced(transaction, self._clock.now_ms()))
            except TransactionRefusedError:  # logged; the log may take it the next time
                self._watch(transaction, int(1000 * MARKER_RETRY_S))
