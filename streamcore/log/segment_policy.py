"""When a segment ends and when it goes: decisions from a topic's settings, without a disk."""

from collections.abc import Sequence

from streamcore.log.config import INT32_MAX, LogConfig
from streamcore.log.segment import Segment
from streamcore.records.batch import NO_TIMESTAMP


def should_roll(
    active: Segment, config: LogConfig, *, size_bytes: int, last_offset: int, largest_timestamp: int, now_ms: int
) -> bool:
    """Whether batches of `size_bytes`, up to `last_offset`, belong into a new segment."""
    if not active.size_bytes:
        return False
    if active.size_bytes + size_bytes > config.segment_bytes:
        return True
    # Index entries hold offsets relative to the segment as int32 (KAFKA-6264).
    if last_offset - active.base_offset > INT32_MAX:
        return True
    first_timestamp = active.first_timestamp
    if first_timestamp is not None and first_timestamp > NO_TIMESTAMP and largest_timestamp > NO_TIMESTAMP:
        age_ms = largest_timestamp - first_timestamp
    else:
        age_ms = now_ms - active.created_ms
    return age_ms > config.roll_ms or active.is_index_full(config.segment_index_bytes)


def count_expired(segments: Sequence[Segment], config: LogConfig, now_ms: int) -> int:
    """How many of the oldest segments retention.ms and retention.bytes no longer cover.

    Size never takes the last one, which is being written; time does, when every record in it is too old.
    """
    expired = 0
    if config.retention_ms is not None:
        for number, segment in enumerate(segments, 1):
            if not segment.size_bytes and segment is not segments[-1]:
                continue  # compaction has left nothing of it; it goes with the next one
            timestamp, _ = segment.max_timestamp
            # Records without a timestamp count from when the segment was opened or made.
            newest_ms = timestamp if timestamp > NO_TIMESTAMP else segment.created_ms
            if not segment.size_bytes or now_ms - newest_ms <= config.retention_ms:
                break
            expired = number
    if config.retention_bytes is not None:
        excess = sum(segment.size_bytes for segment in segments) - config.retention_bytes
        for index, segment in enumerate(segments[:-1]):
            excess -= segment.size_bytes
            if excess < 0:
                break
            expired = max(expired, index + 1)
    return expired
