"""Topics for tests of clients that are not there to test the making of topics."""

from confluent_kafka import KafkaException
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
