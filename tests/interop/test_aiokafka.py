"""aiokafka (old versions of the protocol, in pure Python) against both brokers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidPartitionsError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import PATIENCE_S, START_MS, Cluster, fresh
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

TOPIC_ALREADY_EXISTS, INVALID_TOPIC, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG = 36, 17, 37, 38, 40
UNKNOWN_TOPIC_OR_PARTITION = 3


def run(scenario: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(2 * PATIENCE_S):
            return await scenario

    return asyncio.run(bounded())


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """For what a broker does and does not announce; bounded by `run`."""
    while not await look():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@asynccontextmanager
async def producing(cluster: Cluster, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, **settings) as producer:
        yield producer


@asynccontextmanager
async def consuming(cluster: Cluster, *topics: str, **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=cluster.bootstrap, **(defaults | settings))
    async with consumer:
        yield consumer


@asynccontextmanager
async def administering(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def take(consumer: AIOKafkaConsumer, count: int) -> list[Any]:
    """The next `count` records, as they come."""
    taken: list[Any] = []
    while len(taken) < count:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=count - len(taken))).values():
            taken.extend(records)
    return taken


async def read(cluster: Cluster, topic: str, count: int) -> list[Any]:
    async with consuming(cluster) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        return await take(consumer, count)


async def produce(cluster: Cluster, topic: str, *records: dict[str, Any], **settings: Any) -> list[Any]:
    async with producing(cluster, **settings) as producer:
        futures = [await producer.send(topic, **record) for record in records]
        return list(await asyncio.gather(*futures))


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_from_every_compression(cluster: Cluster, compression: str | None) -> None:
    topic = create_topic(cluster, fresh("compression"))
    values = [b"%d:" % number + b"text " * 100 for number in range(500)]
    run(produce(cluster, topic, *({"value": value} for value in values), compression_type=compression))
    records = run(read(cluster, topic, len(values)))
    assert [record.value for record in records] == values
    assert [record.offset for record in records] == list(range(len(values)))


def test_keys_headers_timestamps_and_nulls_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("fields"))
    headers = [("twice", b"1"), ("twice", b"2"), ("null", None), ("empty", b""), ("näme", bytes(range(256)))]
    sent = [(b"key", b"value"), (None, b"no key"), (b"no value", None), (b"", b"")]
    records = [
        {"key": key, "value": value, "timestamp_ms": START_MS + number, "headers": headers if number == 0 else []}
        for number, (key, value) in enumerate(sent)
    ]
    run(produce(cluster, topic, *records))
    came = run(read(cluster, topic, len(sent)))
    assert [(record.key, record.value) for record in came] == sent
    assert [record.timestamp for record in came] == [START_MS + number for number in range(len(sent))]
    assert [record.headers for record in came] == [tuple(headers), (), (), ()]


def test_the_same_key_goes_to_the_partition_that_java_would_choose(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("keys"), 7)
    keys = [f"key-{number}".encode() for number in range(50)]
    acknowledged = run(produce(cluster, topic, *({"key": key, "value": b""} for key in keys * 2)))
    assert [place.partition for place in acknowledged] == [partition_for(key, 7) for key in keys * 2]


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_records_arrive_with_every_kind_of_acknowledgement(cluster: Cluster, acks: int | str) -> None:
    topic = create_topic(cluster, fresh("acks"))
    values = [b"%d" % number for number in range(300)]
    acknowledged = run(produce(cluster, topic, *({"value": value} for value in values), acks=acks))
    if acks != 0:
        assert [place.offset for place in acknowledged] == list(range(300))
    assert [record.value for record in run(read(cluster, topic, 300))] == values


def test_large_batches_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("large"))
    values = [number.to_bytes(4) * 250 for number in range(5_000)]
    run(produce(cluster, topic, *({"value": value} for value in values), max_batch_size=900_000, linger_ms=100))
    assert [record.value for record in run(read(cluster, topic, len(values)))] == values


def test_a_batch_made_by_hand_comes_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("by-hand"))

    async def scenario() -> tuple[int, int]:
        async with producing(cluster) as producer:
            batch = producer.create_batch()
            for number in range(10):
                assert batch.append(key=None, value=b"%d" % number, timestamp=None) is not None
            place = await (await producer.send_batch(batch, topic, partition=0))
            return place.offset, batch.record_count()

    assert run(scenario()) == (0, 10)
    assert len(run(read(cluster, topic, 10))) == 10


def test_a_record_larger_than_the_topic_allows_is_refused(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("oversized"), max_message_bytes="100000")
    with pytest.raises(MessageSizeTooLargeError):
        run(produce(cluster, topic, {"value": bytes(200_000)}, max_request_size=10_000_000))


def test_an_idempotent_producer_delivers_each_record_once_and_in_order(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("idempotent"))
    values = [b"%d" % number for number in range(1000)]
    records = [{"value": value} for value in values]
    run(produce(cluster, topic, *records, enable_idempotence=True, max_batch_size=500))
    run(produce(cluster, topic, {"value": b"last"}))
    assert [record.value for record in run(read(cluster, topic, 1001))] == [*values, b"last"]


def test_a_producer_makes_the_topic_that_it_misses(cluster: Cluster) -> None:
    (place,) = run(produce(cluster, fresh("made-by-producing"), {"value": b"first"}))
    assert (place.partition, place.offset) == (0, 0)


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster) -> None:
    script = Path(__file__).with_name("member_aiokafka.py")
    settings = [str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member([sys.executable, script, cluster.bootstrap, topic, group, *settings])
    )


def test_a_group_goes_on_where_it_committed(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("resume")), fresh("group")
    run(produce(cluster, topic, *({"value": b"%d" % number} for number in range(20))))

    async def scenario() -> list[bytes]:
        async with consuming(cluster, topic, group_id=group) as consumer:
            await take(consumer, 7)
            await consumer.commit()
        async with consuming(cluster, topic, group_id=group) as consumer:
            return [record.value for record in await take(consumer, 13)]

    assert run(scenario()) == [b"%d" % number for number in range(7, 20)]


def test_a_committed_offset_keeps_its_metadata(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("metadata"), 3), fresh("group")
    partitions = [TopicPartition(topic, number) for number in range(3)]

    async def scenario() -> tuple[Any, Any]:
        async with consuming(cluster, group_id=group) as consumer, administering(cluster) as admin:
            consumer.assign(partitions)
            await consumer.commit({partitions[0]: OffsetAndMetadata(5, "node-1 ✓"), partitions[1]: 7})
            return (
                [await consumer.committed(partition) for partition in partitions],
                await admin.list_consumer_group_offsets(group),
            )

    committed, listed = run(scenario())
    assert committed == [5, 7, None]
    assert listed == {partitions[0]: OffsetAndMetadata(5, "node-1 ✓"), partitions[1]: OffsetAndMetadata(7, "")}


def test_an_offset_is_found_by_time(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("time"))
    records = ({"value": b"%d" % number, "timestamp_ms": START_MS + number * 1000} for number in range(100))
    run(produce(cluster, topic, *records))
    place = TopicPartition(topic, 0)

    async def scenario() -> tuple[list[Any], bytes]:
        async with consuming(cluster) as consumer:
            consumer.assign([place])
            times_ms = [START_MS - 5, START_MS + 50_000, START_MS + 50_001, START_MS + 100_000]
            found = [(await consumer.offsets_for_times({place: time_ms}))[place] for time_ms in times_ms]
            consumer.seek(place, found[2].offset)
            return found, (await take(consumer, 1))[0].value

    found, value = run(scenario())
    assert found == [
        OffsetAndTimestamp(0, START_MS),
        OffsetAndTimestamp(50, START_MS + 50_000),
        OffsetAndTimestamp(51, START_MS + 51_000),
        None,
    ]
    assert value == b"51"


def test_a_consumer_seeks_to_both_ends_and_between(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("seek"))
    run(produce(cluster, topic, *({"value": b"%d" % number} for number in range(100))))
    place = TopicPartition(topic, 0)

    async def scenario() -> None:
        async with consuming(cluster) as consumer:
            consumer.assign([place])
            for offset in (50, 10, 99):
                consumer.seek(place, offset)
                assert (await take(consumer, 1))[0].value == b"%d" % offset
            await consumer.seek_to_end(place)
            assert await consumer.position(place) == 100
            await consumer.seek_to_beginning(place)
            assert await consumer.position(place) == 0
            assert await consumer.beginning_offsets([place]) == {place: 0}
            assert await consumer.end_offsets([place]) == {place: 100}

    run(scenario())


def test_a_consumer_past_the_end_is_told(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("past-the-end"))

    async def scenario() -> None:
        async with consuming(cluster, auto_offset_reset="none") as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            consumer.seek(TopicPartition(topic, 0), 1000)
            await consumer.getone()

    with pytest.raises(OffsetOutOfRangeError):
        run(scenario())


def codes(answer: Any) -> list[int]:
    """Of a response about topics."""
    errors = answer.topic_errors if hasattr(answer, "topic_errors") else answer.topic_error_codes
    return [error[1] for error in errors]


def test_topics_are_made_described_and_deleted(cluster: Cluster) -> None:
    name = fresh("admin")

    async def scenario() -> None:
        async with administering(cluster) as admin:
            new = NewTopic(name, 3, 1, topic_configs={"retention.ms": "1234567"})
            assert codes(await admin.create_topics([new])) == [0]
            await until(lambda: listed(admin, True))
            (described,) = await admin.describe_topics([name])
            assert sorted(partition["partition"] for partition in described["partitions"]) == [0, 1, 2]
            assert not described["is_internal"]
            assert codes(await admin.create_topics([new])) == [TOPIC_ALREADY_EXISTS]
            assert codes(await admin.delete_topics([name])) == [0]
            await until(lambda: listed(admin, False))
            assert codes(await admin.delete_topics([name])) == [UNKNOWN_TOPIC_OR_PARTITION]

    async def listed(admin: AIOKafkaAdminClient, wanted: bool) -> bool:
        return (name in await admin.list_topics()) == wanted

    run(scenario())


def test_a_topic_that_cannot_be_is_not_made(cluster: Cluster) -> None:
    wrong = {
        NewTopic("a/b", 1, 1): INVALID_TOPIC,
        NewTopic("zero-partitions", 0, 1): INVALID_PARTITIONS,
        NewTopic("many-replicas", 1, 7): INVALID_REPLICATION_FACTOR,
        NewTopic("bad-config", 1, 1, topic_configs={"retention.ms": "soon"}): INVALID_CONFIG,
    }

    async def scenario() -> None:
        async with administering(cluster) as admin:
            answer = await admin.create_topics(list(wanted))
            assert {topic: code for topic, code, _ in answer.topic_errors} == {
                topic.name: code for topic, code in wrong.items()
            }
            only_checked = await admin.create_topics([NewTopic("only-validated", 1, 1)], validate_only=True)
            assert codes(only_checked) == [0]
            assert not {topic.name for topic in wanted} & set(await admin.list_topics())
            assert "only-validated" not in await admin.list_topics()

    wanted = list(wrong)
    run(scenario())


def test_the_cluster_describes_itself(cluster: Cluster) -> None:
    async def scenario() -> dict[str, Any]:
        async with administering(cluster) as admin:
            return await admin.describe_cluster()

    described = run(scenario())
    assert [f"{broker['host']}:{broker['port']}" for broker in described["brokers"]] == [cluster.bootstrap]
    assert described["controller_id"] == described["brokers"][0]["node_id"]
    assert described["cluster_id"]


def test_partitions_are_added_and_never_taken(cluster: Cluster) -> None:
    name = create_topic(cluster, fresh("grow"), 2)

    async def scenario() -> None:
        async with administering(cluster) as admin:
            await admin.create_partitions({name: NewPartitions(4)})
            await until(lambda: has_partitions(admin, 4))
            with pytest.raises(InvalidPartitionsError):
                await admin.create_partitions({name: NewPartitions(3)})
            with pytest.raises(UnknownTopicOrPartitionError):
                await admin.create_partitions({fresh("never-made"): NewPartitions(3)})

    async def has_partitions(admin: AIOKafkaAdminClient, count: int) -> bool:
        (described,) = await admin.describe_topics([name])
        return len(described["partitions"]) == count

    run(scenario())


def test_configs_are_described_and_altered(cluster: Cluster) -> None:
    name = create_topic(cluster, fresh("configs"), retention_ms="1234567")

    async def config(admin: AIOKafkaAdminClient, key: str) -> str:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: None})])
        ((code, _, _, _, entries),) = answer.resources
        assert code == 0
        ((found, value, *_),) = entries
        assert found == key
        return str(value)

    async def scenario() -> None:
        async with administering(cluster) as admin:
            assert await config(admin, "retention.ms") == "1234567"
            # The old call: what it does not name goes back to its default.
            settings = {"cleanup.policy": "compact"}
            (answer,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
            assert [code for code, *_ in answer.resources] == [0]
            await until(lambda: is_now(admin, "cleanup.policy", "compact"))
            assert await config(admin, "retention.ms") == "604800000"
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, fresh("never-made"))])
            assert [code for code, *_ in answer.resources] == [UNKNOWN_TOPIC_OR_PARTITION]

    async def is_now(admin: AIOKafkaAdminClient, key: str, value: str) -> bool:
        return await config(admin, key) == value

    run(scenario())


def test_groups_are_listed_and_described(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("groups"), 2), fresh("group")
    run(produce(cluster, topic, {"value": b"1", "partition": 0}, {"value": b"2", "partition": 1}))

    async def scenario() -> tuple[Any, Any, Any]:
        async with administering(cluster) as admin:
            async with consuming(cluster, topic, group_id=group, client_id="a-member") as consumer:
                await take(consumer, 2)
                await consumer.commit()
                (while_consuming,) = await admin.describe_consumer_groups([group])
                listed = await admin.list_consumer_groups()
            (afterwards,) = await admin.describe_consumer_groups([group])
            return while_consuming, listed, afterwards

    while_consuming, listed, afterwards = run(scenario())
    ((code, name, state, protocol_type, protocol, members, *_),) = while_consuming.groups
    assert (code, name, state, protocol_type, protocol) == (0, group, "Stable", "consumer", "roundrobin")
    assert [member[-4] for member in members] == ["a-member"]
    assert (group, "consumer") in listed
    ((code, _, state, _, _, members, *_),) = afterwards.groups
    assert (code, state, members) == (0, "Empty", [])


def test_records_are_deleted_up_to_an_offset(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("delete-records"))
    run(produce(cluster, topic, *({"value": b"%d" % number} for number in range(10))))
    place = TopicPartition(topic, 0)

    async def scenario() -> None:
        async with administering(cluster) as admin, consuming(cluster) as consumer:
            assert await admin.delete_records({place: RecordsToDelete(4)}) == {place: 4}
            assert await consumer.beginning_offsets([place]) == {place: 4}
            with pytest.raises(OffsetOutOfRangeError):
                await admin.delete_records({place: RecordsToDelete(11)})

    run(scenario())
