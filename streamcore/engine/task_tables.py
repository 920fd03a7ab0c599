"""Tables outside of agents: which partition holds a key, and whose commit takes what is written there."""

from collections.abc import Mapping
from typing import Any

from streamcore.engine.services import Services
from streamcore.engine.stream_task import StreamTask
from streamcore.errors import UsageError
from streamcore.records.partitioner import partition_for
from streamcore.state.partitions import TablePartition, WindowPartition
from streamcore.tables import Table


class TaskTables:
    """The `TableRuntime` of a running worker's tables.

    Args:
        tasks: the worker's open stream tasks, by number; they come and go.
    """

    def __init__(self, services: Services, tasks: Mapping[int, StreamTask]) -> None:
        self._services = services
        self._tasks = tasks

    def _partition_count(self, table: Table) -> int:
        return self._services.table_partitions.get(table.name, table.partitions or self._services.task_count)

    def _task_for_key(self, table: Table, key: Any) -> StreamTask:
        count = self._partition_count(table)
        data = key.encode() if isinstance(key, str) else key if isinstance(key, bytes) else table.codec.dumps(key)
        partition = partition_for(data, count)
        task = self._tasks.get(partition)
        if task is not None:
            return task
        if partition >= self._services.task_count:
            raise UsageError(
                f"table {table.name} has {count} partitions and no topic of an agent has so many: "
                "nothing would commit its rows"
            )
        raise UsageError(
            f"the key {key!r:.100} of table {table.name} is in partition {partition}, which is with another worker"
        )

    def table_for_key(self, table: Table, key: Any, *, writes: bool = False) -> TablePartition:
        task = self._task_for_key(table, key)
        if writes and table.name not in task.owners:
            # No agent has used the table here: its rows go with the commits of one whose topic is split as it is.
            count = self._partition_count(table)
            runs = [run for run in task.runs if self._services.partitions(run.agent.topic.name) == count]
            if not runs:
                raise UsageError(
                    f"no agent reads a topic with {count} partitions as table {table.name} has: "
                    "nothing would commit its rows"
                )
            runs[0].attach(table)
        partition = task.tables.get(table.name) or task.open_table(table)
        assert isinstance(partition, TablePartition), "a windowed table is asked through its windows"
        if writes:
            group = task.owners[table.name]
            while group.merged_into is not None:
                group = group.merged_into
            group.progressed()
        return partition

    def table_partitions(self, table: Table) -> list[TablePartition]:
        return [
            part
            for _, task in sorted(self._tasks.items())
            if isinstance(part := task.tables.get(table.name), TablePartition)
        ]

    def window_for_key(self, table: Table, key: Any) -> WindowPartition:
        partition = self._task_for_key(table, key).tables.get(table.name)
        if not isinstance(partition, WindowPartition):
            raise UsageError(f"table {table.name} has no windows before an agent has used it")
        return partition
