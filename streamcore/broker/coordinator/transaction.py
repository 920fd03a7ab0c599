"""One transactional id: its producer, its transaction, and what may come of them (KIP-98, KIP-360, KIP-890).

Pure state. A `Transaction` is a value; each function here gives the next one or says why there is none. Nothing is true
before its record is on the log, which is the coordinator's business.

```
EMPTY ──> ONGOING ──> PREPARE_COMMIT ──> COMPLETE_COMMIT ──> ONGOING, EMPTY (a producer begins anew)
                 └──> PREPARE_ABORT ───> COMPLETE_ABORT ───> the same
```
A prepare state is the point of no return: markers follow, whatever happens, and only when the last of them is written
does the complete state. Clients of transaction version 2 get a new epoch with every end, so that nothing of the last
transaction is ever taken for a part of the next one; older clients keep theirs.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from streamcore.errors import StreamcoreError
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

NO_ID: Final = -1
NO_EPOCH: Final = -1
NO_TIME: Final = -1
# The largest epoch that a client is given; the coordinator fences it with the one above. Then a new id is due.
EPOCH_MAX: Final = 32_766
EPOCH_BUMPED_FROM: Final = 2  # the transaction version from which on every end begins a new epoch (KIP-890)


class TransactionState(IntEnum):
    """By Kafka's numbers, as they are in `__transaction_state`."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5

    @property
    def label(self) -> str:
        """By Kafka's name."""
        return self.name.title().replace("_", "")

    @property
    def is_prepared(self) -> bool:
        return self in (TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT)

    @property
    def is_at_rest(self) -> bool:
        """Neither open nor about to end."""
        return self in (TransactionState.EMPTY, TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT)

    @property
    def is_commit(self) -> bool:
        return self in (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)


_State = TransactionState


class TransactionRefusedError(StreamcoreError):
    """The answer to a request about a transaction, by Kafka's code; nothing was changed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.error_code = code


class Transaction(NamedTuple):
    """What is known of one transactional id. Times are Unix ms."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    updated_ms: int
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[TP] = frozenset()  # of the transaction that is open or prepared
    started_ms: int = NO_TIME
    previous_producer_id: int = NO_ID  # whose last epoch was the last one possible
    next_producer_id: int = NO_ID  # takes over when the prepared transaction is complete
    last_producer_epoch: int = NO_EPOCH  # that a client may still believe in, after an answer that was lost
    client_version: int = 0  # the transaction version that its producer speaks

    @property
    def is_exhausted(self) -> bool:
        return self.producer_epoch >= EPOCH_MAX

    @property
    def result(self) -> tuple[int, int]:
        """(producer id, epoch) to go on with, as the end of a transaction is answered."""
        return self.producer_id, self.producer_epoch


def _refused(code: ErrorCode, transaction: Transaction, why: str) -> TransactionRefusedError:
    return TransactionRefusedError(code, f"transactional id {transaction.transactional_id!r}: {why}")


def _busy(transaction: Transaction) -> TransactionRefusedError:
    return _refused(
        ErrorCode.CONCURRENT_TRANSACTIONS, transaction, "its last transaction is not complete yet; try again"
    )


# -- a producer begins -------------------------------------------------------------------------------------------------


def initialised(
    transaction: Transaction,
    expected: tuple[int, int] | None,
    timeout_ms: int,
    now_ms: int,
    new_producer_id: Callable[[], int],
) -> Transaction:
    """A producer has this id from now on, and whoever had it before is fenced.

    Args:
        expected: (id, epoch) of a producer that goes on after an error (KIP-360); None for one that begins.
        new_producer_id: asked where the epochs of the old one are used up.
    Raises:
        TransactionRefusedError: PRODUCER_FENCED, where somebody else has begun since.
    """
    assert transaction.state.is_at_rest
    check_expected(transaction, expected)
    fresh = transaction._replace(
        state=_State.EMPTY, partitions=frozenset(), started_ms=NO_TIME, timeout_ms=timeout_ms, updated_ms=now_ms
    )
    epoch = transaction.producer_epoch
    if transaction.is_exhausted and (expected is None or expected[1] == epoch):
        return fresh._replace(
            producer_id=new_producer_id(),
            producer_epoch=0,
            previous_producer_id=transaction.producer_id,
            last_producer_epoch=NO_EPOCH if expected is None else epoch,
        )
    if expected is None:
        return fresh._replace(producer_epoch=epoch + 1, last_producer_epoch=NO_EPOCH)
    if epoch == NO_EPOCH or expected[1] == epoch:
        return fresh._replace(producer_epoch=epoch + 1, last_producer_epoch=epoch)
    if expected[1] == transaction.last_producer_epoch:
        return fresh  # the answer to its first try was lost
    raise _fenced(transaction, *expected)


