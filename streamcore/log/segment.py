"""One segment: a file of batches and its two indexes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

from streamcore.errors import CorruptRecordError
from streamcore.log import filenames
from streamcore.log.disk import File
from streamcore.log.indexes import OffsetIndex, TimeIndex
from streamcore.log.open_files import OpenFiles
from streamcore.records.batch import (
    CHECKED_FROM,
    HEADER_BYTES,
    LENGTH_OVERHEAD,
    MAGIC,
    NO_TIMESTAMP,
    BatchHeader,
    Buffer,
)

_LOCATE_WINDOW_BYTES: Final = 16 << 10  # a few index intervals
_SCAN_WINDOW_BYTES: Final = 1 << 20
_INDEX_INTERVAL_BYTES: Final = 4_096  # index.interval.bytes' default, where the topic's own setting is not at hand


class Placed(NamedTuple):
    """What a segment keeps of a batch that is appended."""

    size_bytes: int
    last_offset: int
    max_timestamp: int


class Found(NamedTuple):
    """A batch on disk."""

    position: int
    header: BatchHeader


def scan_headers(file: File, position: int, end: int, window_bytes: int = _SCAN_WINDOW_BYTES) -> Iterator[Found]:
    """The headers from the batch at `position` on; stops before the first that cannot be one, or at `end`."""
    window, window_start = b"", position
    while position + HEADER_BYTES <= end:
        at = position - window_start
        if at + HEADER_BYTES > len(window):
            window, window_start, at = file.read_at(position, min(window_bytes, end - position)), position, 0
            if len(window) < HEADER_BYTES:
                return
        header = BatchHeader.parse(window, at)
        following = position + header.length + LENGTH_OVERHEAD
        if header.magic != MAGIC or header.length < HEADER_BYTES - LENGTH_OVERHEAD or following > end:
            return
        yield Found(position, header)
        position = following


def scan_intact(file: File, end: int) -> Iterator[Found]:
    """The batches from the file's start on, each with its checksum verified; stops before the first that fails."""
    position = 0
    window, window_start = b"", 0
    while position + HEADER_BYTES <= end:
        at = position - window_start
        if at + HEADER_BYTES > len(window):
            window, window_start, at = file.read_at(position, min(_SCAN_WINDOW_BYTES, end - position)), position, 0
            if len(window) < HEADER_BYTES:
                return
        header = BatchHeader.parse(window, at)
        size = header.length + LENGTH_OVERHEAD
        # The length is checked against the file before it is believed: garbage may claim gigabytes.
        if size < HEADER_BYTES or position + size > end or header.magic != MAGIC:
            return
        if at + size > len(window) and size <= _SCAN_WINDOW_BYTES:
            window = file.read_at(position, min(_SCAN_WINDOW_BYTES, end - position))
            window_start, at = position, 0
        if size <= _SCAN_WINDOW_BYTES:
            checksum = crc32c(memoryview(window)[at + CHECKED_FROM : at + size])
        else:
            checksum = _checksum(file, position + CHECKED_FROM, position + size)
        if checksum != header.crc or header.last_offset_delta < 0:
            return
        yield Found(position, header)
        position += size


def _checksum(file: File, position: int, end: int) -> int:
    """In pieces: a length that is garbage must not cost its own size in memory."""
    checksum = 0
    while position < end:
        piece = file.read_at(position, min(_SCAN_WINDOW_BYTES, end - position))
        if not piece:
            break
        checksum = crc32c(piece, checksum)
        position += len(piece)
    return checksum


class IndexEntries:
    """What the two indexes of a segment say of its batches, which are added in order."""

    def __init__(self, base_offset: int, index_interval_bytes: int) -> None:
        self._base_offset = base_offset
        self._index_interval_bytes = index_interval_bytes
        self.offsets: list[tuple[int, int]] = []
        self.times: list[tuple[int, int]] = []
        self.max_timestamp = NO_TIMESTAMP
        self.max_timestamp_offset = base_offset - 1
        self.bytes_since_entry = 0

    def add(self, position: int, header: BatchHeader) -> None:
        if header.max_timestamp > self.max_timestamp:
            self.max_timestamp, self.max_timestamp_offset = header.max_timestamp, header.last_offset
        if self.bytes_since_entry > self._index_interval_bytes:
            self.offsets.append((header.last_offset - self._base_offset, position))
            self._add_time()
            self.bytes_since_entry = 0
        self.bytes_since_entry += header.size_bytes

    def finish(self) -> None:
        """The last entry of the times tells the segment's largest."""
        self._add_time()

    def _add_time(self) -> None:
        if self.max_timestamp > NO_TIMESTAMP and (not self.times or self.max_timestamp > self.times[-1][0]):
            self.times.append((self.max_timestamp, self.max_timestamp_offset - self._base_offset))


