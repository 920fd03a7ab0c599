"""Clients that follow the group protocol of KIP-848: the broker assigns, each member follows at its own pace.

The times are the broker's here, so these brokers have short ones; nothing else of them differs from the others.
"""

import itertools
import re
import sys
import uuid
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
from tests.interop.raw_client import RawClient
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


class RawMembers:
    """Members that send heartbeats by hand, to one group."""

    def __init__(self, client: RawClient, topic: str) -> None:
        self.client, self.topic, self.group = client, topic, fresh("raw-848")
        self.ids: dict[str, str] = {}
        self.topic_id = uuid.UUID(int=0)

    def say(self, name: str, epoch: int, *, owned: "list[int] | None" = None, **fields: object) -> object:
        """(error, epoch, partitions where the answer has them); a member has its own id as long as it is called so."""
        request: dict[str, object] = {"group_id": self.group, "member_epoch": epoch}
        request["member_id"] = self.ids.setdefault(name, str(uuid.uuid4()))
        topic_id = self.topic_id
        partitions = [{"topic_id": topic_id, "partitions": owned}] if owned else []
        request |= {"topic_partitions": None if owned is None else partitions, "subscribed_topic_names": None}
        if epoch == 0:
            request |= {"rebalance_timeout": 60_000, "subscribed_topic_names": [self.topic], "topic_partitions": []}
        answer = self.client.ask("consumer_group_heartbeat", 1, request | fields)
        if answer.assignment is None:
            return answer.error_code.name, answer.member_epoch, None
        for topic in answer.assignment.topic_partitions:
            self.topic_id = topic.topic_id
        found = sorted(p for topic in answer.assignment.topic_partitions for p in topic.partitions)
        return answer.error_code.name, answer.member_epoch, found

    def epochs(self) -> object:
        """(state, group epoch, target epoch, the members' epochs)"""
        (group,) = self.client.ask("consumer_group_describe", 1, {"group_ids": [self.group]}).groups
        members = sorted(member.member_epoch for member in group.members)
        return group.group_state, group.group_epoch, group.assignment_epoch, members


@pytest.fixture
def raw(cluster: Cluster) -> Iterator[RawMembers]:
    topic = create_topic(cluster, fresh("raw-848"), 4)
    with RawClient(cluster) as client:
        client.ask("find_coordinator", 3, {"key": "any", "key_type": 0})
        until(
            lambda: client.ask("heartbeat", 0, {"group_id": "any"}).error_code.name == "unknown_member_id",
            what="the coordinator",
        )
        everything = ("none", 1, [0, 1, 2, 3])
        until(lambda: RawMembers(client, topic).say("scout", 0) == everything, what="a topic that the groups know")
        yield RawMembers(client, topic)


def test_partitions_go_from_one_member_to_the_other_step_by_step(raw: RawMembers) -> None:
    assert raw.say("a", 0) == ("none", 1, [0, 1, 2, 3])
    assert raw.say("a", 1) == ("none", 1, None)
    assert raw.say("a", 2) == ("fenced_member_epoch", 0, None)
    assert raw.say("b", 0) == ("none", 2, [])
    assert raw.epochs() == ("Reconciling", 2, 2, [1, 2])
    assert raw.say("a", 1, owned=[0, 1, 2, 3]) == ("none", 1, [0, 1])
    assert raw.say("b", 2) == ("none", 2, None)
    assert raw.say("a", 1, owned=[0, 1]) == ("none", 2, None)
    assert raw.say("a", 1, owned=[0, 1]) == ("none", 2, None), "the answer was lost"
    assert raw.say("a", 1, owned=[0, 1, 2]) == ("fenced_member_epoch", 0, None)
    assert raw.say("a", 1) == ("fenced_member_epoch", 0, None)
    assert raw.say("b", 2) == ("none", 2, [2, 3])
    assert raw.epochs() == ("Stable", 2, 2, [2, 2])
    assert raw.say("a", 0) == ("fenced_member_epoch", 0, None)
    assert raw.say("c", 1) == ("unknown_member_id", 0, None)
    assert raw.say("a", 2, subscribed_topic_names=[raw.topic, "nothing"]) == ("none", 3, None)
    assert raw.say("a", 3, server_assignor="range", rack_id="r") == ("none", 3, None)
    assert raw.say("a", -1) == ("none", -1, None)
    assert raw.epochs() == ("Assigning", 4, 3, [2])
    assert raw.say("b", 2) == ("none", 4, [0, 1, 2, 3])
    assert raw.say("b", -1) == ("none", -1, None)
    assert raw.epochs() == ("Empty", 5, 4, [])


