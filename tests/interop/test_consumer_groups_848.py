"""Clients that follow the group protocol of KIP-848: the broker assigns, each member follows at its own pace.

The times are the broker's here, so these brokers have short ones; nothing else of them differs from the others.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupType, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.interop import apache_kafka, our_broker
from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.conftest import wanted_clusters
from tests.interop.kafka_jars import kafka_command, run_kafka
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    PARTITIONS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.test_franz_go import client as franz_go
from tests.interop.test_java_tools import CONSOLE_CONSUMER, VERIFIABLE_CONSUMER, produce_numbers, values_of
from tests.interop.topics import create_topic, produce

pytestmark = pytest.mark.interop

GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
SETTINGS = {
    "group.consumer.min.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "group.consumer.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "group.consumer.min.heartbeat.interval.ms": str(HEARTBEAT_INTERVAL_MS),
    "group.consumer.heartbeat.interval.ms": str(HEARTBEAT_INTERVAL_MS),
}
SCRIPT = Path(__file__).with_name("member_confluent_kafka.py")
Join = Callable[[str, str], Member]


@pytest.fixture(scope="module", params=wanted_clusters())
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == our_broker.NAME:
        options = [option for name, value in SETTINGS.items() for option in ("--set", f"{name}={value}")]
        with our_broker.our_broker(directory, *options) as running:
            yield running
    else:
        settings = "".join(f"{name}={value}\n" for name, value in SETTINGS.items())
        with apache_kafka.apache_kafka(directory, settings=settings) as running:
            yield running


def confluent(cluster: Cluster) -> Join:
    return lambda topic, group: Member([sys.executable, SCRIPT, cluster.bootstrap, topic, group, "consumer"])


def classic(cluster: Cluster) -> Join:
    times = [str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    return lambda topic, group: Member([sys.executable, SCRIPT, cluster.bootstrap, topic, group, *times])


def java(cluster: Cluster) -> Join:
    def join(topic: str, group: str) -> Member:
        place = ["--bootstrap-server", cluster.bootstrap, "--topic", topic, "--group-id", group, "--verbose"]
        return Member(kafka_command(VERIFIABLE_CONSUMER, *place, "--group-protocol", "consumer"), values_of)

    return join


def go(cluster: Cluster) -> Join:
    return lambda topic, group: Member([franz_go(), "member", cluster.bootstrap, topic, group])


def in_turn(*joins: Join) -> Join:
    """The first member joins as the first says, and so on."""
    turns = itertools.cycle(joins)
    return lambda topic, group: next(turns)(topic, group)


@pytest.mark.parametrize("client", [confluent, java, go])
def test_members_join_leave_and_die_and_no_record_is_missed(
    cluster: Cluster, client: Callable[[Cluster], Join]
) -> None:
    check_members_joining_leaving_and_dying(cluster, client(cluster))


def test_clients_of_different_makes_share_a_group(cluster: Cluster) -> None:
    check_members_joining_leaving_and_dying(cluster, in_turn(confluent(cluster), java(cluster), go(cluster)))


@pytest.mark.parametrize("first", ["classic", "consumer"])
def test_a_group_changes_its_protocol_while_it_runs(cluster: Cluster, first: str) -> None:
    turns = [classic(cluster), confluent(cluster), classic(cluster)]
    if first == "consumer":
        turns = [confluent(cluster), classic(cluster), confluent(cluster)]
    check_members_joining_leaving_and_dying(cluster, in_turn(*turns))


def test_javas_console_consumer_reads(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("console"), 3), fresh("console")
    produce_numbers(cluster, topic, 20)
    arguments = ["--topic", topic, "--group", group, "--from-beginning", "--max-messages", "20"]
    arguments += ["--consumer-property", "group.protocol=consumer", "--timeout-ms", "30000"]
    output = run_kafka(CONSOLE_CONSUMER, "--bootstrap-server", cluster.bootstrap, *arguments)
    assert set(map(str, range(20))) <= set(output.split())


class Reader:
    """One confluent-kafka consumer of the newer protocol, polled by hand."""

    def __init__(self, cluster: Cluster, group: str, **settings: str) -> None:
        self.consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": group,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )
        self.seen: list[str] = []

    def poll(self) -> "set[tuple[str, int]]":
        """What it is assigned, after it has read what there is at once."""
        for record in self.consumer.consume(100, timeout=0.1):
            assert record.error() is None, record.error()
            self.seen.append(record.value().decode())
        return {(place.topic, place.partition) for place in self.consumer.assignment()}

    def until_assigned(self, count: int, what: str) -> "set[tuple[str, int]]":
        return until(lambda: (found := self.poll()) and len(found) == count and found, what=what)


def every(topic: str) -> "set[tuple[str, int]]":
    return {(topic, partition) for partition in range(PARTITIONS)}


def test_a_regular_expression_is_the_brokers_to_follow(cluster: Cluster) -> None:
    prefix = fresh("regex")
    create_topic(cluster, f"{prefix}-a", 2)
    reader = Reader(cluster, fresh("regex"))
    reader.consumer.subscribe([f"^{prefix}-.*"])
    try:
        reader.until_assigned(2, "the topic that was there")
        create_topic(cluster, f"{prefix}-b", 3)
        produce(cluster, f"{prefix}-b", [(b"new", 1_700_000_000_000)])
        reader.until_assigned(5, "the topic that came")
        until(lambda: reader.poll() and reader.seen == ["new"], what="its record")
    finally:
        reader.consumer.close()


def test_a_static_member_finds_its_partitions_again(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("static"), PARTITIONS), fresh("static")
    readers = [Reader(cluster, group, group_instance_id=name) for name in ("one", "two")]
    try:
        for reader in readers:
            reader.consumer.subscribe([topic])
        until(lambda: {len(reader.poll()) for reader in readers} == {PARTITIONS // 2}, what="a half each")
        had = readers[0].poll()
        # It goes without leaving for good, which is what a static member's close means.
        readers[0].consumer.close()
        readers[0] = Reader(cluster, group, group_instance_id="one")
        readers[0].consumer.subscribe([topic])
        assert readers[0].until_assigned(PARTITIONS // 2, "its half") == had
        assert readers[1].poll() == every(topic) - had
    finally:
        for reader in readers:
            reader.consumer.close()


def test_administrators_see_the_group(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("seen"), PARTITIONS), fresh("seen")
    produce(cluster, topic, [(b"x", 1_700_000_000_000)] * 3)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    reader = Reader(cluster, group)
    reader.consumer.subscribe([topic])
    try:
        reader.until_assigned(PARTITIONS, "everything")
        until(lambda: reader.poll() and len(reader.seen) == 3, what="the records")
        reader.consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
        listed = admin.list_consumer_groups(types={ConsumerGroupType.CONSUMER}).result(PATIENCE_S)
        assert [(found.state, found.type) for found in listed.valid if found.group_id == group] == [
            (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
        ]
        described = admin.describe_consumer_groups([group])[group].result(PATIENCE_S)
        assert (described.state, described.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
        assert described.partition_assignor == "uniform"
        (member,) = described.members
        assert {(place.topic, place.partition) for place in member.assignment.topic_partitions} == every(topic)
        state, members, offsets = (
            run_kafka(GROUPS, "--bootstrap-server", cluster.bootstrap, "--describe", "--group", group, *options)
            for options in (["--state", "--verbose"], ["--members", "--verbose"], [])
        )
        assert re.search(rf"^{group} .* uniform +Stable +1 +1 +1 *$", state, re.MULTILINE), state
        assert re.search(rf"^{group} .* 1 +{topic}:0,1,2,3,4,5 ", members, re.MULTILINE), members
        assert re.search(rf"^{group} +{topic} +0 +2 +3 +1 ", offsets, re.MULTILINE), offsets
    finally:
        reader.consumer.close()
    until(
        lambda: admin.describe_consumer_groups([group])[group].result(PATIENCE_S).state == ConsumerGroupState.EMPTY,
        what="an empty group",
    )
    assert admin.delete_consumer_groups([group])[group].result(PATIENCE_S) is None
    assert group not in run_kafka(GROUPS, "--bootstrap-server", cluster.bootstrap, "--list")
