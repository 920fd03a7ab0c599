"""Feeds an interval join from two inputs, in the order of their event times, and gives its rows to the agent."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from streamcore.engine.commit import metadata_content
from streamcore.engine.failures import CLOSE
from streamcore.engine.inputs import NO_TIME, Chunk, Input
from streamcore.engine.services import logger
from streamcore.errors import OffsetOutOfRangeError, PartitionsMismatchError, UsageError
from streamcore.events import Event
from streamcore.joins import IntervalJoinSpec
from streamcore.operators.interval_join import LEFT, RIGHT, ClosedTo, IntervalJoin
from streamcore.transport.base import EARLIEST, LATEST
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.cursor import Cursor
    from streamcore.engine.run import Run


async def joined_rows(
    cursor: "Cursor", spec: IntervalJoinSpec, accept: Callable[[Any], bool] | None
) -> AsyncIterator[Any]:
    """Joined rows; asking for the next one says that the last one is done."""
    run = cursor.run
    cursor.row = cursor.arriving = cursor.part = None
    join = await _open(run, spec, accept)
    left, right = run.inputs
    while True:
        side = _next_side(run)
        if side is not None:
            _observe(run, side)
        # Time first: what an event's time closes is closed before the event itself is looked at.
        if (deadline_ms := join.deadline_ms()) is not None and deadline_ms <= run.watermark_ms:
            for row in join.close(run.watermark_ms):
                if (
                    row.event.timestamp > run.out_watermark_ms
                    and run.join_delay_ms <= spec.after_ms + spec.grace_ms + 1
                ):
                    run.out_watermark_ms = row.event.timestamp
                if run.interrupt or run.next_deadline_ms <= run.out_watermark_ms:
                    await _between(run)
                    if run.stopping:
                        return
                cursor.row, cursor.part = row.event, CLOSE
                if not (run.failures and await run.face_row(row.event)):
                    yield row.value
                elif run.stopping:
                    return
                run.forget(row.event.tp, row.event.offset, CLOSE)
                cursor.row = cursor.part = None
                run.join_closed_to = join.closed_to
                run.events_total += 1
            run.group.progressed()
        join.expire(run.watermark_ms)
        run.join_closed_to = join.closed_to
        run.out_watermark_ms = max(run.out_watermark_ms, run.watermark_ms - run.join_delay_ms)
        if run.interrupt or run.next_deadline_ms <= run.out_watermark_ms:
            await _between(run)
            if run.stopping:
                return
        if side is None:
            if not await run.more():
                return
            continue
        source = left if side == LEFT else right
        place = source.peek()
        assert place is not None, "the side was chosen because it has a record"
        chunk, index = place
        record = chunk.records[index]
        run.group.progressed()
        event = _event(run, source, chunk, index)
        if event is None or (run.failures and await _face(run, source, event)):
            if run.stopping:
                return  # the agent's policy is to stop: it is read again next time
            # Not in the join: neither now, nor when its rows are read again after a restart.
            join.refuse(side, record.offset)
            source.advance()
            continue
        cursor.arriving = event
        if side == LEFT and accept is not None and not accept(event.value):
            cursor.arriving = None
            source.advance()
            continue
        if join.is_late(side, event.timestamp, run.watermark_ms):
            join.refuse(side, event.offset)
            run.count_late()
            if spec.late != "drop":
                run.forward(spec.late, event)
            cursor.arriving = None
            source.advance()
            continue
        for number, row in enumerate(join.add(side, record.key, event)):
            cursor.row, cursor.part = row.event, number
            if not (run.failures and run.is_dead_pair(event, number, row)):
                yield row.value
            run.events_total += 1
        cursor.row = cursor.arriving = cursor.part = None
        run.forget(event.tp, event.offset)
        source.advance()


def _next_side(run: "Run") -> int | None:
    """The side whose next record is the older one; None where a fetch must come first."""
    side: int | None = None
    oldest_ms = 0
    for index, source in enumerate(run.inputs):
        place = source.peek()
        if place is None:
            if not source.is_caught_up:
                return None
            continue
        chunk, position = place
        assert chunk.timestamps is not None, "peek has made them"
        time_ms = chunk.timestamps[position]
        if side is None or time_ms < oldest_ms:
            side, oldest_ms = index, time_ms
    return side


def _observe(run: "Run", side: int) -> None:
    """The watermark with the next record's time in it."""
    source = run.inputs[side]
    chunk, index = source.peek()  # type: ignore[misc]
    time_ms = chunk.timestamps[index]  # type: ignore[index]
    if time_ms > source.max_timestamp_ms:
        source.max_timestamp_ms = time_ms
        watermark_ms = run.watermark_candidate()
        if watermark_ms > run.watermark_ms:
            run.watermark_ms = watermark_ms


async def _between(run: "Run") -> None:
    """Between two rows: windows that are due, and a commit that waits."""
    if run.next_deadline_ms <= run.out_watermark_ms:
        await run.fire()
    if run.group.wanted:
        await run.park()
    run.refresh_interrupt()


