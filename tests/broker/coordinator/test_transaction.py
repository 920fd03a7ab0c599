"""What may come of a transactional id: Kafka's tables of transitions, row by row."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.broker.coordinator.transaction import (
    EPOCH_MAX,
    NO_EPOCH,
    NO_ID,
    Transaction,
    TransactionRefusedError,
    TransactionState,
    check_producer,
    completed,
    ended,
    fenced,
    initialised,
    with_partitions,
)
from streamcore.broker.coordinator.transaction_records import (
    decode_key,
    decode_transaction,
    encode_tombstone,
    encode_transaction,
)
from streamcore.errors import CorruptRecordError
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

A, B = TP("a", 0), TP("b", 7)
State = TransactionState
NEW = Transaction("orders", 7, NO_EPOCH, 60_000, 1)
EMPTY = Transaction("orders", 7, 5, 60_000, 1)
OPEN = EMPTY._replace(state=State.ONGOING, partitions=frozenset({A, B}), started_ms=1)
COMMITTED, ABORTED = EMPTY._replace(state=State.COMPLETE_COMMIT), EMPTY._replace(state=State.COMPLETE_ABORT)
COMMITTING = OPEN._replace(state=State.PREPARE_COMMIT)
ABORTING = OPEN._replace(state=State.PREPARE_ABORT)


def new_id() -> int:
    return 99


def begin(transaction: Transaction, expected: tuple[int, int] | None = None) -> Transaction:
    return initialised(transaction, expected, 30_000, 2, new_id)


def end(transaction: Transaction, epoch: int, *, commit: bool, version: int, producer_id: int = 7) -> str:
    """How an end is answered, in a word or two."""
    try:
        prepared = ended(
            transaction,
            producer_id,
            epoch,
            is_commit=commit,
            client_version=version,
            now_ms=2,
            new_producer_id=new_id,
        )
    except TransactionRefusedError as error:
        return error.error_code.name
    if prepared is None:
        return "again"
    assert prepared.state is (State.PREPARE_COMMIT if commit else State.PREPARE_ABORT)
    assert prepared.producer_epoch == epoch + (version >= 2)
    return "ends"


# -- a producer begins -------------------------------------------------------------------------------------------------


def test_the_first_producer_has_epoch_0_and_each_one_after_it_the_next() -> None:
    first = begin(NEW)
    assert first.result == (7, 0)
    assert begin(first).result == (7, 1)
    assert begin(COMMITTED).result == (7, 6)
    assert begin(COMMITTED).state is State.EMPTY
    assert begin(EMPTY).timeout_ms == 30_000


def test_a_producer_that_goes_on_after_an_error_keeps_its_place_and_may_ask_twice() -> None:
    bumped = begin(EMPTY, (7, 5))
    assert bumped.result == (7, 6)
    assert begin(bumped, (7, 5)).result == (7, 6), "the answer was lost"
    assert begin(NEW, (3, 3)).result == (7, 0), "the id was forgotten meanwhile"


@pytest.mark.parametrize("expected", [(7, 4), (8, 5), (7, 6)])
def test_a_producer_that_was_replaced_is_fenced(expected: tuple[int, int]) -> None:
    with pytest.raises(TransactionRefusedError) as refused:
        begin(EMPTY, expected)
    assert refused.value.error_code == ErrorCode.PRODUCER_FENCED


def test_whoever_begins_takes_the_place_of_one_that_wants_to_go_on() -> None:
    """A new producer in between: the old one's retry must not be taken for one."""
    taken_over = begin(begin(EMPTY, (7, 5)))
    with pytest.raises(TransactionRefusedError) as refused:
        begin(taken_over, (7, 5))
    assert refused.value.error_code == ErrorCode.PRODUCER_FENCED


@pytest.mark.parametrize("expected", [None, (7, EPOCH_MAX)])
def test_after_the_last_epoch_comes_another_id(expected: tuple[int, int] | None) -> None:
    rotated = begin(EMPTY._replace(producer_epoch=EPOCH_MAX), expected)
    assert rotated.result == (99, 0)
    assert rotated.previous_producer_id == 7


