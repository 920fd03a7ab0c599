"""A consumer's session (KIP-227), request by request, against both brokers."""

from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.interop.cluster import Cluster, fresh, until
from tests.interop.raw_client import RawClient
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

VERSION = 12  # the last one that names topics


def fetch(client: RawClient, topic: str, offsets: Mapping[int, int], session: tuple[int, int], **more: Any) -> Any:
    partitions = [
        {"partition": index, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
        for index, offset in offsets.items()
    ]
    forgotten = [{"topic": topic, "partitions": more["forgotten"]}] if "forgotten" in more else []
    fields = {
        "max_wait": more.get("max_wait", 0),
        "min_bytes": 1,
        "max_bytes": more.get("max_bytes", 1 << 20),
        "session_id": session[0],
        "session_epoch": session[1],
        "topics": [{"topic": topic, "partitions": partitions}] if partitions else [],
        "forgotten_topics_data": forgotten,
    }
    return client.ask("fetch", VERSION, fields)


def told(response: Any) -> dict[int, tuple[int, int, bool]]:
    """(error, high watermark, whether there are records) by partition."""
    return {
        one.partition_index: (int(one.error_code), int(one.high_watermark), bool(one.records))
        for topic in response.responses
        for one in topic.partitions
    }


def produce(cluster: Cluster, topic: str, partition: int) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(topic, b"v", partition=partition)
    assert producer.flush(30) == 0


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = create_topic(cluster, fresh("sessions"), 3)
    with RawClient(cluster) as client:
        # Apache Kafka names a leader before that one leads.
        nothing = dict.fromkeys(range(3), (0, 0, False))
        until(
            lambda: told(fetch(client, name, dict.fromkeys(range(3), 0), (0, -1))) == nothing, what="a new topic is led"
        )
    return name


def test_a_session_tells_what_changed_and_nothing_else(cluster: Cluster, topic: str) -> None:
    with RawClient(cluster) as client:
        first = fetch(client, topic, {0: 0, 1: 0, 2: 0}, (0, 0))
        session = int(first.session_id)
        assert session
        assert told(first) == {0: (0, 0, False), 1: (0, 0, False), 2: (0, 0, False)}
        assert told(fetch(client, topic, {}, (session, 1))) == {}
        produce(cluster, topic, 1)
        assert told(fetch(client, topic, {}, (session, 2), max_wait=10_000)) == {1: (0, 1, True)}
        # It was not consumed, so it is there again.
        assert told(fetch(client, topic, {}, (session, 3))) == {1: (0, 1, True)}
        assert told(fetch(client, topic, {1: 1}, (session, 4))) == {}
        produce(cluster, topic, 2)
        assert told(fetch(client, topic, {}, (session, 5), forgotten=[2])) == {}
        assert told(fetch(client, topic, {2: 0}, (session, 6))) == {2: (0, 1, True)}
        assert told(fetch(client, topic, {0: 7, 2: 1}, (session, 7))) == {0: (1, -1, False)}
        assert told(fetch(client, topic, {}, (session, 8))) == {0: (1, -1, False)}
        assert told(fetch(client, topic, {0: 0}, (session, 9))) == {0: (0, 0, False)}
        assert told(fetch(client, topic, {}, (session, 10))) == {}


def test_partitions_take_turns(cluster: Cluster, topic: str) -> None:
    for _ in range(2):
        for partition in range(3):
            produce(cluster, topic, partition)
    with RawClient(cluster) as client:
        offsets = dict.fromkeys(range(3), 0)
        turns: list[int] = []
        session, epoch, asked = 0, 0, offsets
        for _ in range(6):
            response = fetch(client, topic, asked, (session, epoch), max_bytes=1)
            session, epoch = int(response.session_id), epoch + 1
            (index,) = (index for index, (_, _, has_records) in told(response).items() if has_records)
            turns.append(index)
            offsets[index] += 1
            asked = {index: offsets[index]}
        # Apache Kafka does not count the full fetch as anybody's turn.
        assert sorted(turns[1:4]) == [0, 1, 2]


def test_a_session_goes_on_with_the_next_epoch_only(cluster: Cluster, topic: str) -> None:
    with RawClient(cluster) as client:
        session = int(fetch(client, topic, {0: 0}, (0, 0)).session_id)
        for number, epoch, error in ((session, 2, 71), (session, 1, 0), (session, 1, 71), (session ^ 1, 1, 70)):
            response = fetch(client, topic, {}, (number, epoch))
            assert int(response.error_code) == error
            assert int(response.session_id) == (session if not error else 0)
        ended = fetch(client, topic, {0: 0}, (session, -1))
        assert (int(ended.error_code), int(ended.session_id)) == (0, 0)
        assert told(ended) == {0: (0, 0, False)}
        assert int(fetch(client, topic, {}, (session, 2)).error_code) == 70


def test_a_session_whose_last_partition_is_forgotten_ends(cluster: Cluster, topic: str) -> None:
    with RawClient(cluster) as client:
        session = int(fetch(client, topic, {0: 0}, (0, 0)).session_id)
        ended = fetch(client, topic, {}, (session, 1), forgotten=[0])
        assert (int(ended.error_code), int(ended.session_id), told(ended)) == (0, 0, {})
        assert int(fetch(client, topic, {}, (session, 2)).error_code) == 70
