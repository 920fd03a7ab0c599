"""Apache Kafka itself: one node, KRaft, from the jars of `kafka_jars`."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.interop.cluster import Cluster, answers, free_ports, tail, until
from tests.interop.kafka_jars import kafka_classpath, run_kafka

NAME: Final = "apache-kafka"
MUTUAL: Final = "MUTUAL"  # a listener of its own for SSL where clients show a certificate too
_START_SECONDS_MAX: Final = 60.0
# Two ports are free when they are looked for and may be taken when Kafka gets there.
_START_ATTEMPTS: Final = 3

# Kafka's defaults, except for what one node needs (replication factors), and for what only costs time in a test: the
# number of internal partitions, and the wait for more members before a group's first rebalance.
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={node_id}@127.0.0.1:{controller_port}
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,{mutual}:SSL
log.dirs={directory}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
"""
_JVM: Final = ("-Xms256m", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@contextmanager
def apache_kafka(
    directory: Path,
    *,
    protocols: Sequence[str] = (),
    settings: str = "",
    format_options: Sequence[str] = (),
    node_id: int = 1,
) -> Iterator[Cluster]:
    """A running Apache Kafka, killed at the end.

    Args:
        directory: empty; Kafka's settings, its data and its output go there.
        protocols: of listeners beside that for PLAINTEXT, MUTUAL among them, which are in the cluster's `secured`.
        settings: further properties; the last of two lines for one setting counts.
        format_options: of the tool that prepares the directory.
    """
    classpath = kafka_classpath()
    for attempt in range(1, _START_ATTEMPTS + 1):
        port, controller_port, *ports = free_ports(2 + len(protocols))
        secured = {protocol: f"127.0.0.1:{number}" for protocol, number in zip(protocols, ports, strict=True)}
        listeners = [f"PLAINTEXT://127.0.0.1:{port}", *(f"{name}://{place}" for name, place in secured.items())]
        home = directory / f"attempt-{attempt}"
        home.mkdir()
        properties = home / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                listeners=",".join(listeners),
                controller_port=controller_port,
                directory=home,
                node_id=node_id,
                mutual=MUTUAL,
            )
            + settings
        )
        # 22 characters of base 64, as Kafka wants it; one that begins with - would look like an option.
        cluster_id = "A" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        run_kafka("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties), *format_options)
        output = home / "output"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                ["java", *_JVM, "-cp", classpath, "kafka.Kafka", str(properties)], stdout=sink, stderr=sink
            )
        try:
            if _starts(process, port):
                yield Cluster(NAME, f"127.0.0.1:{port}", secured)
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail(f"Apache Kafka did not start:\n{tail(output)}")


def _starts(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until it answers; false if it ends instead, or takes too long."""
    try:
        until(
            lambda: process.poll() is not None or answers(("127.0.0.1", port)),
            what="Apache Kafka's start",
            seconds=_START_SECONDS_MAX,
        )
    except AssertionError:
        return False
    return process.poll() is None
