"""Transactions of confluent-kafka (librdkafka) against both brokers: what they promise is KIP-98's."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

QUIET: Final = 2
NO_SETTINGS: Final = MappingProxyType[str, Any]({})
BEGINNING: Final = 0
# How long nothing comes before a consumer is believed to have nothing to read.
SILENCE_S: Final = 1.5
# The least that librdkafka takes.
SHORT_TIMEOUT_MS: Final = 1000


def transactional(cluster: Cluster, transactional_id: str, **settings: Any) -> Producer:
    """A producer that has fenced those before it."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    base = {
        "bootstrap.servers": cluster.bootstrap,
        "transactional.id": transactional_id,
        "linger.ms": 2,
        "log_level": QUIET,
    }
    producer = Producer(base | named)
    producer.init_transactions(PATIENCE_S)
    return producer


@contextmanager
def consumer_of(
    cluster: Cluster, isolation: str, group: str | None = None, settings: Mapping[str, Any] = NO_SETTINGS
) -> Iterator[Consumer]:
    base = {
        "bootstrap.servers": cluster.bootstrap,
        "group.id": group or fresh("unused"),
        "isolation.level": isolation,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": QUIET,
    }
    consumer = Consumer({**base, **settings})
    try:
        yield consumer
    finally:
        consumer.close()


def take_to_end(consumer: Consumer, partitions: int = 1) -> list[Message]:
    """What comes until the end of each partition has been reached."""
    taken: list[Message] = []
    ended: set[int] = set()
    deadline = time.monotonic() + PATIENCE_S
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"{len(ended)} of {partitions} ends came, after {len(taken)} records"
        for message in consumer.consume(1000, timeout=0.2):
            error = message.error()
            if error is None:
                taken.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise KafkaException(error)
    return taken


def values_in(cluster: Cluster, topic: str, isolation: str = "read_committed", partitions: int = 1) -> list[str]:
    """What a new consumer reads, partition after partition."""
    with consumer_of(cluster, isolation) as consumer:
        consumer.assign([TopicPartition(topic, number, BEGINNING) for number in range(partitions)])
        messages = take_to_end(consumer, partitions)
    messages.sort(key=lambda message: (message.partition(), message.offset()))
    return [message.value().decode() for message in messages]


def send(producer: Producer, topic: str, values: Sequence[str], partition: int = 0) -> None:
    """Records that are in the log when this returns, within the producer's transaction."""
    refused: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=on_delivery)
    assert producer.flush(PATIENCE_S) == 0
    if refused:
        raise KafkaException(refused[0])


def latest(cluster: Cluster, topic: str, isolation: str) -> int:
    with consumer_of(cluster, isolation) as consumer:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S)[1])


def committed(cluster: Cluster, group: str, topic: str) -> int:
    with consumer_of(cluster, "read_committed", group) as consumer:
        (place,) = consumer.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)
        assert place.error is None
        return int(place.offset)


def test_a_commit_is_seen_whole(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("commit"), 2)
    producer = transactional(cluster, fresh("transactional"))
    producer.begin_transaction()
    send(producer, topic, ["a", "b"], partition=0)
    send(producer, topic, ["c"], partition=1)
    assert values_in(cluster, topic, partitions=2) == []
    assert values_in(cluster, topic, "read_uncommitted", partitions=2) == ["a", "b", "c"]
    producer.commit_transaction(PATIENCE_S)
    assert values_in(cluster, topic, partitions=2) == ["a", "b", "c"]


def test_what_was_aborted_is_seen_by_those_only_who_read_the_uncommitted(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("abort"))
    producer = transactional(cluster, fresh("transactional"))
    for number, end in enumerate(
        [producer.commit_transaction, producer.abort_transaction, producer.commit_transaction]
    ):
        producer.begin_transaction()
        send(producer, topic, [f"{number}-{record}" for record in range(3)])
        end(PATIENCE_S)
    assert values_in(cluster, topic) == ["0-0", "0-1", "0-2", "2-0", "2-1", "2-2"]
    everything = [f"{number}-{record}" for number in range(3) for record in range(3)]
    assert values_in(cluster, topic, "read_uncommitted") == everything
    # A marker takes an offset of its own.
    assert latest(cluster, topic, "read_uncommitted") == len(everything) + 3


