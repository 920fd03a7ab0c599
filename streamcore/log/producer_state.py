"""What one partition remembers of its idempotent producers (KIP-98): is a batch the next one, a resend, or too early?

Pure state, with the rules of Kafka's ProducerStateEntry and ProducerAppendInfo:

- a batch with the epoch and sequences of one of the producer's last five is a duplicate and gets that one's offsets;
- a lower epoch than the last is refused; a higher one begins at sequence 0;
- otherwise the sequence must follow the last one, and 2^31 - 1 is followed by 0;
- a producer that nothing is known of (new, expired, its records deleted) begins with any sequence.

A resend of a batch older than five is out of order too. Kafka's error 46 (DUPLICATE_SEQUENCE_NUMBER) is for its clients
to understand; no broker of version 4.1 answers it, and neither do we.

Transactions are not judged here yet; their two fields are kept as snapshots bring them.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from streamcore.errors import InvalidProducerEpochError, OutOfOrderSequenceError
from streamcore.records.batch import NO_PRODUCER, NO_TIMESTAMP, BatchHeader

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

    def with_batch(self, producer_epoch: int, batch: SentBatch) -> "Producer":
        kept = self.batches[1 - BATCHES_REMEMBERED :] if producer_epoch == self.producer_epoch else ()
        return self._replace(producer_epoch=producer_epoch, batches=(*kept, batch), last_timestamp=batch.timestamp)

    def with_marker(self, producer_epoch: int, timestamp: int) -> "Producer":
        """After the end of a transaction, whose marker has no sequence; a new epoch begins at 0."""
        return self._replace(
            producer_epoch=producer_epoch,
            batches=self.batches if producer_epoch == self.producer_epoch else (),
            last_timestamp=timestamp,
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

    @property
    def producers(self) -> Mapping[int, Producer]:
        return MappingProxyType(self._producers)

    def check(self, header: BatchHeader) -> SentBatch | None:
        """Judge a batch that a client sends; nothing is changed.

        Returns:
            The batch that this one repeats, or None for one that is to be appended.
        Raises:
            InvalidProducerEpochError: a newer instance of the producer has written.
            OutOfOrderSequenceError: batches before it are missing, or it repeats one that is no longer remembered.
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
        return None

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
        self._put(header.producer_id, known.with_batch(header.producer_epoch, batch))

    def replay(self, headers: Iterable[BatchHeader]) -> None:
        """Batches as they are on disk: they were judged when they were written."""
        for header in headers:
            if header.producer_id == NO_PRODUCER:
                continue
            if header.is_control:
                known = self._producers.get(header.producer_id, _UNKNOWN)
                self._put(header.producer_id, known.with_marker(header.producer_epoch, header.max_timestamp))
            else:
                self.append(header, header.base_offset)

    def expire(self, now_ms: int) -> None:
        """Forget the producers whose last batch is too old, by its own timestamp as in Kafka."""
        oldest_ms = now_ms - self.expiration_ms
        for producer_id, producer in list(self._producers.items()):
            if producer.last_timestamp <= oldest_ms and producer.transaction_first_offset == _NO_OFFSET:
                del self._producers[producer_id]

    def truncate(self, end_offset: int) -> list[int]:
        """Take back the batches from `end_offset` on.

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

    def _put(self, producer_id: int, producer: Producer) -> None:
        # Taken out first, so that the dict's order is that of the batches.
        if self._producers.pop(producer_id, None) is None and len(self._producers) >= self._producers_max:
            del self._producers[next(iter(self._producers))]
        self._producers[producer_id] = producer


def _in_order(producers: Mapping[int, Producer]) -> dict[int, Producer]:
    return dict(sorted(producers.items(), key=lambda item: item[1].last_offset))
