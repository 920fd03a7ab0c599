"""From the files of a partition to its segments, after an orderly stop and after any other.

After an orderly stop every file is believed. After any other, the segments from the recovery point on are read whole
and cut to their longest valid prefix: what was not synced may be torn in any way. Below the recovery point damage is
no torn write but a loss, and the partition stays offline until somebody decides.
"""

import logging
from typing import NamedTuple

from streamcore.errors import LogOfflineError
from streamcore.log import filenames
from streamcore.log.aborted_transactions import AbortedTransactions
from streamcore.log.config import INT64_MAX, LogConfig
from streamcore.log.leader_epochs import LeaderEpochs
from streamcore.log.open_files import OpenFiles
from streamcore.log.producer_snapshots import ProducerSnapshots, rebuild, rebuild_aborted
from streamcore.log.producer_state import ProducerState
from streamcore.log.replacement import finish_replacements
from streamcore.log.segment import Segment
from streamcore.records.batch import NO_PRODUCER, BatchHeader

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """At least one segment, the last of them active."""

    segments: list[Segment]
    log_end_offset: int
    producers: ProducerState


class _Verified(NamedTuple):
    """The part of a log that was read whole, whose indexes may have been as torn as it was."""

    base_offset: int
    has_markers: bool  # of transactions


def load(
    files: OpenFiles,
    directory: str,
    config: LogConfig,
    epochs: LeaderEpochs,
    snapshots: ProducerSnapshots,
    aborted: AbortedTransactions,
    now_ms: int,
    *,
    clean: bool,
    recovery_point: int,
    log_start_offset: int,
    has_gaps: bool,
) -> Loaded:
    """Find, verify and mend a partition's segments.

    Args:
        has_gaps: compaction may have left gaps between offsets below the recovery point.
    Raises:
        LogOfflineError: synced records are damaged or missing; nothing was changed in the damaged segment.
        OSError: the disk fails.
    """
    disk = files.disk
    disk.make_directory(directory)
    names = _sweep(files, directory)
    snapshots.found(names)
    aborted.found(names)
    base_offsets = sorted(base for base in map(filenames.segment_base_offset, names) if base is not None)
    segments = []
    for base_offset in base_offsets:
        size = disk.size(filenames.segment_path(directory, base_offset) + filenames.LOG)
        segments.append(Segment(files, directory, base_offset, size, now_ms))
    epochs_known = epochs.load()
    if not segments:
        if recovery_point > log_start_offset:
            raise _lost(directory, f"its segments are gone; {recovery_point} offsets were synced")
        if snapshots.remove_above(-1):
            disk.sync_directory(directory)
        return Loaded([Segment.create(files, directory, log_start_offset, now_ms)], log_start_offset, ProducerState())
    verified: _Verified | None = None
    replay_end = end_offset = segments[-1].next_offset() if clean else None
    if end_offset is None or replay_end is None:
        if clean:
            logger.warning("%s: the last segment does not end with a whole batch; it is verified", directory)
        # Where the recovery point is unknown, so is where gaps end.
        gaps_end = (recovery_point or INT64_MAX) if has_gaps else 0
        recovered = _recover(files, directory, config, epochs, epochs_known, segments, recovery_point, gaps_end)
        segments, end_offset, replay_end, verified = recovered
    if end_offset < log_start_offset:
        # Records above the start were lost unsynced; offsets that were deleted are never given out again.
        for segment in reversed(segments):
            segment.remove()
        snapshots.remove_above(-1)
        segments, end_offset = [Segment.create(files, directory, log_start_offset, now_ms)], log_start_offset
        disk.sync_directory(directory)
    elif snapshots.remove_above(end_offset):
        disk.sync_directory(directory)
    snapshots.remove_below(segments[0].base_offset)
    aborted.keep({segment.base_offset for segment in segments})
    if not epochs_known and end_offset > segments[0].base_offset:
        _learn_epochs(epochs, segments)
    epochs.truncate_from_end(end_offset)
    if verified is not None:
        if verified.has_markers:
            rebuild_aborted(snapshots, aborted, segments, verified.base_offset)
        else:
            aborted.truncate(verified.base_offset)
    producers = rebuild(snapshots, segments, end_offset, now_ms, replay_end=replay_end)
    snapshots.prune(recovery_point)
    return Loaded(segments, end_offset, producers)


