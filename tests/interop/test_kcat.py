"""kcat (an older librdkafka on the command line) against both brokers."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import PATIENCE_S, START_MS, Cluster, fresh
from tests.interop.kafka_jars import missing
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.topics import create_topic, produce

pytestmark = pytest.mark.interop


def kcat_command(cluster: Cluster, *arguments: str) -> list[str]:
    program = shutil.which("kcat") or shutil.which("kafkacat")
    if program is None:
        missing("kcat is not on this machine (Debian: apt install kcat)")
    return [program, "-b", cluster.bootstrap, *arguments]


def kcat(cluster: Cluster, *arguments: str, standard_input: str = "", exit_code: int = 0) -> str:
    """What it printed; what it printed as errors too, where it is to fail."""
    done = subprocess.run(
        kcat_command(cluster, *arguments),
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == exit_code, f"exit code {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout if exit_code == 0 else done.stdout + done.stderr


def consume(cluster: Cluster, topic: str, *arguments: str) -> list[str]:
    """Lines, from the beginning to the end of the topic."""
    return kcat(cluster, "-C", "-t", topic, "-o", "beginning", "-e", "-q", *arguments).splitlines()


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_from_every_compression(cluster: Cluster, compression: str) -> None:
    topic = create_topic(cluster, fresh("kcat-compression"))
    lines = [f"{number}:" + "text " * 100 for number in range(500)]
    kcat(cluster, "-P", "-t", topic, "-z", compression, standard_input="\n".join(lines) + "\n")
    assert consume(cluster, topic) == lines


def test_keys_headers_and_nulls_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-fields"))
    headers = ["-H", "twice=1", "-H", "twice=2"]
    kcat(cluster, "-P", "-t", topic, "-K", ":", "-Z", *headers, standard_input="key:value\n:no key\nno value:\n:\n")
    records = [json.loads(line) for line in consume(cluster, topic, "-J")]
    assert [(record["key"], record["payload"]) for record in records] == [
        ("key", "value"),
        (None, "no key"),
        ("no value", None),
        (None, None),
    ]
    assert [record["headers"] for record in records] == [["twice", "1", "twice", "2"]] * 4
    assert [record["offset"] for record in records] == [0, 1, 2, 3]
    assert {record["tstype"] for record in records} == {"create"}


def test_the_same_key_goes_to_the_partition_that_java_would_choose(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-keys"), 7)
    keys = [f"key-{number}" for number in range(50)]
    settings = ["-X", "topic.partitioner=murmur2_random"]
    kcat(cluster, "-P", "-t", topic, "-K", ":", *settings, standard_input="".join(f"{key}:v\n" for key in keys * 2))
    came = {tuple(line.split(" ")) for line in consume(cluster, topic, "-f", "%k %p\n")}
    assert came == {(key, str(partition_for(key.encode(), 7))) for key in keys}


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_records_arrive_with_every_kind_of_acknowledgement(cluster: Cluster, acks: str) -> None:
    topic = create_topic(cluster, fresh("kcat-acks"))
    lines = [str(number) for number in range(300)]
    kcat(cluster, "-P", "-t", topic, "-X", f"acks={acks}", standard_input="\n".join(lines) + "\n")
    # Without an acknowledgement kcat is done before the broker is: the reader waits for as many as there are.
    output = kcat(cluster, "-C", "-t", topic, "-o", "beginning", "-q", "-c", "300")
    assert output.splitlines() == lines


def test_large_records_and_batches_come_back(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-large"))
    lines = [f"{number}:" + "x" * 900_000 for number in range(5)] + [f"{number}:" + "y" * 900 for number in range(5000)]
    settings = ["-X", "linger.ms=100", "-X", "batch.size=900000"]
    kcat(cluster, "-P", "-t", topic, *settings, standard_input="\n".join(lines) + "\n")
    assert consume(cluster, topic) == lines


def test_a_record_larger_than_the_topic_allows_is_refused(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-oversized"), max_message_bytes="100000")
    output = kcat(cluster, "-P", "-t", topic, standard_input="x" * 200_000, exit_code=1)
    assert "Message size too large" in output


def test_an_idempotent_producer_delivers_each_record_once_and_in_order(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-idempotent"))
    lines = [str(number) for number in range(1000)]
    settings = ["-X", "enable.idempotence=true", "-X", "batch.num.messages=10"]
    kcat(cluster, "-P", "-t", topic, *settings, standard_input="\n".join(lines) + "\n")
    assert consume(cluster, topic) == lines


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster) -> None:
    settings = [
        "auto.offset.reset=earliest",
        # Told to stop, kcat commits a record that it has read and does not print it any more. Where it remembers no
        # offsets it commits none, and whoever gets a partition begins at its beginning. Another test has the commits.
        "enable.auto.offset.store=false",
        f"session.timeout.ms={SESSION_TIMEOUT_MS}",
        f"heartbeat.interval.ms={HEARTBEAT_INTERVAL_MS}",
    ]
    options = [part for setting in settings for part in ("-X", setting)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member(kcat_command(cluster, "-u", "-q", *options, "-G", group, topic))
    )


def test_a_group_goes_on_where_it_stopped(cluster: Cluster) -> None:
    topic, group = create_topic(cluster, fresh("kcat-resume")), fresh("kcat-group")
    kcat(cluster, "-P", "-t", topic, standard_input="".join(f"{number}\n" for number in range(20)))
    settings = ["-q", "-X", "auto.offset.reset=earliest"]
    first = kcat(cluster, *settings, "-c", "7", "-G", group, topic).splitlines()
    second = kcat(cluster, *settings, "-c", "13", "-G", group, topic).splitlines()
    assert first + second == [str(number) for number in range(20)]


def test_offsets_are_found_by_time(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-time"))
    produce(cluster, topic, [(b"%d" % number, START_MS + 1000 * number) for number in range(100)])

    def offset(time: int) -> str:
        return kcat(cluster, "-Q", "-t", f"{topic}:0:{time}").strip()

    assert offset(-2) == f"{topic} [0] offset 0"
    assert offset(-1) == f"{topic} [0] offset 100"
    assert offset(START_MS + 50_001) == f"{topic} [0] offset 51"
    between = ["-o", f"s@{START_MS + 10_000}", "-o", f"e@{START_MS + 12_000}"]
    assert kcat(cluster, "-C", "-t", topic, "-q", *between).splitlines() == ["10", "11"]
    assert kcat(cluster, "-C", "-t", topic, "-q", "-e", "-o", "-2").splitlines() == ["98", "99"]


def test_metadata_is_listed(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("kcat-metadata"), 3)
    listed: dict[str, Any] = json.loads(kcat(cluster, "-L", "-J"))
    assert [broker["name"] for broker in listed["brokers"]] == [cluster.bootstrap]
    (found,) = [entry for entry in listed["topics"] if entry["topic"] == topic]
    (node,) = {broker["id"] for broker in listed["brokers"]}
    assert found["partitions"] == [
        {"partition": number, "leader": node, "replicas": [{"id": node}], "isrs": [{"id": node}]} for number in range(3)
    ]


def test_a_consumer_of_an_unknown_topic_is_told(cluster: Cluster) -> None:
    topic = fresh("kcat-never-made")
    output = kcat(cluster, "-C", "-t", topic, "-e", exit_code=1)
    assert re.search(r"Broker: (Unknown topic or partition|Leader not available)", output)


def test_a_producer_makes_the_topic_that_it_misses(cluster: Cluster) -> None:
    topic = fresh("kcat-made-by-producing")
    kcat(cluster, "-P", "-t", topic, standard_input="first\n")
    assert consume(cluster, topic) == ["first"]
