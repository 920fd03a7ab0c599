"""A stream task: the slice of an app that one partition number makes.

Partition 3 of every topic and partition 3 of every table belong together: rows of the same key meet there. A task
has one store, and a run of every agent whose topic has that partition.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamcore.codecs import Codec
from streamcore.engine.services import Services
from streamcore.errors import PartitionsMismatchError
from streamcore.state.partitions import NOTHING_CLOSED, TablePartition, WindowPartition
from streamcore.state.store import Store
from streamcore.tables import Table
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.group import CommitGroup
    from streamcore.engine.run import Run


@dataclass(frozen=True)
class Logged:
    """What the log knows of a task beside the group's offsets, and repeats with each commit."""

    run_states: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # by agent
    offsets: Mapping[TP, Mapping[str, int]] = field(default_factory=dict)  # by partition and agent
    changelog_ends: Mapping[str, int] = field(default_factory=dict)  # by table

    def changed_by(
        self, runs: Mapping[str, tuple[dict[str, Any], Mapping[TP, int]]], changelog_ends: Mapping[str, int]
    ) -> "Logged":
        """With new states and offsets of some agents, and new ends of some tables' changelogs."""
        offsets = {tp: dict(by_agent) for tp, by_agent in self.offsets.items()}
        for agent, (_, places) in runs.items():
            for tp, offset in places.items():
                offsets.setdefault(tp, {})[agent] = offset
        states = {agent: state for agent, (state, _) in runs.items()}
        return Logged({**self.run_states, **states}, offsets, {**self.changelog_ends, **changelog_ends})


class StreamTask:
    """One partition slice: its store, its runs, its tables."""

    def __init__(self, services: Services, partition: int, store: Store) -> None:
        self.services = services
        self.partition = partition
        self.store = store
        self.runs: list[Run] = []
        self.tables: dict[str, TablePartition | WindowPartition] = {}
        self.owners: dict[str, CommitGroup] = {}
        self.run_states: dict[str, dict[str, Any]] = {}  # by agent, as of the store's last write
        self.logged = Logged()
        self.logging = asyncio.Lock()  # held while `logged` and the group's offsets change
        self.commits = 0  # the number of the newest commit, whoever made it
        self.is_closed = False  # it may be with another worker
        self.last_commit_ms: dict[int, int] = {}

    def attach(self, run: "Run", table: Table) -> TablePartition | WindowPartition:
        """The table's partition for a run; from now on it commits with the run's group.

        Raises:
            PartitionsMismatchError: the table follows a topic with another number of partitions.
        """
        self._check_partitions(table.name, run)
        partition = self.tables.get(table.name)
        if partition is None:
            partition = self.open_table(table)
        self._join_group(run, table.name, partition)
        return partition

    def attach_state(self, run: "Run", name: str, codec: Codec) -> TablePartition:
        """As `attach`, for an agent's own state."""
        self._check_partitions(name, run)
        partition = self.tables.get(name)
        if partition is None:
            partition = TablePartition(name, self.store, codec, self.services.config.table_cache_entries)
            self._register(name, partition)
        assert isinstance(partition, TablePartition), "a state is a plain table"
        self._join_group(run, name, partition)
        return partition

    def open_table(self, table: Table) -> TablePartition | WindowPartition:
        """The table's rows in this partition, without anybody who writes them yet."""
        cache_entries = self.services.config.table_cache_entries
        partition: TablePartition | WindowPartition
        if table.window is None:
            partition = TablePartition(table.name, self.store, table.codec, cache_entries)
        else:
            partition = WindowPartition(
                table.name, self.store, table.codec, cache_entries, table.window, table.default,
                max((s.get("closed", {}).get(table.name, NOTHING_CLOSED) for s in self.run_states.values()),
                    default=NOTHING_CLOSED),
            )  # fmt: skip
        self._register(table.name, partition)
        return partition

    def _register(self, name: str, partition: TablePartition | WindowPartition) -> None:
        partition.changelog_offset = self.logged.changelog_ends.get(name, 0)
        self.tables[name] = partition

    def _check_partitions(self, name: str, run: "Run") -> None:
        topic = run.agent.topic.name
        count = self.services.partitions(topic)
        declared = self.services.table_partitions.setdefault(name, count)
        if declared != count:
            raise PartitionsMismatchError(
                f"table {name} has {declared} partitions and agent {run.agent.name} reads topic {topic} with {count}: "
                f"rows of one key would not meet; give both topics the same number of partitions"
            )

    def _join_group(self, run: "Run", name: str, partition: TablePartition | WindowPartition) -> None:
        owner = self.owners.get(name)
        while owner is not None and owner.merged_into is not None:
            owner = owner.merged_into
        if owner is None:
            run.group.tables[name] = partition
        elif owner is not run.group:
            owner.absorb(run.group)
        self.owners[name] = run.group
