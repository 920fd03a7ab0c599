"""The broker beside Apache Kafka 4.1: the same client programs against both, in turn, in one run.

The clients are kcat (librdkafka), Kafka's own ProducerPerformance and ConsumerPerformance (Java) and, for the latency
of one acknowledged record, confluent-kafka. Apache Kafka comes from Maven's jars, with the JVM's usual compiler.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import figure
from tests.interop.cluster import answers, free_ports
from tests.interop.kafka_jars import kafka_classpath, run_kafka

OURS, THEIRS = "streamcore", "apache kafka"
KEEP = "retention.ms=-1"
_PERF = ("-Xmx512m",)
# Kafka's defaults but for what one node needs, and with the compiler and the memory that it is started with by default.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={home}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


@dataclass
class Broker:
    name: str
    address: str
    process: "subprocess.Popen[str]"
    start_s: float

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


@contextlib.contextmanager
def ours(home: Path) -> Iterator[Broker]:
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "from streamcore.cli import main; main()", "broker", "--data", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().split()[1]
    try:
        yield Broker(OURS, address, process, time.perf_counter() - started_s)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


@contextlib.contextmanager
def theirs(home: Path) -> Iterator[Broker]:
    home.mkdir()
    port, controller = free_ports(2)
    properties = home / "server.properties"
    properties.write_text(_PROPERTIES.format(port=port, controller=controller, home=home))
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    run_kafka("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties))
    started_s = time.perf_counter()
    process = subprocess.Popen(
        ["java", "-Xms1g", "-Xmx1g", "-cp", kafka_classpath(), "kafka.Kafka", str(properties)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        while not answers(("127.0.0.1", port)):
            assert process.poll() is None, "Apache Kafka did not start"
            time.sleep(0.01)
        yield Broker(THEIRS, f"127.0.0.1:{port}", process, time.perf_counter() - started_s)
    finally:
        process.kill()
        process.wait()


def timed(command: list[str]) -> float:
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    return time.perf_counter() - started_s


def java(name: str, *arguments: str) -> str:
    command = ["java", *_PERF, "-cp", kafka_classpath(), name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def make_topic(broker: Broker, name: str, partitions: int = 1) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker.address})
    topic = NewTopic(name, partitions, 1, config=dict([KEEP.split("=")]))
    admin.create_topics([topic])[name].result(30)


def kcat_rates(broker: Broker, lines: Path, records: int, name: str) -> tuple[float, float]:
    """(produced, consumed) records a second; the program's own start is in both, the same for both brokers."""
    make_topic(broker, name)
    at = ["kcat", "-q", "-b", broker.address, "-t", name]
    tuned = ["-X", "linger.ms=5", "-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000"]
    produced_s = timed([*at, "-P", "-l", *tuned, str(lines)])
    consumed_s = timed([*at, "-C", "-o", "beginning", "-c", str(records), "-X", "fetch.message.max.bytes=1048576"])
    return records / produced_s, records / consumed_s


def java_rates(broker: Broker, size: int, records: int, name: str) -> tuple[float, float]:
    make_topic(broker, name)
    output = java(
        "org.apache.kafka.tools.ProducerPerformance", "--topic", name, "--num-records", str(records),
        "--record-size", str(size), "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.address}",
        "linger.ms=5", "batch.size=262144",
    )  # fmt: skip
    produced = float(output.splitlines()[-1].split(" records/sec")[0].split()[-1])
    output = java(
        "org.apache.kafka.tools.ConsumerPerformance", "--topic", name, "--messages", str(records),
        "--bootstrap-server", broker.address, "--hide-header", "--timeout", "60000",
    )  # fmt: skip
    consumed = float(output.splitlines()[-1].split(",")[-1])  # fetch.nMsg.sec: without the group's rebalance
    return produced, consumed


def latencies_ms(broker: Broker, name: str, count: int = 2000) -> list[float]:
    """Of one record at a time, sent and acknowledged by all."""
    from confluent_kafka import Producer

    make_topic(broker, name)
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, "acks": "all"})
    found: list[float] = []
    for number in range(count + 200):
        started_s = time.perf_counter()
        producer.produce(name, b"x" * 100)
        producer.flush()
        if number >= 200:
            found.append(1000 * (time.perf_counter() - started_s))
    return found