def test_the_last_stable_offset_is_the_end_for_those_who_read_the_committed(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("stable"))
    early, late = (transactional(cluster, fresh("transactional")) for _ in range(2))
    early.begin_transaction()
    send(early, topic, ["early"])
    early.commit_transaction(PATIENCE_S)
    until(lambda: latest(cluster, topic, "read_committed") == 2, what="the end of the transaction")
    early.begin_transaction()
    send(early, topic, ["open"])
    late.begin_transaction()
    send(late, topic, ["late"])
    late.commit_transaction(PATIENCE_S)
    # The later one is committed, and still hidden behind the earlier that is open.
    assert latest(cluster, topic, "read_committed") == 2
    assert latest(cluster, topic, "read_uncommitted") == 5
    assert values_in(cluster, topic) == ["early"]
    early.abort_transaction(PATIENCE_S)
    until(lambda: latest(cluster, topic, "read_committed") == 6, what="the end of the abort")
    assert values_in(cluster, topic) == ["early", "late"]


def test_a_consumer_at_the_last_stable_offset_waits_for_the_end_of_the_transaction(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("waiting"))
    producer = transactional(cluster, fresh("transactional"))
    producer.begin_transaction()
    send(producer, topic, ["first", "second"])
    requests: list[int] = []

    def on_statistics(text: str) -> None:
        requests.append(sum(broker["req"].get("Fetch", 0) for broker in json.loads(text)["brokers"].values()))

    settings = {"statistics.interval.ms": 100, "stats_cb": on_statistics}
    with consumer_of(cluster, "read_committed", settings=settings) as consumer:
        consumer.assign([TopicPartition(topic, 0, BEGINNING)])
        assert take_to_end(consumer) == []
        before = requests[-1] if requests else 0
        assert consumer.consume(1, timeout=SILENCE_S) == []
        # A fetch waits half a second where there is nothing to read.
        assert requests[-1] - before <= SILENCE_S / 0.5 + 2
        producer.commit_transaction(PATIENCE_S)
        began = time.monotonic()
        assert [message.value() for message in take_to_end(consumer)] == [b"first", b"second"]
        assert time.monotonic() - began < PATIENCE_S / 2


def test_transactions_of_several_producers_on_one_partition(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("interleaved"))
    producers = [transactional(cluster, fresh("transactional")) for _ in range(4)]
    wanted: list[str] = []
    for turn in range(6):
        for producer in producers:
            producer.begin_transaction()
        for record in range(3):
            for number, producer in enumerate(producers):
                send(producer, topic, [f"{turn}-{number}-{record}"])
        ends = [(turn + number) % 3 != 0 for number in range(len(producers))]
        wanted += [f"{turn}-{number}-{record}" for record in range(3) for number, keep in enumerate(ends) if keep]
        # The first to begin is the last to end.
        for producer, keep in reversed(list(zip(producers, ends, strict=True))):
            (producer.commit_transaction if keep else producer.abort_transaction)(PATIENCE_S)
    assert values_in(cluster, topic) == wanted
    assert len(values_in(cluster, topic, "read_uncommitted")) == 6 * 3 * 4


def test_a_large_transaction_over_many_partitions_and_batches(cluster: Cluster) -> None:
    partitions, count = 20, 400
    topic = create_topic(cluster, fresh("large"), partitions)
    producer = transactional(cluster, fresh("transactional"), batch_num_messages=20)
    for name, end in (("aborted", producer.abort_transaction), ("kept", producer.commit_transaction)):
        producer.begin_transaction()
        for number in range(count):
            for partition in range(partitions):
                producer.produce(topic, f"{name}-{number}", partition=partition)
        # An abort throws away what librdkafka has not sent yet.
        assert producer.flush(PATIENCE_S) == 0
        end(PATIENCE_S)
    assert values_in(cluster, topic, partitions=partitions) == [f"kept-{n}" for n in range(count)] * partitions


