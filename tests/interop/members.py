"""Group members as processes, and what every client's group must survive: joining, leaving and dying under load."""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from confluent_kafka import Producer

from tests.interop.cluster import PATIENCE_S, Cluster, fresh, stop
from tests.interop.topics import create_topic

PARTITIONS: Final = 6
SESSION_TIMEOUT_MS: Final = 6000  # the least that Kafka allows by default
HEARTBEAT_INTERVAL_MS: Final = 500
# The session of the member that was killed ends first, then its partitions are read again.
_CATCH_UP_SECONDS_MAX: Final = 40.0


class Member:
    """A process that prints the value of each record on a line of its own before it commits its offset."""

    def __init__(self, command: Sequence[str | Path], read_value: Callable[[str], list[str]] = lambda line: [line]):
        """
        Args:
            command: it must leave the group and end when it gets SIGTERM.
            read_value: the values that a line of its output tells of.
        """
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._read_value = read_value
        self._gone = False
        self._seen: set[str] = set()
        self._errors: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read_output, name="member's output"),
            threading.Thread(target=self._read_errors, name="member's errors"),
        ]
        for thread in self._threads:
            thread.start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            values = self._read_value(line.rstrip("\n"))
            with self._changed:
                self._seen.update(values)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    @property
    def seen(self) -> set[str]:
        with self._changed:
            return set(self._seen)

    def wait_until_seen(self, enough: Callable[[set[str]], bool], what: str, seconds: float = PATIENCE_S) -> None:
        with self._changed:
            self._changed.wait_for(lambda: enough(self._seen) or self._process.poll() is not None, timeout=seconds)
            assert enough(self._seen), (
                f"{what}: after {len(self._seen)} records, exit code {self._process.poll()}\n"
                f"{''.join(self._errors[-40:])}"
            )

    def leave(self) -> None:
        """Go in order."""
        stop(self._process)
        self._close()

    def die(self) -> None:
        """Go without a word."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._gone = True
        for thread in self._threads:
            thread.join()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._gone:
            self.die()


class _Load:
    """Numbered records, a few every hundredth of a second, until it is left."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": cluster.bootstrap, "linger.ms": 5, "acks": "all", "log_level": 2}
        )
        self._topic = topic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.refused: list[object] = []
        self.sent: set[str] = set()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(0.01):
            for _ in range(5):
                value = f"value-{number}"
                number += 1
                self.sent.add(value)
                self._producer.produce(self._topic, value, key=value, on_delivery=self._on_delivery)
            self._producer.poll(0)
        left = self._producer.flush(PATIENCE_S)
        if left:
            self.refused.append(f"{left} records undelivered")

    def _on_delivery(self, error: object, _: object) -> None:
        if error is not None:
            self.refused.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()


def check_members_joining_leaving_and_dying(cluster: Cluster, join: Callable[[str, str], Member]) -> None:
    """While records come in, three members join, one leaves, one is killed: every record is seen by one of them.

    Args:
        join: starts a member, given topic and group; with SESSION_TIMEOUT_MS and HEARTBEAT_INTERVAL_MS where it can.
    """
    topic, group = fresh("members"), fresh("group")
    create_topic(cluster, topic, PARTITIONS)
    with join(topic, group) as first, _Load(cluster, topic) as load:
        first.wait_until_seen(bool, "the first member, alone")
        with join(topic, group) as second, join(topic, group) as third:
            second.wait_until_seen(bool, "the second member, beside others")
            third.wait_until_seen(bool, "the third member, beside others")
            second.leave()
            third.die()
        load.__exit__()
        assert load.sent
        assert load.refused == []
        gone = second.seen | third.seen
        first.wait_until_seen(
            lambda seen: load.sent <= seen | gone, f"all of {len(load.sent)} records", _CATCH_UP_SECONDS_MAX
        )
        assert first.seen | gone == load.sent
        first.leave()
