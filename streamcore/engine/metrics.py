"""The worker's Prometheus metrics.

Counters of the hot path are plain integers on the runs and the node; a collector turns them into samples when
somebody scrapes, so that counting costs nothing per record.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# Seconds; a commit in process takes well under a millisecond, one over the wire a few.
COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Labels = tuple[str, ...]


class EngineMetrics:
    """Counts that the engine keeps and the registry they are read from."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.errors: Tally[Labels] = Tally()  # (agent)
        self.dead_letters: Tally[Labels] = Tally()  # (agent, topic)
        self.skipped: Tally[Labels] = Tally()  # (agent)
        self.late: Tally[Labels] = Tally()  # (agent)
        self.undecodable: Tally[Labels] = Tally()  # (agent, topic)
        self.produce_errors: Tally[Labels] = Tally()  # (topic)
        self.commit_errors: Tally[Labels] = Tally()  # ()
        self.commits: Tally[Labels] = Tally()  # ()
        self.events: Tally[Labels] = Tally()  # (agent); filled by the worker before a scrape
        self.lag: dict[Labels, float] = {}  # (topic, partition)
        self.watermark: dict[Labels, float] = {}  # (agent, partition), seconds
        self.app: Tally[Labels] = Tally()  # (name, label): counters of the app's own
        self._commit_seconds = [0] * (len(COMMIT_BUCKETS) + 1)
        self._commit_sum = 0.0
        self.refresh: Any = None  # called before a scrape

    def observe_commit(self, seconds: float) -> None:
        self.commits[()] += 1
        self._commit_sum += seconds
        for index, bound in enumerate(COMMIT_BUCKETS):
            if seconds <= bound:
                self._commit_seconds[index] += 1
                return
        self._commit_seconds[-1] += 1

    def collect(self) -> Iterator[Metric]:
        """Prometheus asks for the samples."""
        if self.refresh is not None:
            self.refresh()
        yield _counter("streamcore_agent_events", "Events handed to an agent", ["agent"], self.events)
        yield _counter("streamcore_agent_errors", "Exceptions raised by an agent", ["agent"], self.errors)
        yield _counter(
            "streamcore_dead_letters", "Records sent to the dead-letter topic", ["agent", "topic"], self.dead_letters
        )
        yield _counter("streamcore_skipped_events", "Failed events skipped by policy", ["agent"], self.skipped)
        yield _counter("streamcore_late_events", "Events too late for a window or a join", ["agent"], self.late)
        yield _counter(
            "streamcore_undecodable_records",
            "Records that do not fit their topic's types",
            ["agent", "topic"],
            self.undecodable,
        )
        yield _counter(
            "streamcore_produce_errors", "Records that the log did not take at once", ["topic"], self.produce_errors
        )
        yield _counter("streamcore_commit_errors", "Commits that had to be tried again", [], self.commit_errors)
        yield _counter("streamcore_app_events", "What the app itself counts", ["name", "detail"], self.app)
        yield _gauge("streamcore_consumer_lag_records", "Records not yet done", ["topic", "partition"], self.lag)
        yield _gauge(
            "streamcore_watermark_seconds", "Event time reached, Unix seconds", ["agent", "partition"], self.watermark
        )
        histogram = HistogramMetricFamily("streamcore_commit_seconds", "Time from the start of a commit to its end")
        total, buckets = 0, []
        for index, bound in enumerate(COMMIT_BUCKETS):
            total += self._commit_seconds[index]
            buckets.append((str(bound), total))
        buckets.append(("+Inf", total + self._commit_seconds[-1]))
        histogram.add_metric([], buckets, self._commit_sum)
        yield histogram


def _counter(name: str, help_: str, labels: list[str], samples: Tally[Labels]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=labels)
    for values, count in sorted(samples.items()):
        family.add_metric([str(value) for value in values], count)
    return family


def _gauge(name: str, help_: str, labels: list[str], samples: dict[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=labels)
    items: Iterable[tuple[Labels, float]] = sorted(samples.items())
    for values, value in items:
        family.add_metric([str(part) for part in values], value)
    return family