def test_compressed_batches_are_hidden_and_shown_as_well(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("compressed"))
    for compression in ("gzip", "snappy", "lz4", "zstd"):
        producer = transactional(cluster, fresh("transactional"), compression_type=compression)
        for name, end in (("aborted", producer.abort_transaction), ("kept", producer.commit_transaction)):
            producer.begin_transaction()
            send(producer, topic, [f"{compression}-{name}" * 50] * 20)
            end(PATIENCE_S)
    wanted = [f"{compression}-kept" * 50 for compression in ("gzip", "snappy", "lz4", "zstd") for _ in range(20)]
    assert values_in(cluster, topic) == wanted


def test_offsets_are_committed_with_the_records_or_not_at_all(cluster: Cluster) -> None:
    source, sink, group = create_topic(cluster, fresh("in")), create_topic(cluster, fresh("out")), fresh("group")
    feeder = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
    send(feeder, source, [str(number) for number in range(10)])
    producer = transactional(cluster, fresh("transactional"))
    with consumer_of(cluster, "read_committed", group) as consumer:
        consumer.subscribe([source])
        taken = take_to_end(consumer)
        assert len(taken) == 10

        def transform(records: Sequence[Message]) -> None:
            producer.begin_transaction()
            send(producer, sink, [f"{record.value().decode()}!" for record in records])
            place = TopicPartition(source, 0, records[-1].offset() + 1)
            producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), PATIENCE_S)

        transform(taken[:4])
        producer.commit_transaction(PATIENCE_S)
        assert committed(cluster, group, source) == 4
        transform(taken[4:7])
        producer.abort_transaction(PATIENCE_S)
        assert committed(cluster, group, source) == 4
        transform(taken[4:])
        producer.commit_transaction(PATIENCE_S)
        assert committed(cluster, group, source) == 10
    assert values_in(cluster, sink) == [f"{number}!" for number in range(10)]


def test_offsets_of_a_member_that_is_no_more_are_refused(cluster: Cluster) -> None:
    """KIP-447: not the transactional id but the group's generation tells who may commit."""
    source, group = create_topic(cluster, fresh("in")), fresh("group")
    producer = transactional(cluster, fresh("transactional"))
    with consumer_of(cluster, "read_committed", group) as consumer:
        consumer.subscribe([source])
        take_to_end(consumer)
        member = consumer.consumer_group_metadata()
    producer.begin_transaction()
    with pytest.raises(KafkaException) as raised:
        producer.send_offsets_to_transaction([TopicPartition(source, 0, 1)], member, PATIENCE_S)
    assert raised.value.args[0].code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION)
    assert raised.value.args[0].txn_requires_abort()
    producer.abort_transaction(PATIENCE_S)
    assert committed(cluster, group, source) < 0


def test_a_second_producer_of_the_same_id_fences_the_first(cluster: Cluster) -> None:
    topic, transactional_id = create_topic(cluster, fresh("fenced")), fresh("transactional")
    first = transactional(cluster, transactional_id)
    first.begin_transaction()
    send(first, topic, ["of the first"])
    second = transactional(cluster, transactional_id)
    second.begin_transaction()
    send(second, topic, ["of the second"])
    with pytest.raises(KafkaException) as raised:
        first.commit_transaction(PATIENCE_S)
    assert raised.value.args[0].code() == KafkaError._FENCED
    assert raised.value.args[0].fatal()
    second.commit_transaction(PATIENCE_S)
    assert values_in(cluster, topic) == ["of the second"]
    assert values_in(cluster, topic, "read_uncommitted") == ["of the first", "of the second"]