def many_partitions(broker: Broker, lines: Path, records: int, name: str) -> float:
    make_topic(broker, name, 1000)
    at = ["kcat", "-q", "-b", broker.address, "-t", name]
    tuned = ["-X", "linger.ms=50", "-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000"]
    return records / timed([*at, "-P", "-l", *tuned, str(lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000, help="of 100 bytes; of 1 kB a fifth as many")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("kcat") is None or shutil.which("java") is None:
        sys.exit("kcat and java are needed (Debian: apt install kcat default-jre-headless maven)")
    home = Path(tempfile.mkdtemp(prefix="streamcore-benchmark-"))
    small, large = home / "100-bytes", home / "1-kB"
    small.write_bytes((b"x" * 99 + b"\n") * options.records)
    large.write_bytes((b"y" * 999 + b"\n") * (options.records // 5))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with ours(home / "ours") as first, theirs(home / "theirs") as second:
            for broker in (first, second):
                found["start-up, s"][broker.name].append(broker.start_s)
            for number in range(options.rounds):
                for broker in (first, second):
                    measure(broker, number, options.records, small, large, found)
                print(f"round {number + 1} of {options.rounds} done", flush=True)
            for broker in (first, second):
                found["memory after it all, MB"][broker.name].append(broker.rss_mb())
    finally:
        shutil.rmtree(home, ignore_errors=True)
    report(found)


def measure(
    broker: Broker, number: int, records: int, small: Path, large: Path, found: dict[str, dict[str, list[float]]]
) -> None:
    def note(what: str, value: float) -> None:
        found[what][broker.name].append(value)

    produced, consumed = kcat_rates(broker, small, records, f"kcat-small-{number}")
    note("kcat produces 100 B, records/s", produced)
    note("kcat consumes 100 B, records/s", consumed)
    produced, consumed = kcat_rates(broker, large, records // 5, f"kcat-large-{number}")
    note("kcat produces 1 kB, MB/s", produced / 1000)
    note("kcat consumes 1 kB, MB/s", consumed / 1000)
    produced, consumed = java_rates(broker, 100, records, f"java-small-{number}")
    note("Java produces 100 B, records/s", produced)
    note("Java consumes 100 B, records/s", consumed)
    produced, consumed = java_rates(broker, 1000, records // 5, f"java-large-{number}")
    note("Java produces 1 kB, MB/s", produced / 1000)
    note("Java consumes 1 kB, MB/s", consumed / 1000)
    note(
        "kcat produces 100 B to 1,000 partitions, records/s", many_partitions(broker, small, records, f"many-{number}")
    )
    latencies = sorted(latencies_ms(broker, f"latency-{number}"))
    note("one record acknowledged, p50, ms", statistics.median(latencies))
    note("one record acknowledged, p99, ms", latencies[int(len(latencies) * 0.99)])


# What a line must reach, as a multiple of Kafka's figure; at least, or at most.
BARS: dict[str, tuple[str, float]] = {
    "kcat produces 100 B, records/s": ("at_least", 2),
    "kcat produces 1 kB, MB/s": ("at_least", 3),
    "kcat consumes 100 B, records/s": ("at_least", 1.3),
    "Java produces 100 B, records/s": ("at_least", 2),
    "Java produces 1 kB, MB/s": ("at_least", 3),
    "Java consumes 100 B, records/s": ("at_least", 1.3),
    "one record acknowledged, p50, ms": ("at_most", 1),
    "one record acknowledged, p99, ms": ("at_most", 1),
    "memory after it all, MB": ("at_most", 1 / 8),
    "start-up, s": ("at_most", 1 / 5),
}


def report(found: dict[str, dict[str, list[float]]]) -> None:
    for what, by_name in found.items():
        mine, other = statistics.median(by_name[OURS]), statistics.median(by_name[THEIRS])
        print(f"{what}: {OURS} {mine:,.4g}, {THEIRS} {other:,.4g}", flush=True)
        bar = BARS.get(what)
        limits = {bar[0]: bar[1]} if bar is not None else {}
        figure(f"{what.rpartition(',')[0]}, of Apache Kafka's", mine / other, "times", **limits)


if __name__ == "__main__":
    os.environ.setdefault("CI", "false")
    main()
