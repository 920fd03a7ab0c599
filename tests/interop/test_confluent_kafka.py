"""confluent-kafka (librdkafka) against both brokers."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import PATIENCE_S, START_MS, Cluster, fresh, until
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

# librdkafka complains on standard error of the broker that ended before it did.
QUIET = 2


def producer_of(cluster: Cluster, **settings: Any) -> Producer:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    settings = {
        "bootstrap.servers": cluster.bootstrap,
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "log_level": QUIET,
    }
    return Producer(settings | named)


def produce(producer: Producer, topic: str, *records: dict[str, Any]) -> list[Message]:
    """The records as they were acknowledged."""
    delivered: list[Message] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        delivered.append(message)

    for record in records:
        producer.produce(topic, on_delivery=on_delivery, **record)
    assert producer.flush(PATIENCE_S) == 0, "not everything was acknowledged"
    return delivered


@contextmanager
def consumer_of(cluster: Cluster, group: str | None = None, **settings: Any) -> Iterator[Consumer]:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": group or fresh("unused"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": QUIET,
        }
        | named
    )
    try:
        yield consumer
    finally:
        consumer.close()


def take(consumer: Consumer, count: int) -> list[Message]:
    """The next `count` records, as they come."""
    taken: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count} records came"
        for message in consumer.consume(count - len(taken), timeout=1):
            if message.error() is not None:
                raise KafkaException(message.error())
            taken.append(message)
    return taken


def read(cluster: Cluster, topic: str, count: int, partition: int = 0, offset: int = 0) -> list[Message]:
    with consumer_of(cluster) as consumer:
        consumer.assign([TopicPartition(topic, partition, offset)])
        return take(consumer, count)


@pytest.fixture
def admin(cluster: Cluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})


def result(futures: dict[Any, "Future[Any]"]) -> Any:
    """Of an admin call for one thing."""
    (future,) = futures.values()
    return future.result(PATIENCE_S)


def error_of(futures: dict[Any, "Future[Any]"]) -> int:
    """What Kafka's error code was that an admin call for one thing failed with."""
    with pytest.raises(KafkaException) as raised:
        result(futures)
    return int(raised.value.args[0].code())


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_from_every_compression(cluster: Cluster, compression: str) -> None:
    topic = create_topic(cluster, fresh("compression"))
    values = [b"%d:" % number + b"text " * 100 for number in range(500)]
    produce(producer_of(cluster, compression_type=compression), topic, *({"value": value} for value in values))
    messages = read(cluster, topic, len(values))
    assert [message.value() for message in messages] == values
    assert [message.offset() for message in messages] == list(range(len(values)))


def test_keys_headers_timestamps_and_nulls_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("fields"))
    headers = [("twice", b"1"), ("twice", b"2"), ("null", None), ("empty", b""), ("näme", bytes(range(256)))]
    produce(
        producer_of(cluster),
        topic,
        {"key": b"key", "value": b"value", "timestamp": START_MS, "headers": headers},
        {"key": None, "value": b"no key", "timestamp": START_MS + 1},
        {"key": b"no value", "value": None, "timestamp": START_MS + 2},
        {"key": None, "value": None, "timestamp": START_MS + 3},
        {"key": b"", "value": b"", "timestamp": START_MS + 4},
    )
    messages = read(cluster, topic, 5)
    assert [(message.key(), message.value()) for message in messages] == [
        (b"key", b"value"),
        (None, b"no key"),
        (b"no value", None),
        (None, None),
        (b"", b""),
    ]
    assert messages[0].headers() == headers
    assert [message.headers() for message in messages[1:]] == [None] * 4
    assert [message.timestamp() for message in messages] == [
        (TIMESTAMP_CREATE_TIME, START_MS + number) for number in range(5)
    ]


