"""Apache Kafka's Java client against both brokers: producer, consumer and admin; the checks are Java, in `java/`."""

import functools
import hashlib
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import PATIENCE_S, Cluster, fresh
from tests.interop.kafka_jars import CACHE, java_command, kafka_classpath, missing
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

SOURCES: Final = Path(__file__).with_name("java")
_COMPILE_SECONDS_MAX: Final = 120

SUBJECTS: Final = [
    "compression-none",
    "compression-gzip",
    "compression-snappy",
    "compression-lz4",
    "compression-zstd",
    "acks-0",
    "acks-1",
    "acks-all",
    "fields",
    "log-append-time",
    "large-batches",
    "oversized",
    "invalid-topic",
    "idempotent",
    "resume",
    "auto-commit",
    "offset-metadata",
    "seek-by-time",
    "seek",
    "past-the-end",
    "pause",
    "small-fetches",
    "pattern",
    "group-eager-range",
    "group-cooperative-sticky",
    "group-static-membership",
    "group-static-fenced",
    "group-late-commit",
    "admin-topics",
    "admin-impossible-topics",
    "admin-topic-partitions",
    "admin-partitions",
    "admin-configs",
    "admin-list-offsets",
    "admin-delete-records",
    "admin-groups",
    "admin-group-offsets",
    "admin-remove-members",
    "admin-cluster",
    "admin-log-dirs",
    "admin-replicas",
    "admin-config-resources",
    "transaction-commit",
    "transaction-abort",
    "transaction-empty",
    "transaction-waiting",
    "transaction-offsets",
    "transaction-fencing",
    "transaction-timeout",
    "transaction-large",
    "transaction-interleaved",
    "transaction-epochs",
    "transaction-admin",
    "transaction-admin-abort",
    "transaction-admin-fence",
    "transaction-features",
]
ASSIGNORS: Final = {
    "eager": "org.apache.kafka.clients.consumer.RangeAssignor",
    "cooperative": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}


@functools.cache
def client() -> list[str]:
    """How to start the program, compiled if its sources changed."""
    javac = shutil.which("javac")
    if javac is None:
        missing("javac is not installed (Debian: apt install default-jdk-headless; 17 or later)")
    sources = sorted(SOURCES.glob("*.java"))
    text = b"".join(source.read_bytes() for source in sources)
    classes = CACHE / f"java-client-{hashlib.sha256(text).hexdigest()[:12]}"
    complete = classes / "complete"
    if not complete.exists():
        compiled = subprocess.run(
            [javac, "-Xlint:all,-try", "-Werror", "-d", classes, "-cp", kafka_classpath(), *sources],
            capture_output=True,
            text=True,
            timeout=_COMPILE_SECONDS_MAX,
            check=False,
        )
        assert compiled.returncode == 0, (compiled.stdout + compiled.stderr)[-4000:]
        complete.touch()
    return java_command(str(classes), "Client")


class Checks:
    """The program, which does one check after the other: a JVM costs a second to start."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def run(self, subject: str, name: str) -> list[str]:
        """Do one check; what it printed."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{subject} {name}\n")
        process.stdin.flush()
        printed: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=3 * PATIENCE_S)
            except queue.Empty:
                line = "failed"
                self.stop()  # the next check has a program of its own
            if line == "ok":
                return printed
            assert line != "failed", "\n".join(printed)[:6000] or f"{subject}: no answer"
            printed.append(line)

    def _start(self) -> "subprocess.Popen[str]":
        self._process = subprocess.Popen(
            [*client(), "checks", self._cluster.bootstrap],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process, self._lines), name="checks' output")
        self._reader.start()
        return self._process

    @staticmethod
    def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put("failed")  # its end, whatever it was about

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None


@pytest.fixture(scope="module")
def checks(cluster: Cluster) -> Iterator[Checks]:
    running = Checks(cluster)
    yield running
    running.stop()


def test_every_check_of_the_program_is_run_here() -> None:
    done = subprocess.run([*client(), "subjects"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert sorted(done.stdout.split()) == sorted([*SUBJECTS, "keys"])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_java_client_is_content_with(checks: Checks, subject: str) -> None:
    checks.run(subject, fresh(f"java-{subject}"))


def test_the_same_key_goes_to_the_same_partition_from_java_from_librdkafka_and_from_here(
    cluster: Cluster, checks: Checks
) -> None:
    lines = checks.run("keys", fresh("java-keys"))
    from_java = {bytes.fromhex(key.removeprefix("0x")): int(partition) for key, partition in map(str.split, lines)}
    assert len(from_java) == 63
    assert from_java == {key: partition_for(key, 7) for key in from_java}
    # librdkafka takes an empty key for none with its murmur2_random, so it is asked with the one that does not.
    assert from_java == partitions_by_librdkafka(cluster, list(from_java), partitions=7)


def partitions_by_librdkafka(cluster: Cluster, keys: Sequence[bytes], partitions: int) -> dict[bytes, int]:
    places: dict[bytes, int] = {}
    topic = create_topic(cluster, fresh("librdkafka-keys"), partitions)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "partitioner": "murmur2", "log_level": 2})

    def on_delivery(error: object, message: object) -> None:
        assert error is None
        places[message.key() or b""] = message.partition()  # type: ignore[attr-defined]

    for key in keys:
        producer.produce(topic, b"value", key=key, on_delivery=on_delivery)
    assert producer.flush(PATIENCE_S) == 0
    return places


@pytest.mark.parametrize("protocol", ASSIGNORS)
def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster, protocol: str) -> None:
    settings = [ASSIGNORS[protocol], str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member([*client(), "member", cluster.bootstrap, topic, group, *settings])
    )
