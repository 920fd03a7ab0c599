"""The order of a commit: the only file that knows it.

1. Outputs and changelog rows go to the log, and 2. are acknowledged.
3. The group's committed offsets follow, with the changelogs' ends and the runs' states in their metadata; with them the
   changelogs' ends once more as offsets of their own, up to which the log may compact them.
4. One RocksDB WriteBatch: rows, offsets, states, changelog ends.

What a crash leaves behind, and who repairs it:
- before 1: nothing; the input since the last commit is read again.
- between 1 and 3: outputs and changelog rows of a commit that never was. The outputs repeat, identical, when the input
  is read again; the store's state is authoritative, and recovery writes its rows over the orphans in the changelog.
- between 3 and 4: the group's offsets are ahead of the store, by their commit number. The store follows from the
  changelogs, as it does when another worker has had the task in the meantime.
- a worker that has lost the task and does not know yet may still append to a changelog: whoever has the task sees at
  its next commit that rows came in between, and writes over them.
- the store is gone or damaged: it is rebuilt from the changelogs, exactly up to the ends that step 3 recorded beside
  the offsets that they belong to. Rows above them must not have made older ones disappear: hence the limit.
"""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import compress, decompress
from zlib import error as zlib_error

import orjson

from streamcore.engine import changelogs
from streamcore.engine.run_state import offsets_in, run_entry, state_of
from streamcore.engine.services import Services, logger
from streamcore.engine.stream_task import Logged, StreamTask
from streamcore.errors import RecordTooLargeError, StreamcoreError, UnknownTopicError, ValueRefusedError
from streamcore.state.partitions import Row
from streamcore.state.store import META, Change
from streamcore.transport.base import METADATA_MAX_BYTES, Committed
from streamcore.types import COMPACTION_LIMIT, TP, OutRecord

if TYPE_CHECKING:
    from streamcore.engine.group import CommitGroup


_PACKED = "zlib:"  # what a long metadata text begins with


def changelog_entry(table: str) -> bytes:
    """META's key of a table's changelog end."""
    return f"changelog:{table}".encode()


class Snapshot:
    """What one commit makes durable: it is taken at one moment, and tried until the log and the store have it.

    Raises:
        ValueRefusedError: a table holds a value that cannot be written; nothing was taken.
    """

    def __init__(self, group: "CommitGroup") -> None:
        self.group = group
        group.task.commits += 1
        stamp = [group.task.commits, group.services.clock.now_ms()]
        self.states = {run: {**state_of(run), "commit": stamp} for run in group.runs}
        self.tables = dict(group.tables)
        self.rows: dict[str, list[Row]] = {}
        for name, table in self.tables.items():
            if taken := table.take():
                self.rows[name] = taken
        self.outbox, group.outbox, group.outbox_records = group.outbox, {}, 0


async def commit(snapshot: Snapshot) -> None:
    """Commit what the group's runs had done at the moment of the snapshot; they go on meanwhile.

    Raises:
        StreamcoreError: the log or the store did not take it; nothing is forgotten, and it can be called again.
        ValueRefusedError: the log will never take a row.
    """
    started_s = asyncio.get_running_loop().time()
    group, states, rows, tables = snapshot.group, snapshot.states, snapshot.rows, snapshot.tables
    services, task = group.services, group.task

    # 1 and 2: outputs first, so that a reader never sees a state whose outputs are missing.
    async with group.flush_lock:
        await group.produce(snapshot.outbox)
    ends = await _write_changelogs(group, rows)

    # 3: one request, so that the offsets and the changelog ends in their metadata change together. Several groups
    # repeat each other's states beside the offsets of a partition that they share: one at a time, and none of them
    # repeats what is not on the log yet.
    async with task.logging:
        logged = task.logged.changed_by(
            {run.agent.name: (state, offsets_in(state, task.partition)) for run, state in states.items()}, ends
        )
        offsets: dict[TP, Committed] = {}
        for state in states.values():
            for tp in offsets_in(state, task.partition):
                offsets[tp] = _place(logged, tp)
        await services.commit(offsets | _limits(services, task, ends))
        task.logged = logged

    # 4: the store follows; until here a crash finds it as it was.
    changes: list[Change] = []
    for name, taken in rows.items():
        changes += tables[name].changes(taken)
        changes.append((META, changelog_entry(name), str(ends[name]).encode()))
    for run, state in states.items():
        changes.append((META, run_entry(run.agent.name), orjson.dumps(state)))
    task.store.write(changes)

    for name, table in tables.items():
        table.committed()
        if name in ends:
            table.changelog_offset = ends[name]
    for run, state in states.items():
        task.run_states[run.agent.name] = state
    services.metrics.observe_commit(asyncio.get_running_loop().time() - started_s)
    task.last_commit_ms[task.partition] = services.clock.now_ms()


async def commit_again(services: Services, task: StreamTask) -> None:
    """Say once more what is committed: a broker forgets what nobody has committed for a week (KIP-211).

    Raises:
        StreamcoreError: the log did not take it; what it has is as good.
    """
    async with task.logging:
        logged = task.logged
        offsets = {tp: _place(logged, tp) for tp in logged.offsets}
        limits = _limits(services, task, logged.changelog_ends)
        offsets |= {tp: limit for tp, limit in limits.items() if tp.topic in services.topics}
        if offsets and not task.is_closed:
            await services.commit(offsets)


