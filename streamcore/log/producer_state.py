"""What one partition remembers of its producers (KIP-98): is a batch the next one, a resend, or too early; and which
transactions are open here?

Pure state, with the rules of Kafka's ProducerStateEntry and ProducerAppendInfo:

- a batch with the epoch and sequences of one of the producer's last five is a duplicate and gets that one's offsets;
- a lower epoch than the last is refused; a higher one begins at sequence 0;
- otherwise the sequence must follow the last one, and 2^31 - 1 is followed by 0;
- a producer that nothing is known of (new, expired, its records deleted) begins with any sequence.

A resend of a batch older than five is out of order too. Kafka's error 46 (DUPLICATE_SEQUENCE_NUMBER) is for its clients
to understand; no broker of version 4.1 answers it, and neither do we.

A producer's first transactional batch opens its transaction in the partition, a marker ends it. Whether the transaction
is one at all is known to its coordinator, and not here.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from streamcore.errors import (
    InvalidProducerEpochError,
    InvalidTransactionStateError,
    OutOfOrderSequenceError,
    TransactionCoordinatorFencedError,
)
from streamcore.log.aborted_transactions import AbortedTransaction
from streamcore.records.batch import NO_PRODUCER, NO_TIMESTAMP, BatchHeader
from streamcore.records.control import Marker

BATCHES_REMEMBERED: Final = 5  # Kafka's NUM_BATCHES_TO_RETAIN, and the most requests a producer has in flight
PRODUCER_ID_EXPIRATION_MS: Final = 86_400_000  # producer.id.expiration.ms
PRODUCERS_MAX: Final = 20_000  # of one partition, 32 MB at most; the one that has been silent longest goes first

_SEQUENCES: Final = 1 << 31
_NO_SEQUENCE: Final = -1
_NO_EPOCH: Final = -1
_NO_OFFSET: Final = -1


class SentBatch(NamedTuple):
    """A batch that a producer got into the log."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp: int  # the largest in the batch, Unix ms


class Producer(NamedTuple):
    """One producer's state; it is replaced, never changed."""

    producer_epoch: int = _NO_EPOCH
    batches: tuple[SentBatch, ...] = ()  # of this epoch, oldest first
    last_timestamp: int = NO_TIMESTAMP
    coordinator_epoch: int = -1
    transaction_first_offset: int = _NO_OFFSET  # of the open transaction

    @property
    def last_sequence(self) -> int:
        """-1 where the epoch has written nothing: 0 is next then, as after 2^31 - 1."""
        return self.batches[-1].last_sequence if self.batches else _NO_SEQUENCE

    @property
    def last_offset(self) -> int:
        return self.batches[-1].last_offset if self.batches else _NO_OFFSET

    def with_batch(self, producer_epoch: int, batch: SentBatch, *, is_transactional: bool) -> "Producer":
        kept = self.batches[1 - BATCHES_REMEMBERED :] if producer_epoch == self.producer_epoch else ()
        first_offset = self.transaction_first_offset
        if is_transactional and first_offset == _NO_OFFSET:
            first_offset = batch.base_offset
        return self._replace(
            producer_epoch=producer_epoch,
            batches=(*kept, batch),
            last_timestamp=batch.timestamp,
            transaction_first_offset=first_offset,
        )

    def with_marker(self, producer_epoch: int, timestamp: int, coordinator_epoch: int) -> "Producer":
        """After the end of a transaction, whose marker has no sequence; a new epoch begins at 0."""
        return self._replace(
            producer_epoch=producer_epoch,
            batches=self.batches if producer_epoch == self.producer_epoch else (),
            last_timestamp=timestamp,
            coordinator_epoch=coordinator_epoch,
            transaction_first_offset=_NO_OFFSET,
        )


_UNKNOWN: Final = Producer()


def last_sequence_of(base_sequence: int, last_offset_delta: int) -> int:
    return (base_sequence + last_offset_delta) % _SEQUENCES


def base_sequence_of(last_sequence: int, last_offset_delta: int) -> int:
    return (last_sequence - last_offset_delta) % _SEQUENCES


