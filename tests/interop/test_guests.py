"""Frameworks that people have: unmodified Faust, Quix Streams and Bytewax apps give the right results."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.interop.cluster import PATIENCE_S, Cluster, fresh, tail, until
from tests.interop.environments import python_with
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

PROGRAMS: Final = Path(__file__).with_name("guests")
REQUIREMENTS: Final = {
    "faust": ["faust-streaming==0.15.3"],
    "quix": ["quixstreams==3.28.1"],
    "bytewax": ["bytewax[kafka]==0.21.1"],
}
# What they log when they have their partitions and tables.
READY: Final = {"faust": "Worker ready", "quix": "is now processing incoming messages"}
PARTITIONS: Final = 4
ACCOUNTS: Final = 20
ORDERS: Final = 2000
START_S: Final = int(time.time()) // 60 * 60 - 3600  # the beginning of a minute that no window has forgotten
Results = dict[tuple[str, int], tuple[int, int]]  # (account, number) -> (its total, its minute's total)


def orders() -> list[dict[str, Any]]:
    """Ten orders a second of event time, of accounts in turn by chance."""
    chance = random.Random(4)
    return [
        {
            "account": f"account-{chance.randrange(ACCOUNTS)}",
            "number": number,
            "amount": chance.randrange(1, 1000),
            "at": START_S + number // 10,
        }
        for number in range(ORDERS)
    ]


def expected(events: list[dict[str, Any]]) -> Results:
    totals: dict[str, int] = {}
    minutes: dict[tuple[str, int], int] = {}
    results: Results = {}
    for event in events:
        account, minute = event["account"], (event["account"], event["at"] // 60)
        totals[account] = totals.get(account, 0) + event["amount"]
        minutes[minute] = minutes.get(minute, 0) + event["amount"]
        results[account, event["number"]] = totals[account], minutes[minute]
    return results


def send(cluster: Cluster, topic: str, events: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "log_level": 2})
    for event in events:
        producer.produce(topic, json.dumps(event), key=event["account"])
    assert producer.flush(PATIENCE_S) == 0


def results_of(cluster: Cluster, topic: str, enough: Callable[[Results], bool], output: Path) -> Results:
    """What lies in the topic, once that is enough; every result once, or as it was before."""
    found: Results = {}
    consumer = Consumer(
        {"bootstrap.servers": cluster.bootstrap, "group.id": "none", "enable.auto.commit": False, "log_level": 2}
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        while not enough(found):
            messages = consumer.consume(1000, timeout=PATIENCE_S)
            assert messages, f"only {len(found)} results came:\n{tail(output)}"
            for message in messages:
                assert message.error() is None, message.error()
                result = json.loads(message.value())
                place, totals = (result["account"], result["number"]), (result["total"], result["minute"])
                assert found.setdefault(place, totals) == totals, f"{place} came twice and differs"
    finally:
        consumer.close()
    return found


def committed(cluster: Cluster, name: str) -> bool:
    """Whether the app's group has committed everything in its topic."""
    group = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": f"{name}-app", "log_level": 2})
    try:
        places = group.committed([TopicPartition(name, partition) for partition in range(PARTITIONS)], PATIENCE_S)
        ends = [group.get_watermark_offsets(place, PATIENCE_S)[1] for place in places]
    finally:
        group.close()
    return all(place.offset == end for place, end in zip(places, ends, strict=True) if end > 0)


@contextmanager
def guest(kind: str, cluster: Cluster, name: str, directory: Path, *arguments: str) -> Iterator[Path]:
    """The app while it runs, and where its output goes; it must end in order when it is told to."""
    directory.mkdir()
    output = directory.with_suffix(".out")
    command = [python_with(kind, REQUIREMENTS[kind]), PROGRAMS / f"{kind}_app.py", cluster.bootstrap, name, directory]
    with output.open("wb") as sink:
        process = subprocess.Popen([*map(str, command), *arguments], stdout=sink, stderr=sink, cwd=directory)
    try:
        yield output
        process.send_signal(signal.SIGTERM)
        assert process.wait(2 * PATIENCE_S) in (0, -signal.SIGTERM), tail(output)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["faust", "quix"])
def test_an_app_with_tables_counts_right_and_goes_on_after_a_restart_without_its_files(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    name, events = fresh(kind), orders()
    create_topic(cluster, name, PARTITIONS)
    create_topic(cluster, f"{name}-results", PARTITIONS)
    if kind == "faust":
        # It would make them itself, and does not wait until the broker tells of them, which Apache Kafka does later.
        for table in ("totals", "minutes"):
            create_topic(cluster, f"{name}-app-{table}-changelog", PARTITIONS, cleanup_policy="compact")
    for run, part in enumerate([events[: ORDERS // 2], events]):
        wanted = expected(part)
        # The second run has nothing but what the broker keeps: offsets and changelogs.
        with guest(kind, cluster, name, tmp_path / f"run-{run}") as output:
            # Faust reads on while it rebuilds its tables, then seeks back, and so loses or doubles what waits in the
            # topic meanwhile: on Apache Kafka too. So the orders come when it is ready.
            until(lambda output=output: READY[kind] in tail(output, 1 << 20), what=f"{kind}'s start", seconds=60)
            send(cluster, name, part[-ORDERS // 2 :])
            found = results_of(
                cluster, f"{name}-results", lambda found, wanted=wanted: len(found) >= len(wanted), output
            )
            # At least once is what they promise: what is not committed yet would be counted again, rightly.
            until(lambda: committed(cluster, name), what=f"{kind}'s commit of all it has read")
        assert found == wanted


def test_a_bytewax_flow_counts_right(cluster: Cluster, tmp_path: Path) -> None:
    name, events = fresh("bytewax"), orders()
    create_topic(cluster, name, PARTITIONS)
    create_topic(cluster, f"{name}-results", PARTITIONS)
    send(cluster, name, events)
    output = tmp_path / "output"
    command = [
        python_with("bytewax", REQUIREMENTS["bytewax"]), PROGRAMS / "bytewax_app.py", cluster.bootstrap, name, tmp_path,
    ]  # fmt: skip
    with output.open("wb") as sink:
        done = subprocess.run(command, stdout=sink, stderr=sink, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, tail(output)
    assert results_of(cluster, f"{name}-results", lambda found: len(found) >= ORDERS, output) == expected(events)
