"""What passed through a node, as plain integers; whoever exports metrics reads them."""

from dataclasses import dataclass, field


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
    topics: dict[str, TopicCounters] = field(default_factory=dict)

    unknown: TopicCounters = field(default_factory=TopicCounters)  # of every topic that is not there

    def of(self, topic: str) -> TopicCounters:
        counters = self.topics.get(topic)
        if counters is None:
            counters = self.topics[topic] = TopicCounters()
        return counters
