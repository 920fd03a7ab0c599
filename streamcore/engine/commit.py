"""The order of a commit: the only file that knows it.

1. Outputs and changelog rows go to the log, and 2. are acknowledged.
3. The group's committed offsets follow, with the changelogs' ends and the runs' states in their metadata.
4. One RocksDB WriteBatch: rows, offsets, states, changelog ends.

What a crash leaves behind, and who repairs it:
- before 1: nothing; the input since the last commit is read again.
- between 1 and 3: outputs and changelog rows of a commit that never was. The outputs repeat, identical, when the input
  is read again; the store's state is authoritative, and recovery writes its rows over the orphans in the changelog.
- between 3 and 4: the group's offsets are ahead of the store. The store's own offsets win.
- the store is gone or damaged: it is rebuilt from the changelogs, exactly up to the ends that step 3 recorded beside
  the offsets that they belong to.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from streamcore.errors import StreamcoreError, UnknownTopicError, UsageError
from streamcore.state.partitions import Row
from streamcore.state.store import META, Change
from streamcore.transport.base import METADATA_MAX_BYTES, Committed
from streamcore.types import TP, OutRecord

if TYPE_CHECKING:
    from streamcore.engine.group import CommitGroup

CHANGELOG_CONFIG = {"cleanup.policy": "compact"}


def run_entry(agent: str) -> bytes:
    """META's key of a run's state."""
    return f"run:{agent}".encode()


def changelog_entry(table: str) -> bytes:
    """META's key of a table's changelog end."""
    return f"changelog:{table}".encode()


async def commit(group: "CommitGroup") -> None:
    """Commit everything that the group's runs have done; they stand still meanwhile, or are free of state.

    Raises:
        StreamcoreError: the log or the store did not take it; nothing is forgotten, and it can be called again.
    """
    started_s = asyncio.get_running_loop().time()
    services, partition = group.services, group.task.partition
    states = {run: run.state() for run in group.runs}
    rows: dict[str, list[Row]] = {}
    for name, table in group.tables.items():
        try:
            taken = table.take()
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"table {name} cannot hold a value that was put into it: {error}") from error
        if taken:
            rows[name] = taken

    # 1 and 2: outputs first, so that a reader never sees a state whose outputs are missing.
    await group.flush()
    ends = await _write_changelogs(group, rows)

    # 3: one request, so that the offsets and the changelog ends in their metadata change together.
    changelog_ends = {name: ends.get(name, table.changelog_offset) for name, table in group.tables.items()}
    offsets: dict[TP, Committed] = {}
    for run, state in states.items():
        group.task.run_states[run.agent.name] = state
        for tp, offset in run.offsets(state).items():
            group.task.agent_offsets.setdefault(tp, {})[run.agent.name] = offset
    group.task.changelog_ends.update(changelog_ends)
    for run in group.runs:
        for tp in run.offsets(states[run]):
            # Agents that read the same partition share the group's offset: the one furthest behind counts.
            lowest = min(group.task.agent_offsets[tp].values())
            offsets[tp] = Committed(lowest, _metadata(group, tp))
    await services.transport.commit(services.group, offsets)

    # 4: the store follows; until here a crash finds it as it was.
    changes: list[Change] = []
    for name, taken in rows.items():
        changes += group.tables[name].changes(taken)
        changes.append((META, changelog_entry(name), str(changelog_ends[name]).encode()))
    for run, state in states.items():
        changes.append((META, run_entry(run.agent.name), orjson.dumps(state)))
    group.task.store.write(changes)

    for name in rows:
        group.tables[name].committed()
        group.tables[name].changelog_offset = changelog_ends[name]
    for run, state in states.items():
        run.on_committed(state)
    services.metrics.observe_commit(asyncio.get_running_loop().time() - started_s)
    group.task.last_commit_ms[partition] = services.clock.now_ms()


async def _write_changelogs(group: "CommitGroup", rows: dict[str, list[Row]]) -> dict[str, int]:
    """Append the rows to their changelogs; the new ends by table."""
    if not rows:
        return {}
    services, partition = group.services, group.task.partition
    now_ms = services.clock.now_ms()
    batches: dict[TP, list[OutRecord]] = {}
    tables: dict[TP, str] = {}
    for name, taken in rows.items():
        table = group.tables[name]
        tp = TP(services.changelog_topic(name), partition)
        if tp.topic not in services.topics:
            await ensure_changelog(group, name)
        changelog_key = table.layout.changelog_key
        batches[tp] = [(changelog_key(key), value, now_ms, ()) for key, value in taken]
        tables[tp] = name
    results = await services.transport.produce(batches)
    ends: dict[str, int] = {}
    for tp, result in results.items():
        if isinstance(result, StreamcoreError):
            if isinstance(result, UnknownTopicError):
                services.topics.pop(tp.topic, None)  # somebody deleted it; the next try makes it again
            raise result
        ends[tables[tp]] = result + len(batches[tp])
    return ends


async def ensure_changelog(group: "CommitGroup", table: str) -> None:
    """Create a table's changelog, with as many partitions as the topic that the table follows."""
    services = group.services
    topic = services.changelog_topic(table)
    known = await services.transport.topics()
    if topic not in known:
        known[topic] = await services.transport.create_topic(
            topic, partitions=services.table_partitions[table], config=CHANGELOG_CONFIG
        )
    services.topics[topic] = known[topic]


def _metadata(group: "CommitGroup", tp: TP) -> str:
    """What a worker without the store needs beside the offset: runs' states and changelog ends."""
    task = group.task
    agents = task.agent_offsets[tp]
    content: dict[str, Any] = {
        "runs": {name: task.run_states[name] for name in agents},
        "changelogs": dict(task.changelog_ends),
    }
    text = orjson.dumps(content).decode()
    if len(text) > METADATA_MAX_BYTES:
        # A join's list of refused rows is a nicety (a late row stays late); offsets and ends are not.
        for name, state in content["runs"].items():
            if "join" in state:
                content["runs"][name] = {**state, "join": {**state["join"], "late": [[], []]}}
        text = orjson.dumps(content).decode()
    return text