def test_a_static_member_holds_its_place(raw: RawMembers) -> None:
    assert raw.say("a", 0, instance_id="i") == ("none", 1, [0, 1, 2, 3])
    assert raw.say("a", 0, instance_id="i") == ("unreleased_instance_id", 0, None)
    assert raw.say("b", 0, instance_id="i") == ("unreleased_instance_id", 0, None)
    assert raw.say("b", 1, instance_id="i") == ("fenced_instance_id", 0, None)
    assert raw.say("b", -1, instance_id="i") == ("fenced_instance_id", 0, None)
    assert raw.say("a", 1, instance_id="other") == ("unknown_member_id", 0, None)
    assert raw.say("a", -2, instance_id="i") == ("none", -2, None)
    assert raw.say("a", 1, instance_id="i") == ("fenced_member_epoch", 0, None)
    assert raw.say("b", 0, instance_id="i") == ("none", 1, [0, 1, 2, 3])
    assert raw.epochs() == ("Stable", 1, 1, [1])
    assert raw.say("b", -1) == ("none", -1, None)
    assert raw.say("b", -1, instance_id="i") == ("unknown_member_id", 0, None)


def test_offsets_are_the_members_whose_epoch_is_right(raw: RawMembers) -> None:
    raw.say("a", 0)

    def commit(member_id: str, epoch: int, version: int = 9) -> str:
        partitions = [{"partition_index": 0, "committed_offset": 0, "committed_metadata": ""}]
        fields = {"group_id": raw.group, "member_id": member_id, "generation_id_or_member_epoch": epoch}
        fields["topics"] = [{"name": raw.topic, "partitions": partitions}]
        response = raw.client.ask("offset_commit", version, fields)
        return str(response.topics[0].partitions[0].error_code.name)

    def fetch(member_id: "str | None", epoch: int) -> str:
        group = {"group_id": raw.group, "member_id": member_id, "member_epoch": epoch, "topics": None}
        return str(raw.client.ask("offset_fetch", 9, {"groups": [group]}).groups[0].error_code.name)

    member = raw.ids["a"]
    assert [commit(member, 1), commit(member, 2), commit(member, -1)] == [
        "none",
        "stale_member_epoch",
        "stale_member_epoch",
    ]
    assert commit(member, 1, version=8) == "unsupported_version"
    assert [commit("who", 1), commit("", -1)] == ["unknown_member_id", "unknown_member_id"]
    assert [fetch(member, 1), fetch(None, -1)] == ["none", "none"]
    assert [fetch(member, 2), fetch(member, -1)] == ["stale_member_epoch", "stale_member_epoch"]
    assert [fetch("who", 1), fetch("", -1)] == ["unknown_member_id", "unknown_member_id"]
    topic = {"name": raw.topic, "partitions": [{"partition_index": 0}]}
    response = raw.client.ask("offset_delete", 0, {"group_id": raw.group, "topics": [topic]})
    assert response.topics[0].partitions[0].error_code.name == "group_subscribed_to_topic"


def test_classic_requests_to_a_group_of_the_newer_protocol(raw: RawMembers) -> None:
    raw.say("a", 0)
    place = {"group_id": raw.group, "member_id": raw.ids["a"]}
    described = [raw.client.ask("describe_groups", version, {"groups": [raw.group]}).groups[0] for version in (5, 6)]
    assert [(group.error_code.name, group.group_state) for group in described] == [
        ("none", "Dead"),
        ("group_id_not_found", "Dead"),
    ]
    listed = raw.client.ask("list_groups", 5, {"types_filter": ["consumer"], "states_filter": ["stable"]}).groups
    assert [(g.protocol_type, g.group_state, g.group_type) for g in listed if g.group_id == raw.group] == [
        ("consumer", "Stable", "consumer")
    ]
    assert raw.client.ask("delete_groups", 2, {"groups_names": [raw.group]}).results[0].error_code.name == (
        "non_empty_group"
    )
    assert raw.client.ask("heartbeat", 4, {**place, "generation_id": 1}).error_code.name == "unknown_member_id"
    assert raw.client.ask("sync_group", 3, {**place, "generation_id": 1}).error_code.name == "unknown_member_id"
    times = {"session_timeout": 10_000, "rebalance_timeout": 10_000, "member_id": "", "group_id": raw.group}
    connect = {"protocol_type": "connect", "protocols": [{"name": "range", "metadata": b""}]}
    assert raw.client.ask("join_group", 9, times | connect).error_code.name == "inconsistent_group_protocol"
    members = [{"member_id": raw.ids["a"]}, {"member_id": "who"}]
    left = raw.client.ask("leave_group", 5, {"group_id": raw.group, "members": members})
    assert [member.error_code.name for member in left.members] == ["none", "unknown_member_id"]
    assert raw.epochs() == ("Empty", 2, 1, [])