def _place(logged: Logged, tp: TP) -> Committed:
    """Agents that read the same partition share the group's offset: the one furthest behind counts."""
    return Committed(min(logged.offsets[tp].values()), _metadata(logged, tp))


def _limits(services: Services, task: StreamTask, ends: Mapping[str, int]) -> dict[TP, Committed]:
    """Up to where the log may compact a task's changelogs."""
    return {
        TP(services.changelog_topic(name), task.partition): Committed(end, COMPACTION_LIMIT)
        for name, end in ends.items()
    }


async def _write_changelogs(group: "CommitGroup", rows: dict[str, list[Row]]) -> dict[str, int]:
    """Append the rows to their changelogs; the new ends by table."""
    if not rows:
        return {}
    services, task = group.services, group.task
    now_ms = services.clock.now_ms()
    batches: dict[TP, list[OutRecord]] = {}
    tables: dict[TP, str] = {}
    known: dict[TP, int] = {}  # up to where a changelog is what the store says
    for name, taken in rows.items():
        table = group.tables[name]
        tp = TP(services.changelog_topic(name), task.partition)
        if tp.topic not in services.topics:
            await changelogs.ensure(services, name)
        changelog_key = table.layout.changelog_key
        batches[tp] = [(changelog_key(key), value, now_ms, ()) for key, value in taken]
        if name in task.logged.changelog_ends:
            known[tp] = task.logged.changelog_ends[name]
        else:
            # The first commit: what is there already are rows of a commit that a crash prevented.
            known[tp] = await changelogs.end_of(services, tp) or 0
            batches[tp] = [*await changelogs.tombstones(services, tp, known[tp]), *batches[tp]]
        tables[tp] = name
    results = await services.transport.produce(batches)
    ends: dict[str, int] = {}
    for tp, result in results.items():
        if isinstance(result, RecordTooLargeError):
            raise ValueRefusedError(
                f"table {tables[tp]} holds a value that is too large for its changelog: {result}",
                services.max_message_bytes(tp.topic),
            )
        if isinstance(result, StreamcoreError):
            if isinstance(result, UnknownTopicError):
                services.topics.pop(tp.topic, None)  # somebody deleted it; the next try makes it again
            raise result
        if result < known[tp]:
            result = await _write_again(group, tables[tp], tp, batches[tp], known[tp])
        end = result + len(batches[tp])
        if result > known[tp]:
            end = await _write_over(group, tables[tp], tp, known[tp], batches[tp], end)
        ends[tables[tp]] = end
    return ends


async def _write_over(group: "CommitGroup", table: str, tp: TP, known: int, newest: list[OutRecord], end: int) -> int:
    """Somebody else writes here too: a worker that had the task and does not know yet that it has it no more.

    What it commits is refused, but what it writes is taken. Its rows must not be the last word on their keys.

    Args:
        known: up to where the changelog is what the store says.
        newest: the rows of this commit; they are among those in [known, end).
    Returns:
        The changelog's end, up to which it is right.
    """
    services, store, layout = group.services, group.task.store, group.tables[table].layout
    ours = {record[0]: record[1] for record in newest if record[0] is not None}
    while True:
        keys = await changelogs.keys(services, tp, known, end)
        logger.info("%s: a worker that has lost the task wrote here; %d rows are set right", tp, len(keys))
        rows = [(key, ours[key] if key in ours else store.get(table, layout.store_key(key))) for key in keys]
        known, end = end, await changelogs.write(services, tp, rows) or end
        if end - len(rows) == known:
            return end


async def _write_again(group: "CommitGroup", table: str, tp: TP, newest: list[OutRecord], known: int) -> int:
    """The changelog has lost records: all rows of the table, and then the newest ones; their base offset."""
    services, layout = group.services, group.tables[table].layout
    logger.warning("%s has lost records (it had %d): the table's rows are written again", tp, known)
    rows = [(layout.changelog_key(key), value) for key, value in group.task.store.scan(table)]
    await changelogs.write(services, tp, rows)
    result = (await services.transport.produce({tp: newest}))[tp]
    if isinstance(result, StreamcoreError):
        raise result
    return result


def _metadata(logged: Logged, tp: TP) -> str:
    """What a worker without the store needs beside the offset: runs' states and the ends of their changelogs."""
    runs = {name: logged.run_states[name] for name in logged.offsets[tp]}
    names = {table for state in runs.values() for table in state.get("tables", ())}
    content: dict[str, Any] = {
        "runs": runs,
        "changelogs": {name: end for name, end in logged.changelog_ends.items() if name in names},
    }
    text = orjson.dumps(content).decode()
    if len(text) > METADATA_MAX_BYTES:
        # Names and offsets repeat themselves: many agents and tables still fit in.
        text = _pack(content)
    if len(text) > METADATA_MAX_BYTES:
        # A join's list of refused rows is a nicety (a late row stays late); offsets and ends are not.
        for name, state in runs.items():
            if "join" in state:
                runs[name] = {**state, "join": {**state["join"], "late": [[], []]}}
        text = _pack(content)
    return text


def _pack(content: dict[str, Any]) -> str:
    return _PACKED + b64encode(compress(orjson.dumps(content), 9)).decode()


def metadata_content(text: str) -> dict[str, Any]:
    """What a commit wrote beside an offset; empty for an offset that another program committed."""
    try:
        data = decompress(b64decode(text.removeprefix(_PACKED))) if text.startswith(_PACKED) else text
        content = orjson.loads(data)
    except (ValueError, zlib_error):
        return {}
    return content if isinstance(content, dict) else {}