def test_the_same_key_goes_to_the_partition_that_java_would_choose(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("keys"), 7)
    keys = [f"key-{number}".encode() for number in range(50)]
    messages = produce(producer_of(cluster), topic, *({"key": key, "value": b""} for key in keys * 2))
    assert {(message.key(), message.partition()) for message in messages} == {
        (key, partition_for(key, 7)) for key in keys
    }


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_records_arrive_with_every_kind_of_acknowledgement(cluster: Cluster, acks: str) -> None:
    topic = create_topic(cluster, fresh("acks"))
    values = [b"%d" % number for number in range(300)]
    messages = produce(producer_of(cluster, acks=acks), topic, *({"value": value} for value in values))
    if acks != "0":
        assert sorted(message.offset() for message in messages) == list(range(300))
    assert [message.value() for message in read(cluster, topic, 300)] == values


def test_large_batches_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("large"))
    values = [number.to_bytes(4) * 250 for number in range(20_000)]
    producer = producer_of(cluster, linger_ms=200, batch_size=1_000_000, batch_num_messages=10_000)
    produce(producer, topic, *({"value": value} for value in values))
    assert [message.value() for message in read(cluster, topic, len(values))] == values


def test_a_record_larger_than_the_topic_allows_is_refused(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("oversized"), max_message_bytes="100000")
    producer = producer_of(cluster, message_max_bytes=10_000_000)
    with pytest.raises(KafkaException) as raised:
        produce(producer, topic, {"value": bytes(200_000)})
    assert raised.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    produce(producer_of(cluster), topic, {"value": bytes(90_000)})
    assert len(read(cluster, topic, 1)[0].value()) == 90_000


def test_a_record_larger_than_the_broker_allows_by_default_is_refused(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("oversized"))
    producer = producer_of(cluster, message_max_bytes=10_000_000)
    with pytest.raises(KafkaException) as raised:
        produce(producer, topic, {"value": bytes(1_100_000)})
    assert raised.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_an_idempotent_producer_delivers_each_record_once_and_in_order(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("idempotent"))
    producer = producer_of(cluster, enable_idempotence=True, batch_num_messages=10)
    values = [b"%d" % number for number in range(1000)]
    produce(producer, topic, *({"value": value} for value in values))
    produce(producer, topic, {"value": b"last"})
    assert [message.value() for message in read(cluster, topic, 1001)] == [*values, b"last"]


def test_a_producer_makes_the_topic_that_it_misses(cluster: Cluster) -> None:
    topic = fresh("made-by-producing")
    (message,) = produce(producer_of(cluster), topic, {"value": b"first"})
    assert (message.partition(), message.offset()) == (0, 0)


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster) -> None:
    script = Path(__file__).with_name("member_confluent_kafka.py")
    settings = [str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member([sys.executable, script, cluster.bootstrap, topic, group, *settings])
    )


def test_a_group_goes_on_where_it_committed(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("resume")), fresh("group")
    produce(producer_of(cluster), topic, *({"value": b"%d" % number} for number in range(20)))
    with consumer_of(cluster, group) as consumer:
        consumer.subscribe([topic])
        message = take(consumer, 7)[-1]
        consumer.commit(message, asynchronous=False)
    with consumer_of(cluster, group) as consumer:
        consumer.subscribe([topic])
        assert [message.value() for message in take(consumer, 13)] == [b"%d" % number for number in range(7, 20)]


def test_a_committed_offset_keeps_its_metadata(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("metadata"), 3), fresh("group")
    with consumer_of(cluster, group) as consumer:
        places = [TopicPartition(topic, 0, 5, "node-1 ✓"), TopicPartition(topic, 1, 7)]
        assert all(place.error is None for place in consumer.commit(offsets=places, asynchronous=False))
        partitions = [TopicPartition(topic, number) for number in range(3)]
        committed = consumer.committed(partitions, timeout=PATIENCE_S)
    # librdkafka 2.x hands empty metadata back as None.
    assert [(place.offset, place.metadata or "") for place in committed] == [(5, "node-1 ✓"), (7, ""), (-1001, "")]