def _sweep(files: OpenFiles, directory: str) -> list[str]:
    """Remove what a crash left behind; the names that stay."""
    disk = files.disk
    finish_replacements(disk, directory)
    names = disk.list_directory(directory)
    logs = {name for name in names if name.endswith(filenames.LOG)}
    kept = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        orphan = dot + suffix in filenames.INDEXES and stem + filenames.LOG not in logs
        if orphan or dot + suffix in (filenames.DELETED, filenames.CLEANED, ".tmp"):
            disk.remove(f"{directory}/{name}")
        else:
            kept.append(name)
    return kept


def _recover(
    files: OpenFiles,
    directory: str,
    config: LogConfig,
    epochs: LeaderEpochs,
    epochs_known: bool,
    segments: list[Segment],
    recovery_point: int,
    gaps_end: int,
) -> tuple[list[Segment], int, int, _Verified]:
    """Verify from the segment with the recovery point on; cut at the first batch that is not what it must be.

    Returns:
        The segments, the log end, an offset from which on no batch has a producer id, and what was verified.
    """
    # A segment that ends at the recovery point is one of them: its indexes may be newer than that sync.
    first = max((i for i, segment in enumerate(segments) if segment.base_offset < recovery_point), default=0)
    expected = producers_end = verified_from = segments[first].base_offset
    lowest_epoch = 0
    has_markers = False

    def accept(header: BatchHeader) -> bool:
        nonlocal expected, lowest_epoch, producers_end, has_markers
        # Base offset and leader epoch are outside the checksum: they are judged by what must be there. Compaction
        # leaves gaps between offsets; elsewhere there are none.
        if header.base_offset != expected and not expected < min(header.base_offset, gaps_end):
            return False
        epoch = header.leader_epoch
        if epoch < lowest_epoch or (epochs_known and not epochs.may_have(epoch, header.base_offset)):
            return False
        expected, lowest_epoch = header.last_offset + 1, epoch
        if header.producer_id != NO_PRODUCER:
            producers_end = expected
            has_markers = has_markers or header.is_control
        return True

    for index in range(first, len(segments)):
        segment = segments[index]
        whole = segment.base_offset == expected or expected < min(segment.base_offset, gaps_end)
        size = segment.size_bytes
        if whole:
            expected = segment.base_offset
            end = segment.recover(accept, config.index_interval_bytes)
            if end == size:
                continue
        if expected < recovery_point:
            raise _lost(directory, f"offset {expected} is damaged or missing; {recovery_point} offsets were synced")
        later = segments[index + 1 :] if whole else segments[index:]
        torn = (size - end if whole else 0) + sum(other.size_bytes for other in later)
        if torn:
            logger.warning("%s: cut at offset %d: %d bytes of unsynced writes were torn", directory, expected, torn)
        for other in reversed(later):
            other.remove()
        files.disk.sync_directory(directory)
        if whole:
            segment.cut_garbage()
            return segments[: index + 1], expected, producers_end, _Verified(verified_from, has_markers)
        return segments[:index], expected, producers_end, _Verified(verified_from, has_markers)
    if expected < recovery_point:
        raise _lost(directory, f"the log ends at {expected}; {recovery_point} offsets were synced")
    return segments, expected, producers_end, _Verified(verified_from, has_markers)


def _learn_epochs(epochs: LeaderEpochs, segments: list[Segment]) -> None:
    """From the batches, where the file is missing or damaged."""
    for segment in segments:
        for found in segment.scan():
            epochs.note(found.header.leader_epoch, found.header.base_offset)
    epochs.save()


def _lost(directory: str, what: str) -> LogOfflineError:
    return LogOfflineError(
        f"{directory} has lost records that were durable: {what}. Restore its files from a copy; or, to accept the "
        f"loss and keep what is valid, remove {filenames.RECOVERY_POINTS} from the data directory and start again"
    )
