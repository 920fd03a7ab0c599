"""What a cluster of one node says to who would move replicas and leaders."""

from pathlib import Path
from typing import Any

import pytest

from streamcore.broker.server import Server
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from tests.broker.test_connection import make_topic, run
from tests.broker.wire import Client

Elect: Any = messages.ElectLeaders
Reassign: Any = messages.AlterPartitionReassignments
Reassignments: Any = messages.ListPartitionReassignments
Move: Any = messages.AlterReplicaLogDirs
Quorum: Any = messages.DescribeQuorum


@pytest.mark.parametrize("version", range(Elect.first_version, Elect.last_version + 1))
def test_the_leader_is_the_preferred_one_already(tmp_path: Path, version: int) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            asked = [Elect.TopicPartitions(topic=name, partitions=[0, 7]) for name in ("t", "none")]
            response = await client.ask(Elect, version, Elect.Request(topic_partitions=asked, timeout_ms=1000))
            codes = {
                (topic.topic, partition.partition_id): partition.error_code
                for topic in response.replica_election_results
                for partition in topic.partition_result
            }
            assert codes == {
                ("t", 0): ErrorCode.ELECTION_NOT_NEEDED,
                ("t", 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ("none", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ("none", 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            }
            everything = await client.ask(Elect, version, Elect.Request(topic_partitions=None, timeout_ms=1000))
            assert everything.error_code == ErrorCode.NONE
            assert everything.replica_election_results == []

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("topic", "replicas", "code"),
    [
        ("t", [1], ErrorCode.NONE),
        ("t", [2], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ("t", [1, 2], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ("t", [], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ("t", None, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS),
        ("none", [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_partition_stays_on_its_node(tmp_path: Path, topic: str, replicas: list[int] | None, code: ErrorCode) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            partition = Reassign.ReassignablePartition(partition_index=0, replicas=replicas)
            request = Reassign.Request(topics=[Reassign.ReassignableTopic(name=topic, partitions=[partition])])
            response = await client.ask(Reassign, Reassign.last_version, request)
            assert response.error_code == ErrorCode.NONE
            assert response.responses[0].partitions[0].error_code == code
            under_way = await client.ask(Reassignments, 0, Reassignments.Request(topics=None))
            assert (under_way.error_code, under_way.topics) == (ErrorCode.NONE, [])

    run(tmp_path, test, node_id=1)


def test_a_partition_stays_in_the_one_directory(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            here, elsewhere = server.broker.node.directory.path, str(tmp_path / "elsewhere")
            wanted = [(here, "t"), (here, "none"), (elsewhere, "u")]
            request = Move.Request(
                dirs=[
                    Move.AlterReplicaLogDir(path=path, topics=[Move.AlterReplicaLogDirTopic(name=name, partitions=[0])])
                    for path, name in wanted
                ]
            )
            response = await client.ask(Move, Move.last_version, request)
            assert {topic.topic_name: topic.partitions[0].error_code for topic in response.results} == {
                "t": ErrorCode.NONE,
                "none": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                "u": ErrorCode.LOG_DIR_NOT_FOUND,
            }

    run(tmp_path, test)


@pytest.mark.parametrize("version", range(Quorum.first_version, Quorum.last_version + 1))
def test_the_node_is_the_only_voter_on_the_metadata(tmp_path: Path, version: int) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            asked = [
                Quorum.TopicData(topic_name=name, partitions=[Quorum.PartitionData(partition_index=0)])
                for name in ("__cluster_metadata", "t")
            ]
            response = await client.ask(Quorum, version, Quorum.Request(topics=asked))
            metadata, other = (topic.partitions[0] for topic in response.topics)
            assert (metadata.error_code, metadata.leader_id) == (ErrorCode.NONE, 1)
            assert [voter.replica_id for voter in metadata.current_voters] == [1]
            assert other.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            if version >= 2:
                assert [node.node_id for node in response.nodes] == [1]

    run(tmp_path, test, node_id=1)