def test_a_fenced_producer_can_write_nothing_more(cluster: Cluster) -> None:
    topic, transactional_id = create_topic(cluster, fresh("fenced")), fresh("transactional")
    first = transactional(cluster, transactional_id)
    first.begin_transaction()
    send(first, topic, ["early"])
    transactional(cluster, transactional_id)
    with pytest.raises(KafkaException):
        send(first, topic, ["late"])
    assert "late" not in values_in(cluster, topic, "read_uncommitted")
    assert values_in(cluster, topic) == []


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_is_told(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("timeout"))
    settings = {"transaction_timeout_ms": SHORT_TIMEOUT_MS, "message_timeout_ms": SHORT_TIMEOUT_MS}
    producer = transactional(cluster, fresh("transactional"), **settings)
    producer.begin_transaction()
    send(producer, topic, ["too slow"])
    assert latest(cluster, topic, "read_committed") == 0
    until(lambda: latest(cluster, topic, "read_committed") == 2, what="the abort", seconds=2 * PATIENCE_S)
    with pytest.raises(KafkaException) as raised:
        producer.commit_transaction(PATIENCE_S)
    assert raised.value.args[0].txn_requires_abort() or raised.value.args[0].fatal()
    assert values_in(cluster, topic) == []


def test_a_producer_of_an_id_that_died_finishes_what_it_left(cluster: Cluster) -> None:
    topic, transactional_id = create_topic(cluster, fresh("left")), fresh("transactional")
    died = transactional(cluster, transactional_id)
    died.begin_transaction()
    send(died, topic, ["left open"])
    heir = transactional(cluster, transactional_id)
    assert latest(cluster, topic, "read_committed") == 2
    for turn in range(3):
        heir.begin_transaction()
        send(heir, topic, [f"heir-{turn}"])
        heir.commit_transaction(PATIENCE_S)
        heir = transactional(cluster, transactional_id)  # idle, and initialised again
    assert values_in(cluster, topic) == ["heir-0", "heir-1", "heir-2"]


def test_an_empty_transaction_leaves_nothing(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("empty"))
    producer = transactional(cluster, fresh("transactional"))
    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        end(PATIENCE_S)
    assert latest(cluster, topic, "read_uncommitted") == 0
    producer.begin_transaction()
    send(producer, topic, ["not empty"])
    producer.commit_transaction(PATIENCE_S)
    assert values_in(cluster, topic) == ["not empty"]


def test_many_small_transactions_one_after_the_other(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("small"))
    producer = transactional(cluster, fresh("transactional"))
    for number in range(100):
        producer.begin_transaction()
        send(producer, topic, [str(number)])
        (producer.abort_transaction if number % 5 == 0 else producer.commit_transaction)(PATIENCE_S)
    assert values_in(cluster, topic) == [str(number) for number in range(100) if number % 5]


def test_the_records_of_no_transaction_wait_behind_an_open_one(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("mixed"))
    plain = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
    producer = transactional(cluster, fresh("transactional"))
    send(plain, topic, ["before"])
    producer.begin_transaction()
    send(producer, topic, ["aborted"])
    send(plain, topic, ["after"])
    assert values_in(cluster, topic) == ["before"]
    producer.abort_transaction(PATIENCE_S)
    assert values_in(cluster, topic) == ["before", "after"]


def test_readers_of_the_committed_see_transactions_whole_while_they_are_written(cluster: Cluster) -> None:
    topic, size, turns = create_topic(cluster, fresh("live")), 5, 40
    producer = transactional(cluster, fresh("transactional"))

    def write() -> None:
        for turn in range(turns):
            producer.begin_transaction()
            send(producer, topic, [f"{turn}-{record}" for record in range(size)])
            (producer.commit_transaction if turn % 2 else producer.abort_transaction)(PATIENCE_S)

    writer = threading.Thread(target=write, name="writer")
    wanted = [f"{turn}-{record}" for turn in range(1, turns, 2) for record in range(size)]
    with consumer_of(cluster, "read_committed") as consumer:
        consumer.assign([TopicPartition(topic, 0, BEGINNING)])
        writer.start()
        came: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(came) < len(wanted) and time.monotonic() < deadline:
            came += [message.value().decode() for message in take_to_end(consumer)]
            assert len(came) % size == 0, "half a transaction was read"
    writer.join()
    assert came == wanted
