"""Closes the windows that are due, and tells `on_window_close` of their rows."""

from inspect import isawaitable
from typing import TYPE_CHECKING

from streamcore.engine.failures import WindowCloseError
from streamcore.state.partitions import WindowPartition
from streamcore.tables import Table

if TYPE_CHECKING:
    from streamcore.engine.run import Run


async def close_due(run: "Run") -> None:
    """Close and expire the windows that are due."""
    run.group.progressed()
    for name, partition in run.window_partitions():
        # A table that several agents write closes when the last of them has come so far.
        limit_ms = min(other.event_time.out_watermark_ms for other in run.group.runs if name in other.tables)
        table = run.declared[name]
        for start_ms in partition.due(limit_ms):
            if table.on_window_close is not None:
                await _tell(run, table, partition, start_ms)
            partition.close(start_ms)
        partition.expire(limit_ms)
    run.event_time.find_deadline()


async def _tell(run: "Run", table: Table, partition: WindowPartition, start_ms: int) -> None:
    assert table.on_window_close is not None, "the caller has asked"
    assert table.window is not None, "only windows close"
    end_ms = start_ms + table.window.size_ms
    bounds = (start_ms / 1000, end_ms / 1000)
    failures, known_failures = run.failures, run.failures.known
    run.closing_ms = end_ms - 1  # what a window says belongs into it
    cursor = run.cursors[0]
    times, cursor.times = cursor.times, None  # it is not at the time of the chunk's event
    try:
        for key, value in partition.rows(start_ms):
            identity = ("window", table.name, start_ms, key)
            if known_failures and await failures.face_window(table, identity, value):
                continue
            try:
                result = table.on_window_close((key, bounds), value)
                if isawaitable(result):
                    await result
            except Exception as error:
                raise WindowCloseError(identity, error) from error
            known_failures.pop(identity, None)
    finally:
        run.closing_ms = None
        cursor.times = times
