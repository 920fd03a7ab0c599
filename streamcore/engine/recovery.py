"""Opening a stream task's store: as it was, repaired, or rebuilt from the changelogs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from streamcore.agents import Agent
from streamcore.engine import changelogs
from streamcore.engine.commit import changelog_entry, metadata_content
from streamcore.engine.run_state import commit_number, commit_time_ms, run_entry
from streamcore.engine.services import Services, logger
from streamcore.engine.stream_task import Logged, StreamTask
from streamcore.errors import StateError, StoreHeldError
from streamcore.state.memory import MemoryStore
from streamcore.state.partitions import KeyLayout
from streamcore.state.rocksdb import RocksStore, set_aside
from streamcore.state.store import META, Change, Store
from streamcore.tables import Table
from streamcore.transport.base import EARLIEST, Committed
from streamcore.types import TP

_INITIALIZED = b"initialized"
# Stores of one task side by side in a directory: one, and those that took its place while a process hung with it.
STORES_MAX = 8
# A store that has not seen the newest commits catches up from the changelogs, but only while these are sure to have
# every deletion since: half of Kafka's default of delete.retention.ms, the time that a tombstone lives.
CATCH_UP_MAX_MS = 43_200_000

# (table, partition, rows done, rows in all)
OnRecovery = Callable[[str, int, int, int], None]


def open_store(services: Services, path: str | None) -> Store:
    """The store at `path`, or one in memory; a damaged one is set aside and begun anew.

    Workers on one machine may share the directory, so that a task which moves between them finds its tables there. A
    worker that hangs and has lost its task holds on to the store; then whoever has the task takes the next one.

    Raises:
        StoreHeldError: all of them are open elsewhere.
    """
    if path is None:
        return MemoryStore()
    for number in range(1, STORES_MAX):
        try:
            return _open_at(services, path if number == 1 else f"{path}-{number}")
        except StoreHeldError as error:
            logger.warning("%s, which has hung or is about to end; another one takes its place", error)
    return _open_at(services, f"{path}-{STORES_MAX}")


def _open_at(services: Services, path: str) -> Store:
    try:
        return RocksStore(path)
    except StoreHeldError:
        raise
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
        logged = self._logged(committed)
        ends: dict[str, int] = {}
        if store.get(META, _INITIALIZED) is not None:
            ends = self._load()
        await self._catch_up(ends, *logged)
        store.write([(META, _INITIALIZED, b"1")])
        for table in sorted(ends):
            ends[table] = await self._repair(table, ends[table])
        runs = {
            agent: (state, {TP(topic, task.partition): offset for topic, offset in state["offsets"].items()})
            for agent, state in task.run_states.items()
        }
        task.logged = Logged().changed_by(runs, ends)
        task.commits = max((commit_number(state) for state in task.run_states.values()), default=0)

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

    def _logged(self, committed: Mapping[TP, Committed]) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        """What the group's offsets say of the task: the states of its runs, and where its changelogs ended."""
        states: dict[str, dict[str, Any]] = {}
        ends: dict[str, int] = {}
        for tp, place in committed.items():
            if tp.partition != self._task.partition or not place.metadata:
                continue
            content = metadata_content(place.metadata)
            for agent, state in content.get("runs", {}).items():
                if agent in self._agents and commit_number(state) >= commit_number(states.get(agent, {})):
                    states[agent] = state
            for name, end in content.get("changelogs", {}).items():
                if self._layout(name) is not None:
                    ends[name] = max(end, ends.get(name, 0))
        return states, ends

    async def _catch_up(
        self, ends: dict[str, int], logged_states: dict[str, dict[str, Any]], logged_ends: dict[str, int]
    ) -> None:
        """Bring the store to the newest commit: all of it where it is new, or what another worker has done since.

        Args:
            ends: of the changelogs, as the store has them; brought up to date.
        """
        task = self._task
        newer = {
            agent: state
            for agent, state in logged_states.items()
            if agent not in task.run_states or commit_number(state) > commit_number(task.run_states[agent])
        }
        for name in sorted({table for state in newer.values() for table in state.get("tables", ())} & set(logged_ends)):
            ends[name] = await self._restore(name, await self._start_of(name, ends), logged_ends[name])
        for agent, state in newer.items():
            task.run_states[agent] = state
            task.store.write([(META, run_entry(agent), orjson.dumps(state))])

    async def _start_of(self, name: str, ends: Mapping[str, int]) -> int:
        """From where a table's changelog has to be read: its own end, or the beginning where that is not enough."""
        task, services = self._task, self._services
        known = ends.get(name)
        if known is None or name not in task.store.tables():
            return 0
        tp = TP(services.changelog_topic(name), task.partition)
        newest_ms = max((commit_time_ms(state) for state in task.run_states.values()), default=0)
        start = (await services.transport.list_offsets([tp], EARLIEST))[tp]
        if start <= known and services.clock.now_ms() - newest_ms <= CATCH_UP_MAX_MS:
            logger.info("%s: the table follows from %d on", tp, known)
            return known
        task.store.drop_table(name)
        return 0

    async def _restore(self, name: str, start: int, end: int) -> int:
        """Read a table's rows in [start, end) of its changelog; the end of what there was."""
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
            async for records in changelogs.read(services, tp, start, end, told):
                changes: list[Change]
                if is_plain:
                    changes = [(name, record.key, record.value) for record in records]  # type: ignore[misc]
                else:
                    changes = [(name, store_key(record.key), record.value) for record in records]  # type: ignore[arg-type]
                task.store.write(changes)
        task.store.write([(META, changelog_entry(name), str(end).encode())])
        return end
