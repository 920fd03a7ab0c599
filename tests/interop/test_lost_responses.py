"""Idempotent producers whose responses get lost: each record is in the log once, and in its place."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.interop import apache_kafka, our_broker, test_franz_go, test_java_client
from tests.interop.cluster import PATIENCE_S, Cluster, fresh
from tests.interop.conftest import wanted_clusters
from tests.interop.lossy_proxy import PRODUCE, LossyProxy
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

RECORDS = 2000
LOST_EVERY = 9  # of the responses to Produce
LOST_MIN = 5  # of a run, for it to have shown something


def is_lost(api: int, number: int) -> bool:
    return api == PRODUCE and number % LOST_EVERY == 0


@dataclass
class Way:
    """To a broker whose advertised address is the proxy's."""

    cluster: Cluster
    proxy: LossyProxy


@pytest.fixture(scope="module", params=wanted_clusters())
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    directory = tmp_path_factory.mktemp(f"lossy-{request.param}")
    with ExitStack() as stack:
        proxy = stack.enter_context(LossyProxy(is_lost))
        advertised = f"127.0.0.1:{proxy.port}"
        if request.param == our_broker.NAME:
            broker = stack.enter_context(our_broker.our_broker(directory, "--advertise", advertised))
        else:
            settings = f"advertised.listeners=PLAINTEXT://{advertised}\n"
            broker = stack.enter_context(apache_kafka.apache_kafka(directory, settings=settings))
        proxy.upstream = broker.address
        yield Way(Cluster(request.param, advertised), proxy)


def by_librdkafka(bootstrap: str, topic: str, count: int) -> None:
    refused: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "batch.num.messages": 10,
            "linger.ms": 1,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 50,
            "retry.backoff.ms": 10,
            "log_level": 2,
        }
    )
    for number in range(count):
        producer.produce(
            topic,
            str(number),
            partition=0,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    assert producer.flush(2 * PATIENCE_S) == 0
    assert refused == []


def by_franz_go(bootstrap: str, topic: str, count: int) -> None:
    _run([str(test_franz_go.client()), "produce", bootstrap, topic, str(count)])


def by_java(bootstrap: str, topic: str, count: int) -> None:
    _run([*test_java_client.client(), "produce", bootstrap, topic, str(count)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("produce", [by_librdkafka, by_franz_go, by_java])
def test_every_record_is_there_once_and_in_order(way: Way, produce: Callable[[str, str, int], None]) -> None:
    topic = create_topic(way.cluster, fresh("lost"))
    lost_before = way.proxy.lost
    way.proxy.is_lossy = True
    produce(way.cluster.bootstrap, topic, RECORDS)
    way.proxy.is_lossy = False
    assert way.proxy.lost - lost_before >= LOST_MIN
    assert values_of(way.cluster, topic) == [str(number) for number in range(RECORDS)]


def values_of(cluster: Cluster, topic: str) -> list[str]:
    """All that is in the first partition."""
    values: list[str] = []
    consumer = Consumer(
        {"bootstrap.servers": cluster.bootstrap, "group.id": "none", "enable.auto.commit": False, "log_level": 2}
    )
    try:
        place = TopicPartition(topic, 0, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=PATIENCE_S)
        consumer.assign([place])
        while len(values) < end:
            messages = consumer.consume(1000, timeout=PATIENCE_S)
            assert messages, f"only {len(values)} of {end} records came"
            values += [message.value().decode() for message in messages if message.error() is None]
    finally:
        consumer.close()
    return values
