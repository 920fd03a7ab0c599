"""Changelog topics: made, read and written again."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from streamcore.engine.services import Services
from streamcore.errors import OffsetOutOfRangeError, StreamcoreError, TopicExistsError
from streamcore.transport.base import EARLIEST, LATEST, TopicInfo, Transport
from streamcore.types import TP, InRecord, OutRecord

CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    # What a rebuild reads beside the newest rows: the active segment is not compacted.
    "segment.bytes": str(64 << 20),
    # A rebuild stops at the end that the group has committed: were an older row gone for the sake of one above it, the
    # key would be lost. Our log's cleaner stops at that end as well (COMPACTION_LIMIT). Another broker's knows nothing
    # of it, and is asked to wait for as long as a worker may take to come back and write over such rows. They lie at
    # the end of the log, so a closed segment holds some only where a crash met a roll.
    "min.compaction.lag.ms": str(3_600_000),
}
FETCH_BYTES = 4 << 20
# Rows per produce when a table's rows are written again; a few megabytes.
REWRITE_ROWS = 10_000


async def ensure_topic(transport: Transport, name: str, partitions: int, config: Mapping[str, str]) -> TopicInfo:
    """Create a topic that was not there a moment ago; another worker may be quicker."""
    try:
        return await transport.create_topic(name, partitions=partitions, config=config)
    except TopicExistsError:
        return (await transport.topics())[name]


async def ensure(services: Services, table: str) -> None:
    """Create a table's changelog if it is not there, with as many partitions as the topic that the table follows."""
    topic, count = services.changelog_topic(table), services.table_partitions[table]
    known = (await services.transport.topics()).get(topic)
    if known is None:
        known = await ensure_topic(services.transport, topic, count, CHANGELOG_CONFIG)
    elif known.partitions < count:
        known = await services.transport.add_partitions(topic, count)
    services.topics[topic] = known


async def end_of(services: Services, tp: TP) -> int | None:
    """Where a changelog ends; None for one that does not exist."""
    info = (await services.transport.topics()).get(tp.topic)
    if info is None or tp.partition >= info.partitions:
        return None
    return (await services.transport.list_offsets([tp], LATEST))[tp]


async def read(
    services: Services, tp: TP, start: int, end: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> AsyncIterator[Sequence[InRecord]]:
    """Batches of records in [start, end); gaps of compaction are nothing to wait for.

    Args:
        on_progress: told (offsets done, offsets in all).
    Raises:
        StreamcoreError: the changelog cannot be read.
    """
    position = first = max(start, (await services.transport.list_offsets([tp], EARLIEST))[tp])
    total = max(0, end - position)
    while position < end:
        fetched = await services.transport.fetch({tp: position}, max_bytes=FETCH_BYTES, max_wait_ms=0)
        if not fetched:
            break
        part = fetched[0]
        if isinstance(part.error, OffsetOutOfRangeError):
            position = part.error.log_start_offset
            continue
        if part.error is not None:
            raise part.error
        records: Sequence[InRecord] = part.records
        if part.next_offset > end:
            records = [record for record in records if record.offset < end]
        if records:
            yield records
        if part.next_offset <= position:
            break
        position = part.next_offset
        on_progress(min(position, end) - first, total)


async def keys(services: Services, tp: TP, start: int, end: int) -> list[bytes]:
    """The keys of the records in [start, end), each once."""
    found: dict[bytes, None] = {}
    async for records in read(services, tp, start, end):
        found.update((record.key, None) for record in records if record.key is not None)
    return list(found)


async def tombstones(services: Services, tp: TP, end: int) -> list[OutRecord]:
    """What takes back every row of a changelog before `end`."""
    if not end:
        return []
    now_ms = services.clock.now_ms()
    return [(key, None, now_ms, ()) for key in await keys(services, tp, 0, end)]


async def write(services: Services, tp: TP, rows: Sequence[tuple[bytes, bytes | None]]) -> int | None:
    """Append rows; the new end, or None where there were none.

    Raises:
        StreamcoreError: the log did not take them.
    """
    end: int | None = None
    now_ms = services.clock.now_ms()
    for first in range(0, len(rows), REWRITE_ROWS):
        batch: list[OutRecord] = [(key, value, now_ms, ()) for key, value in rows[first : first + REWRITE_ROWS]]
        result = (await services.transport.produce({tp: batch}))[tp]
        if isinstance(result, StreamcoreError):
            raise result
        end = result + len(batch)
    return end