def test_an_offset_is_found_by_time(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("time"))
    records = ({"value": b"%d" % number, "timestamp": START_MS + number * 1000} for number in range(100))
    produce(producer_of(cluster), topic, *records)
    with consumer_of(cluster) as consumer:

        def offset_at(time_ms: int) -> int:
            (place,) = consumer.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=PATIENCE_S)
            assert place.error is None
            return int(place.offset)

        assert offset_at(START_MS - 5) == 0
        assert offset_at(START_MS + 50_000) == 50
        assert offset_at(START_MS + 50_001) == 51
        assert offset_at(START_MS + 100_000) == -1  # librdkafka's OFFSET_END
        consumer.assign([TopicPartition(topic, 0, offset_at(START_MS + 42_000))])
        assert take(consumer, 1)[0].value() == b"42"


def test_a_consumer_seeks_back_and_forth(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("seek"))
    produce(producer_of(cluster), topic, *({"value": b"%d" % number} for number in range(100)))
    with consumer_of(cluster) as consumer:
        consumer.assign([TopicPartition(topic, 0, 50)])
        assert take(consumer, 1)[0].value() == b"50"
        for offset in (10, 99, 0):
            consumer.seek(TopicPartition(topic, 0, offset))
            assert take(consumer, 1)[0].value() == b"%d" % offset
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S) == (0, 100)


def test_a_consumer_of_an_unknown_topic_is_told(cluster: Cluster) -> None:
    with consumer_of(cluster) as consumer:
        consumer.subscribe([fresh("never-made")])
        error = until(lambda: (message := consumer.poll(1)) and message.error(), what="the error")
        assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_consumer_past_the_end_is_told_or_starts_over(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("past-the-end"))
    produce(producer_of(cluster), topic, *({"value": b"%d" % number} for number in range(3)))
    with consumer_of(cluster, auto_offset_reset="error") as consumer:
        consumer.assign([TopicPartition(topic, 0, 1000)])
        error = until(lambda: (message := consumer.poll(1)) and message.error(), what="the error")
        assert error.code() == KafkaError._AUTO_OFFSET_RESET
    assert read(cluster, topic, 1, offset=1000)[0].value() == b"0"


def test_topics_are_made_described_and_deleted(cluster: Cluster, admin: AdminClient) -> None:
    name = fresh("admin")
    result(admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "1234567"})]))
    until(lambda: name in admin.list_topics(timeout=PATIENCE_S).topics, what="the new topic")
    found = admin.list_topics(timeout=PATIENCE_S).topics[name]
    assert sorted(found.partitions) == [0, 1, 2]
    brokers = admin.list_topics(timeout=PATIENCE_S).brokers
    for partition in found.partitions.values():
        assert partition.leader in brokers
        assert partition.replicas == partition.isrs == [partition.leader]
    assert error_of(admin.create_topics([NewTopic(name, 1, 1)])) == KafkaError.TOPIC_ALREADY_EXISTS
    result(admin.delete_topics([name]))
    until(lambda: name not in admin.list_topics(timeout=PATIENCE_S).topics, what="the end of the topic")
    assert error_of(admin.delete_topics([name])) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_describing_tells_of_the_cluster_and_of_topics(cluster: Cluster, admin: AdminClient) -> None:
    name = create_topic(cluster, fresh("described"), 2)
    described = admin.describe_cluster().result(PATIENCE_S)
    assert [f"{node.host}:{node.port}" for node in described.nodes] == [cluster.bootstrap]
    assert described.controller is not None
    assert described.cluster_id
    topic = result(admin.describe_topics(TopicCollection([name])))
    assert [partition.id for partition in topic.partitions] == [0, 1]
    assert (topic.is_internal, topic.name) == (False, name)
    unknown = admin.describe_topics(TopicCollection([fresh("never-made")]))
    assert error_of(unknown) == KafkaError.UNKNOWN_TOPIC_OR_PART


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic("a/b", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("zero-partitions", 0, 1), KafkaError.INVALID_PARTITIONS),
        (NewTopic("many-replicas", 1, 7), KafkaError.INVALID_REPLICATION_FACTOR),
        (NewTopic("bad-config", 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        (NewTopic("unknown-config", 1, 1, config={"no.such.thing": "1"}), KafkaError.INVALID_CONFIG),
    ],
    ids=lambda value: value.topic if isinstance(value, NewTopic) else "",
)
def test_a_topic_that_cannot_be_is_not_made(cluster: Cluster, admin: AdminClient, topic: NewTopic, code: int) -> None:
    assert error_of(admin.create_topics([topic])) == code
    assert topic.topic not in admin.list_topics(timeout=PATIENCE_S).topics


