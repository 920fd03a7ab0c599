"""Feeds an interval join from two inputs, in the order of their event times, and gives its rows to the agent."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from streamcore.engine.commit import metadata_content
from streamcore.engine.failures import CLOSE
from streamcore.engine.inputs import NO_TIME, Chunk, Input
from streamcore.engine.run_state import begin_at, restore_input
from streamcore.engine.sending import forward
from streamcore.engine.services import logger
from streamcore.engine.window_closing import close_due
from streamcore.errors import OffsetOutOfRangeError, PartitionsMismatchError, UsageError
from streamcore.events import Event
from streamcore.joins import IntervalJoinSpec
from streamcore.operators.collecting_join import CollectingJoin
from streamcore.operators.interval_join import LEFT, RIGHT, ClosedTo, IntervalJoin, Row
from streamcore.operators.pairing_join import PairingJoin
from streamcore.transport.base import EARLIEST, LATEST
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.engine.cursor import Cursor
    from streamcore.engine.run import Run


UNREADABLE = object()  # no key


async def joined_rows(
    cursor: "Cursor", spec: IntervalJoinSpec, accept: Callable[[Any], bool] | None
) -> AsyncIterator[Any]:
    """Joined rows; asking for the next one says that the last one is done."""
    run = cursor.run
    time, failures, known_failures = run.event_time, run.failures, run.failures.known
    cursor.row = cursor.arriving = cursor.part = None
    join = await _open(run, spec, accept)
    left, right = run.inputs
    late_after, close_next, waits = join.late_after, join.close_next, spec.waits
    # Right rows that nobody is told of before they are matched need no event.
    add_right = join.add_right if isinstance(join, CollectingJoin) else None
    seen_ms = NO_TIME - 1  # the watermark that has been acted on
    is_fresh = True  # nobody has been told yet that there is something to commit
    while True:
        side = LEFT if (time_ms := left.head_ms) is not None else None
        other_ms = right.head_ms
        if time_ms is None or other_ms is None:
            side = _next_side(run)
            time_ms, other_ms = left.head_ms, right.head_ms
        elif other_ms < time_ms:
            side = RIGHT
        if side is not None:
            source, other = (left, right) if side == LEFT else (right, left)
            if side == RIGHT:
                time_ms = other_ms
            assert time_ms is not None, "the side was chosen because it has a record"
            # The watermark with this record's time in it.
            if time_ms > source.max_timestamp_ms:
                source.max_timestamp_ms = time_ms
                slower_ms = other.max_timestamp_ms
                watermark_ms = slower_ms if slower_ms < time_ms and not other.idle else time_ms
                if watermark_ms > time.watermark_ms:
                    time.watermark_ms = watermark_ms
        watermark_ms = time.watermark_ms
        # Time first: what an event's time closes is closed before the event itself is looked at.
        if watermark_ms != seen_ms:
            if join.next_close_ms <= watermark_ms:
                in_order = time.join_delay_ms <= spec.after_ms + spec.grace_ms + 1
                while join.next_close_ms <= watermark_ms:
                    joined = close_next()
                    if joined is None:
                        continue
                    row, value = joined
                    if in_order and row.timestamp > time.out_watermark_ms:
                        time.out_watermark_ms = row.timestamp
                    if run.interrupted or time.next_deadline_ms <= time.out_watermark_ms:
                        is_fresh = True
                        await _between(run)
                        if run.stopping:
                            return
                    cursor.row, cursor.part = row, CLOSE
                    if not (known_failures and await _face_row(run, row)):
                        yield value
                    elif run.stopping:
                        return
                    if known_failures:
                        failures.forget(row.tp, row.offset, CLOSE)
                    cursor.row = cursor.part = None
                    run.join_closed_to = join.closed_to
                    run.events_total += 1
                run.join_closed_to = join.closed_to
                join.expire(watermark_ms)
                if is_fresh:
                    is_fresh = False
                    run.group.progressed()
            elif watermark_ms >= join.sweep_ms:
                join.expire(watermark_ms)
            seen_ms = watermark_ms
            if watermark_ms - time.join_delay_ms > time.out_watermark_ms:
                time.out_watermark_ms = watermark_ms - time.join_delay_ms
        if run.interrupted or time.next_deadline_ms <= time.out_watermark_ms:
            is_fresh = True
            await _between(run)
            if run.stopping:
                return
        if side is None:
            is_fresh = True
            _settle(run)
            if not await run.fetcher.more():
                return
            continue
        if is_fresh:
            is_fresh = False
            run.group.progressed()
        chunk, index = source.chunk, source.index
        assert chunk is not None, "the side was chosen because it has a record"
        assert time_ms is not None, "so it has a time"
        record = chunk.records[index]
        raw_key = record.key
        if (
            side == RIGHT
            and add_right is not None
            and raw_key is not None
            and raw_key in source.keys
            and chunk.error is None
            and watermark_ms < time_ms + late_after[RIGHT]
            and not known_failures
        ):
            add_right(raw_key, time_ms, record.offset, chunk.values[index])
            # As `advance`, without a call for every record.
            index += 1
            if index < len(source.head_times):
                source.index = index
                source.head_ms = source.head_times[index]
            else:
                source.advance()
            continue
        if chunk.error is not None or raw_key not in source.keys:
            key = _key(run, source, chunk, index)
        else:
            key = source.keys[raw_key]
        row = Row(source.tp, record, key, chunk.values[index], time_ms, raw_key)
        if key is UNREADABLE or (known_failures and await _face(run, source, row)):
            is_fresh = True
            if run.stopping:
                return  # the agent's policy is to stop: it is read again next time
            # Not in the join: neither now, nor when its rows are read again after a restart.
            join.refuse(side, row.offset)
            source.advance()
            continue
        if side == LEFT and accept is not None:
            cursor.arriving = row
            accepted = accept(row.value)
            cursor.arriving = None
            if not accepted:
                source.advance()
                continue
        if watermark_ms >= time_ms + late_after[side]:
            cursor.arriving = row
            join.refuse(side, row.offset)
            run.count_late()
            if spec.late != "drop":
                forward(run, spec.late, row)
            cursor.arriving = None
            source.advance()
            continue
        if waits:
            join.add(side, row)
        else:
            cursor.arriving = row
            for number, joined in enumerate(join.add(side, row)):
                cursor.row, cursor.part = joined[0], number
                if not (known_failures and failures.is_dead_pair(row, number, joined)):
                    yield joined[1]
                run.events_total += 1
            cursor.row = cursor.arriving = cursor.part = None
        if known_failures:
            failures.forget(row.tp, row.offset)
        # As `advance`, without a call for every record.
        index += 1
        if index < len(source.head_times):
            source.index = index
            source.head_ms = source.head_times[index]
        else:
            source.advance()


def _settle(run: "Run") -> None:
    for source in run.inputs:
        source.settle()


def _next_side(run: "Run") -> int | None:
    """The side whose next record is the older one; None where a fetch must come first."""
    side: int | None = None
    oldest_ms = 0
    for index, source in enumerate(run.inputs):
        source.peek()
        time_ms = source.head_ms
        if time_ms is None:
            if not source.is_caught_up:
                return None
        elif side is None or time_ms < oldest_ms:
            side, oldest_ms = index, time_ms
    return side


async def _between(run: "Run") -> None:
    """Between two rows: windows that are due, and a commit that waits."""
    time = run.event_time
    _settle(run)
    if time.next_deadline_ms <= time.out_watermark_ms:
        await close_due(run)
    if run.group.wanted:
        await run.park()
    run.refresh_interrupt()


def _key(run: "Run", source: Input, chunk: Chunk, index: int) -> Any:
    """The key of a record, or UNREADABLE where it, or its value, cannot be read: then the record has been buried."""
    if chunk.error is not None:
        run.failures.undecodable(source, chunk, index)
        return UNREADABLE
    try:
        return source.key(chunk.records[index].key)
    except Exception as error:  # a key that its type cannot read
        run.failures.bury(source.tp, chunk, index, error, 1)
        return UNREADABLE


async def _face(run: "Run", source: Input, row: Row) -> bool:
    """Before a record that failed, or whose pairs did; True where it is passed over, or the worker stops."""
    _settle(run)
    chunk, index = source.peek()  # type: ignore[misc]
    if await run.failures.face((row.tp, row.offset), source, chunk, index):
        return True
    await run.failures.face_pairs(row)
    return run.stopping


async def _face_row(run: "Run", row: Row) -> bool:
    _settle(run)
    return await run.failures.face_row(row)


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
        state = await begin_at(run, right.tp, offset)
    restore_input(right, state)
    # Where the log ends now: an input that is empty from the start must not be waited for.
    for source in (main, right):
        source.high_watermark = (await services.transport.list_offsets([source.tp], LATEST))[source.tp]
    run.inputs.append(right)
    join = CollectingJoin(spec) if spec.waits else PairingJoin(spec)
    saved = state.get("join")
    if saved is not None:
        rows: list[tuple[int, Row]] = []
        for side, source in ((LEFT, main), (RIGHT, right)):
            if saved["low"][side] is not None:
                wanted = accept if side == LEFT else None
                rows += [
                    (side, row)
                    for row in await _reread(run, source, saved["low"][side])
                    if wanted is None or _accepts(wanted, row)
                ]
        closed_to: ClosedTo | None = tuple(saved["closed_to"]) if saved["closed_to"] else None
        late = saved.get("late", ([], []))
        join.rebuild(rows, closed_to, (late[LEFT], late[RIGHT]))
    run.join = join
    run.join_closed_to = join.closed_to
    run.event_time.join_delay_ms = (spec.after_ms + spec.grace_ms if spec.waits else spec.retention_ms) + 1
    return join


def _accepts(accept: Callable[[Any], bool], event: Event) -> bool:
    try:
        return bool(accept(event.value))
    except Exception:  # it was buried when it was first read
        return False


async def _reread(run: "Run", source: Input, low: int) -> list[Row]:
    """The events of [low, position), as they were read before the last commit."""
    reader = Input(source.tp, source.topic, 0)
    reader.seek(low)
    rows: list[Row] = []
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
        record = chunk.records[index]
        if chunk.error is None and record.offset < source.position:
            try:
                key = reader.key(record.key)
                time_ms = reader.times(chunk)[index]
                rows.append(Row(reader.tp, record, key, chunk.values[index], time_ms, record.key))
            except Exception:  # it was buried when it was first read
                logger.debug("%s: a record of %s stays unreadable", run.name, source.tp)
        reader.advance()
        reader.settle()
    return rows
