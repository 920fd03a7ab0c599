"""Transactions of librdkafka, a client whose epoch stays (transaction version 0), against both brokers."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.test_confluent_kafka import consumer_of, producer_of, result, take
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop


def transactional(cluster: Cluster, name: str, timeout_ms: int = 60_000) -> Producer:
    producer = producer_of(cluster, transactional_id=name, transaction_timeout_ms=timeout_ms)
    producer.init_transactions(PATIENCE_S)
    return producer


def send(producer: Producer, topic: str, *values: str, partition: int = 0) -> None:
    """On the log on return, and not committed."""
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(PATIENCE_S) == 0


def values_of(cluster: Cluster, topic: str, *, isolation: str, partitions: int = 1) -> list[str]:
    """Everything that such a reader gets before it stands at the end of each partition."""
    with consumer_of(cluster, isolation_level=isolation, enable_partition_eof=True) as consumer:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        found: list[str] = []
        ended: set[int] = set()
        deadline = time.monotonic() + PATIENCE_S
        while len(ended) < partitions:
            assert time.monotonic() < deadline, f"{ended} of {partitions} partitions ended"
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                found.append(message.value().decode())
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended.add(message.partition())
        return found


def committed(cluster: Cluster, topic: str, partitions: int = 1) -> list[str]:
    return values_of(cluster, topic, isolation="read_committed", partitions=partitions)


def latest(cluster: Cluster, topic: str, level: IsolationLevel) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    found = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()}, isolation_level=level)
    return int(result(found).offset)


def becomes(look: Callable[[], object], wanted: object) -> None:
    """Apache Kafka writes markers after it has answered."""
    until(lambda: look() == wanted, what=str(wanted))


def test_a_transaction_is_seen_whole_when_it_is_committed(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("committed"), 3)
    producer = transactional(cluster, fresh("committed"))
    producer.begin_transaction()
    for partition in range(3):
        send(producer, topic, f"a{partition}", f"b{partition}", partition=partition)
    assert committed(cluster, topic, 3) == []
    everything = sorted(f"{name}{partition}" for partition in range(3) for name in "ab")
    assert sorted(values_of(cluster, topic, isolation="read_uncommitted", partitions=3)) == everything
    producer.commit_transaction(PATIENCE_S)
    becomes(lambda: sorted(committed(cluster, topic, 3)), everything)


def test_an_aborted_transaction_is_never_seen_among_committed_ones(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("aborted"))
    good, bad = transactional(cluster, fresh("good")), transactional(cluster, fresh("bad"))
    plain = producer_of(cluster)
    for number in range(5):
        good.begin_transaction()
        bad.begin_transaction()
        send(bad, topic, f"bad {number}")
        send(good, topic, f"good {number}")
        send(plain, topic, f"plain {number}")
        send(bad, topic, f"bad again {number}")
        bad.abort_transaction(PATIENCE_S)
        send(good, topic, f"good again {number}")
        good.commit_transaction(PATIENCE_S)
    wanted = [f"{what} {number}" for number in range(5) for what in ("good", "plain", "good again")]
    becomes(lambda: committed(cluster, topic), wanted)
    assert len(values_of(cluster, topic, isolation="read_uncommitted")) == 25


def test_the_end_of_a_partition_is_the_last_stable_offset_for_who_reads_committed_records(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("stable"))
    producer = transactional(cluster, fresh("stable"))
    send(producer_of(cluster), topic, "plain")
    producer.begin_transaction()
    send(producer, topic, "open")
    assert latest(cluster, topic, IsolationLevel.READ_COMMITTED) == 1
    assert latest(cluster, topic, IsolationLevel.READ_UNCOMMITTED) == 2
    producer.commit_transaction(PATIENCE_S)
    becomes(lambda: latest(cluster, topic, IsolationLevel.READ_COMMITTED), 3)


def test_a_reader_at_the_end_waits_for_the_end_of_the_transaction(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("waiting"))
    producer = transactional(cluster, fresh("waiting"))
    with consumer_of(cluster, isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        producer.begin_transaction()
        send(producer, topic, "a", "b")
        assert consumer.poll(1) is None
        producer.commit_transaction(PATIENCE_S)
        assert [message.value() for message in take(consumer, 2)] == [b"a", b"b"]


def offset_of(cluster: Cluster, group: str, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])]
    (found,) = result(admin.list_consumer_group_offsets(asked)).topic_partitions
    return int(found.offset)


def test_offsets_are_committed_with_the_records_or_not_at_all(cluster: Cluster) -> None:
    source, sink, group = create_topic(cluster, fresh("in")), create_topic(cluster, fresh("out")), fresh("transform")
    send(producer_of(cluster), source, *"abcdef")
    producer = transactional(cluster, fresh("transform"))

    def step(consumer: Consumer, *, commit: bool) -> None:
        messages = take(consumer, 3)
        producer.begin_transaction()
        for message in messages:
            producer.produce(sink, message.value().upper(), partition=0)
        after = [TopicPartition(source, 0, messages[-1].offset() + 1)]
        producer.send_offsets_to_transaction(after, consumer.consumer_group_metadata(), PATIENCE_S)
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.abort_transaction(PATIENCE_S)

    for commit in (False, True, False, True):
        before = max(0, offset_of(cluster, group, source))
        with consumer_of(cluster, group, isolation_level="read_committed") as consumer:
            consumer.subscribe([source])
            step(consumer, commit=commit)
        becomes(lambda: max(0, offset_of(cluster, group, source)), before + 3 * commit)
    becomes(lambda: committed(cluster, sink), list("ABCDEF"))


def test_a_second_producer_fences_the_first(cluster: Cluster) -> None:
    topic, name = create_topic(cluster, fresh("fenced")), fresh("fenced")
    first = transactional(cluster, name)
    first.begin_transaction()
    send(first, topic, "of the first")
    second = transactional(cluster, name)
    with pytest.raises(KafkaException) as raised:
        first.commit_transaction(PATIENCE_S)
    assert raised.value.args[0].code() == KafkaError._FENCED
    second.begin_transaction()
    send(second, topic, "of the second")
    second.commit_transaction(PATIENCE_S)
    becomes(lambda: committed(cluster, topic), ["of the second"])


def test_a_transaction_that_is_open_for_too_long_is_aborted(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("slow"))
    producer = transactional(cluster, fresh("slow"), timeout_ms=1000)
    producer.begin_transaction()
    send(producer, topic, "slow")
    becomes(lambda: latest(cluster, topic, IsolationLevel.READ_COMMITTED), 2)
    assert committed(cluster, topic) == []
    with pytest.raises(KafkaException):
        producer.commit_transaction(PATIENCE_S)


def test_a_timeout_beyond_the_limit_is_refused(cluster: Cluster) -> None:
    producer = producer_of(cluster, transactional_id=fresh("patient"), transaction_timeout_ms=2_000_000)
    with pytest.raises(KafkaException) as raised:
        producer.init_transactions(PATIENCE_S)
    assert raised.value.args[0].code() == KafkaError.INVALID_TRANSACTION_TIMEOUT


def test_a_large_transaction_over_many_partitions(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("large"), 20)
    producer = transactional(cluster, fresh("large"))
    for commit in (False, True):
        producer.begin_transaction()
        for number in range(20_000):
            producer.produce(topic, f"{commit} {number}", partition=number % 20)
            if number % 1000 == 0:
                producer.poll(0)
        # librdkafka gives up what it has not sent when it aborts, and stumbles over the gap in its own sequences.
        assert producer.flush(PATIENCE_S) == 0
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.abort_transaction(PATIENCE_S)
    wanted = sorted(f"True {number}" for number in range(20_000))
    becomes(lambda: sorted(committed(cluster, topic, 20)), wanted)