def test_the_answer_with_another_id_may_be_lost_as_well() -> None:
    rotated = begin(EMPTY._replace(producer_epoch=EPOCH_MAX), (7, EPOCH_MAX))
    assert begin(rotated, (7, EPOCH_MAX)).result == (99, 0)


# -- a transaction grows -----------------------------------------------------------------------------------------------


def test_the_first_partition_opens_a_transaction_and_others_join_it() -> None:
    opened = with_partitions(COMMITTED, [A], 2, 10)
    assert opened is not None
    assert (opened.state, opened.partitions, opened.started_ms) == (State.ONGOING, {A}, 10)
    assert with_partitions(opened, [A], 2, 11) is None
    grown = with_partitions(opened, [A, B], 2, 12)
    assert grown is not None
    assert (grown.partitions, grown.started_ms) == ({A, B}, 10)


@pytest.mark.parametrize(
    ("transaction", "producer", "code"),
    [
        (OPEN, (8, 5), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (OPEN, (7, 4), ErrorCode.PRODUCER_FENCED),
        (OPEN, (7, 6), ErrorCode.PRODUCER_FENCED),
        (COMMITTING, (7, 5), ErrorCode.CONCURRENT_TRANSACTIONS),
        (ABORTING, (7, 5), ErrorCode.CONCURRENT_TRANSACTIONS),
    ],
)
def test_who_may_not_write(transaction: Transaction, producer: tuple[int, int], code: ErrorCode) -> None:
    with pytest.raises(TransactionRefusedError) as refused:
        check_producer(transaction, *producer)
    assert refused.value.error_code == code


# -- a transaction ends ------------------------------------------------------------------------------------------------

FENCED, WRONG, BUSY = "PRODUCER_FENCED", "INVALID_TXN_STATE", "CONCURRENT_TRANSACTIONS"


@pytest.mark.parametrize(
    ("transaction", "abort", "commit"),
    [
        (EMPTY, WRONG, WRONG),
        (OPEN, "ends", "ends"),
        (COMMITTED, WRONG, "again"),
        (ABORTED, "again", WRONG),
        (COMMITTING, WRONG, BUSY),
        (ABORTING, BUSY, WRONG),
    ],
)
def test_ends_of_older_clients(transaction: Transaction, abort: str, commit: str) -> None:
    assert end(transaction, 5, commit=False, version=0) == abort
    assert end(transaction, 5, commit=True, version=0) == commit
    assert end(transaction, 4, commit=True, version=0) == FENCED
    assert end(transaction, 6, commit=True, version=0) == FENCED
    assert end(transaction, 5, commit=True, version=0, producer_id=8) == "INVALID_PRODUCER_ID_MAPPING"


@pytest.mark.parametrize(
    # With the epoch before the current one, and with the current one (KIP-890).
    ("transaction", "abort_again", "abort", "commit_again", "commit"),
    [
        (EMPTY, FENCED, "ends", FENCED, WRONG),
        (OPEN, FENCED, "ends", FENCED, "ends"),
        (ABORTED, "again", "ends", WRONG, WRONG),
        (COMMITTED, WRONG, "ends", "again", WRONG),
        (ABORTING, BUSY, FENCED, WRONG, FENCED),
        (COMMITTING, WRONG, FENCED, BUSY, FENCED),
    ],
)
def test_ends_of_clients_whose_epoch_grows(
    transaction: Transaction, abort_again: str, abort: str, commit_again: str, commit: str
) -> None:
    assert end(transaction, 4, commit=False, version=2) == abort_again
    assert end(transaction, 5, commit=False, version=2) == abort
    assert end(transaction, 4, commit=True, version=2) == commit_again
    assert end(transaction, 5, commit=True, version=2) == commit
    assert end(transaction, 3, commit=True, version=2) == FENCED
    assert end(transaction, 5, commit=True, version=2, producer_id=8) == "INVALID_PRODUCER_ID_MAPPING"


def test_the_last_epoch_ends_with_another_id_and_that_answer_may_be_lost_too() -> None:
    prepared = ended(
        OPEN._replace(producer_epoch=EPOCH_MAX),
        7,
        EPOCH_MAX,
        is_commit=True,
        client_version=2,
        now_ms=2,
        new_producer_id=new_id,
    )
    assert prepared is not None
    assert (prepared.producer_id, prepared.producer_epoch) == (7, EPOCH_MAX + 1), "what the markers say"
    complete = completed(prepared, 3)
    assert complete.result == (99, 0)
    assert end(complete, EPOCH_MAX, commit=True, version=2) == "again"
    assert end(complete, EPOCH_MAX, commit=False, version=2) == WRONG


def test_a_complete_transaction_has_no_partitions() -> None:
    assert completed(COMMITTING, 3)._replace(updated_ms=1) == COMMITTED._replace(started_ms=1)
    assert completed(ABORTING, 3).state is State.COMPLETE_ABORT


def test_an_aborted_producer_is_fenced_and_cannot_go_on() -> None:
    complete = completed(fenced(OPEN, 2), 3)
    assert complete.result == (7, 7)
    with pytest.raises(TransactionRefusedError):
        begin(complete, (7, 5))
    assert end(complete, 5, commit=True, version=2) == end(complete, 5, commit=False, version=2) == FENCED
    assert fenced(OPEN._replace(producer_epoch=EPOCH_MAX), 2).producer_epoch == 2**15 - 1, "what an int16 holds"


# -- records -----------------------------------------------------------------------------------------------------------

transactions = st.builds(
    Transaction,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**15 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.sampled_from([state for state in State if state is not State.EMPTY]),
    st.frozensets(st.builds(TP, st.text("abc-", min_size=1), st.integers(0, 2**31 - 1))),
    st.integers(-1, 2**63 - 1),
    st.integers(-1, 2**63 - 1),
    st.integers(-1, 2**63 - 1),
    st.just(NO_EPOCH),  # not kept: only a retry right after the answer needs it
    st.sampled_from([0, 2]),
)


@given(transactions)
def test_a_record_says_what_the_transaction_is(transaction: Transaction) -> None:
    key, value, _, _ = encode_transaction(transaction, 1)
    assert key is not None
    assert value is not None
    assert decode_key(key) == transaction.transactional_id
    assert decode_transaction(transaction.transactional_id, value) == transaction


def test_a_record_byte_for_byte() -> None:
    key, value, _, _ = encode_transaction(OPEN._replace(client_version=2, next_producer_id=99), 1)
    assert key == bytes.fromhex("0000 0006") + b"orders"
    assert value == bytes.fromhex(
        "0001 0000000000000007 0005 0000ea60 01 03 02 61 02 00000000 00 02 62 02 00000007 00"
        "0000000000000001 0000000000000001 02 0108 0000000000000063 02 02 0002"
    )
    assert encode_tombstone("orders", 1)[:2] == (key, None)


def test_an_id_without_a_transaction_has_null_for_its_partitions() -> None:
    value = encode_transaction(EMPTY, 1)[1]
    assert value is not None
    assert value[17:18] == b"\0"
    assert decode_transaction("orders", value) == EMPTY


def test_an_older_record_is_read() -> None:
    value = bytes.fromhex(
        "0000 0000000000000007 0005 0000ea60 01 00000001 0001 61 00000001 00000000 0000000000000001 0000000000000001"
    )
    assert decode_transaction("orders", value) == OPEN._replace(partitions=frozenset({A}))


def test_bytes_that_are_no_record_are_refused() -> None:
    value = encode_transaction(OPEN, 1)[1]
    assert value is not None
    for damaged in itertools.chain((value[:length] for length in range(len(value))), [b"\0\x07" + value[2:]]):
        with pytest.raises(CorruptRecordError):
            decode_transaction("orders", damaged)
    with pytest.raises(CorruptRecordError):
        decode_key(b"\0")
    assert decode_key(b"\0\x01later") is None
    assert NO_ID == NO_EPOCH == -1
