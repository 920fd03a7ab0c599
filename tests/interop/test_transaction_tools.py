"""Apache Kafka's own tools over transactions (the Java client, transaction version 2) against both brokers."""

import re

import pytest

from tests.interop.cluster import PATIENCE_S, Cluster, fresh, until
from tests.interop.kafka_jars import run_kafka
from tests.interop.test_java_tools import PRODUCER_PERFORMANCE, consume, produce_numbers, tool
from tests.interop.test_transactions_confluent_kafka import send, transactional, values_in
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand"
COPIER = "org.apache.kafka.tools.TransactionalMessageCopier"


def test_the_performance_test_commits_transactions(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-transactions"))
    name = fresh("java-transactions")
    settings = ["--num-records", "5000", "--record-size", "100", "--throughput", "-1", "--topic", topic]
    output = run_kafka(
        PRODUCER_PERFORMANCE,
        *settings,
        *("--producer-props", f"bootstrap.servers={cluster.bootstrap}"),
        *("--transactional-id", name, "--transaction-duration-ms", "20"),
    )
    assert re.search(r"^5000 records sent", output, re.M)
    until(lambda: len(values_in(cluster, topic)) == 5000, what="every record is committed")
    described = tool(cluster, TRANSACTIONS, "describe", "--transactional-id", name)
    assert re.search(rf"{name}\s+\d+\s+\d+\s+CompleteCommit\s+", described), described


def test_a_copier_with_aborts_copies_each_record_once(cluster: Cluster) -> None:
    source, sink = create_topic(cluster, fresh("java-copied")), create_topic(cluster, fresh("java-copy"))
    produce_numbers(cluster, source, 500)
    output = run_kafka(
        COPIER,
        *("--broker-list", cluster.bootstrap, "--transactional-id", fresh("copier"), "--consumer-group", fresh("copy")),
        *("--input-topic", source, "--output-topic", sink, "--input-partition", "0"),
        *("--transaction-size", "37", "--max-messages", "500", "--enable-random-aborts"),
    )
    assert '"remaining":0' in output.replace(" ", "")
    wanted = sorted(str(number) for number in range(500))
    until(lambda: sorted(values_in(cluster, sink)) == wanted, what="every number once")


def test_the_console_consumer_reads_committed_records(cluster: Cluster) -> None:
    topic = create_topic(cluster, fresh("java-console"))
    producer = transactional(cluster, fresh("java-console"))
    producer.begin_transaction()
    send(producer, topic, ["aborted"])
    producer.abort_transaction(PATIENCE_S)
    producer.begin_transaction()
    send(producer, topic, ["committed"])
    producer.commit_transaction(PATIENCE_S)
    assert consume(cluster, topic, 1, "--from-beginning", "--isolation-level", "read_committed") == ["committed"]
    assert consume(cluster, topic, 2, "--from-beginning") == ["aborted", "committed"]


def test_transactions_are_listed_described_and_aborted(cluster: Cluster) -> None:
    topic, name = create_topic(cluster, fresh("java-hanging")), fresh("java-hanging")
    producer = transactional(cluster, name)
    producer.begin_transaction()
    send(producer, topic, ["hanging"])
    listed = tool(cluster, TRANSACTIONS, "list")
    found = re.search(rf"{name}\s+\S+\s+(\d+)\s+Ongoing", listed)
    assert found is not None, listed
    producer_id = found[1]
    described = tool(cluster, TRANSACTIONS, "describe", "--transactional-id", name)
    assert re.search(rf"{producer_id}\s+0\s+Ongoing\s+60000", described), described
    assert f"{topic}-0" in described
    producers = tool(cluster, TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0")
    assert re.search(rf"{producer_id}\s+0\s+\S+\s+0\s+\d+\s+0", producers), producers
    tool(cluster, TRANSACTIONS, "abort", "--topic", topic, "--partition", "0", "--start-offset", "0")
    until(lambda: values_in(cluster, topic) == [], what="the last stable offset moves on")
    producers = tool(cluster, TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0")
    assert re.search(rf"{producer_id}\s+0\s+\S+\s+0\s+\d+\s+None", producers), producers
