"""Offsets by time, at the granularity of records: what ListOffsets answers."""

from collections.abc import Iterator, Sequence

from streamcore.log.segment import Found, Segment
from streamcore.records.batch import NO_TIMESTAMP
from streamcore.records.codec import decode, iterate


def first_at_or_after(segments: Sequence[Segment], timestamp_ms: int, log_start_offset: int) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record, in offset order, whose timestamp is at least `timestamp_ms`."""
    for segment in segments:
        for found in segment.locate_timestamp(timestamp_ms):
            if found.header.last_offset < log_start_offset:
                continue
            for record in iterate(segment.read_batch(found)):
                if record.timestamp >= timestamp_ms and record.offset >= log_start_offset:
                    return record.offset, record.timestamp
    return None


def largest(segments: Sequence[Segment], log_start_offset: int) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record with the largest timestamp (KIP-734)."""
    best: tuple[Segment, Found] | None = None
    for segment in segments:
        found = _largest_batch(segment, log_start_offset)
        if found is not None and (best is None or found.header.max_timestamp > best[1].header.max_timestamp):
            best = segment, found
    if best is None:
        return None
    records = [record for record in decode(best[0].read_batch(best[1])) if record.offset >= log_start_offset]
    first = max(records, key=lambda record: (record.timestamp, -record.offset))
    return first.offset, first.timestamp


def _largest_batch(segment: Segment, log_start_offset: int) -> Found | None:
    """The segment's first batch with its largest timestamp, as far as it is above the log start."""
    if segment.base_offset >= log_start_offset:
        timestamp, last_offset = segment.max_timestamp
        found = segment.locate(last_offset) if timestamp > NO_TIMESTAMP else None
        if found is None or found.header.record_count:
            return found
        # Compaction has left the batch without the record that its time is of.
        return max(_with_records(segment.scan()), key=lambda found: found.header.max_timestamp, default=None)
    start = next(_with_records(_from(segment, log_start_offset)), None)
    if start is None:
        return None
    batches = list(_with_records(segment.scan(start.position)))
    # The header of the batch that the log starts in speaks of deleted records too.
    visible = [record.timestamp for record in decode(segment.read_batch(start)) if record.offset >= log_start_offset]
    batches[0] = Found(start.position, start.header._replace(max_timestamp=max(visible, default=NO_TIMESTAMP)))
    best = max(batches, key=lambda found: found.header.max_timestamp)
    return best if best.header.max_timestamp > NO_TIMESTAMP else None


def _from(segment: Segment, offset: int) -> Iterator[Found]:
    start = segment.locate(offset)
    return iter(()) if start is None else segment.scan(start.position)


def _with_records(batches: Iterator[Found]) -> Iterator[Found]:
    return (found for found in batches if found.header.record_count)
