"""Opening a stream task's store: as it was, repaired, or rebuilt from the changelogs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from streamcore.engine.commit import CHANGELOG_CONFIG, changelog_entry, run_entry
from streamcore.engine.services import Services, logger
from streamcore.engine.stream_task import StreamTask
from streamcore.errors import OffsetOutOfRangeError, StateError, StreamcoreError
from streamcore.state.memory import MemoryStore
from streamcore.state.partitions import KeyLayout
from streamcore.state.rocksdb import RocksStore, set_aside
from streamcore.state.store import META, Change, Store
from streamcore.tables import Table
from streamcore.transport.base import EARLIEST, LATEST, Committed
from streamcore.types import TP, OutRecord

_INITIALIZED = b"initialized"
# Rows per produce when a table's rows are written to its changelog again; a few megabytes.
REWRITE_ROWS = 10_000
RESTORE_FETCH_BYTES = 4 << 20

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
        agents: Iterable[str],
        declared: dict[str, Table],
        on_recovery: OnRecovery,
    ) -> None:
        self._services = services
        self._task = task
        self._agents = set(agents)
        self._declared = declared
        self._on_recovery = on_recovery

    async def recover(self, committed: dict[TP, Committed]) -> None:
        """Make the task's tables, offsets and changelogs agree.

        Args:
            committed: the group's offsets in all partitions.
        """
        store = self._task.store
        if store.get(META, _INITIALIZED) is not None:
            self._load()
            for table in sorted(self._task.changelog_ends):
                await self._repair(table)
        else:
            await self._rebuild(committed)
            store.write([(META, _INITIALIZED, b"1")])
        for agent, state in self._task.run_states.items():
            for topic, offset in state["offsets"].items():
                self._task.agent_offsets.setdefault(TP(topic, self._task.partition), {})[agent] = offset

    def _load(self) -> None:
        task, store = self._task, self._task.store
        for key, value in store.scan(META, run_entry(""), run_entry("\U0010ffff")):
            agent = key.decode().removeprefix("run:")
            if agent in self._agents:
                task.run_states[agent] = orjson.loads(value)
        for key, value in store.scan(META, changelog_entry(""), changelog_entry("\U0010ffff")):
            task.changelog_ends[key.decode().removeprefix("changelog:")] = int(value)

    def _layout(self, name: str) -> KeyLayout | None:
        """How the table's keys are laid out; None for a table that nothing declares any more."""
        table = self._declared.get(name)
        if table is not None:
            return KeyLayout(table.window)
        return KeyLayout(None) if any(name.startswith(f"{agent}-") for agent in self._agents) else None

    async def _end(self, tp: TP) -> int | None:
        if tp.topic not in await self._services.transport.topics():
            return None
        return (await self._services.transport.list_offsets([tp], LATEST))[tp]

    async def _repair(self, name: str) -> None:
        """Write the store's rows over what a crash left in the changelog without a commit."""
        task, services = self._task, self._services
        tp = TP(services.changelog_topic(name), task.partition)
        layout = self._layout(name)
        if layout is None or name not in task.store.tables():
            return
        known, end = task.changelog_ends[name], await self._end(tp)
        if end == known:
            return
        if end is not None and end > known:
            keys: dict[bytes, None] = {}
            async for records in self._read(tp, known, end, name):
                keys.update((record.key, None) for record in records if record.key is not None)
            rows = [(key, task.store.get(name, layout.store_key(key))) for key in keys]
            logger.info("%s: %d rows of an unfinished commit are set right", tp, len(rows))
        else:
            logger.warning(
                "%s has lost records (its end is %s, not %d): the table's rows are written again", tp, end, known
            )
            rows = [(layout.changelog_key(key), value) for key, value in task.store.scan(name)]
            if end is None:
                count = services.table_partitions.get(name, task.partition + 1)
                info = await services.transport.create_topic(tp.topic, partitions=count, config=CHANGELOG_CONFIG)
                services.topics[tp.topic] = info
        now_ms = services.clock.now_ms()
        for first in range(0, len(rows), REWRITE_ROWS):
            batch: list[OutRecord] = [(key, value, now_ms, ()) for key, value in rows[first : first + REWRITE_ROWS]]
            result = (await services.transport.produce({tp: batch}))[tp]
            if isinstance(result, StreamcoreError):
                raise result
            end = result + len(batch)
        task.changelog_ends[name] = end or 0
        task.store.write([(META, changelog_entry(name), str(end or 0).encode())])

    async def _rebuild(self, committed: dict[TP, Committed]) -> None:
        """From nothing: the group's offsets, and the changelogs up to where they stood then."""
        task = self._task
        for tp, place in committed.items():
            if tp.partition != task.partition or not place.metadata:
                continue
            try:
                content: dict[str, Any] = orjson.loads(place.metadata)
            except ValueError:
                continue  # committed by another program: an offset alone
            for agent, state in content.get("runs", {}).items():
                if agent in self._agents:
                    task.run_states[agent] = state
            for name, end in content.get("changelogs", {}).items():
                # Every commit repeats all ends of its task, so the newest are the greatest.
                task.changelog_ends[name] = max(end, task.changelog_ends.get(name, 0))
        for name, end in sorted(task.changelog_ends.items()):
            if self._layout(name) is not None:
                await self._restore(name, end)
        for agent, state in task.run_states.items():
            task.store.write([(META, run_entry(agent), orjson.dumps(state))])

    async def _restore(self, name: str, end: int) -> None:
        task = self._task
        tp = TP(self._services.changelog_topic(name), task.partition)
        layout = self._layout(name)
        assert layout is not None, "the caller has asked"
        store_key, is_plain = layout.store_key, name not in self._declared or self._declared[name].window is None
        task.store.open_table(name)
        have = await self._end(tp)
        if have is None or have < end:
            logger.error("%s ends at %s, before the table's last commit at %d: the newest rows are lost", tp, have, end)
        async for records in self._read(tp, 0, min(end, have or 0), name):
            changes: list[Change]
            if is_plain:
                changes = [(name, record.key, record.value) for record in records]
            else:
                changes = [(name, store_key(record.key), record.value) for record in records]
            task.store.write(changes)
        task.store.write([(META, changelog_entry(name), str(end).encode())])

    async def _read(self, tp: TP, start: int, end: int, name: str) -> Any:
        """Batches of records in [start, end); gaps of compaction are nothing to wait for."""
        transport = self._services.transport
        position = max(start, (await transport.list_offsets([tp], EARLIEST))[tp])
        total = max(0, end - position)
        first = position
        while position < end:
            fetched = await transport.fetch({tp: position}, max_bytes=RESTORE_FETCH_BYTES, max_wait_ms=0)
            if not fetched:
                break
            part = fetched[0]
            if isinstance(part.error, OffsetOutOfRangeError):
                position = part.error.log_start_offset
                continue
            if part.error is not None:
                raise part.error
            records = part.records
            if part.next_offset > end:
                records = [record for record in records if record.offset < end]
            if records:
                yield records
            if part.next_offset <= position:
                break
            position = part.next_offset
            self._on_recovery(name, tp.partition, min(position, end) - first, total)