def _event(run: "Run", source: Input, chunk: Chunk, index: int) -> Event | None:
    """The event of a record, or None where it cannot be read: then it has been buried."""
    if chunk.error is not None:
        run.undecodable(source, chunk, index)
        return None
    try:
        return source.event(chunk, index)
    except Exception as error:  # a key that its type cannot read
        run.bury(source.tp, chunk, index, error, 1)
        return None


async def _face(run: "Run", source: Input, event: Event) -> bool:
    """Before a record that failed, or whose pairs did; True where it is passed over, or the worker stops."""
    chunk, index = source.peek()  # type: ignore[misc]
    if await run.face((event.tp, event.offset), source, chunk, index):
        return True
    await run.face_pairs(event)
    return run.stopping


async def _open(run: "Run", spec: IntervalJoinSpec, accept: Callable[[Any], bool] | None) -> IntervalJoin:
    """Add the second input and bring back the rows that the last commit knew.

    Raises:
        UsageError, PartitionsMismatchError
    """
    services, main = run.services, run.inputs[0]
    if run.join is not None:
        raise UsageError(f"agent {run.agent.name} joins twice: let one agent join and another one join its output")
    counts = services.partitions(main.tp.topic), services.partitions(spec.right.name)
    if counts[0] != counts[1]:
        raise PartitionsMismatchError(
            f"agent {run.agent.name} joins {main.tp.topic} with {counts[0]} partitions and {spec.right.name} with "
            f"{counts[1]}: records of one key would not meet; create both with the same number"
        )
    right = Input(TP(spec.right.name, run.task.partition), spec.right, services.clock.now_ms())
    state = run.task.run_states[run.agent.name]
    if right.tp.topic not in state["offsets"]:
        committed = (await services.transport.committed(services.group, [right.tp])).get(right.tp)
        if committed is None or metadata_content(committed.metadata):
            # Other agents have committed here: how far they are says nothing about this one.
            offset = (await services.transport.list_offsets([right.tp], EARLIEST))[right.tp]
        else:
            offset = committed.offset
        state = await run.begin_at(right.tp, offset)
    offset = state["offsets"][right.tp.topic]
    right.seek(offset)
    right.max_timestamp_ms = state.get("times", {}).get(right.tp.topic, NO_TIME)
    right.idle = right.tp.topic in state.get("idle", ())
    # Where the log ends now: an input that is empty from the start must not be waited for.
    for source in (main, right):
        source.high_watermark = (await services.transport.list_offsets([source.tp], LATEST))[source.tp]
    run.inputs.append(right)
    join = IntervalJoin(spec)
    saved = state.get("join")
    if saved is not None:
        rows: list[tuple[int, bytes | None, Event]] = []
        for side, source in ((LEFT, main), (RIGHT, right)):
            if saved["low"][side] is not None:
                wanted = accept if side == LEFT else None
                rows += [
                    (side, key, event)
                    for key, event in await _reread(run, source, saved["low"][side])
                    if wanted is None or _accepts(wanted, event)
                ]
        closed_to = ClosedTo(*saved["closed_to"]) if saved["closed_to"] else None
        late = saved.get("late", ([], []))
        join.rebuild(rows, closed_to, (late[LEFT], late[RIGHT]))
    run.join = join
    run.join_closed_to = join.closed_to
    in_order = spec.collect and spec.how != "outer"
    run.join_delay_ms = (spec.after_ms + spec.grace_ms if in_order else spec.retention_ms) + 1
    return join


def _accepts(accept: Callable[[Any], bool], event: Event) -> bool:
    try:
        return bool(accept(event.value))
    except Exception:  # it was buried when it was first read
        return False


async def _reread(run: "Run", source: Input, low: int) -> list[tuple[bytes | None, Event]]:
    """The events of [low, position), as they were read before the last commit."""
    reader = Input(source.tp, source.topic, 0)
    reader.seek(low)
    rows: list[tuple[bytes | None, Event]] = []
    while reader.position < source.position:
        if reader.is_empty:
            fetched = await run.services.transport.fetch({source.tp: reader.fetch_position}, max_wait_ms=0)
            if fetched and isinstance(fetched[0].error, OffsetOutOfRangeError):
                start = fetched[0].error.log_start_offset
                logger.warning(
                    "%s: rows of %s from offset %d are gone from the log before their join closed; going on at %d. "
                    "Keep the topic longer than the join's interval",
                    run.name, source.tp, low, start,
                )  # fmt: skip
                if start <= reader.fetch_position:
                    break
                reader.seek(start)
                continue
            if not fetched or fetched[0].error is not None:
                break
            reader.offer(fetched[0], 0)
        place = reader.peek()
        if place is None:
            continue
        chunk, index = place
        if chunk.error is None and chunk.records[index].offset < source.position:
            try:
                rows.append((chunk.records[index].key, reader.event(chunk, index)))
            except Exception:  # it was buried when it was first read
                logger.debug("%s: a record of %s stays unreadable", run.name, source.tp)
        reader.advance()
    return rows
