"""What a broker answers to hand-made requests: Apache Kafka's answers are recorded, ours must be the same."""

import datetime
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import pytest

from tests.interop.cluster import START_MS, Cluster, fresh, until
from tests.interop.raw_client import ClosedError, RawClient, client_frame
from tests.interop.recorded_answers import CASES, GOOD, NOW, RECORD_SETS, RECORDS, Case, offset_commit, produce, topics
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

CLOSED = "the connection is closed"


def of_coordinator(response: Any) -> Any:
    found = getattr(response, "coordinators", None)
    if found is None:
        return (response.error_code, response.node_id >= 0)
    return [(coordinator.key, coordinator.error_code, coordinator.node_id >= 0) for coordinator in found]


def of_time(time: Any) -> Any:
    return "none" if time in (-1, None) else time - START_MS


def of_offset_fetch(response: Any) -> Any:
    def of_topics(group: Any) -> Any:
        return [
            (
                topic.name,
                partition.partition_index,
                partition.error_code,
                partition.committed_offset,
                partition.metadata,
            )
            for topic in group.topics
            for partition in topic.partitions
        ]

    if hasattr(response, "groups"):
        return [(group.group_id, group.error_code, of_topics(group)) for group in response.groups]
    return (getattr(response, "error_code", ANY), of_topics(response))


# What of a response must be the same; times are relative to START_MS, texts are left out.
# ANY stands for a field that a version does not have.
SUMMARIES: dict[str, Callable[[Any], Any]] = {
    "api_versions": lambda response: (response.error_code, bool(response.api_keys)),
    "metadata": lambda response: [
        (
            topic.error_code,
            topic.name or "",
            sorted((part.partition_index, part.error_code.name) for part in topic.partitions),
        )
        for topic in response.topics
    ],
    "produce": lambda response: [
        (getattr(topic, "name", ANY), part.index, part.error_code, part.base_offset)
        for topic in response.responses
        for part in topic.partition_responses
    ],
    "list_offsets": lambda response: [
        (part.error_code, of_time(part.timestamp), part.offset)
        for topic in response.topics
        for part in topic.partitions
    ],
    "fetch": lambda response: (
        getattr(response, "error_code", ANY),
        [
            (part.error_code, part.high_watermark, getattr(part, "log_start_offset", ANY), bool(part.records))
            for topic in response.responses
            for part in topic.partitions
        ],
    ),
    "find_coordinator": of_coordinator,
    "offset_commit": lambda response: [
        (topic.name, part.partition_index, part.error_code) for topic in response.topics for part in topic.partitions
    ],
    "offset_fetch": of_offset_fetch,
    "join_group": lambda response: (
        response.error_code,
        response.generation_id,
        response.protocol_name or "",
        bool(response.member_id),
        response.leader == response.member_id,
        len(response.members),
    ),
    "consumer_group_heartbeat": lambda response: (
        response.error_code,
        response.member_epoch,
        response.heartbeat_interval,
        response.assignment and sorted(len(topic.partitions) for topic in response.assignment.topic_partitions),
    ),
    "consumer_group_describe": lambda response: sorted(
        (group.group_id, group.error_code, group.group_state, len(group.members)) for group in response.groups
    ),
    "heartbeat": lambda response: response.error_code,
    "sync_group": lambda response: response.error_code,
    "leave_group": lambda response: (
        response.error_code,
        [(member.member_id, member.error_code) for member in getattr(response, "members", ())],
    ),
    "describe_groups": lambda response: [
        (group.error_code, group.group_id, group.group_state, group.protocol_type, len(group.members))
        for group in response.groups
    ],
    "delete_groups": lambda response: [(group.group_id, group.error_code) for group in response.results],
    "init_producer_id": lambda response: (response.error_code, response.producer_id >= 0, response.producer_epoch),
    "create_topics": lambda response: [
        (topic.error_code, getattr(topic, "num_partitions", ANY), getattr(topic, "replication_factor", ANY))
        for topic in response.topics
    ],
    "delete_topics": lambda response: [(topic.name or "", topic.error_code) for topic in response.responses],
    "create_partitions": lambda response: [(topic.name, topic.error_code) for topic in response.results],
    "describe_configs": lambda response: [
        (
            result.error_code,
            result.resource_name,
            sorted((config.name, config.value, config.read_only, config.config_source) for config in result.configs),
        )
        for result in response.results
    ],
    "delete_records": lambda response: [
        (part.error_code, part.low_watermark) for topic in response.topics for part in topic.partitions
    ],
}


