"""The broker beside Apache Kafka 4.1: the same client programs against both, in turn, in one run.

The clients are kcat (librdkafka), Kafka's own ProducerPerformance and ConsumerPerformance (Java), for the latency of
one acknowledged record confluent-kafka, and for many connections a program of our own. Apache Kafka comes from Maven's
jars, with the JVM's usual compiler.

The better of the rounds counts, for both: what else runs on the machine only ever makes a round slower. Beside each
rate stands who was busy with it: a rate at which the client fills the machine says nothing of the broker any more, and
the broker's own CPU time per record does.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import broker_clients as clients
from benchmarks.broker_clients import Cost
from benchmarks.broker_processes import OURS, THEIRS, Broker, ours, theirs
from benchmarks.broker_report import Found, report, write_section

MANY = 1000  # partitions, connections
REQUESTS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # So many that the start of the client programs, which is in their times, hardly counts.
    parser.add_argument("--records", type=int, default=5_000_000, help="of 100 bytes; of 1 kB a fifth as many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    if shutil.which("kcat") is None or shutil.which("java") is None:
        sys.exit("kcat and java are needed (Debian: apt install kcat default-jre-headless maven)")
    home = Path(tempfile.mkdtemp(prefix="streamcore-benchmark-"))
    small, large = home / "100-bytes", home / "1-kB"
    small.write_bytes((b"x" * 99 + b"\n") * options.records)
    large.write_bytes((b"y" * 999 + b"\n") * (options.records // 5))
    found: dict[str, Found] = defaultdict(lambda: Found(defaultdict(list), defaultdict(list)))
    try:
        with ours(home / "ours") as first, theirs(home / "theirs") as second:
            for broker in (first, second):
                found["start-up, s"].figures[broker.name].append(broker.start_s)
            for number in range(options.rounds):
                # Whoever comes second finds a warmer machine, so they take turns in that as well.
                for broker in (first, second) if number % 2 == 0 else (second, first):
                    Round(broker, number, options.records, found).measure(small, large)
                print(f"round {number + 1} of {options.rounds} done", flush=True)
            for broker in (first, second):
                found["memory after it all, MB"].figures[broker.name].append(broker.rss_mb())
            lines = report(found, OURS, THEIRS)
            if options.write:
                write_section(lines, options.rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Round:
    """All measurements of one broker, once."""

    def __init__(self, broker: Broker, number: int, records: int, found: dict[str, Found]) -> None:
        self._broker = broker
        self._number = number
        self._records = records
        self._found = found

    def measure(self, small: Path, large: Path) -> None:
        self._kcat("100 B, records/s", small, self._records, per_s=1)
        self._kcat("1 kB, MB/s", large, self._records // 5, per_s=1000)
        self._java("100 B, records/s", 100, self._records, per_s=1)
        self._java("1 kB, MB/s", 1000, self._records // 5, per_s=1000)
        self._partitions(small)
        self._connections()
        latencies = clients.latencies_ms(self._broker, self._topic())
        self._note("one record acknowledged, p50, ms", latencies[len(latencies) // 2])
        self._note("one record acknowledged, p99, ms", latencies[int(len(latencies) * 0.99)])

    def _topic(self, partitions: int = 1) -> str:
        name = f"round-{self._number}-{len(self._found)}-{partitions}-{os.urandom(4).hex()}"
        clients.make_topic(self._broker, name, partitions)
        return name

    def _note(self, what: str, value: float, cost: Cost | None = None, messages: int = 0) -> None:
        found = self._found[what]
        found.figures[self._broker.name].append(value)
        if cost is not None:
            found.costs[self._broker.name].append((cost, messages))

    def _kcat(self, what: str, lines: Path, records: int, *, per_s: int) -> None:
        topic = self._topic()
        cost = clients.kcat_produces(self._broker, topic, lines)
        self._note(f"kcat produces {what}", records / cost.seconds / per_s, cost, records)
        cost = clients.kcat_consumes(self._broker, topic, records)
        self._note(f"kcat consumes {what}", records / cost.seconds / per_s, cost, records)

    def _java(self, what: str, size: int, records: int, *, per_s: int) -> None:
        topic = self._topic()
        rate, cost = clients.java_produces(self._broker, topic, size, records)
        self._note(f"Java produces {what}", rate / per_s, cost, records)
        rate, cost = clients.java_consumes(self._broker, topic, records)
        self._note(f"Java consumes {what}", rate / per_s, cost, records)

    def _partitions(self, lines: Path) -> None:
        """As many records to one partition, to 1,000 by librdkafka's own choice, and evenly spread over them."""
        spread = ("sticky.partitioning.linger.ms=0", "topic.partitioner=random")
        for title, partitions, settings in (("1 partition", 1, ()), ("1,000 partitions", MANY, ()), (
            "1,000 partitions evenly", MANY, spread,
        )):  # fmt: skip
            topic = self._topic(partitions)
            cost = clients.kcat_produces(self._broker, topic, lines, "linger.ms=50", *settings)
            self._note(f"kcat produces to {title}, records/s", self._records / cost.seconds, cost, self._records)

    def _connections(self) -> None:
        topic = self._topic()
        for title, connections in (("1 connection", 1), ("1,000 connections", MANY)):
            cost = clients.many_connections(self._broker, topic, connections, REQUESTS)
            self._note(f"requests over {title}, 1/s", REQUESTS / cost.seconds, cost, REQUESTS)


if __name__ == "__main__":
    os.environ.setdefault("CI", "false")
    main()
