"""A node's Prometheus metrics, and those of the door in front of it.

The hot path counts in plain integers; here they become samples when somebody scrapes. What stands for many has bounds:
`TOPICS_MAX` topics and `PARTITIONS_MAX` partitions have samples of their own, and what is beyond them is summed up
under one name, or counted as left out.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from streamcore.broker.broker import package_version
from streamcore.broker.counters import ApiCounters, Durations, TopicCounters
from streamcore.broker.node import Node
from streamcore.errors import StreamcoreError
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

# Prometheus keeps every label for weeks; a program that makes a topic per user must not fill it. The first ones by
# traffic keep their names for as long as they live, so that none of their counters ever goes back.
TOPICS_MAX: Final = 500
PARTITIONS_MAX: Final = 2000  # three samples each; about 300 kB of text
OTHER_TOPICS: Final = "(other)"
UNKNOWN_TOPICS: Final = "(unknown)"  # requests for topics that are not there


class NodeMetrics(Collector):
    """Reads a node, and its door while it has one, at each scrape."""

    def __init__(self, node: Callable[[], Node | None]) -> None:
        """`node` gives the node while it is open."""
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node = self._node()
        if node is None:
            return
        yield from _topics(node)
        yield from _log(node)
        yield from _syncs(node)
        if node.door is not None:
            yield from _requests(node.door)
            yield from _connections(node.door)
            yield from _groups(node.door)
            yield _info(node.door)


def _topics(node: Node) -> Iterator[Metric]:
    shown, rest = dict(list(node.counters.topics.items())[:TOPICS_MAX]), TopicCounters()
    for counters in list(node.counters.topics.values())[TOPICS_MAX:]:
        for field in _TOPIC_COUNTERS:
            setattr(rest, field, getattr(rest, field) + getattr(counters, field))
    if len(node.counters.topics) > TOPICS_MAX:
        shown[OTHER_TOPICS] = rest
    shown[UNKNOWN_TOPICS] = node.counters.unknown
    for field, (name, text) in _TOPIC_COUNTERS.items():
        yield _counter(name, text, ["topic"], (((topic,), getattr(each, field)) for topic, each in shown.items()))


_TOPIC_COUNTERS: Final = {
    "records_in": ("streamcore_log_records_in", "Records written to a topic"),
    "bytes_in": ("streamcore_log_bytes_in", "Bytes of the batches written to a topic, as stored"),
    "records_out": ("streamcore_log_records_out", "Offsets of a topic that readers were handed"),
    "bytes_out": ("streamcore_log_bytes_out", "Bytes of the batches that readers were handed, as stored"),
    "failed_produces": ("streamcore_log_failed_produces", "Writes to a partition that were refused"),
    "failed_fetches": ("streamcore_log_failed_fetches", "Reads of a partition that were refused"),
}


def _log(node: Node) -> Iterator[Metric]:
    states = node.partitions()
    shown = states[:PARTITIONS_MAX]
    yield _gauge("streamcore_log_partitions", "Partitions on this node", [], [((), len(states))])
    offline = sum(state.offline is not None for state in states)
    yield _gauge("streamcore_log_offline_partitions", "Partitions that cannot be used", [], [((), offline)])
    left_out = len(states) - len(shown)
    yield _gauge("streamcore_log_partitions_left_out", "Partitions without samples here", [], [((), left_out)])
    size = sum(state.size_bytes for state in states)
    yield _gauge("streamcore_log_bytes", "Size of all partitions on disk", [], [((), size)])
    keys = [(state, (state.tp.topic, str(state.tp.partition))) for state in shown]
    labels = ["topic", "partition"]
    sizes = ((key, state.size_bytes) for state, key in keys)
    yield _gauge("streamcore_log_partition_bytes", "Size of a partition on disk", labels, sizes)
    starts = ((key, state.log_start_offset) for state, key in keys if state.log_start_offset >= 0)
    yield _gauge("streamcore_log_start_offset", "First offset of a partition", labels, starts)
    ends = ((key, state.log_end_offset) for state, key in keys if state.log_end_offset >= 0)
    yield _gauge("streamcore_log_end_offset", "Offset that the next record of a partition gets", labels, ends)
    try:
        producers = sum(len(log.producers.producers) for log in node.directory.logs.values())
    except StreamcoreError:  # closed meanwhile
        producers = 0
    yield _gauge(
        "streamcore_log_producers", "Idempotent producers known, per partition they wrote to", [], [((), producers)]
    )
    compactions = node.counters.compactions
    yield _counter("streamcore_log_compactions", "Passes of the cleaner over a partition", [], [((), compactions)])
    compacted = node.counters.compaction_bytes
    yield _counter("streamcore_log_compaction_bytes", "Bytes freed by compaction", [], [((), compacted)])
    yield _counter(
        "streamcore_log_retention_bytes", "Bytes freed by retention", [], [((), node.counters.retention_bytes)]
    )
    yield _counter("streamcore_log_offset_commits", "Offset commits of all groups", [], [((), node.counters.commits)])


def _syncs(node: Node) -> Iterator[Metric]:
    family = HistogramMetricFamily("streamcore_log_sync_seconds", "Time of a round of syncs", labels=["reason"])
    rounds: list[tuple[str, Durations]] = [
        ("request", node.counters.request_syncs), ("interval", node.counters.interval_syncs)
    ]  # fmt: skip
    for reason, durations in rounds:
        family.add_metric([reason], durations.cumulative(), durations.sum_s)
    yield family
    yield _counter(
        "streamcore_log_failed_syncs", "Partitions that a sync failed for", [], [((), node.counters.failed_flushes)]
    )


def _requests(broker: "Broker") -> Iterator[Metric]:
    apis = sorted(broker.counters.apis.values(), key=lambda each: each.name)
    families: tuple[tuple[str, str, Callable[[ApiCounters], float]], ...] = (
        ("streamcore_broker_requests", "Requests worked off", lambda each: each.requests),
        ("streamcore_broker_request_bytes", "Bytes of requests", lambda each: each.bytes_in),
        ("streamcore_broker_response_bytes", "Bytes of responses", lambda each: each.bytes_out),
        ("streamcore_broker_queue_seconds", "Time requests waited for their turn", lambda each: each.queue_ns / 1e9),
        (
            "streamcore_broker_handler_seconds",
            "Time from a request's turn to its answer, waits of long polls included",
            lambda each: each.handler_ns / 1e9,
        ),
    )
    for name, text, value in families:
        yield _counter(name, text, ["api"], (((each.name,), value(each)) for each in apis))
    errors = (((each.name, _code(code)), count) for each in apis for code, count in sorted(each.errors.items()))
    yield _counter("streamcore_broker_errors", "Errors in answers, per partition or group", ["api", "code"], errors)
    yield _gauge(
        "streamcore_broker_waiting_fetches",
        "Fetches that wait for records",
        [],
        [((), broker.counters.waiting_fetches)],
    )
    yield _counter(
        "streamcore_broker_fetch_wait_seconds",
        "Time fetches have waited for records",
        [],
        [((), broker.counters.fetch_wait_s)],
    )


def _connections(broker: "Broker") -> Iterator[Metric]:
    counters = broker.counters
    yield _gauge("streamcore_broker_connections", "Connections that are open", [], [((), len(broker.connections))])
    yield _counter("streamcore_broker_connections_opened", "Connections accepted", [], [((), counters.connections)])
    closed = (((reason,), count) for reason, count in sorted(counters.closed.items()))
    yield _counter("streamcore_broker_connections_closed", "Connections that ended", ["reason"], closed)


def _groups(broker: "Broker") -> Iterator[Metric]:
    tally = broker.coordinator.tally()
    states = (((str(state),), count) for state, count in tally.by_state.items())
    yield _gauge("streamcore_broker_groups", "Consumer groups", ["state"], states)
    yield _gauge("streamcore_broker_group_members", "Members of all groups", [], [((), tally.members)])
    yield _counter("streamcore_broker_rebalances", "Generations that groups have begun", [], [((), tally.generations)])


def _info(broker: "Broker") -> Metric:
    family = InfoMetricFamily("streamcore_broker", "Which broker this is", labels=[])
    family.add_metric(
        [], {"version": package_version(), "node_id": str(broker.config.node_id), "cluster_id": broker.cluster_id}
    )
    return family


def _code(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)


_Samples = Iterable[tuple[tuple[str, ...], float]]


def _counter(name: str, text: str, labels: list[str], samples: _Samples) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: list[str], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
