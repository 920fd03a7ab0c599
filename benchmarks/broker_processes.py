"""The two brokers as processes, with what they use of the machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.interop.cluster import answers, free_ports
from tests.interop.kafka_jars import kafka_classpath, run_kafka

OURS, THEIRS = "streamcore", "apache kafka"
_STOP_S = 180  # thousands of partitions, each of which is synced, on a disk that has just been written full
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
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

    def cpu_s(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


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
        process.wait(_STOP_S)
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
