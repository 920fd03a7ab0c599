"""Topics and records for tests of clients that are not there to test the making of these."""

from collections.abc import Iterable

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.interop.cluster import PATIENCE_S, Cluster, until


def create_topic(cluster: Cluster, name: str, partitions: int = 1, **configs: str) -> str:
    """Create a topic and wait until the broker tells of its partitions; its name."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 2})
    topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in configs.items()})
    admin.create_topics([topic])[name].result(PATIENCE_S)
    until(lambda: _has_leaders(admin, name, partitions), what=f"topic {name}")
    return name


def _has_leaders(admin: AdminClient, name: str, partitions: int) -> bool:
    try:
        found = admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions
    except KafkaException:
        return False
    return len(found) == partitions and all(partition.leader >= 0 for partition in found.values())


def produce(cluster: Cluster, topic: str, records: Iterable[tuple[bytes, int]]) -> None:
    """Values with their times in milliseconds, to the first partition, acknowledged."""
    refused: list[object] = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 5, "log_level": 2})
    for value, timestamp_ms in records:
        producer.produce(
            topic,
            value,
            partition=0,
            timestamp=timestamp_ms,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    assert producer.flush(PATIENCE_S) == 0
    assert refused == []