@dataclass
class Stage:
    """The things that a run makes, by the names that the table gives them."""

    cluster: Cluster
    names: dict[str, str]

    def fill(self, value: Any) -> Any:
        """A row's fields, with this run's names."""
        if isinstance(value, dict):
            return {key: self.fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner) for inner in value]
        if isinstance(value, str) and value.startswith("$"):
            if value in RECORD_SETS:
                return RECORD_SETS[value]
            if value == "$fresh":
                self.names[value] = create_topic(self.cluster, fresh("raw-fresh"))
            if value == "$fresh-group":
                self.names[value] = fresh("raw-group")
            return self.names[value]
        return value

    def plain(self, value: Any) -> Any:
        """A summary, with the table's names; errors are names too."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.plain(inner) for inner in value)
        if hasattr(value, "retriable"):  # kio's ErrorCode
            return value.name
        if isinstance(value, datetime.timedelta):
            return value // datetime.timedelta(milliseconds=1)
        if isinstance(value, str):
            return next((placeholder for placeholder, name in self.names.items() if name == value), value)
        return value


@pytest.fixture(scope="module")
def stage(cluster: Cluster) -> Stage:
    names = {f"${name}": fresh(f"raw-{name}") for name in ("missing", "group", "group-of-commits", "committed", "new")}
    names["$topic"] = create_topic(cluster, fresh("raw-topic"), 2)
    names["$writable"] = create_topic(cluster, fresh("raw-writable"))
    filled = Stage(cluster, names)
    with RawClient(cluster) as client:
        for case in (
            produce("", "$good", None, topic="$topic"),
            # Kafka makes its internal topics when somebody first asks for a coordinator, and that takes a moment.
            Case("", "find_coordinator", (3,), {"key": "$committed", "key_type": 0}, None),
            Case("", "find_coordinator", (3,), {"key": "$committed", "key_type": 1}, None),
            Case("", "init_producer_id", (4,), {"transactional_id": None, "transaction_timeout": 60_000}, None),
            offset_commit("", None, group_id="$committed"),
        ):
            if is_aside(cluster, case):
                continue
            until(
                lambda case=case: "'none'" in str(answer(client, filled, case, case.versions[-1])),
                what=f"the first {case.api}",
            )
    return filled


def is_aside(cluster: Cluster, case: Case) -> bool:
    """Whether a request is about transactions, which our broker does not serve yet."""
    return cluster.name == "streamcore" and case.api == "find_coordinator" and case.fields.get("key_type") == 1


def answer(client: RawClient, stage: Stage, case: Case, version: int) -> Any:
    fields = stage.fill(case.fields)
    try:
        response = client.ask(case.api, version, fields, lenient=len(case.versions) > 1)
    except ClosedError:
        return CLOSED
    return stage.plain(SUMMARIES[case.api](response))


ROWS = [
    pytest.param(case, version, id=f"{case.api} {version}: {case.title}") for case in CASES for version in case.versions
]


@pytest.mark.parametrize(("case", "version"), ROWS)
def test_the_answer_is_the_recorded_one(stage: Stage, case: Case, version: int) -> None:
    if is_aside(stage.cluster, case):
        pytest.skip("transactions are not served yet")
    with RawClient(stage.cluster) as client:
        found = answer(client, stage, case, version)
    assert found == (case.wanted[version] if isinstance(case.wanted, dict) else case.wanted)


def ask_api_versions(client: RawClient, version: int, body: bytes = b"") -> bytes:
    return client.exchange(struct.pack(">hhih", 18, version, 1, -1) + body)


def test_api_versions_of_an_unknown_version_is_answered_in_the_oldest_layout(cluster: Cluster) -> None:
    with RawClient(cluster) as client:
        # The header's tagged fields, name and version of the software, and the tagged fields of the request.
        answer = ask_api_versions(client, 99, b"\x00" + b"\x04raw" + b"\x021" + b"\x00")
        _, code, count = struct.unpack_from(">ihi", answer)
        versions = [struct.unpack_from(">hhh", answer, 10 + 6 * number) for number in range(count)]
        assert len(answer) == 10 + 6 * count
        assert (code, versions) == (35, [(18, 0, 4)])
        # The connection is as good as before.
        assert ask_api_versions(client, 0)[4:6] == b"\0\0"


@pytest.mark.parametrize(
    ("key", "version"),
    [(0, 2), (0, 99), (1, 3), (1, 99), (3, 99), (8, 1), (9, 0), (4, 0), (52, 0), (999, 0), (-1, 0)],
    ids=lambda value: str(value),
)
def test_a_request_that_is_not_served_closes_the_connection(cluster: Cluster, key: int, version: int) -> None:
    with RawClient(cluster) as client, pytest.raises(ClosedError):
        client.exchange(struct.pack(">hhih", key, version, 1, -1) + bytes(100))


@pytest.mark.parametrize("length", [-1, 0x7FFFFFFF, 101 << 20])
def test_a_frame_of_impossible_length_closes_the_connection(cluster: Cluster, length: int) -> None:
    with RawClient(cluster) as client:
        client.send(struct.pack(">i", length) + bytes(100))
        with pytest.raises(ClosedError):
            client.receive()


def test_a_request_cut_short_closes_the_connection(cluster: Cluster) -> None:
    _, frame = client_frame("metadata", 12, {"topics": [{"name": "topic"}]})
    with RawClient(cluster) as client, pytest.raises(ClosedError):
        client.exchange(frame[:-8])


def test_tagged_fields_that_nobody_knows_are_skipped(stage: Stage) -> None:
    request, frame = client_frame("metadata", 9, {"topics": topics(stage.names["$topic"])})
    assert frame.endswith(b"\0"), "no tagged fields so far"
    with RawClient(stage.cluster) as client:
        answer = client.exchange(frame[:-1] + b"\x01\x64\x03abc")
        assert SUMMARIES["metadata"](client.decode(request, answer))[0][1] == stage.names["$topic"]


def test_pipelined_requests_are_answered_in_their_order(stage: Stage) -> None:
    data = [{"name": stage.names["$writable"], "partition_data": [{"index": 0, "records": GOOD}]}]
    produce = {"acks": -1, "timeout": 5000, "topic_data": data}
    with RawClient(stage.cluster) as client:
        for number in range(10):
            for correlation_id, (api, version, fields) in enumerate(
                [("produce", 7, produce), ("metadata", 1, {"topics": []}), ("heartbeat", 0, {"group_id": "nobody's"})]
            ):
                _, frame = client_frame(api, version, fields, correlation_id=3 * number + correlation_id)
                client.send(struct.pack(">i", len(frame)) + frame)
        answered = [struct.unpack_from(">i", client.receive())[0] for _ in range(30)]
    assert answered == list(range(30))


def test_without_acknowledgement_there_is_no_answer(stage: Stage) -> None:
    topic = create_topic(stage.cluster, fresh("raw-acks-0"))
    data = [{"name": topic, "partition_data": [{"index": 0, "records": GOOD}]}]
    _, frame = client_frame("produce", 7, {"acks": 0, "timeout": 5000, "topic_data": data}, correlation_id=77)
    with RawClient(stage.cluster) as client:
        client.send(struct.pack(">i", len(frame)) + frame)
        assert struct.unpack_from(">i", ask_api_versions(client, 0))[0] == 1
        end = {"topics": [{"name": topic, "partitions": [{"partition_index": 0, "timestamp": NOW}]}], "replica_id": -1}
        assert SUMMARIES["list_offsets"](client.ask("list_offsets", 1, end))[0][-1] == len(RECORDS)


def test_without_acknowledgement_an_error_closes_the_connection(stage: Stage) -> None:
    data = [{"name": stage.names["$missing"], "partition_data": [{"index": 0, "records": GOOD}]}]
    _, frame = client_frame("produce", 7, {"acks": 0, "timeout": 5000, "topic_data": data})
    with RawClient(stage.cluster) as client, pytest.raises(ClosedError):
        client.exchange(frame)