def test_validating_a_topic_makes_none(cluster: Cluster, admin: AdminClient) -> None:
    name = fresh("only-validated")
    result(admin.create_topics([NewTopic(name, 1, 1)], validate_only=True))
    result(admin.create_topics([NewTopic(name, 1, 1)], validate_only=True))
    assert name not in admin.list_topics(timeout=PATIENCE_S).topics


def test_partitions_are_added_and_never_taken(cluster: Cluster, admin: AdminClient) -> None:
    name = create_topic(cluster, fresh("grow"), 2)
    result(admin.create_partitions([NewPartitions(name, 4)]))
    until(lambda: len(admin.list_topics(timeout=PATIENCE_S).topics[name].partitions) == 4, what="four partitions")
    assert error_of(admin.create_partitions([NewPartitions(name, 3)])) == KafkaError.INVALID_PARTITIONS
    unknown = admin.create_partitions([NewPartitions(fresh("never-made"), 3)])
    assert error_of(unknown) == KafkaError.UNKNOWN_TOPIC_OR_PART
    producer = producer_of(cluster)
    produce(producer, name, {"value": b"there", "partition": 3})
    assert read(cluster, name, 1, partition=3)[0].value() == b"there"


def test_configs_are_described_and_altered(cluster: Cluster, admin: AdminClient) -> None:
    name = create_topic(cluster, fresh("configs"), retention_ms="1234567")

    def configs() -> dict[str, ConfigEntry]:
        return dict(result(admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)])))

    before = configs()
    assert {"cleanup.policy", "compression.type", "max.message.bytes", "segment.bytes", "retention.bytes"} <= set(
        before
    )
    assert (before["retention.ms"].value, before["retention.ms"].is_default) == ("1234567", False)
    assert (before["cleanup.policy"].value, before["cleanup.policy"].is_default) == ("delete", True)

    def alter(key: str, value: str | None, operation: AlterConfigOpType) -> Any:
        entry = ConfigEntry(key, value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        return admin.incremental_alter_configs([resource])

    result(alter("retention.ms", "7654321", AlterConfigOpType.SET))
    until(lambda: configs()["retention.ms"].value == "7654321", what="the new setting")
    result(alter("cleanup.policy", "compact", AlterConfigOpType.APPEND))
    until(lambda: configs()["cleanup.policy"].value == "delete,compact", what="the longer list")
    result(alter("retention.ms", None, AlterConfigOpType.DELETE))
    until(lambda: configs()["retention.ms"].is_default, what="the default")
    assert configs()["retention.ms"].value == "604800000"
    assert error_of(alter("retention.ms", "soon", AlterConfigOpType.SET)) == KafkaError.INVALID_CONFIG
    unknown = admin.describe_configs([ConfigResource(ResourceType.TOPIC, fresh("never-made"))])
    assert error_of(unknown) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_brokers_configs_are_described(cluster: Cluster, admin: AdminClient) -> None:
    (broker,) = admin.list_topics(timeout=PATIENCE_S).brokers
    configs = result(admin.describe_configs([ConfigResource(ResourceType.BROKER, str(broker))]))
    assert configs["num.partitions"].value == "1"
    assert configs["auto.create.topics.enable"].value == "true"


def test_groups_are_listed_described_and_deleted(cluster: Cluster, admin: AdminClient) -> None:
    topic, group = create_topic(cluster, fresh("groups"), 2), fresh("group")
    produce(producer_of(cluster), topic, {"value": b"1", "partition": 0}, {"value": b"2", "partition": 1})
    with consumer_of(cluster, group, client_id="a-member") as consumer:
        consumer.subscribe([topic])
        take(consumer, 2)
        consumer.commit(asynchronous=False)
        described = result(admin.describe_consumer_groups([group]))
        assert (described.state, described.partition_assignor) == (ConsumerGroupState.STABLE, "range")
        (member,) = described.members
        assert member.client_id == "a-member"
        assigned = sorted((place.topic, place.partition) for place in member.assignment.topic_partitions)
        assert assigned == [(topic, 0), (topic, 1)]
        assert error_of(admin.delete_consumer_groups([group])) == KafkaError.NON_EMPTY_GROUP
        listed = admin.list_consumer_groups().result(PATIENCE_S)
        assert {found.group_id: found.state for found in listed.valid}[group] == ConsumerGroupState.STABLE
    until(
        lambda: result(admin.describe_consumer_groups([group])).state == ConsumerGroupState.EMPTY,
        what="the member's leaving",
    )
    offsets = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    assert sorted((place.partition, place.offset) for place in offsets.topic_partitions) == [(0, 1), (1, 1)]
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0)])
    result(admin.alter_consumer_group_offsets([moved]))
    offsets = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    assert sorted((place.partition, place.offset) for place in offsets.topic_partitions) == [(0, 0), (1, 1)]
    result(admin.delete_consumer_groups([group]))
    listed = admin.list_consumer_groups().result(PATIENCE_S)
    assert group not in {found.group_id for found in listed.valid}
    assert error_of(admin.delete_consumer_groups([group])) == KafkaError.GROUP_ID_NOT_FOUND