class ProducerState:
    """The producers of one partition, by id, in the order of their last batches."""

    def __init__(
        self,
        producers: Mapping[int, Producer] = MappingProxyType({}),
        *,
        expiration_ms: int = PRODUCER_ID_EXPIRATION_MS,
        producers_max: int = PRODUCERS_MAX,
    ) -> None:
        self.expiration_ms = expiration_ms
        self._producers_max = producers_max
        self._producers = _in_order(producers)
        self._open: dict[int, int] = {}  # producer id -> first offset of its transaction, oldest first
        self._learn_open()

    def _learn_open(self) -> None:
        found = ((p.transaction_first_offset, key) for key, p in self._producers.items())
        self._open = {key: offset for offset, key in sorted(found) if offset != _NO_OFFSET}

    @property
    def producers(self) -> Mapping[int, Producer]:
        return MappingProxyType(self._producers)

    @property
    def open_transactions(self) -> Mapping[int, int]:
        """By producer id, the first offset of each; the oldest comes first."""
        return self._open

    @property
    def has_transactions(self) -> bool:
        """Whether one of the producers has ever been transactional here."""
        return any(p.coordinator_epoch >= 0 or p.transaction_first_offset >= 0 for p in self._producers.values())

    def next_sequence(self, producer_id: int, producer_epoch: int) -> int:
        """What the producer's next batch has to begin with."""
        producer = self._producers.get(producer_id)
        if producer is None or producer.producer_epoch != producer_epoch:
            return 0
        return (producer.last_sequence + 1) % _SEQUENCES

    def check(self, header: BatchHeader) -> SentBatch | None:
        """Judge a batch that a client sends; nothing is changed.

        Returns:
            The batch that this one repeats, or None for one that is to be appended.
        Raises:
            InvalidProducerEpochError: a newer instance of the producer has written.
            OutOfOrderSequenceError: batches before it are missing, or it repeats one that is no longer remembered.
            InvalidTransactionStateError: it is not part of the transaction that its producer has open here.
        """
        producer = self._producers.get(header.producer_id)
        if producer is None:
            return None
        epoch, base_sequence = header.producer_epoch, header.base_sequence
        if epoch == producer.producer_epoch:
            last_sequence = last_sequence_of(base_sequence, header.last_offset_delta)
            for batch in producer.batches:
                if batch.base_sequence == base_sequence and batch.last_sequence == last_sequence:
                    return batch
            expected = (producer.last_sequence + 1) % _SEQUENCES
        elif epoch < producer.producer_epoch:
            raise InvalidProducerEpochError(header.producer_id, epoch, producer.producer_epoch)
        else:
            expected = 0
        if base_sequence != expected:
            raise OutOfOrderSequenceError(header.producer_id, epoch, base_sequence, expected)
        if producer.transaction_first_offset != _NO_OFFSET and not header.is_transactional:
            raise InvalidTransactionStateError(
                f"producer {header.producer_id} has a transaction open here since offset "
                f"{producer.transaction_first_offset}, and sends a batch outside of it"
            )
        return None

    def check_marker(self, producer_id: int, producer_epoch: int, coordinator_epoch: int) -> None:
        """Judge a marker that a coordinator sends.

        Raises:
            InvalidProducerEpochError: a newer instance of the producer has written.
            TransactionCoordinatorFencedError: a newer coordinator has sent a marker.
        """
        producer = self._producers.get(producer_id, _UNKNOWN)
        if producer_epoch < producer.producer_epoch:
            raise InvalidProducerEpochError(producer_id, producer_epoch, producer.producer_epoch)
        if coordinator_epoch < producer.coordinator_epoch:
            raise TransactionCoordinatorFencedError(
                f"a coordinator with epoch {coordinator_epoch} ends a transaction of producer {producer_id}, and one "
                f"with epoch {producer.coordinator_epoch} has ended one already"
            )

    def append(self, header: BatchHeader, base_offset: int) -> None:
        """A batch has been written at `base_offset`; the header's own may still be the client's."""
        delta = header.last_offset_delta
        batch = SentBatch(
            header.base_sequence,
            last_sequence_of(header.base_sequence, delta),
            base_offset,
            base_offset + delta,
            header.max_timestamp,
        )
        known = self._producers.get(header.producer_id, _UNKNOWN)
        is_transactional = header.is_transactional
        if is_transactional:
            self._open.setdefault(header.producer_id, base_offset)
        self._put(header.producer_id, known.with_batch(header.producer_epoch, batch, is_transactional=is_transactional))

    def ended_by(self, producer_id: int, marker: Marker, offset: int) -> AbortedTransaction | None:
        """What a marker at `offset` would abort; None where it commits, or where nothing is open."""
        first_offset = self._open.get(producer_id)
        if first_offset is None or marker.is_commit:
            return None
        others = (other for key, other in self._open.items() if key != producer_id)
        return AbortedTransaction(first_offset, producer_id, offset, next(others, offset + 1))

    def end(self, header: BatchHeader, marker: Marker) -> None:
        """A marker has been written."""
        self._open.pop(header.producer_id, None)
        known = self._producers.get(header.producer_id, _UNKNOWN)
        self._put(
            header.producer_id,
            known.with_marker(header.producer_epoch, header.max_timestamp, marker.coordinator_epoch),
        )

    def replay(self, batches: Iterable[tuple[BatchHeader, Marker | None]]) -> list[AbortedTransaction]:
        """Batches as they are on disk, with what the markers say: they were judged when they were written.

        Returns:
            The transactions that the markers abort.
        """
        aborted: list[AbortedTransaction] = []
        for header, marker in batches:
            if header.producer_id == NO_PRODUCER:
                continue
            if marker is not None:
                found = self.ended_by(header.producer_id, marker, header.base_offset)
                if found is not None:
                    aborted.append(found)
                self.end(header, marker)
            elif not header.is_control:
                self.append(header, header.base_offset)
        return aborted

    def expire(self, now_ms: int) -> None:
        """Forget the producers whose last batch is too old, by its own timestamp as in Kafka."""
        oldest_ms = now_ms - self.expiration_ms
        for producer_id, producer in list(self._producers.items()):
            if producer.last_timestamp <= oldest_ms and producer.transaction_first_offset == _NO_OFFSET:
                del self._producers[producer_id]

    def truncate(self, end_offset: int) -> list[int]:
        """Take back the batches from `end_offset` on; transactions are not brought back to what they were.

        Returns:
            The producers of which nothing older is remembered: what they were has to be read again (`restore`).
        """
        forgotten = []
        for producer_id, producer in list(self._producers.items()):
            if -1 < producer.last_offset < end_offset:
                continue
            kept = tuple(batch for batch in producer.batches if batch.last_offset < end_offset)
            if kept:
                self._producers[producer_id] = producer._replace(batches=kept, last_timestamp=kept[-1].timestamp)
            else:
                del self._producers[producer_id]
                forgotten.append(producer_id)
        self._producers = _in_order(self._producers)
        return forgotten

    def restore(self, producer_ids: Iterable[int], earlier: "ProducerState") -> None:
        """Take over some producers as they are in `earlier`, which has been read from the log."""
        known = {key: earlier._producers[key] for key in producer_ids if key in earlier._producers}
        self._producers = _in_order(self._producers | known)
        self._learn_open()

    def remember(self, earlier: "ProducerState", end_offset: int) -> None:
        """Take over the batches below `end_offset` that are known there, and that a snapshot has not kept."""
        for producer_id, producer in list(self._producers.items()):
            known = earlier._producers.get(producer_id)
            if known is None or known.producer_epoch != producer.producer_epoch:
                continue
            batches = tuple(batch for batch in known.batches if batch.last_offset < end_offset)
            if len(batches) > len(producer.batches) and batches[-1] == producer.batches[-1]:
                self._producers[producer_id] = producer._replace(batches=batches)

    def _put(self, producer_id: int, producer: Producer) -> None:
        # Taken out first, so that the dict's order is that of the batches.
        if self._producers.pop(producer_id, None) is None and len(self._producers) >= self._producers_max:
            # One with an open transaction has to be there when that ends.
            silent = next((key for key in self._producers if key not in self._open), None)
            if silent is not None:
                del self._producers[silent]
        self._producers[producer_id] = producer


def _in_order(producers: Mapping[int, Producer]) -> dict[int, Producer]:
    return dict(sorted(producers.items(), key=lambda item: item[1].last_offset))
