"""The client programs that run against both brokers, and what each run costs both sides."""

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker_processes import Broker
from tests.interop.kafka_jars import kafka_classpath

_PERF = ("-Xmx512m",)
_KEEP = {"retention.ms": "-1"}
_KCAT_PRODUCES = ("-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000")
# With librdkafka's own limits, a consumer whose queue is full stops fetching for a whole second: a broker that fills it
# sooner would be measured as a slower one.
_KCAT_CONSUMES = (
    "-X", "fetch.message.max.bytes=1048576", "-X", "queued.min.messages=10000000",
    "-X", "queued.max.messages.kbytes=2000000",
)  # fmt: skip


@dataclass
class Cost:
    """What a run took, its program's own start included, which is the same for both brokers."""

    seconds: float = 0.0
    broker_cpu_s: float = 0.0
    client_cpu_s: float = 0.0


@contextlib.contextmanager
def metered(broker: Broker) -> Iterator[Cost]:
    cost = Cost()
    started_s, broker_s, clients_s = time.perf_counter(), broker.cpu_s(), _clients_cpu_s()
    yield cost
    cost.seconds = time.perf_counter() - started_s
    cost.broker_cpu_s = broker.cpu_s() - broker_s
    cost.client_cpu_s = _clients_cpu_s() - clients_s


def _clients_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended
    return used.ru_utime + used.ru_stime


def make_topic(broker: Broker, name: str, partitions: int = 1) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(name, partitions, 1, config=_KEEP)])[name].result(60)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)


def _java(name: str, *arguments: str) -> str:
    command = ["java", *_PERF, "-cp", kafka_classpath(), name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def kcat_produces(broker: Broker, topic: str, lines: Path, *settings: str) -> Cost:
    """One line is one record; `settings` are librdkafka's, as NAME=VALUE."""
    extra = [word for setting in ("linger.ms=5", *settings) for word in ("-X", setting)]
    with metered(broker) as cost:
        _run(["kcat", "-q", "-b", broker.address, "-t", topic, "-P", "-l", *_KCAT_PRODUCES, *extra, str(lines)])
    return cost


def kcat_consumes(broker: Broker, topic: str, records: int) -> Cost:
    at = ["kcat", "-q", "-b", broker.address, "-t", topic]
    with metered(broker) as cost:
        _run([*at, "-C", "-o", "beginning", "-c", str(records), *_KCAT_CONSUMES])
    return cost


def java_produces(broker: Broker, topic: str, size: int, records: int) -> tuple[float, Cost]:
    """(records a second by the program's own count, the cost with the start of the JVM)"""
    with metered(broker) as cost:
        output = _java(
            "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(records),
            "--record-size", str(size), "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.address}",
            "linger.ms=5", "batch.size=262144",
        )  # fmt: skip
    return float(output.splitlines()[-1].split(" records/sec")[0].split()[-1]), cost


def java_consumes(broker: Broker, topic: str, records: int) -> tuple[float, Cost]:
    with metered(broker) as cost:
        output = _java(
            "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic, "--messages", str(records),
            "--bootstrap-server", broker.address, "--hide-header", "--timeout", "60000",
        )  # fmt: skip
    return float(output.splitlines()[-1].split(",")[-1]), cost  # fetch.nMsg.sec: without the group's rebalance


def many_connections(broker: Broker, topic: str, connections: int, requests: int) -> Cost:
    """Produce requests of ten records, one on the way per connection."""
    command = [sys.executable, "-m", "benchmarks.connections", broker.address, topic, str(connections), str(requests)]
    with metered(broker) as cost:
        _run(command)
    return cost


def latencies_ms(broker: Broker, topic: str, count: int = 2000, warm_up: int = 200) -> list[float]:
    """Of one record at a time, sent and acknowledged by all; sorted."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, "acks": "all"})
    found: list[float] = []
    for _ in range(count + warm_up):
        started_s = time.perf_counter()
        producer.produce(topic, b"x" * 100)
        producer.flush()
        found.append(1000 * (time.perf_counter() - started_s))
    return sorted(found[warm_up:])
