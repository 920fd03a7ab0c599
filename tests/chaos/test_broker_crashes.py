"""kill -9 of the broker at random moments, under idempotent producers and group consumers of librdkafka.

Nothing acknowledged is lost, nothing is there twice, no offset is used again, and what was committed stays committed.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

confluent_kafka = pytest.importorskip("confluent_kafka")

PARTITIONS = 4
TOPIC, GROUP = "events", "readers"
READY_S = 20.0
CATCH_UP_S = 90.0
BURST = 150  # records that a producer sends before it looks around
QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 2000}


class Broker:
    """The broker as a process that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.directory / "broker.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-c", "from streamcore.cli import main; main()", "broker",
                    "--data", str(self.directory / "data"), "--port", str(self.port),
                    "--set", f"num.partitions={PARTITIONS}",
                ],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("READY"), f"see {self.directory / 'broker.log'}"

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(READY_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Writers:
    """Two idempotent producers, each record of them once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        self.sent: set[bytes] = set()
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(2)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": self._broker.address,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 120_000,
                "retry.backoff.ms": 20,
                **QUICK,
            },
            logger=_Silent(),
        )
        number = 0
        while not self._stop.is_set():
            for _ in range(BURST):
                value = b"%d-%d" % (writer, number)
                self.sent.add(value)
                producer.produce(TOPIC, key=str(number % 50), value=value, on_delivery=self._delivered)
                number += 1
            producer.poll(0.01)
            while len(producer) > 10 * BURST and not self._stop.is_set():
                producer.poll(0.05)
        left = producer.flush(CATCH_UP_S)
        if left:
            self.failed.append(f"writer {writer} could not deliver {left} records")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(f"{message.value()!r}: {error}")
        else:
            self.acknowledged[message.value()] = (message.partition(), message.offset())


class Readers:
    """Two consumers that share the partitions and commit what they have seen."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.seen: Counter[bytes] = Counter()
        self.committed: dict[int, int] = {}
        self._threads = [threading.Thread(target=self._read) for _ in range(2)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def floor(self) -> dict[int, int]:
        """What the broker has said is committed."""
        with self._lock:
            return dict(self.committed)

    def _read(self) -> None:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self._broker.address,
                "group.id": GROUP,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 50,
                **QUICK,
            },
            logger=_Silent(),
        )
        consumer.subscribe([TOPIC])
        while not self._stop.is_set():
            messages = [message for message in consumer.consume(500, 0.1) if message.error() is None]
            if not messages:
                continue
            with self._lock:
                self.seen.update(message.value() for message in messages)
            try:
                done = consumer.commit(asynchronous=False)
            except confluent_kafka.KafkaException:
                continue  # the broker is gone, or the partition is another's: it is read and committed again
            with self._lock:
                for place in done:
                    # A partition of which nothing has come yet is named too, without an offset to commit.
                    if place.error is None and place.offset >= 0:
                        self.committed[place.partition] = max(self.committed.get(place.partition, 0), place.offset)
        consumer.close()


class _Silent:
    """librdkafka says every lost connection; here that is what is done to it."""

    def log(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return self.log


def committed(broker: Broker) -> dict[int, int]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": GROUP, **QUICK}, logger=_Silent()
    )
    places = [confluent_kafka.TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]
    try:
        return {place.partition: place.offset for place in consumer.committed(places, timeout=READY_S)}
    finally:
        consumer.close()


def everything(broker: Broker) -> dict[int, list[tuple[int, bytes]]]:
    """(offset, value) of every record, by partition."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": "checker", "enable.partition.eof": True, **QUICK},
        logger=_Silent(),
    )
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    found: dict[int, list[tuple[int, bytes]]] = {partition: [] for partition in range(PARTITIONS)}
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        for message in consumer.consume(1000, 5):
            if message.error() is None:
                found[message.partition()].append((message.offset(), message.value()))
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return found


def crash_and_verify(kills: int, alive_s: tuple[float, float]) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 30))
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="streamcore-broker-chaos-"))
    print(f"\nCHAOS_SEED={seed}, {kills} kills of the broker, in {directory}", flush=True)
    broker = Broker(directory)
    broker.start()
    writers, readers = Writers(broker), Readers(broker)
    writers.start()
    readers.start()
    problems: list[str] = []
    try:
        for number in range(1, kills + 1):
            time.sleep(rng.uniform(*alive_s))
            floor = readers.floor()
            broker.end(signal.SIGKILL)
            broker.start()
            kept = committed(broker)
            problems += [
                f"kill {number}: partition {partition} was committed to {offset}, after it {kept[partition]}"
                for partition, offset in floor.items()
                if kept[partition] < offset
            ]
            if number % 10 == 0:
                print(f"  {number} kills, {len(writers.acknowledged)} records acknowledged", flush=True)
    finally:
        writers.stop()
    records = everything(broker)
    ends = {partition: len(found) for partition, found in records.items()}
    deadline_s = time.monotonic() + CATCH_UP_S
    while readers.floor() != {p: end for p, end in ends.items() if end} and time.monotonic() < deadline_s:
        time.sleep(0.1)
    readers.stop()
    problems += writers.failed[:5]
    at = {(partition, offset): value for partition, found in records.items() for offset, value in found}
    for partition, found in records.items():
        if [offset for offset, _ in found] != list(range(len(found))):
            problems.append(f"partition {partition} has gaps, or an offset twice")
    twice = [value for value, count in Counter(at.values()).items() if count > 1]
    problems += [f"{value!r} is there twice" for value in twice[:5]]
    lost = [value for value, place in writers.acknowledged.items() if at.get(place) != value]
    problems += [f"{value!r} was acknowledged at {writers.acknowledged[value]} and is not there" for value in lost[:5]]
    unseen = set(at.values()) - set(readers.seen)
    if unseen:
        problems.append(f"{len(unseen)} records were never read by the group, as {min(unseen)!r}")
    if readers.floor() != {p: end for p, end in ends.items() if end}:
        problems.append(f"the group has committed {readers.floor()} of {ends}")
    assert broker.end(signal.SIGTERM) == 0
    again = sum(readers.seen.values()) - len(readers.seen)
    print(
        f"  {kills} kills, {len(writers.sent)} records sent, {len(writers.acknowledged)} acknowledged, {len(at)} on "
        f"the log; lost {len(lost)}, twice {len(twice)}; the group read {len(readers.seen)} and {again} of them again",
        flush=True,
    )
    assert not problems, f"seed {seed}, see {directory}:\n" + "\n".join(problems)
    shutil.rmtree(directory)


def test_a_few_kills_of_the_broker_lose_nothing_and_double_nothing() -> None:
    crash_and_verify(3, (0.3, 1.0))


@pytest.mark.chaos
def test_a_hundred_kills_of_the_broker_lose_nothing_and_double_nothing() -> None:
    crash_and_verify(100, (0.2, 1.2))
