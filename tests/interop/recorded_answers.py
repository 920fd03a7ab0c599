"""What Apache Kafka 4.1 answers to hand-made requests: the table behind test_raw_requests.

Names that begin with $ stand for what a run makes: `$topic` has two partitions and three records in the first,
`$missing` was never made, `$group` neither, `$committed` has an offset for the first partition of `$topic`. Kafka
answers nothing at all to a Produce with null records, so that is not among them.
"""

import uuid
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

from streamcore.records.codec import encode
from tests.interop.cluster import START_MS

RECORDS = [(b"key", b"value-%d" % number, START_MS + 1000 * number, ()) for number in range(3)]
GOOD = bytes(encode(RECORDS))
MAGIC_AT = 16
NOW, EARLIEST, MAX_TIMESTAMP = -1, -2, -3
NO_SUCH_ID = uuid.UUID("0b6e1d3c-6a5f-4a52-8f5a-3d8f6f2f9c11")


def with_magic(magic: int) -> bytes:
    return GOOD[:MAGIC_AT] + bytes([magic]) + GOOD[MAGIC_AT + 1 :]


RECORD_SETS = {
    "$good": GOOD,
    "$corrupt": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "$magic-0": with_magic(0),
    "$magic-1": with_magic(1),
    "$magic-3": with_magic(3),
    "$truncated": GOOD[:-5],
    "$two-batches": GOOD + GOOD,
    "$no-bytes": b"",
}


@dataclass(frozen=True)
class Case:
    title: str
    api: str
    versions: tuple[int, ...]
    fields: dict[str, Any]
    wanted: Any  # as its row in SUMMARIES makes it; by version where the answer changed


def produce(title: str, records: str, wanted: Any, *, versions: tuple[int, ...] = (3, 7, 9, 12), **fields: Any) -> Case:
    topic, partition, acks = fields.get("topic", "$writable"), fields.get("partition", 0), fields.get("acks", -1)
    data = [{"name": topic, "partition_data": [{"index": partition, "records": records}]}]
    request = {"transactional_id": None, "acks": acks, "timeout": 5000, "topic_data": data}
    return Case(title, "produce", versions, request, wanted)


def list_offsets(
    title: str, time: int | str, wanted: Any, *, versions: tuple[int, ...] = (1, 4, 7, 10), **fields: Any
) -> Case:
    partition = {"partition_index": fields.get("partition", 0), "timestamp": time}
    partition["current_leader_epoch"] = fields.get("leader_epoch", -1)
    topics = [{"name": fields.get("topic", "$topic"), "partitions": [partition]}]
    return Case(title, "list_offsets", versions, {"replica_id": -1, "isolation_level": 0, "topics": topics}, wanted)


def fetch(title: str, offset: int, wanted: Any, *, versions: tuple[int, ...] = (4, 7, 11, 12), **fields: Any) -> Case:
    partition = {"partition": fields.get("partition", 0), "fetch_offset": offset, "partition_max_bytes": 1 << 20}
    partition["current_leader_epoch"] = fields.get("leader_epoch", -1)
    topics = [{"topic": fields.get("topic", "$topic"), "partitions": [partition]}]
    request = {"max_wait": 0, "min_bytes": 1, "max_bytes": 1 << 20, "topics": topics}
    return Case(title, "fetch", versions, request | fields.get("session", {}), wanted)


def offset_commit(title: str, wanted: Any, *, versions: tuple[int, ...] = (2, 5, 8, 9), **fields: Any) -> Case:
    partition = {
        "partition_index": fields.pop("partition", 0),
        "committed_offset": 1,
        "committed_metadata": "m" * fields.pop("metadata", 1),
    }
    topics = [{"name": fields.pop("topic", "$topic"), "partitions": [partition]}]
    # A commit from outside of the group, as of a consumer that assigns its partitions itself.
    request = {"group_id": "$group-of-commits", "generation_id_or_member_epoch": -1, "member_id": "", "topics": topics}
    return Case(title, "offset_commit", versions, request | fields, wanted)