class Segment:
    """Batches from `base_offset` up to the next segment's; only the last segment of a log is appended to.

    `size_bytes` is where the last whole batch ends: bytes after it, of a write that failed, are never read.
    """

    def __init__(self, files: OpenFiles, directory: str, base_offset: int, size_bytes: int, created_ms: int) -> None:
        path = filenames.segment_path(directory, base_offset)
        self.base_offset = base_offset
        self.size_bytes = size_bytes
        self.created_ms = created_ms
        self.log_path = path + filenames.LOG
        self.offset_index = OffsetIndex(files, path + filenames.OFFSET_INDEX, base_offset)
        self.time_index = TimeIndex(files, path + filenames.TIME_INDEX, base_offset)
        self._files = files
        self._indexes_checked = False
        self._max_timestamp = NO_TIMESTAMP
        self._max_timestamp_offset = base_offset - 1  # last offset of the batch with it
        self._bytes_since_entry = 0
        self._first_timestamp: int | None = None

    def __repr__(self) -> str:
        return f"Segment({self.log_path!r}, {self.size_bytes} bytes)"

    @classmethod
    def create(cls, files: OpenFiles, directory: str, base_offset: int, created_ms: int) -> "Segment":
        """A new one, with its three empty files; whatever files of that name were there are emptied."""
        segment = cls(files, directory, base_offset, 0, created_ms)
        files.get(segment.log_path, create=True).truncate(0)
        segment.offset_index.replace([])
        segment.time_index.replace([])
        segment._indexes_checked = True
        return segment

    @property
    def paths(self) -> tuple[str, str, str]:
        return self.log_path, self.offset_index.path, self.time_index.path

    @property
    def file(self) -> File:
        """The open log file; good until another file is asked for."""
        return self._files.get(self.log_path)

    # ---- writing

    def append(self, data: Buffer, batches: Sequence[Placed], index_interval_bytes: int) -> None:
        """Write whole, stamped batches at the end.

        Raises:
            OSError: part of `data` may be in the file; the caller cuts it off with `cut_garbage`.
        """
        self._files.get(self.log_path).write_at(self.size_bytes, data)
        position = self.size_bytes
        for size_bytes, last_offset, max_timestamp in batches:
            if max_timestamp > self._max_timestamp:
                self._max_timestamp, self._max_timestamp_offset = max_timestamp, last_offset
            if self._bytes_since_entry > index_interval_bytes:
                self._add_entries(last_offset, position)
            self._bytes_since_entry += size_bytes
            position += size_bytes
        if self._first_timestamp is None:
            self._first_timestamp = batches[0].max_timestamp
        self.size_bytes = position

    def _add_entries(self, last_offset: int, position: int) -> None:
        try:
            # Time first: an offset entry promises that the time index knows everything up to its batch.
            if self._max_timestamp > NO_TIMESTAMP:
                self.time_index.add(self._max_timestamp, self._max_timestamp_offset)
            self.offset_index.add(last_offset, position)
        except OSError:
            # An index is allowed to be sparse, and a full disk must not fail an append whose records are written;
            # the next interval tries again.
            return
        self._bytes_since_entry = 0

    def cut_garbage(self) -> None:
        """Take away what a failed write, or a crash, left after the last whole batch.

        Durable on return: were only the cut lost in a crash, old bytes could follow new ones, offsets and all.
        """
        self.file.truncate(self.size_bytes)
        self.file.sync()

    def seal(self) -> None:
        """Complete the time index, so that its last entry tells the segment's largest timestamp (at roll and close)."""
        self.ensure_indexes()
        if self._max_timestamp > NO_TIMESTAMP:
            self.time_index.add(self._max_timestamp, self._max_timestamp_offset)

    def is_index_full(self, limit_bytes: int) -> bool:
        return self.offset_index.is_full(limit_bytes) or self.time_index.is_full(limit_bytes)

    def truncate(self, position: int) -> None:
        """Keep the bytes before `position`, which is a batch's start; durable on return."""
        self.ensure_indexes()
        self.size_bytes = position
        self.cut_garbage()
        self.offset_index.truncate_to_position(position)
        next_offset = self.base_offset
        for found in self._tail():
            next_offset = found.header.last_offset + 1
        self.time_index.truncate_to_offset(next_offset)
        if position == 0:
            self._first_timestamp = None
        self._learn_tail()

    def remove(self) -> None:
        """Delete the files; the log last, since without it the others are orphans that any start sweeps away."""
        for path in reversed(self.paths):
            self._files.forget(path)
            try:
                self._files.disk.remove(path)
            except FileNotFoundError:
                pass

    # ---- time

    @property
    def first_timestamp(self) -> int | None:
        """Largest timestamp of the first batch, from which the segment's age counts; None while it is empty."""
        if self._first_timestamp is None and self.size_bytes:
            for found in scan_headers(self.file, 0, self.size_bytes, HEADER_BYTES):
                self._first_timestamp = found.header.max_timestamp
                break
        return self._first_timestamp

    @property
    def max_timestamp(self) -> tuple[int, int]:
        """(largest timestamp, last offset of the first batch with it); (-1, base offset - 1) where there is none."""
        self.ensure_indexes()
        return self._max_timestamp, self._max_timestamp_offset

    # ---- finding

    def locate(self, offset: int) -> Found | None:
        """The first batch whose last offset is at least `offset`; None where the segment ends before.

        Raises:
            CorruptRecordError: something that is no batch is in the way.
        """
        if not self.size_bytes:
            return None
        self.ensure_indexes()
        entry_offset, position = self.offset_index.lookup(offset)
        found = self._locate_from(position, entry_offset, offset)
        if found == "damaged index":
            self.rebuild_indexes()
            entry_offset, position = self.offset_index.lookup(offset)
            found = self._locate_from(position, entry_offset, offset)
        if isinstance(found, str):
            raise CorruptRecordError(f"{self.log_path} is damaged between byte {position} and offset {offset}")
        return found

    def _locate_from(self, position: int, entry_offset: int, offset: int) -> Found | str | None:
        """Scan on from an index entry, which is believed only if a batch ends with its offset there."""
        if not 0 <= position < self.size_bytes:
            return "damaged index"
        first = True
        for found in scan_headers(self.file, position, self.size_bytes, _LOCATE_WINDOW_BYTES):
            if first and entry_offset >= self.base_offset and found.header.last_offset != entry_offset:
                return "damaged index"
            first = False
            if found.header.last_offset >= offset:
                return found
            position = found.position + found.header.size_bytes
        if first and entry_offset >= self.base_offset:
            return "damaged index"
        return None if position == self.size_bytes else "damaged log"

    def locate_timestamp(self, timestamp: int) -> Iterator[Found]:
        """Batches that may hold a record with at least `timestamp`, in order."""
        self.ensure_indexes()
        if self._max_timestamp < timestamp:
            return
        start = self.locate(self.time_index.before(timestamp) + 1)
        if start is None:
            return
        for found in self.scan(start.position):
            if found.header.max_timestamp >= timestamp:
                yield found

    def scan(self, position: int = 0) -> Iterator[Found]:
        """Every header from `position` on."""
        return scan_headers(self.file, position, self.size_bytes)

    def read_batch(self, found: Found) -> bytes:
        return self.file.read_at(found.position, found.header.size_bytes)

    # ---- indexes and recovery

    def ensure_indexes(self) -> None:
        """Check the indexes once, when they are first needed; rebuild them where they cannot be right."""
        if self._indexes_checked:
            return
        if self._are_indexes_plausible():
            self._learn_tail()
        else:
            self.rebuild_indexes()

    def _are_indexes_plausible(self) -> bool:
        offsets, times = self.offset_index, self.time_index
        if not offsets.has_whole_entries() or not times.has_whole_entries():
            return False
        if offsets.count:
            last_offset, position = offsets.at(offsets.count - 1)
            if not 0 <= position < self.size_bytes:
                return False
            found = next(scan_headers(self.file, position, self.size_bytes, HEADER_BYTES), None)
            if found is None or found.header.last_offset != last_offset:
                return False
            # Both get their entries together, so one without the other has been lost.
            if not times.count and found.header.max_timestamp > NO_TIMESTAMP:
                return False
        if times.count:
            timestamp, last_offset = times.at(times.count - 1)
            found = self._find_near(last_offset)
            if found is None or found.header.last_offset != last_offset or found.header.max_timestamp != timestamp:
                return False
        return True

    def _find_near(self, offset: int) -> Found | None:
        """The batch that the indexes lead to; a check, so nothing is mended."""
        _, position = self.offset_index.lookup(offset)
        if 0 <= position < self.size_bytes:
            for found in scan_headers(self.file, position, self.size_bytes, _LOCATE_WINDOW_BYTES):
                if found.header.last_offset >= offset:
                    return found
        return None

    def _tail(self) -> Iterator[Found]:
        """Batches from the last indexed one on."""
        count = self.offset_index.count
        position = self.offset_index.at(count - 1)[1] if count else 0
        return scan_headers(self.file, position, self.size_bytes)

    def _learn_tail(self) -> int:
        """Largest timestamp and bytes since the last entry, from the indexes and the batches after them.

        Returns:
            The position where whole batches end.
        """
        count = self.time_index.count
        self._max_timestamp, self._max_timestamp_offset = (
            self.time_index.at(count - 1) if count else (NO_TIMESTAMP, self.base_offset - 1)
        )
        entries = self.offset_index.count
        position = start = self.offset_index.at(entries - 1)[1] if entries else 0
        for found in self._tail():
            if found.header.max_timestamp > self._max_timestamp:
                self._max_timestamp = found.header.max_timestamp
                self._max_timestamp_offset = found.header.last_offset
            position = found.position + found.header.size_bytes
        self._bytes_since_entry = position - start
        self._indexes_checked = True
        return position

    def next_offset(self) -> int | None:
        """The offset after the last batch, found from the indexes; None where bytes after it are no batch."""
        self.ensure_indexes()
        next_offset, position = self.base_offset, 0
        for found in self._tail():
            next_offset = found.header.last_offset + 1
            position = found.position + found.header.size_bytes
        return next_offset if position == self.size_bytes else None

    def rebuild_indexes(self) -> None:
        """Make both indexes anew from the headers, durably."""
        self._index(scan_headers(self.file, 0, self.size_bytes), _INDEX_INTERVAL_BYTES, durable=True)

    def recover(self, accept: Callable[[BatchHeader], bool], index_interval_bytes: int) -> int:
        """Verify every batch and make the indexes anew; the file itself stays as it is.

        Args:
            accept: whether a batch with an intact checksum belongs here: the two fields outside the checksum
                (base offset, leader epoch) are the caller's to judge.
        Returns:
            Where the longest valid prefix ends; `size_bytes` is that from now on.
        """

        def accepted() -> Iterator[Found]:
            for found in scan_intact(self._files.get(self.log_path), self.size_bytes):
                if not accept(found.header):
                    return
                yield found

        end = self._index(accepted(), index_interval_bytes, durable=False)
        self.size_bytes = end
        return end

    def _index(self, batches: Iterator[Found], index_interval_bytes: int, *, durable: bool) -> int:
        entries = IndexEntries(self.base_offset, index_interval_bytes)
        self._first_timestamp = None
        end = 0
        for position, header in batches:
            if self._first_timestamp is None:
                self._first_timestamp = header.max_timestamp
            entries.add(position, header)
            end = position + header.size_bytes
        entries.finish()
        if durable:
            self.time_index.replace_durably(entries.times)
            self.offset_index.replace_durably(entries.offsets)
        else:
            self.time_index.replace(entries.times)
            self.offset_index.replace(entries.offsets)
        self._max_timestamp, self._max_timestamp_offset = entries.max_timestamp, entries.max_timestamp_offset
        self._bytes_since_entry = entries.bytes_since_entry
        self._indexes_checked = True
        return end
