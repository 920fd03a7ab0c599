"""Apache Kafka's own command-line tools (the Java client and its admin client) against both brokers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import START_MS, Cluster, fresh, until
from tests.interop.kafka_jars import kafka_command, run_kafka
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
API_VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"
PRODUCER_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
CONSUMER_PERFORMANCE = "org.apache.kafka.tools.ConsumerPerformance"
END_TO_END_LATENCY = "org.apache.kafka.tools.EndToEndLatency"
VERIFIABLE_PRODUCER = "org.apache.kafka.tools.VerifiableProducer"
VERIFIABLE_CONSUMER = "org.apache.kafka.tools.VerifiableConsumer"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


def tool(cluster: Cluster, main_class: str, *arguments: str, **options: Any) -> str:
    return run_kafka(main_class, "--bootstrap-server", cluster.bootstrap, *arguments, **options)


def produce_numbers(cluster: Cluster, topic: str, count: int, *arguments: str) -> list[dict[str, Any]]:
    """Values 0, 1, 2…; the records as the broker acknowledged them."""
    output = tool(cluster, VERIFIABLE_PRODUCER, "--topic", topic, "--max-messages", str(count), *arguments)
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [event for event in events if event["name"] == "producer_send_error"] == []
    return [event for event in events if event["name"] == "producer_send_success"]


def consume(cluster: Cluster, topic: str, count: int, *arguments: str) -> list[str]:
    """Lines of the console consumer."""
    patience = ["--timeout-ms", "20000", "--max-messages", str(count)]
    output = tool(cluster, CONSOLE_CONSUMER, "--topic", topic, *patience, *arguments)
    lines = output.splitlines()
    assert lines.pop() == f"Processed a total of {count} messages"
    return lines


def test_topics_are_made_altered_described_and_deleted(cluster: Cluster) -> None:
    name = fresh("java-admin")
    settings = ["--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=1234567"]
    assert f"Created topic {name}." in tool(cluster, TOPICS, "--create", "--topic", name, *settings)
    refused = tool(cluster, TOPICS, "--create", "--topic", name, *settings, exit_code=1)
    assert "TopicExistsException" in refused
    tool(cluster, TOPICS, "--alter", "--topic", name, "--partitions", "3")
    described = until(
        lambda: (text := tool(cluster, TOPICS, "--describe", "--topic", name)).count("Partition: ") == 3 and text,
        what="the third partition",
    )
    assert re.search(rf"Topic: {name}\s+TopicId: \S{{22}}\s+PartitionCount: 3\s+ReplicationFactor: 1", described)
    assert "retention.ms=1234567" in described
    assert re.search(r"Partition: 2\s+Leader: (\d+)\s+Replicas: \1\s+Isr: \1", described)
    assert name in tool(cluster, TOPICS, "--list").splitlines()
    tool(cluster, TOPICS, "--delete", "--topic", name)
    until(lambda: name not in tool(cluster, TOPICS, "--list").splitlines(), what="the end of the topic")
    assert "does not exist" in tool(cluster, TOPICS, "--describe", "--topic", name, exit_code=1)


def test_configs_of_a_topic_and_of_the_broker_are_described_and_altered(cluster: Cluster) -> None:
    name = create_topic(cluster, fresh("java-configs"))
    topic = ["--entity-type", "topics", "--entity-name", name]
    tool(cluster, CONFIGS, "--alter", *topic, "--add-config", "retention.ms=7654321,cleanup.policy=[compact,delete]")
    described = tool(cluster, CONFIGS, "--describe", *topic)
    assert "retention.ms=7654321 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7654321}" in described
    assert "cleanup.policy=compact,delete" in described
    tool(cluster, CONFIGS, "--alter", *topic, "--delete-config", "retention.ms")
    everything = tool(cluster, CONFIGS, "--describe", "--all", *topic)
    assert "retention.ms=604800000 sensitive=false synonyms={}" in everything
    assert "segment.bytes=1073741824" in everything
    assert "min.insync.replicas=1" in everything
    refused = tool(cluster, CONFIGS, "--alter", *topic, "--add-config", "retention.ms=soon", exit_code=1)
    assert "InvalidConfigurationException" in refused
    (broker,) = re.findall(r"\(id: (\d+) rack: ", tool(cluster, API_VERSIONS))
    described = tool(cluster, CONFIGS, "--describe", "--all", "--entity-type", "brokers", "--entity-name", broker)
    assert "num.partitions=1 sensitive=false synonyms=" in described


def test_settings_of_brokers_change_while_they_run(cluster: Cluster) -> None:
    name = create_topic(cluster, fresh("java-broker-configs"))
    (broker,) = re.findall(r"\(id: (\d+) rack: ", tool(cluster, API_VERSIONS))
    everyone = ["--entity-type", "brokers", "--entity-default"]
    one = ["--entity-type", "brokers", "--entity-name", broker]
    topic = ["--entity-type", "topics", "--entity-name", name]

    def describe(*entity: str) -> str:
        return tool(cluster, CONFIGS, "--describe", *entity)

    try:
        tool(cluster, CONFIGS, "--alter", *everyone, "--add-config", "log.retention.ms=7654321")
        tool(cluster, CONFIGS, "--alter", *one, "--add-config", "log.segment.bytes=7654321")
        synonyms = r"synonyms=\{(.*)\}"
        wanted = "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7654321"
        found = until(
            lambda: re.search(rf"^  retention.ms=7654321 sensitive=false {synonyms}", describe("--all", *topic), re.M),
            what="the default reaches the topic",
        )
        assert wanted in found[1]
        found = re.search(rf"^  segment.bytes=7654321 sensitive=false {synonyms}", describe("--all", *topic), re.M)
        assert found is not None
        sources = ["DYNAMIC_BROKER_CONFIG:log.segment.bytes=7654321", "DEFAULT_CONFIG:log.segment.bytes=1073741824"]
        assert [part for part in found[1].split(", ") if "STATIC" not in part] == sources
        assert re.search(r"^  log.retention.ms=7654321 sensitive=false", describe(*everyone), re.M)
        assert "log.segment.bytes=7654321" in describe(*one)
        for setting in ("num.partitions=7", "log.segment.bytes=many"):
            refused = tool(cluster, CONFIGS, "--alter", *one, "--add-config", setting, exit_code=1)
            assert "InvalidRequestException" in refused
    finally:
        tool(cluster, CONFIGS, "--alter", *everyone, "--delete-config", "log.retention.ms")
        tool(cluster, CONFIGS, "--alter", *one, "--delete-config", "log.segment.bytes")
    until(lambda: "retention.ms=604800000" in describe("--all", *topic), what="the default is back")


def test_a_compacted_topic_is_made_and_described_and_refuses_records_without_a_key(cluster: Cluster) -> None:
    name = fresh("java-compacted")
    settings = ["cleanup.policy=compact", "min.cleanable.dirty.ratio=0.1", "delete.retention.ms=1000"]
    options = [part for setting in settings for part in ("--config", setting)]
    tool(cluster, TOPICS, "--create", "--topic", name, "--partitions", "1", "--replication-factor", "1", *options)
    described = tool(cluster, TOPICS, "--describe", "--topic", name)
    assert all(setting in described for setting in settings)
    refused = tool(cluster, CONSOLE_PRODUCER, "--topic", name, standard_input="no key\n")
    assert "InvalidRecordException" in refused


def test_groups_are_listed_described_reset_and_deleted(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("java-groups")), fresh("java-group")
    produce_numbers(cluster, topic, 20)
    settings = ["--group-id", group, "--max-messages", "7", "--topic", topic]
    consumed = tool(cluster, VERIFIABLE_CONSUMER, *settings)
    assert '"name":"records_consumed"' in consumed
    assert f"{group}" in tool(cluster, GROUPS, "--list").splitlines()
    described = tool(cluster, GROUPS, "--describe", "--group", group)
    assert re.search(rf"^{group}\s+{topic}\s+0\s+7\s+20\s+13\s+-\s+-\s+-", described, re.MULTILINE)
    state = tool(cluster, GROUPS, "--describe", "--state", "--group", group)
    assert re.search(rf"{group}\s+.*Empty\s+0", state)
    reset = ["--reset-offsets", "--group", group, "--topic", topic]
    moved = tool(cluster, GROUPS, *reset, "--shift-by", "-3", "--execute")
    assert re.search(rf"{group}\s+{topic}\s+0\s+4\b", moved)
    moved = tool(cluster, GROUPS, *reset, "--to-datetime", "2100-01-01T00:00:00.000", "--dry-run")
    assert re.search(rf"{group}\s+{topic}\s+0\s+20\b", moved)
    assert consume(cluster, topic, 16, "--group", group) == [str(number) for number in range(4, 20)]
    tool(cluster, GROUPS, "--delete-offsets", "--group", group, "--topic", topic)
    deleted = tool(cluster, GROUPS, "--delete", "--group", group)
    assert "was successful" in deleted or "GroupIdNotFoundException" in deleted
    assert group not in tool(cluster, GROUPS, "--list").splitlines()


def test_offsets_are_listed_and_records_deleted(cluster: Cluster, tmp_path: Path) -> None:
    topic = create_topic(cluster, fresh("java-offsets"), 2)
    places = produce_numbers(cluster, topic, 30, "--repeating-keys", "10", "--message-create-time", str(START_MS))
    expected = {(event["key"], partition_for(event["key"].encode(), 2)) for event in places}
    assert {(event["key"], event["partition"]) for event in places} == expected
    ends = {partition: sum(event["partition"] == partition for event in places) for partition in (0, 1)}

    def offsets(time: str) -> str:
        return tool(cluster, OFFSETS, "--topic", topic, "--time", time)

    assert offsets("latest").splitlines() == [f"{topic}:0:{ends[0]}", f"{topic}:1:{ends[1]}"]
    assert offsets("earliest").splitlines() == [f"{topic}:0:0", f"{topic}:1:0"]
    last = {partition: max(e["offset"] for e in places if e["partition"] == partition) for partition in (0, 1)}
    assert offsets("max-timestamp").splitlines() == [f"{topic}:0:{last[0]}", f"{topic}:1:{last[1]}"]
    assert offsets(str(START_MS)).splitlines() == [f"{topic}:0:0", f"{topic}:1:0"]
    wanted = {"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 5}]}
    file = tmp_path / "delete.json"
    file.write_text(json.dumps(wanted))
    deleted = tool(cluster, DELETE_RECORDS, "--offset-json-file", str(file))
    assert f"partition: {topic}-0\tlow_watermark: 5" in deleted
    assert offsets("earliest").splitlines() == [f"{topic}:0:5", f"{topic}:1:0"]


def test_log_directories_tell_their_partitions_and_sizes(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-log-dirs"), 2)
    produce_numbers(cluster, topic, 100)
    output = tool(cluster, LOG_DIRS, "--describe", "--topic-list", topic)
    (broker,) = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["brokers"]
    (directory,) = broker["logDirs"]
    assert directory["error"] is None
    sizes = {partition["partition"]: partition["size"] for partition in directory["partitions"]}
    assert set(sizes) == {f"{topic}-0", f"{topic}-1"}
    assert sum(sizes.values()) > 100


def test_the_broker_tells_its_versions(cluster: Cluster) -> None:
    output = tool(cluster, API_VERSIONS)
    found = re.findall(r"^\t(\w+)\((\d+)\): (UNSUPPORTED|[^\[]+)", output, re.MULTILINE)
    supported = {name for name, _, versions in found if versions != "UNSUPPORTED"}
    assert {
        "Produce",
        "Fetch",
        "Metadata",
        "JoinGroup",
        "InitProducerId",
        "CreateTopics",
        "DescribeConfigs",
    } <= supported


def test_the_performance_tools_run_through_with_every_kind_of_acknowledgement(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-performance"), 3)
    count = 20_000
    size = ["--num-records", str(count), "--record-size", "500", "--throughput", "-1"]
    for acks in ("0", "1", "all"):
        settings = [f"bootstrap.servers={cluster.bootstrap}", f"acks={acks}", "batch.size=200000", "linger.ms=20"]
        if acks != "all":
            settings.append("enable.idempotence=false")
        output = run_kafka(PRODUCER_PERFORMANCE, "--topic", topic, *size, "--producer-props", *settings)
        assert f"{count} records sent" in output.splitlines()[-1]
    settings = ["--messages", str(3 * count), "--group", fresh("java-performance"), "--hide-header"]
    output = tool(cluster, CONSUMER_PERFORMANCE, "--topic", topic, *settings)
    (line,) = [line for line in output.splitlines() if line.count(",") >= 8]
    assert int(line.split(", ")[4]) == 3 * count


def test_end_to_end_latency_is_measured(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-latency"))
    output = run_kafka(END_TO_END_LATENCY, cluster.bootstrap, topic, "200", "all", "100")
    assert re.search(r"Percentiles: 50th = \d+, 99th = \d+, 99.9th = \d+", output)


def test_records_come_back_from_every_compression(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-compression"))
    values = []
    for compression in ("none", "gzip", "snappy", "lz4", "zstd"):
        lines = [f"{compression}-{number}-" + "text " * 50 for number in range(200)]
        settings = ["--compression-codec", compression] if compression != "none" else []
        text = "\n".join(lines) + "\n"
        tool(cluster, CONSOLE_PRODUCER, "--topic", topic, *settings, standard_input=text)
        values += lines
    assert consume(cluster, topic, len(values), "--from-beginning") == values


def test_keys_headers_and_nulls_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-fields"))
    parse = ["parse.headers=true", "parse.key=true", "null.marker=NULL"]
    lines = "a:1,b:2\tkey\tvalue\n" + "c:3\tNULL\tno key\n" + "d:4\tno value\tNULL\n"
    options = [part for name in parse for part in ("--property", name)]
    tool(cluster, CONSOLE_PRODUCER, "--topic", topic, *options, standard_input=lines)
    show = ["print.headers=true", "print.key=true", "print.offset=true", "null.literal=NULL"]
    options = [part for name in show for part in ("--property", name)]
    assert consume(cluster, topic, 3, "--from-beginning", *options) == [
        "Offset:0\ta:1,b:2\tkey\tvalue",
        "Offset:1\tc:3\tNULL\tno key",
        "Offset:2\td:4\tno value\tNULL",
    ]


def test_a_record_larger_than_the_topic_allows_is_refused(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-oversized"), max_message_bytes="100000")
    settings = [f"bootstrap.servers={cluster.bootstrap}"]
    size = ["--num-records", "1", "--record-size", "200000", "--throughput", "-1"]
    output = run_kafka(PRODUCER_PERFORMANCE, "--topic", topic, *size, "--producer-props", *settings)
    assert "RecordTooLargeException" in output


def values_of(line: str) -> list[str]:
    """What a verbose VerifiableConsumer tells of a record, if it does."""
    if not line.startswith("{"):
        return []
    event = json.loads(line)
    return [event["value"]] if event["name"] == "record_data" else []


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "consumer.properties"
    config.write_text(f"heartbeat.interval.ms={HEARTBEAT_INTERVAL_MS}\n")

    def join(topic: str, group: str) -> Member:
        place = ["--bootstrap-server", cluster.bootstrap, "--topic", topic, "--group-id", group, "--verbose"]
        settings = ["--session-timeout", str(SESSION_TIMEOUT_MS), "--consumer.config", str(config)]
        return Member(kafka_command(VERIFIABLE_CONSUMER, *place, *settings), values_of)

    check_members_joining_leaving_and_dying(cluster, join)


def test_the_newer_group_protocol_reads_commits_and_resumes(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("java-848"), 2), fresh("java-848")
    produce_numbers(cluster, topic, 20)
    settings = ["--topic", topic, "--group-id", group, "--group-protocol", "consumer", "--verbose"]
    seen = []
    for _ in range(2):
        output = tool(cluster, VERIFIABLE_CONSUMER, *settings, "--max-messages", "10")
        seen += [value for line in output.splitlines() for value in values_of(line)]
    assert sorted(seen, key=int) == [str(number) for number in range(20)]
