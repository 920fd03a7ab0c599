"""What a worker says of itself: one JSON-able snapshot for pages and tools."""

from typing import TYPE_CHECKING, Any

from streamcore.engine.inputs import FOREVER, NO_TIME
from streamcore.engine.run import Run
from streamcore.engine.watchdog import lag, run_positions
from streamcore.state.partitions import WindowPartition
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.worker import Worker


async def status(worker: "Worker") -> dict[str, Any]:
    """Topics, groups, agents and tables as of now; times in Unix ms."""
    services = worker.services
    transport = services.transport
    partitions = {info.tp: info for info in await transport.describe_partitions()}
    ends = {tp: info.log_end_offset for tp, info in partitions.items()}
    healthy, reason = worker.healthy()
    return {
        "app": services.config.id,
        "state": worker.phase,
        "started_ms": worker.started_ms,
        "now_ms": services.clock.now_ms(),
        "broker": transport.url,
        "healthy": healthy,
        "unhealthy_reason": None if healthy else reason,
        "recovery": worker.recovery_progress(),
        "topics": await worker.log_status.topics(partitions),
        "groups": await worker.log_status.groups(partitions),
        "agents": [_agent(worker, name, ends) for name in sorted(worker.agents)],
        "tables": _tables(worker),
    }


def _agent(worker: "Worker", name: str, ends: dict[TP, int]) -> dict[str, Any]:
    agent = worker.agents[name]
    runs = [run for run in worker.runs if run.agent.name == name]
    topics = sorted({source.tp.topic for run in runs for source in run.inputs} or {agent.topic.name})
    return {
        "name": name,
        "help": agent.help,
        "topics": topics,
        "sinks": [getattr(sink, "name", getattr(sink, "__name__", repr(sink))) for sink in agent.sinks],
        "events_total": sum(run.events_total for run in runs),
        "errors_total": sum(run.errors_total for run in runs),
        "dead_letters_total": sum(run.dead_letters_total for run in runs),
        "late_total": sum(run.late_total for run in runs),
        "partitions": [_run(worker, run, ends) for run in runs],
    }


def _run(worker: "Worker", run: Run, ends: dict[TP, int]) -> dict[str, Any]:
    positions, deadline_ms = run_positions(run), run.event_time.next_deadline_ms
    is_busy = not run.parked and lag(run, ends) > 0
    return {
        "partition": run.task.partition,
        "state": "stopped" if run.finished else run.phase,
        "inputs": [
            {
                "topic": source.tp.topic,
                "position": source.fetch_position,
                "done_offset": positions[source.tp],
                "log_end_offset": ends.get(source.tp, source.high_watermark),
                "lag": max(0, ends.get(source.tp, 0) - positions[source.tp]),
                "max_timestamp_ms": _time(source.max_timestamp_ms),
                "idle": source.idle,
            }
            for source in run.inputs
        ],
        "watermark_ms": _time(run.event_time.out_watermark_ms),
        "next_deadline_ms": deadline_ms if deadline_ms < FOREVER else None,
        "waiting_rows": run.join.row_count if run.join is not None else 0,
        "held_back_by": held_back_by(worker, run, ends),
        "in_flight": run.progress.in_flight if run.agent.concurrency > 1 else int(is_busy),
    }


def held_back_by(worker: "Worker", run: Run, ends: dict[TP, int]) -> str:
    """Why nothing comes out at the moment, in words."""
    if run in worker.watchdog.stuck:
        return worker.watchdog.stuck[run]
    if worker.phase == "recovering":
        return "its tables are being recovered"
    if run.failing is not None:
        return run.failing
    if run.group.failing is not None:
        return f"its commit does not go through: {run.group.failing}"
    if run.failures.known:
        failure = next(iter(run.failures.known.values()))
        return f"an event fails ({type(failure.error).__name__}: {failure.error}) and is tried again"
    behind = lag(run, ends)
    if behind:
        return f"it works on {behind} waiting records"
    for source in run.inputs:
        if ends.get(source.tp, 0) == 0:
            return f"{source.tp} has never had a record"
    waiting = [source for source in run.inputs if not source.idle and source.max_timestamp_ms == NO_TIME]
    if waiting:
        return f"{waiting[0].tp} has given no event time yet; it counts as idle soon"
    if run.has_waiting_rows:
        slowest = min((s for s in run.inputs if not s.idle), key=lambda s: s.max_timestamp_ms, default=None)
        who = f"held by {slowest.tp}" if slowest is not None else "all inputs are idle, the clock moves it on"
        return f"joined rows wait for the watermark ({who})"
    if run.event_time.next_deadline_ms < FOREVER:
        return "open windows wait for the watermark"
    return "nothing: it has done all there is"


def _time(time_ms: int) -> int | None:
    return time_ms if time_ms > NO_TIME else None


def _tables(worker: "Worker") -> list[dict[str, Any]]:
    names = sorted({name for task in worker.tasks for name in task.tables} | set(worker.tables))
    tables = []
    for name in names:
        declared = worker.tables.get(name)
        rows = []
        for task in worker.tasks:
            partition = task.tables.get(name)
            if partition is None:
                continue
            row: dict[str, Any] = {
                "partition": task.partition,
                "keys": task.store.estimated_keys(name),
                "dirty": partition.dirty_count,
            }
            if isinstance(partition, WindowPartition):
                row |= {
                    "open_windows": len(partition.open),
                    "closed_windows_total": partition.closed_total,
                    "late_total": partition.late_total,
                }
            rows.append(row)
        tables.append(
            {
                "name": name,
                "help": declared.help if declared is not None else "an agent's own state",
                "window": str(declared.window) if declared is not None and declared.window is not None else None,
                "changelog": worker.services.changelog_topic(name),
                "keys": sum(row["keys"] for row in rows),
                "dirty": sum(row["dirty"] for row in rows),
                "partitions": rows,
            }
        )
    return tables


async def refresh_metrics(worker: "Worker") -> None:
    """Bring the gauges of lag and watermark up to date."""
    metrics = worker.services.metrics
    metrics.events.clear()
    metrics.watermark.clear()
    for agent, events in worker.task_set.closed_events.items():
        metrics.events[(agent,)] += events
    for run in worker.runs:
        metrics.events[(run.agent.name,)] += run.events_total
        if run.event_time.out_watermark_ms > NO_TIME:
            metrics.watermark[(run.agent.name, str(run.task.partition))] = run.event_time.out_watermark_ms / 1000
    ends = {info.tp: info.log_end_offset for info in await worker.services.transport.describe_partitions()}
    metrics.lag.clear()
    for run in worker.runs:
        for tp, position in run_positions(run).items():
            key = (tp.topic, str(tp.partition))
            metrics.lag[key] = max(metrics.lag.get(key, 0), ends.get(tp, position) - position)