def check_expected(transaction: Transaction, expected: tuple[int, int] | None) -> None:
    """
    Raises:
        TransactionRefusedError: PRODUCER_FENCED, where another producer has the transactional id.
    """
    if expected is None or transaction.producer_epoch == NO_EPOCH or expected[0] == transaction.producer_id:
        return
    if expected[0] == transaction.previous_producer_id and expected[1] >= EPOCH_MAX:
        return
    raise _fenced(transaction, *expected)


def _fenced(transaction: Transaction, producer_id: int, producer_epoch: int) -> TransactionRefusedError:
    return _refused(
        ErrorCode.PRODUCER_FENCED,
        transaction,
        f"producer {producer_id} with epoch {producer_epoch} has been replaced by {transaction.producer_id} with epoch "
        f"{transaction.producer_epoch}",
    )


# -- a transaction grows -----------------------------------------------------------------------------------------------


def check_producer(transaction: Transaction, producer_id: int, producer_epoch: int) -> None:
    """
    Raises:
        TransactionRefusedError: INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED; CONCURRENT_TRANSACTIONS while the last
            transaction is not complete.
    """
    _check_producer_id(transaction, producer_id)
    if transaction.producer_epoch != producer_epoch:
        raise _fenced(transaction, producer_id, producer_epoch)
    if transaction.state.is_prepared:
        raise _busy(transaction)


def _check_producer_id(transaction: Transaction, producer_id: int) -> None:
    if transaction.producer_id != producer_id:
        raise _refused(
            ErrorCode.INVALID_PRODUCER_ID_MAPPING,
            transaction,
            f"producer {producer_id} does not have it, {transaction.producer_id} does",
        )


def with_partitions(
    transaction: Transaction, partitions: Iterable[TP], client_version: int, now_ms: int
) -> Transaction | None:
    """With these partitions in it; the first ones open it. None where they are all in it already."""
    added = transaction.partitions.union(partitions)
    if transaction.state is _State.ONGOING:
        if len(added) == len(transaction.partitions):
            return None
        return transaction._replace(partitions=added, updated_ms=now_ms, client_version=client_version)
    return transaction._replace(
        state=_State.ONGOING, partitions=added, started_ms=now_ms, updated_ms=now_ms, client_version=client_version
    )


# -- a transaction ends ------------------------------------------------------------------------------------------------


def ended(
    transaction: Transaction,
    producer_id: int,
    producer_epoch: int,
    *,
    is_commit: bool,
    client_version: int,
    now_ms: int,
    new_producer_id: Callable[[], int],
) -> Transaction | None:
    """Its producer wants it to end: the prepared transaction, or None where this end has been answered before.

    Raises:
        TransactionRefusedError: INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS,
            INVALID_TXN_STATE.
    """
    if client_version < EPOCH_BUMPED_FROM:
        if not _is_to_end(transaction, producer_id, producer_epoch, is_commit=is_commit):
            return None
        return _prepared(transaction, is_commit, client_version, now_ms)
    if not _is_to_end_with_bump(transaction, producer_id, producer_epoch, is_commit=is_commit):
        return None
    next_producer_id = new_producer_id() if transaction.is_exhausted else NO_ID
    return _bumped(_prepared(transaction, is_commit, client_version, now_ms), next_producer_id)


