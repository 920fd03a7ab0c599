"""Where a run stands: what a commit records of it, and what it begins again from.

The state lies in the store, and in the metadata of the group's offsets. Beside `offsets` a key is there only where it
has something to say:

    offsets                   by topic, the first offset that is not done
    times                     by topic, the greatest event time so far
    idle                      topics that have fallen silent
    watermark, out_watermark  of the input, and of what reaches the agent
    tables                    names of those in use
    closed                    by windowed table, up to where its windows are closed
    commit                    the number of the task's commit, and its time in Unix ms: of two states the later counts
    join                      from where each side is read again, how far closing has come, which records were refused
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from streamcore.engine.inputs import NO_TIME, Input
from streamcore.state.store import META
from streamcore.transport.base import EARLIEST, Committed
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.run import Run


def run_entry(agent: str) -> bytes:
    """META's key of a run's state."""
    return f"run:{agent}".encode()


def commit_number(state: Mapping[str, Any]) -> int:
    """Which commit of its task a state belongs to; 0 before the first one."""
    return int(state.get("commit", (0, 0))[0])


def commit_time_ms(state: Mapping[str, Any]) -> int:
    return int(state.get("commit", (0, 0))[1])


def state_of(run: "Run") -> dict[str, Any]:
    """Where the run stands now; it is between two events."""
    main, time, join = run.inputs[0], run.event_time, run.join
    position = run.progress.position if run.agent.concurrency > 1 else run.cursors[0].position
    offsets = {source.tp.topic: source.position for source in run.inputs}
    offsets[main.tp.topic] = position
    state: dict[str, Any] = {"offsets": offsets}
    if time.watermark_ms > NO_TIME:
        state["watermark"] = time.watermark_ms
    if time.out_watermark_ms > NO_TIME:
        state["out_watermark"] = time.out_watermark_ms
    times = {s.tp.topic: s.max_timestamp_ms for s in run.inputs if s.max_timestamp_ms > NO_TIME}
    if times:
        state["times"] = times
    if idle := [source.tp.topic for source in run.inputs if source.idle]:
        state["idle"] = idle
    if run.tables:
        state["tables"] = sorted(run.tables)
    if closed := {n: t.closed_to_ms for n, t in run.window_partitions() if t.closed_to_ms > NO_TIME}:
        state["closed"] = closed
    if join is not None:
        state["join"] = {
            "low": [join.low_offset(side) for side in range(len(run.inputs))],
            "closed_to": list(run.join_closed_to) if run.join_closed_to is not None else None,
            "late": [join.late_offsets(side) for side in range(len(run.inputs))],
        }
    return state


def offsets_in(state: Mapping[str, Any], partition: int) -> dict[TP, int]:
    """The offsets of a state, as the group commits them."""
    return {TP(topic, partition): offset for topic, offset in state["offsets"].items()}


async def begin(run: "Run", committed: Mapping[TP, Committed]) -> None:
    """Put down where the run begins, unless an earlier worker has.

    Before any run of the task does anything: what one of them commits says where the others are.
    """
    tp = run.inputs[0].tp
    if run.agent.name not in run.task.run_states:
        start = await run.services.transport.list_offsets([tp], EARLIEST)
        await begin_at(run, tp, committed[tp].offset if tp in committed else start[tp])


async def begin_at(run: "Run", tp: TP, offset: int) -> dict[str, Any]:
    """Put down where an input begins.

    A crash in the first commit can leave offsets in the group and nothing in the store: the store must win.

    Returns:
        The run's state with that offset in it.
    """
    task, agent = run.task, run.agent.name
    async with task.logging:
        state = task.run_states.get(agent, {})
        state = {**state, "offsets": {**state.get("offsets", {}), tp.topic: offset}}
        task.store.write([(META, run_entry(agent), orjson.dumps(state))])
        task.run_states[agent] = state
        task.logged = task.logged.changed_by({agent: (state, offsets_in(state, task.partition))}, {})
    return state


def restore_input(source: Input, state: Mapping[str, Any]) -> None:
    """An input as the state has it."""
    topic = source.tp.topic
    source.seek(state["offsets"][topic])
    source.max_timestamp_ms = state.get("times", {}).get(topic, NO_TIME)
    source.idle = topic in state.get("idle", ())
