"""Opening a stream task's store: as it was, repaired, or rebuilt from the changelogs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from streamcore.agents import Agent
from streamcore.engine import changelogs
from streamcore.engine.commit import changelog_entry, metadata_content
from streamcore.engine.run_state import run_entry
from streamcore.engine.services import Services, logger
from streamcore.engine.stream_task import Logged, StreamTask
from streamcore.errors import StateError
from streamcore.state.memory import MemoryStore
from streamcore.state.partitions import KeyLayout
from streamcore.state.rocksdb import RocksStore, set_aside
from streamcore.state.store import META, Change, Store
from streamcore.tables import Table
from streamcore.transport.base import Committed
from streamcore.types import TP

_INITIALIZED = b"initialized"

# (table, partition, rows done, rows in all)
OnRecovery = Callable[[str, int, int, int], None]


def open_store(services: Services, path: str | None) -> Store:
    """The store at `path`, or one in memory; a damaged one is set aside and begun anew."""
    if path is None:
        return MemoryStore()
    try:
        return RocksStore(path)
    except StateError as error:
        if not (Path(path) / "CURRENT").exists():
            raise  # not damaged: not writable, or no directory
        moved = set_aside(path, services.clock.now_ms())
        logger.error("%s; it lies in %s now, and its tables are rebuilt from their changelogs", error, moved)
        return RocksStore(path)


class Recovery:
    """Brings one task's tables to where the last commit left them."""

    def __init__(
        self,
        services: Services,
        task: StreamTask,
        agents: Mapping[str, Agent],
        declared: dict[str, Table],
        on_recovery: OnRecovery,
    ) -> None:
        self._services = services
        self._task = task
        self._agents = agents
        self._declared = declared
        self._on_recovery = on_recovery

    async def recover(self, committed: dict[TP, Committed]) -> None:
        """Make the task's tables, offsets and changelogs agree.

        Args:
            committed: the group's offsets in all partitions.
        """
        task, store = self._task, self._task.store
        if store.get(META, _INITIALIZED) is not None:
            ends = self._load()
        else:
            ends = await self._rebuild(committed)
            store.write([(META, _INITIALIZED, b"1")])
        for table in sorted(ends):
            ends[table] = await self._repair(table, ends[table])
        runs = {
            agent: (state, {TP(topic, task.partition): offset for topic, offset in state["offsets"].items()})
            for agent, state in task.run_states.items()
        }
        task.logged = Logged().changed_by(runs, ends)

    def _load(self) -> dict[str, int]:
        task, store = self._task, self._task.store
        for key, value in store.scan(META, run_entry(""), run_entry("\U0010ffff")):
            agent = key.decode().removeprefix("run:")
            if agent in self._agents:
                task.run_states[agent] = orjson.loads(value)
        return {
            key.decode().removeprefix("changelog:"): int(value)
            for key, value in store.scan(META, changelog_entry(""), changelog_entry("\U0010ffff"))
        }

    def _layout(self, name: str) -> KeyLayout | None:
        """How the table's keys are laid out; None for a table that nothing declares any more."""
        table = self._declared.get(name)
        if table is not None:
            return KeyLayout(table.window)
        return KeyLayout(None) if any(name.startswith(f"{agent}-") for agent in self._agents) else None

    def _partitions_of(self, table: str) -> int:
        """As many as the topic of an agent that uses the table."""
        counts = [
            self._services.partitions(self._agents[agent].topic.name)
            for agent, state in self._task.run_states.items()
            if table in state.get("tables", ())
        ]
        return max(counts, default=self._task.partition + 1)

    async def _repair(self, name: str, known: int) -> int:
        """Write the store's rows over what a crash left in the changelog without a commit; its end."""
        task, services = self._task, self._services
        tp = TP(services.changelog_topic(name), task.partition)
        layout = self._layout(name)
        if layout is None or name not in task.store.tables():
            return known
        end = await changelogs.end_of(services, tp)
        if end == known:
            return known
        if end is not None and end > known:
            rows = [
                (key, task.store.get(name, layout.store_key(key)))
                for key in await changelogs.keys(services, tp, known, end)
            ]
            logger.info("%s: %d rows of an unfinished commit are set right", tp, len(rows))
        else:
            logger.warning(
                "%s has lost records (its end is %s, not %d): the table's rows are written again", tp, end, known
            )
            if end is None:
                services.table_partitions.setdefault(name, self._partitions_of(name))
                await changelogs.ensure(services, name)
            rows = [(layout.changelog_key(key), value) for key, value in task.store.scan(name)]
        end = await changelogs.write(services, tp, rows) or end or 0
        task.store.write([(META, changelog_entry(name), str(end).encode())])
        return end

    async def _rebuild(self, committed: dict[TP, Committed]) -> dict[str, int]:
        """From nothing: the group's offsets, and the changelogs up to where they stood then; their ends."""
        task = self._task
        ends: dict[str, int] = {}
        for tp, place in committed.items():
            if tp.partition != task.partition or not place.metadata:
                continue
            content = metadata_content(place.metadata)
            for agent, state in content.get("runs", {}).items():
                if agent in self._agents:
                    task.run_states[agent] = state
            ends |= content.get("changelogs", {})
        ends = {name: end for name, end in sorted(ends.items()) if self._layout(name) is not None}
        for name, end in ends.items():
            ends[name] = await self._restore(name, end)
        for agent, state in task.run_states.items():
            task.store.write([(META, run_entry(agent), orjson.dumps(state))])
        return ends

    async def _restore(self, name: str, end: int) -> int:
        """Read a table's rows back; the end of what there was."""
        task, services = self._task, self._services
        tp = TP(services.changelog_topic(name), task.partition)
        layout = self._layout(name)
        assert layout is not None, "the caller has asked"
        store_key, is_plain = layout.store_key, name not in self._declared or self._declared[name].window is None
        task.store.open_table(name)
        have = await changelogs.end_of(services, tp)
        if have is None or have < end:
            logger.error("%s ends at %s, before the table's last commit at %d: the newest rows are lost", tp, have, end)
            end = have or 0

        def told(done: int, total: int) -> None:
            self._on_recovery(name, tp.partition, done, total)

        if have is not None:
            async for records in changelogs.read(services, tp, 0, end, told):
                changes: list[Change]
                if is_plain:
                    changes = [(name, record.key, record.value) for record in records]  # type: ignore[misc]
                else:
                    changes = [(name, store_key(record.key), record.value) for record in records]  # type: ignore[arg-type]
                task.store.write(changes)
        task.store.write([(META, changelog_entry(name), str(end).encode())])
        return end
