"""What passed through a node, as plain integers; whoever exports metrics reads them."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from streamcore.broker.error_tally import Tally

# Seconds; a sync takes a tenth of a millisecond on an SSD with a power-safe cache, and tens of them on a plain disk.
SYNC_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Durations:
    """How long something took: counts per bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds  # seconds, each included in its bucket
        self.counts = [0] * (len(bounds) + 1)  # the last one is of everything longer
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """(bound, how many took at most as long), as Prometheus wants them."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


@dataclass(slots=True)
class ApiCounters:
    """One API's requests at one door."""

    name: str
    tally: Tally  # counts the errors of a response
    requests: int = 0  # that were answered, or needed no answer
    bytes_in: int = 0  # of whole frames
    bytes_out: int = 0
    queue_ns: int = 0  # from when the frame was there to when its turn came
    handler_ns: int = 0  # from then until its answer was encoded; a long poll's wait is part of it
    errors: dict[int, int] = field(default_factory=dict)  # by Kafka's code; a partition with an error counts once


@dataclass(slots=True)
class DoorCounters:
    """What came through a broker's door."""

    apis: dict[int, ApiCounters] = field(default_factory=dict)  # by API key
    connections: int = 0  # accepted, all in all
    closed: dict[str, int] = field(default_factory=dict)  # by reason, one of a few words
    waiting_fetches: int = 0  # for records, at the moment
    fetch_wait_s: float = 0.0  # all in all, of those that have ended


@dataclass(slots=True)
class TopicCounters:
    """One topic's share; all of them only grow while the node lives."""

    records_in: int = 0
    bytes_in: int = 0  # of whole batches, as stored
    records_out: int = 0  # handed to a reader; offsets without a record count as well
    bytes_out: int = 0  # of whole batches, as stored
    failed_produces: int = 0  # requests per partition that were answered with an error
    failed_fetches: int = 0  # likewise


@dataclass(slots=True)
class NodeCounters:
    """A node's own, and each topic's by name."""

    flushes: int = 0  # syncs of a partition's segment files
    failed_flushes: int = 0
    commits: int = 0  # offset commits of all groups
    retention_bytes: int = 0  # freed by retention
    compactions: int = 0  # passes of the cleaner over a partition
    compaction_bytes: int = 0  # freed by compaction
    request_syncs: Durations = field(default_factory=lambda: Durations(SYNC_BUCKETS))  # rounds that somebody waited for
    interval_syncs: Durations = field(default_factory=lambda: Durations(SYNC_BUCKETS))  # of everything, in between
    topics: dict[str, TopicCounters] = field(default_factory=dict)

    unknown: TopicCounters = field(default_factory=TopicCounters)  # of every topic that is not there

    def of(self, topic: str) -> TopicCounters:
        counters = self.topics.get(topic)
        if counters is None:
            counters = self.topics[topic] = TopicCounters()
        return counters
