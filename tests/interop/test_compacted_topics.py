"""What compaction leaves is the same on both brokers, and every client reads past the gaps."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Place
from confluent_kafka import Consumer, Producer, TopicPartition

from streamcore.transport import connect
from streamcore.types import TP
from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.kafka_jars import run_kafka
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

KEYS = 7
RECORDS = 4000
VALUE_BYTES = 700
SEGMENT_BYTES = 1 << 20  # the least that Apache Kafka takes
Row = tuple[int, bytes | None, bytes | None]  # offset, key, value without its padding


@pytest.fixture
def impatient(cluster: Cluster) -> Iterator[Cluster]:
    """A broker whose cleaner looks ten times a second."""
    alter = ["--bootstrap-server", cluster.bootstrap, "--alter", "--entity-type", "brokers", "--entity-default"]
    run_kafka("kafka.admin.ConfigCommand", *alter, "--add-config", "log.cleaner.backoff.ms=100")
    yield cluster
    run_kafka("kafka.admin.ConfigCommand", *alter, "--delete-config", "log.cleaner.backoff.ms")


def fill(cluster: Cluster, topic: str) -> None:
    """Old values of a few keys, one key for good, one that is deleted, and enough after them to close the segments."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "log_level": 2})
    producer.produce(topic, key=b"once", value=b"stays")
    producer.produce(topic, key=b"gone", value=b"old")
    producer.produce(topic, key=b"gone", value=None)
    producer.flush(PATIENCE_S)
    for number in range(RECORDS):
        producer.produce(topic, key=b"%d" % (number % KEYS), value=b"%d" % number + b"." * VALUE_BYTES)
        if number % 100 == 99:
            assert producer.flush(PATIENCE_S) == 0


def rows_with_confluent(cluster: Cluster, topic: str) -> list[Row]:
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    rows: list[Row] = []
    try:
        while (message := consumer.poll(PATIENCE_S)) is not None and message.error() is None:
            value = message.value()
            rows.append((message.offset(), message.key(), None if value is None else value.rstrip(b".")))
    finally:
        consumer.close()
    return rows


async def rows_with_aiokafka(cluster: Cluster, topic: str) -> list[Row]:
    place = Place(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, enable_auto_commit=False) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        rows: list[Row] = []
        async with asyncio.timeout(PATIENCE_S):
            while await consumer.position(place) < end:
                for record in (await consumer.getmany(timeout_ms=500)).get(place, []):
                    value = record.value
                    rows.append((record.offset, record.key, None if value is None else value.rstrip(b".")))
    return rows


async def rows_with_our_own(cluster: Cluster, topic: str) -> list[Row]:
    transport = connect(f"kafka://{cluster.bootstrap}")
    await transport.start()
    rows: list[Row] = []
    try:
        tp, position = TP(topic, 0), 0
        end = (await transport.list_offsets([tp], -1))[tp]
        async with asyncio.timeout(PATIENCE_S):
            while position < end:
                for part in await transport.fetch({tp: position}, max_wait_ms=500):
                    assert part.error is None
                    position = part.next_offset
                    for record in part.records:
                        value = record.value
                        rows.append((record.offset, record.key, None if value is None else value.rstrip(b".")))
    finally:
        await transport.stop()
    return rows


def test_every_client_reads_what_compaction_leaves(impatient: Cluster) -> None:
    cluster = impatient
    settings = {"segment_bytes": str(SEGMENT_BYTES), "min_cleanable_dirty_ratio": "0.01"}
    topic = create_topic(cluster, fresh("compacted"), cleanup_policy="compact", **settings)
    fill(cluster, topic)
    end = RECORDS + 3

    # All closed segments are clean when little more than the active one is left.
    active_rows_max = SEGMENT_BYTES // VALUE_BYTES
    rows = until(
        lambda: [] if len(rows := rows_with_confluent(cluster, topic)) > active_rows_max + 2 * KEYS else rows,
        what="compaction",
        seconds=60,
    )
    assert rows[:2] == [(0, b"once", b"stays"), (2, b"gone", None)]
    newest = {key: (offset, value) for offset, key, value in rows}
    for number in range(RECORDS - KEYS, RECORDS):
        assert newest[b"%d" % (number % KEYS)] == (number + 3, b"%d" % number)
    assert rows[-1][0] == end - 1
    assert rows == sorted(rows)
    assert asyncio.run(rows_with_aiokafka(cluster, topic)) == rows
    assert asyncio.run(rows_with_our_own(cluster, topic)) == rows
    output = run_kafka(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", cluster.bootstrap, "--topic", topic, "--from-beginning"),
        *("--timeout-ms", "20000", "--max-messages", str(len(rows))),
        *("--property", "print.offset=true", "--property", "print.value=false"),
    )
    offsets = [int(line.removeprefix("Offset:")) for line in output.splitlines() if line.startswith("Offset:")]
    assert offsets == [offset for offset, _, _ in rows], json.dumps(offsets[:20])