def test_records_are_deleted_up_to_an_offset(cluster: Cluster, admin: AdminClient) -> None:
    topic = create_topic(cluster, fresh("delete-records"))
    produce(producer_of(cluster), topic, *({"value": b"%d" % number} for number in range(10)))
    deleted = result(admin.delete_records([TopicPartition(topic, 0, 4)]))
    assert deleted.low_watermark == 4
    with consumer_of(cluster) as consumer:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S) == (4, 10)
    # The first offset is gone, and so the consumer starts at what is earliest now.
    assert read(cluster, topic, 1)[0].value() == b"4"
    assert error_of(admin.delete_records([TopicPartition(topic, 0, 11)])) == KafkaError.OFFSET_OUT_OF_RANGE
    assert result(admin.delete_records([TopicPartition(topic, 0, -1)])).low_watermark == 10


def test_offsets_are_listed(cluster: Cluster, admin: AdminClient) -> None:
    topic = create_topic(cluster, fresh("list-offsets"))
    # The highest time is not that of the last record.
    times_ms = [START_MS, START_MS + 2000, START_MS + 1000]
    produce(producer_of(cluster), topic, *({"value": b"", "timestamp": time_ms} for time_ms in times_ms))

    def offset(spec: OffsetSpec) -> tuple[int, int]:
        found = result(admin.list_offsets({TopicPartition(topic, 0): spec}))
        return found.offset, found.timestamp

    assert offset(OffsetSpec.earliest()) == (0, -1)
    assert offset(OffsetSpec.latest()) == (3, -1)
    assert offset(OffsetSpec.max_timestamp()) == (1, START_MS + 2000)
    assert offset(OffsetSpec.for_timestamp(START_MS + 1)) == (1, START_MS + 2000)
    assert offset(OffsetSpec.for_timestamp(START_MS + 2001)) == (-1, -1)
