"""Kafka Streams' own test of exactly once: what it computes in transactions is right to the record, on both brokers.

It takes two minutes each, of which one is its own pace of sending.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.interop.cluster import Cluster
from tests.interop.kafka_jars import streams_classpath
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

SMOKE_TEST: Final = "org.apache.kafka.streams.tests.StreamsSmokeTest"
# Its topics have names of their own, and five partitions each.
TOPICS: Final = (
    "echo", "data", "min", "min-suppressed", "min-raw", "max", "sum", "sws-raw", "sws-suppressed", "dif", "cnt", "avg",
    "wcnt", "tagg",
)  # fmt: skip
PARTITIONS: Final = 5
PROCESSES: Final = 2
RUN_SECONDS_MAX: Final = 400
END_SECONDS_MAX: Final = 60


def command(properties: Path, what: str) -> list[str]:
    return ["java", "-Xmx512m", "-Xlog:disable", "-cp", streams_classpath(), SMOKE_TEST, str(properties), what]


@contextmanager
def processing(properties: Path, output: Path) -> Iterator[None]:
    with output.open("w") as file:
        process = subprocess.Popen(command(properties, "process"), stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_the_smoke_test_is_content_exactly_once(cluster: Cluster, tmp_path: Path) -> None:
    for topic in TOPICS:
        create_topic(cluster, topic, PARTITIONS)
    with ExitStack() as stack:
        for number in range(PROCESSES):
            properties = tmp_path / f"{number}.properties"
            properties.write_text(
                f"bootstrap.servers={cluster.bootstrap}\nstate.dir={tmp_path}/state-{number}\n"
                "num.stream.threads=2\nprocessing.guarantee=exactly_once_v2\nacks=all\n"
            )
            stack.enter_context(processing(properties, tmp_path / f"{number}.txt"))
        done = subprocess.run(
            command(properties, "run"), capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
        )
    printed = done.stdout + done.stderr
    assert "ALL-RECORDS-DELIVERED" in printed, printed[-3000:]
    assert "\nSUCCESS\n" in printed, printed[-3000:]