def _is_to_end(transaction: Transaction, producer_id: int, producer_epoch: int, *, is_commit: bool) -> bool:
    """A client whose epoch stays: the same end twice is a retry, and cannot be told from a second end."""
    _check_producer_id(transaction, producer_id)
    if transaction.producer_epoch != producer_epoch:
        raise _fenced(transaction, producer_id, producer_epoch)
    state = transaction.state
    if state is _State.ONGOING:
        return True
    if state is _State.EMPTY or state.is_commit != is_commit:
        raise _wrong_end(transaction, is_commit)
    if state.is_prepared:
        raise _busy(transaction)
    return False


def _is_to_end_with_bump(transaction: Transaction, producer_id: int, producer_epoch: int, *, is_commit: bool) -> bool:
    """A client whose epoch grows: one with the epoch before has not got the answer to its end."""
    state = transaction.state
    overflowed = (
        state.is_at_rest
        and transaction.previous_producer_id == producer_id
        and producer_epoch == EPOCH_MAX
        and transaction.producer_epoch == 0
    )
    again = overflowed or transaction.producer_epoch == producer_epoch + 1
    if not overflowed:
        _check_producer_id(transaction, producer_id)
    if state in (_State.EMPTY, _State.ONGOING):
        is_valid = producer_epoch == transaction.producer_epoch
    else:
        is_valid = again or (not state.is_prepared and producer_epoch == transaction.producer_epoch)
    if not is_valid:
        raise _fenced(transaction, producer_id, producer_epoch)
    if state is _State.ONGOING:
        return True
    if state.is_prepared:
        if state.is_commit != is_commit:
            raise _wrong_end(transaction, is_commit)
        raise _busy(transaction)
    if again:
        if state.is_commit != is_commit:
            raise _wrong_end(transaction, is_commit)
        return False
    if is_commit:
        raise _wrong_end(transaction, is_commit)
    return True  # nothing was added, and an abort gives the producer an epoch that it can be sure of


def _wrong_end(transaction: Transaction, is_commit: bool) -> TransactionRefusedError:
    what = "committed" if is_commit else "aborted"
    return _refused(ErrorCode.INVALID_TXN_STATE, transaction, f"it is {transaction.state.label} and cannot be {what}")


def fenced(transaction: Transaction, now_ms: int) -> Transaction:
    """Aborted without being asked, because of its age or of a new producer; its epoch is worth nothing any more.

    The epoch grows by two: with one, its producer would look like one that has not got the answer to an end of its own.
    """
    assert transaction.state is _State.ONGOING
    return _prepared(transaction, False, transaction.client_version, now_ms)._replace(
        producer_epoch=min(transaction.producer_epoch + 2, EPOCH_MAX + 1), last_producer_epoch=NO_EPOCH
    )


def _prepared(transaction: Transaction, is_commit: bool, client_version: int, now_ms: int) -> Transaction:
    return transaction._replace(
        state=_State.PREPARE_COMMIT if is_commit else _State.PREPARE_ABORT,
        started_ms=transaction.started_ms if transaction.state is _State.ONGOING else now_ms,
        updated_ms=now_ms,
        client_version=client_version,
    )


def _bumped(prepared: Transaction, next_producer_id: int) -> Transaction:
    epoch = prepared.producer_epoch
    return prepared._replace(producer_epoch=epoch + 1, last_producer_epoch=epoch, next_producer_id=next_producer_id)


def completed(transaction: Transaction, now_ms: int) -> Transaction:
    """All markers of a prepared transaction are written."""
    complete = transaction._replace(
        state=_State.COMPLETE_COMMIT if transaction.state.is_commit else _State.COMPLETE_ABORT,
        partitions=frozenset(),
        updated_ms=now_ms,
    )
    if transaction.next_producer_id == NO_ID:
        return complete
    return complete._replace(
        producer_id=transaction.next_producer_id,
        producer_epoch=0,
        previous_producer_id=transaction.producer_id,
        next_producer_id=NO_ID,
    )
