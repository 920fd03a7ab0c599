"""What the log's tests share."""

import struct
from collections.abc import Iterable, Iterator, Sequence

from streamcore.clock import ManualClock
from streamcore.errors import LogError
from streamcore.log.cleaning import Cleaning, cleanable
from streamcore.log.config import LogConfig
from streamcore.log.disk import Disk
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.partition_log import PartitionLog
from streamcore.log.replacement import ReplacementWriter
from streamcore.log.segment import Segment
from streamcore.records.batch import BatchHeader, seal, split
from streamcore.records.codec import decode, encode
from streamcore.types import InRecord
from tests.faults.faulty_disk import FaultyDisk

NOW_MS = 1_700_000_000_000
DIRECTORY = "/data/topic-0"
KEYS_MAX = 1000  # of the cleaner's map


def batch(*values: bytes, timestamp_ms: int = NOW_MS, step_ms: int = 1, compression: str = "none") -> bytes:
    """One batch; the records' timestamps go up by `step_ms`."""
    return encode(
        [(b"key", value, timestamp_ms + step_ms * index, ()) for index, value in enumerate(values)],
        compression=compression,
    )


def sent(
    producer_id: int,
    sequence: int,
    *values: bytes,
    epoch: int = 0,
    timestamp_ms: int = NOW_MS,
    compression: str = "none",
    attributes: int = 0,
) -> bytes:
    """One batch as an idempotent producer sends it; a single record without `values`."""
    data = bytearray(batch(*values or (b"v",), timestamp_ms=timestamp_ms, step_ms=0, compression=compression))
    struct.pack_into(">qhi", data, 43, producer_id, epoch, sequence)
    struct.pack_into(">h", data, 21, BatchHeader.parse(data).attributes | attributes)
    seal(data, 0, len(data))
    return bytes(data)


def open_log(
    disk: Disk | None = None,
    *,
    clean: bool = False,
    recovery_point: int = 0,
    log_start_offset: int = 0,
    cleaned_offset: int | None = None,
    clock: ManualClock | None = None,
    config: LogConfig | None = None,
) -> PartitionLog:
    return PartitionLog.open(
        disk or MemoryDisk(),
        DIRECTORY,
        config or LogConfig(),
        clock or ManualClock(NOW_MS),
        clean=clean,
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
        cleaned_offset=cleaned_offset,
    )


def reopen(log: PartitionLog, disk: Disk, *, clean: bool = False) -> PartitionLog:
    """As the next start finds it after the process died; the checkpoints are as the log has them."""
    if isinstance(disk, FaultyDisk):
        disk.kill()
    return open_log(
        disk,
        clean=clean,
        config=log.config,
        recovery_point=log.recovery_point,
        log_start_offset=log.log_start_offset,
        cleaned_offset=log.cleaned_offset,
    )


def replace(disk: Disk, log: PartitionLog, old: Sequence[Segment], batches: Iterable[bytes]) -> None:
    """What the cleaner does with what is left of some segments."""
    log.prepare_cleaning()
    writer = ReplacementWriter(disk, DIRECTORY, old, log.config.index_interval_bytes)
    try:
        for batch_left in batches:
            writer.append(batch_left)
        assert log.replace(writer.finish())
    except OSError:
        writer.abandon()
        raise


def clean(disk: Disk, log: PartitionLog, now_ms: int = NOW_MS, *, keys_max: int = KEYS_MAX) -> int | None:
    """What a node does: every pass that is due; up to where the log is clean now."""
    while (scope := cleanable(log, now_ms)) is not None and scope.is_due(log.config):
        cleaning = Cleaning(disk, log, scope, now_ms, keys_max=keys_max)
        try:
            for replacement in cleaning.steps():
                assert replacement is None or log.replace(replacement)
        except (LogError, OSError):
            cleaning.abandon()
            raise
        assert cleaning.cleaned_offset is not None
        log.cleaned(cleaning.cleaned_offset)
    return log.cleaned_offset


def read_records(log: PartitionLog, offset: int | None = None, max_bytes: int = 1 << 20) -> list[InRecord]:
    """Every record from `offset` (the log start) to the log end, by as many reads as it takes."""
    offset = log.log_start_offset if offset is None else offset
    records: list[InRecord] = []
    while offset < log.log_end_offset:
        data = log.read(offset, max_bytes)
        if not len(data):
            break
        for part in split(data):
            records += [record for record in decode(part) if record.offset >= offset]
            following = BatchHeader.parse(part).last_offset + 1
        offset = following
    return records


def read_values(log: PartitionLog, offset: int | None = None, max_bytes: int = 1 << 20) -> list[bytes | None]:
    return [record.value for record in read_records(log, offset, max_bytes)]


def fill(log: PartitionLog, count: int, *, size: int = 100, step_ms: int = 10) -> None:
    """`count` batches of one record, values b"<n>" padded to `size`."""
    first = log.log_end_offset
    for number in range(first, first + count):
        log.append_as_leader(batch(value(number, size), timestamp_ms=NOW_MS + number * step_ms))


def value(number: int, size: int = 100) -> bytes:
    return str(number).encode().ljust(size, b".")


def values(numbers: Sequence[int] | Iterator[int] | range, size: int = 100) -> list[bytes]:
    return [value(number, size) for number in numbers]