def offset_fetch(
    title: str, topics: Any, wanted: Any, *, group: str = "$committed", versions: tuple[int, ...] = (1, 5, 7)
) -> Case:
    return Case(title, "offset_fetch", versions, {"group_id": group, "topics": topics}, wanted)


def join_group(title: str, wanted: Any, *, versions: tuple[int, ...] = (5, 9), **fields: Any) -> Case:
    request = {"group_id": "$fresh-group", "session_timeout": 10_000, "rebalance_timeout": 10_000, "member_id": ""}
    request |= {"protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b""}]}
    return Case(title, "join_group", versions, request | fields, wanted)


def group_heartbeat(title: str, wanted: Any, *, versions: tuple[int, ...] = (0, 1), **fields: Any) -> Case:
    """Of KIP-848, and a member that joins if nothing else is said."""
    request = {"group_id": "$fresh-group", "member_id": "who", "member_epoch": 0, "rebalance_timeout": 10_000}
    request |= {"subscribed_topic_names": ["$topic"], "topic_partitions": []}
    return Case(title, "consumer_group_heartbeat", versions, request | fields, wanted)


# What a member says that has joined, as long as nothing changes.
JOINED = {"rebalance_timeout": -1, "subscribed_topic_names": None, "topic_partitions": None}


def create_topics(
    title: str, topic: dict[str, Any], wanted: Any, *, versions: tuple[int, ...] = (2, 5, 7), **fields: Any
) -> Case:
    topic = {"name": "$new", "num_partitions": 1, "replication_factor": 1} | topic
    return Case(
        title, "create_topics", versions, {"topics": [topic], "timeout": 5000, "validate_only": True} | fields, wanted
    )


def describe_configs(title: str, wanted: Any, **resource: Any) -> Case:
    return Case(
        title,
        "describe_configs",
        (1, 4),
        {"resources": [{"resource_type": 2, "configuration_keys": ["cleanup.policy", "retention.ms"]} | resource]},
        wanted,
    )


def topics(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


def named(*partitions: int, topic: str = "$topic") -> list[dict[str, Any]]:
    return [{"name": topic, "partition_indexes": list(partitions)}]


CASES = [
    # Null asks for all topics, an empty list for none.
    Case("none", "metadata", (1, 5, 9, 12), {"topics": [], "allow_auto_topic_creation": False}, []),
    Case(
        "one",
        "metadata",
        (1, 5, 9, 12),
        {"topics": topics("$topic"), "allow_auto_topic_creation": False},
        [("none", "$topic", [(0, "none"), (1, "none")])],
    ),
    Case(
        "unknown",
        "metadata",
        (4, 5, 9, 12),
        {"topics": topics("$missing"), "allow_auto_topic_creation": False},
        [("unknown_topic_or_partition", "$missing", [])],
    ),
    Case(
        "invalid names",
        "metadata",
        (4, 9, 12),
        {"topics": topics("a/b", "", "..", "x" * 250), "allow_auto_topic_creation": False},
        [
            ("invalid_topic_exception", "a/b", []),
            ("invalid_topic_exception", "", []),
            ("invalid_topic_exception", "..", []),
            ("invalid_topic_exception", "x" * 250, []),
        ],
    ),
    Case(
        "an id that is not there",
        "metadata",
        (12, 13),
        {"topics": [{"topic_id": NO_SUCH_ID, "name": None}], "allow_auto_topic_creation": False},
        [("unknown_topic_id", "", [])],
    ),
    Case(
        "a known and an unknown one",
        "metadata",
        (4, 12),
        {"topics": topics("$missing", "$topic"), "allow_auto_topic_creation": False},
        [("none", "$topic", [(0, "none"), (1, "none")]), ("unknown_topic_or_partition", "$missing", [])],
    ),
    Case(
        "the same twice",
        "metadata",
        (4, 12),
        {"topics": topics("$topic", "$topic"), "allow_auto_topic_creation": False},
        [("none", "$topic", [(0, "none"), (1, "none")])],
    ),
    produce("a good batch", "$good", [("$fresh", 0, "none", 0)], topic="$fresh"),
    produce("corrupt CRC", "$corrupt", [("$writable", 0, "corrupt_message", -1)]),
    produce("magic 0", "$magic-0", [("$writable", 0, "invalid_record", -1)]),
    produce("magic 1", "$magic-1", [("$writable", 0, "invalid_record", -1)]),
    produce("magic 3", "$magic-3", [("$writable", 0, "corrupt_message", -1)]),
    produce("a batch cut short", "$truncated", [("$writable", 0, "invalid_record", -1)]),
    produce("two batches", "$two-batches", [("$writable", 0, "invalid_record", -1)]),
    produce("no bytes", "$no-bytes", [("$writable", 0, "invalid_record", -1)]),
    produce("unknown topic", "$good", [("$missing", 0, "unknown_topic_or_partition", -1)], topic="$missing"),
    produce("invalid topic", "$good", [("a/b", 0, "unknown_topic_or_partition", -1)], topic="a/b"),
    produce("partition too high", "$good", [("$writable", 7, "unknown_topic_or_partition", -1)], partition=7),
    produce("negative partition", "$good", [("$writable", -1, "unknown_topic_or_partition", -1)], partition=-1),
    produce("acks 2", "$good", [("$writable", 0, "invalid_required_acks", -1)], acks=2),
    Case(
        "a topic id that is not there",
        "produce",
        (13,),
        {
            "transactional_id": None,
            "acks": -1,
            "timeout": 5000,
            "topic_data": [{"topic_id": NO_SUCH_ID, "partition_data": [{"index": 0, "records": "$good"}]}],
        },
        [(ANY, 0, "unknown_topic_id", -1)],
    ),
    list_offsets("end", NOW, [("none", "none", 3)]),
    list_offsets("start", EARLIEST, [("none", "none", 0)]),
    list_offsets("highest time", MAX_TIMESTAMP, [("none", 2000, 2)], versions=(7, 10)),
    list_offsets(
        "highest time, before it was there", MAX_TIMESTAMP, [("unsupported_version", "none", -1)], versions=(1, 6)
    ),
    list_offsets(
        "highest time of an empty partition", MAX_TIMESTAMP, [("none", "none", -1)], versions=(7,), partition=1
    ),
    list_offsets("a record's time", START_MS + 1000, [("none", 1000, 1)]),
    list_offsets("between two records", START_MS + 1001, [("none", 2000, 2)]),
    list_offsets("before all", 0, [("none", 0, 0)]),
    list_offsets("after all", START_MS + 1_000_000, [("none", "none", -1)]),
    list_offsets("a time in an empty partition", START_MS, [("none", "none", -1)], partition=1),
    list_offsets("unknown topic", NOW, [("unknown_topic_or_partition", "none", -1)], topic="$missing"),
    list_offsets("bad partition", NOW, [("unknown_topic_or_partition", "none", -1)], partition=7),
    list_offsets(
        "a leader epoch too new", NOW, [("unknown_leader_epoch", "none", -1)], versions=(4, 7), leader_epoch=100
    ),
    list_offsets("an unknown special time", -99, [("unsupported_version", "none", -1)]),
    fetch("start", 0, ("none", [("none", 3, 0, True)])),
    fetch("end", 3, ("none", [("none", 3, 0, False)])),
    fetch("past the end", 4, ("none", [("offset_out_of_range", -1, -1, False)])),
    fetch("before the start", -5, ("none", [("offset_out_of_range", -1, -1, False)])),
    fetch("unknown topic", 0, ("none", [("unknown_topic_or_partition", -1, -1, False)]), topic="$missing"),
    fetch("bad partition", 0, ("none", [("unknown_topic_or_partition", -1, -1, False)]), partition=7),
    fetch(
        "a leader epoch too new",
        0,
        ("none", [("unknown_leader_epoch", -1, -1, False)]),
        versions=(9, 11, 12),
        leader_epoch=100,
    ),
    fetch(
        "unknown session",
        0,
        ("fetch_session_id_not_found", []),
        versions=(7, 11, 12),
        session={"session_id": 12345, "session_epoch": 3},
    ),
    Case(
        "a topic id that is not there",
        "fetch",
        (13, 16, 18),
        {
            "max_wait": 0,
            "min_bytes": 1,
            "max_bytes": 1 << 20,
            "topics": [
                {
                    "topic_id": NO_SUCH_ID,
                    "partitions": [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}],
                }
            ],
        },
        ("none", [("unknown_topic_id", -1, -1, False)]),
    ),
    Case("a group", "find_coordinator", (0, 1, 2, 3), {"key": "$group", "key_type": 0}, ("none", True)),
    Case("a transaction", "find_coordinator", (1, 3), {"key": "$group", "key_type": 1}, ("none", True)),
    Case("an unknown kind", "find_coordinator", (1, 3), {"key": "$group", "key_type": 9}, ("invalid_request", False)),
    Case("an empty group", "find_coordinator", (1, 3), {"key": "", "key_type": 0}, ("none", True)),
    Case(
        "two groups",
        "find_coordinator",
        (4, 6),
        {"coordinator_keys": ["$group", "$committed"], "key_type": 0},
        [("$group", "none", True), ("$committed", "none", True)],
    ),
    offset_commit("from outside, to a group that is not there", [("$topic", 0, "none")]),
    offset_commit("to an unknown topic", [("$missing", 0, "unknown_topic_or_partition")], topic="$missing"),
    offset_commit("to an unknown partition", [("$topic", 7, "unknown_topic_or_partition")], partition=7),
    offset_commit(
        "of a generation, to a group that is not there",
        {
            2: [("$topic", 0, "illegal_generation")],
            5: [("$topic", 0, "illegal_generation")],
            8: [("$topic", 0, "illegal_generation")],
            9: [("$topic", 0, "group_id_not_found")],
        },
        group_id="$group",
        generation_id_or_member_epoch=3,
        member_id="who",
    ),
    offset_commit(
        "of an unknown member",
        [("$topic", 0, "unknown_member_id")],
        group_id="$committed",
        generation_id_or_member_epoch=3,
        member_id="who",
    ),
    offset_commit("to an empty group id", [("$topic", 0, "none")], group_id=""),
    offset_commit("with too much metadata", [("$topic", 0, "offset_metadata_too_large")], metadata=4097),
    offset_fetch("a committed one", named(0), ("none", [("$topic", 0, "none", 1, "m")])),
    offset_fetch("one never committed", named(1), ("none", [("$topic", 1, "none", -1, "")])),
    offset_fetch("of an unknown partition", named(7), ("none", [("$topic", 7, "none", -1, "")])),
    offset_fetch("of an unknown topic", named(0, topic="$missing"), ("none", [("$missing", 0, "none", -1, "")])),
    offset_fetch("of a group that is not there", named(0), ("none", [("$topic", 0, "none", -1, "")]), group="$group"),
    offset_fetch("all of a group", None, ("none", [("$topic", 0, "none", 1, "m")]), versions=(2, 5, 7)),
    offset_fetch("all of a group that is not there", None, ("none", []), group="$group", versions=(2, 5, 7)),
    Case(
        "of two groups",
        "offset_fetch",
        (8, 9),
        {
            "groups": [
                {"group_id": "$committed", "topics": None, "member_epoch": -1},
                {"group_id": "$group", "topics": None, "member_epoch": -1},
            ]
        },
        [("$committed", "none", [("$topic", 0, "none", 1, "m")]), ("$group", "none", [])],
    ),
    join_group("an empty member id", ("member_id_required", -1, "", True, False, 0)),
    join_group("an empty member id, before it was asked for", ("none", 1, "range", True, True, 1), versions=(0, 2, 3)),
    join_group("an unknown member", ("unknown_member_id", -1, "", True, False, 0), member_id="who"),
    join_group("an empty group id", ("invalid_group_id", -1, "", False, True, 0), group_id=""),
    join_group("too short a session", ("invalid_session_timeout", -1, "", False, True, 0), session_timeout=10),
    join_group("too long a session", ("invalid_session_timeout", -1, "", False, True, 0), session_timeout=10_000_000),
    join_group("no protocols", ("inconsistent_group_protocol", -1, "", False, True, 0), protocols=[]),
    join_group("no protocol type", ("inconsistent_group_protocol", -1, "", False, True, 0), protocol_type=""),
    group_heartbeat("a first member", ("none", 1, 5000, [2])),
    group_heartbeat("no member id", ("invalid_request", 0, 0, None), versions=(1,), member_id=""),
    group_heartbeat("no member id, when the broker gave it", ("none", 1, 5000, [2]), versions=(0,), member_id=""),
    group_heartbeat("no group id", ("invalid_request", 0, 0, None), group_id=""),
    group_heartbeat("an empty instance id", ("invalid_request", 0, 0, None), instance_id=""),
    group_heartbeat("an empty rack", ("invalid_request", 0, 0, None), rack_id=""),
    group_heartbeat("no rebalance timeout", ("invalid_request", 0, 0, None), rebalance_timeout=-1),
    group_heartbeat("no partitions", ("invalid_request", 0, 0, None), topic_partitions=None),
    group_heartbeat(
        "partitions before it has any",
        ("invalid_request", 0, 0, None),
        topic_partitions=[{"topic_id": NO_SUCH_ID, "partitions": [0]}],
    ),
    group_heartbeat("no subscription", ("invalid_request", 0, 0, None), subscribed_topic_names=None),
    group_heartbeat("nothing subscribed to", ("none", 1, 5000, []), subscribed_topic_names=[]),
    group_heartbeat("topics that are not there", ("none", 1, 5000, []), subscribed_topic_names=["$missing", "a/b", ""]),
    group_heartbeat("an assignor of its own", ("unsupported_assignor", 0, 0, None), server_assignor="sticky"),
    group_heartbeat("an empty assignor", ("unsupported_assignor", 0, 0, None), server_assignor=""),
    group_heartbeat("the other assignor", ("none", 1, 5000, [2]), server_assignor="range"),
    group_heartbeat("of a group that is not there", ("group_id_not_found", 0, 0, None), member_epoch=1, **JOINED),
    group_heartbeat("it leaves what is not there", ("group_id_not_found", 0, 0, None), member_epoch=-1, **JOINED),
    group_heartbeat("it leaves without an id", ("invalid_request", 0, 0, None), member_epoch=-1, member_id=""),
    group_heartbeat("it leaves for a while and is not static", ("invalid_request", 0, 0, None), member_epoch=-2),
    group_heartbeat("an epoch below all", ("invalid_request", 0, 0, None), member_epoch=-3),
    *(
        group_heartbeat(f"no expression: {regex}", ("invalid_regular_expression", 0, 0, None), versions=(1,), **fields)
        for regex in ("(a", "a{1001}", "(?=a)", r"(a)\1", "a**", "[z-a]", r"\Z")
        for fields in [{"subscribed_topic_names": None, "subscribed_topic_regex": regex}]
    ),
    Case(
        "an empty one and one that is not there",
        "consumer_group_describe",
        (0, 1),
        {"group_ids": ["", "$missing"]},
        [("", "invalid_group_id", "", 0), ("$missing", "group_id_not_found", "", 0)],
    ),
    Case(
        "one that is only offsets",
        "consumer_group_describe",
        (0, 1),
        {"group_ids": ["$committed"]},
        [("$committed", "group_id_not_found", "", 0)],
    ),
    Case(
        "of an unknown member",
        "heartbeat",
        (0, 3, 4),
        {"group_id": "$committed", "generation_id": 1, "member_id": "who"},
        "unknown_member_id",
    ),
    Case(
        "to a group that is not there",
        "heartbeat",
        (0, 3, 4),
        {"group_id": "$group", "generation_id": 1, "member_id": "who"},
        "unknown_member_id",
    ),
    Case(
        "to an empty group id",
        "heartbeat",
        (0, 3, 4),
        {"group_id": "", "generation_id": 1, "member_id": "who"},
        "invalid_group_id",
    ),
    Case(
        "of an unknown member",
        "sync_group",
        (0, 3, 5),
        {
            "group_id": "$group",
            "generation_id": 1,
            "member_id": "who",
            "protocol_type": "consumer",
            "protocol_name": "range",
        },
        "unknown_member_id",
    ),
    Case(
        "of an unknown member",
        "leave_group",
        (0, 1, 2),
        {"group_id": "$group", "member_id": "who"},
        ("unknown_member_id", []),
    ),
    Case(
        "of unknown members",
        "leave_group",
        (3, 5),
        {"group_id": "$group", "members": [{"member_id": "who"}]},
        ("none", [("who", "unknown_member_id")]),
    ),
    Case(
        "a group that is not there",
        "describe_groups",
        (0, 5),
        {"groups": ["$group"]},
        [("none", "$group", "Dead", "", 0)],
    ),
    Case(
        "a group that is not there, since there is an error for it",
        "describe_groups",
        (6,),
        {"groups": ["$group"]},
        [("group_id_not_found", "$group", "Dead", "", 0)],
    ),
    Case(
        "a group without members",
        "describe_groups",
        (0, 5, 6),
        {"groups": ["$committed"]},
        [("none", "$committed", "Empty", "", 0)],
    ),
    Case(
        "a group that is not there",
        "delete_groups",
        (0, 2),
        {"groups_names": ["$group"]},
        [("$group", "group_id_not_found")],
    ),
    Case(
        "without a transaction",
        "init_producer_id",
        (0, 2, 4),
        {"transactional_id": None, "transaction_timeout": 60_000},
        ("none", True, 0),
    ),
    Case(
        "an empty transactional id",
        "init_producer_id",
        (0, 4),
        {"transactional_id": "", "transaction_timeout": 60_000},
        ("invalid_request", False, -1),
    ),
    Case(
        "too long a transaction",
        "init_producer_id",
        (0, 4),
        {"transactional_id": "$group", "transaction_timeout": 10_000_000},
        ("invalid_transaction_timeout", False, -1),
    ),
    Case(
        "no time for a transaction",
        "init_producer_id",
        (0, 4),
        {"transactional_id": "$group", "transaction_timeout": 0},
        ("invalid_transaction_timeout", False, -1),
    ),
    create_topics("validated", {}, [("none", 1, 1)]),
    create_topics(
        "the default numbers", {"num_partitions": -1, "replication_factor": -1}, [("none", 1, 1)], versions=(5, 7)
    ),
    create_topics("existing", {"name": "$topic"}, [("topic_already_exists", -1, -1)]),
    create_topics("a slash", {"name": "a/b"}, [("invalid_topic_exception", -1, -1)]),
    create_topics("no name", {"name": ""}, [("invalid_topic_exception", -1, -1)]),
    create_topics("two dots", {"name": ".."}, [("invalid_topic_exception", -1, -1)]),
    create_topics("250 characters", {"name": "x" * 250}, [("invalid_topic_exception", -1, -1)]),
    create_topics("no partitions", {"num_partitions": 0}, [("invalid_partitions", -1, -1)]),
    create_topics("no replicas", {"replication_factor": 0}, [("invalid_replication_factor", -1, -1)]),
    create_topics("more replicas than brokers", {"replication_factor": 7}, [("invalid_replication_factor", -1, -1)]),
    create_topics(
        "an unknown config", {"configs": [{"name": "no.such.thing", "value": "1"}]}, [("invalid_config", -1, -1)]
    ),
    create_topics(
        "a bad value", {"configs": [{"name": "retention.ms", "value": "soon"}]}, [("invalid_config", -1, -1)]
    ),
    create_topics("a null value", {"configs": [{"name": "retention.ms", "value": None}]}, [("invalid_config", -1, -1)]),
    create_topics(
        "numbers and replicas",
        {"assignments": [{"partition_index": 0, "broker_ids": [1]}]},
        [("invalid_request", -1, -1)],
    ),
    create_topics(
        "replicas on an unknown broker",
        {"num_partitions": -1, "replication_factor": -1, "assignments": [{"partition_index": 0, "broker_ids": [77]}]},
        [("invalid_replica_assignment", -1, -1)],
    ),
    create_topics(
        "replicas of a partition that is not the next",
        {"num_partitions": -1, "replication_factor": -1, "assignments": [{"partition_index": 1, "broker_ids": [1]}]},
        [("invalid_replica_assignment", -1, -1)],
    ),
    Case(
        "the same twice",
        "create_topics",
        (2, 7),
        {
            "topics": 2 * [{"name": "$new", "num_partitions": 1, "replication_factor": 1}],
            "timeout": 5000,
            "validate_only": True,
        },
        [("invalid_request", -1, -1)],
    ),
    Case(
        "unknown",
        "delete_topics",
        (1, 4, 5),
        {"topic_names": ["$missing"], "timeout": 5000},
        [("$missing", "unknown_topic_or_partition")],
    ),
    Case(
        "invalid",
        "delete_topics",
        (1, 4),
        {"topic_names": ["a/b"], "timeout": 5000},
        [("a/b", "unknown_topic_or_partition")],
    ),
    Case(
        "an id that is not there",
        "delete_topics",
        (6,),
        {"topics": [{"topic_id": NO_SUCH_ID, "name": None}], "timeout": 5000},
        [("", "unknown_topic_id")],
    ),
    Case(
        "unknown",
        "delete_topics",
        (6,),
        {"topics": [{"name": "$missing"}], "timeout": 5000},
        [("$missing", "unknown_topic_or_partition")],
    ),
    Case(
        "too few",
        "create_partitions",
        (0, 3),
        {"topics": [{"name": "$topic", "count": 1, "assignments": None}], "timeout": 5000, "validate_only": True},
        [("$topic", "invalid_partitions")],
    ),
    Case(
        "as many as there are",
        "create_partitions",
        (0, 3),
        {"topics": [{"name": "$topic", "count": 2, "assignments": None}], "timeout": 5000, "validate_only": True},
        [("$topic", "invalid_partitions")],
    ),
    Case(
        "validated",
        "create_partitions",
        (0, 3),
        {"topics": [{"name": "$topic", "count": 3, "assignments": None}], "timeout": 5000, "validate_only": True},
        [("$topic", "none")],
    ),
    Case(
        "unknown topic",
        "create_partitions",
        (0, 3),
        {"topics": [{"name": "$missing", "count": 3, "assignments": None}], "timeout": 5000, "validate_only": True},
        [("$missing", "unknown_topic_or_partition")],
    ),
    describe_configs(
        "a topic's",
        [("none", "$topic", [("cleanup.policy", "delete", False, 5), ("retention.ms", "604800000", False, 5)])],
        resource_name="$topic",
    ),
    describe_configs("an unknown topic's", [("unknown_topic_or_partition", "$missing", [])], resource_name="$missing"),
    describe_configs("an invalid topic's", [("invalid_topic_exception", "a/b", [])], resource_name="a/b"),
    describe_configs("an empty topic's", [("invalid_topic_exception", "", [])], resource_name=""),
    describe_configs("an unknown broker's", [("invalid_request", "77", [])], resource_type=4, resource_name="77"),
    describe_configs(
        "a broker's that is no number", [("invalid_request", "one", [])], resource_type=4, resource_name="one"
    ),
    describe_configs(
        "an unknown kind's", [("invalid_request", "$topic", [])], resource_type=99, resource_name="$topic"
    ),
    Case(
        "past the end",
        "delete_records",
        (0, 2),
        {"topics": [{"name": "$topic", "partitions": [{"partition_index": 0, "offset": 4}]}], "timeout": 5000},
        [("offset_out_of_range", -1)],
    ),
    Case(
        "unknown topic",
        "delete_records",
        (0, 2),
        {"topics": [{"name": "$missing", "partitions": [{"partition_index": 0, "offset": 0}]}], "timeout": 5000},
        [("unknown_topic_or_partition", -1)],
    ),
    Case(
        "negative",
        "delete_records",
        (0, 2),
        {"topics": [{"name": "$topic", "partitions": [{"partition_index": 0, "offset": -7}]}], "timeout": 5000},
        [("offset_out_of_range", -1)],
    ),
    Case(
        "software without a name",
        "api_versions",
        (3, 4),
        {"client_software_name": "", "client_software_version": "1"},
        ("invalid_request", False),
    ),
    Case(
        "software with a bad name",
        "api_versions",
        (3, 4),
        {"client_software_name": "a b", "client_software_version": "1"},
        ("invalid_request", False),
    ),
    Case(
        "known",
        "api_versions",
        (0, 2, 3, 4),
        {"client_software_name": "raw", "client_software_version": "1"},
        ("none", True),
    ),
]
