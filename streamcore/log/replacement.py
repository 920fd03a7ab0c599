"""Put one new segment in the place of several old ones, so that any crash leaves the old set or the new one.

1. the new batches are written to BASE.cleaned, their indexes beside it, and synced: until here the old set is the log
2. BASE.cleaned is renamed to BASE-END.swap: from here on the new one is, and END says which old ones it replaces
3. the old segments from BASE up to END are removed, all but the first
4. BASE-END.swap is renamed to BASE.log, over the first old one, whose indexes have been removed
5. the new indexes take their names

Step 1 may run in any thread. A start removes `.cleaned` files and does steps 3 and 4 for every `.swap`; an index that
is missing then is made again when it is needed.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from streamcore.log import filenames
from streamcore.log.disk import Disk
from streamcore.log.segment import IndexEntries, Segment
from streamcore.records.batch import BatchHeader

_WRITE_BYTES: Final = 1 << 20  # batches are gathered up to this
_SUFFIXES: Final = (filenames.LOG, filenames.OFFSET_INDEX, filenames.TIME_INDEX)
_OFFSET_ENTRY, _TIME_ENTRY = struct.Struct(">ii"), struct.Struct(">qi")


class Replacement(NamedTuple):
    """A new segment that lies beside the old ones, complete and synced."""

    old: tuple[Segment, ...]  # neighbours, closed
    size_bytes: int


class ReplacementWriter:
    """Step 1. Made with the old segments; `append` what is left of them, then `finish`, or else `abandon`."""

    def __init__(self, disk: Disk, directory: str, old: Sequence[Segment], index_interval_bytes: int) -> None:
        self.old = tuple(old)
        self._disk = disk
        self._path = filenames.segment_path(directory, old[0].base_offset)
        self._entries = IndexEntries(old[0].base_offset, index_interval_bytes)
        self._pending = bytearray()
        self._written = 0
        self._is_open = True
        self._file = disk.open(self._path + filenames.CLEANED, create=True)
        self._file.truncate(0)

    def append(self, batch: bytes) -> None:
        self._entries.add(self._written + len(self._pending), BatchHeader.parse(batch))
        self._pending += batch
        if len(self._pending) >= _WRITE_BYTES:
            self._write()

    def finish(self) -> Replacement:
        """Everything is on disk on return."""
        self._write()
        self._file.sync()
        self._close()
        self._entries.finish()
        for suffix, entry, entries in (
            (filenames.OFFSET_INDEX, _OFFSET_ENTRY, self._entries.offsets),
            (filenames.TIME_INDEX, _TIME_ENTRY, self._entries.times),
        ):
            file = self._disk.open(self._path + suffix + filenames.CLEANED, create=True)
            try:
                file.truncate(0)
                file.write_at(0, b"".join(entry.pack(*values) for values in entries))
                file.sync()
            finally:
                file.close()
        return Replacement(self.old, self._written)

    def abandon(self) -> None:
        """The old segments stay; what has been written goes."""
        self._close()
        for suffix in ("", filenames.OFFSET_INDEX, filenames.TIME_INDEX):
            _remove(self._disk, self._path + suffix + filenames.CLEANED)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._file.close()

    def _write(self) -> None:
        self._file.write_at(self._written, self._pending)
        self._written += len(self._pending)
        self._pending = bytearray()


def begin_replacement(disk: Disk, directory: str, base_offset: int, end_offset: int) -> None:
    """Step 2, durable on return."""
    cleaned = filenames.segment_path(directory, base_offset) + filenames.CLEANED
    disk.rename(cleaned, filenames.swap_path(directory, base_offset, end_offset))
    disk.sync_directory(directory)


def finish_replacement(disk: Disk, directory: str, base_offset: int, end_offset: int, *, has_indexes: bool) -> None:
    """Steps 3 to 5; repeated after a crash, they do what is left of them.

    The caller syncs the directory before offsets of the old segments can be given out again, and not necessarily now.

    Args:
        has_indexes: those beside the new segment are known to be its own.
    """
    names = disk.list_directory(directory)
    for name in names:
        other = filenames.segment_base_offset(name)
        if other is not None and base_offset < other < end_offset:
            for suffix in reversed(_SUFFIXES):
                _remove(disk, filenames.segment_path(directory, other) + suffix)
    path = filenames.segment_path(directory, base_offset)
    _remove(disk, path + filenames.OFFSET_INDEX)
    _remove(disk, path + filenames.TIME_INDEX)
    disk.rename(filenames.swap_path(directory, base_offset, end_offset), path + filenames.LOG)
    if has_indexes:
        for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX):
            disk.rename(path + suffix + filenames.CLEANED, path + suffix)


def finish_replacements(disk: Disk, directory: str) -> None:
    """For a start: complete what had reached step 2."""
    for name in disk.list_directory(directory):
        swap = filenames.parse_swap(name)
        if swap is not None:
            finish_replacement(disk, directory, *swap, has_indexes=False)
            disk.sync_directory(directory)


def _remove(disk: Disk, path: str) -> None:
    try:
        disk.remove(path)
    except FileNotFoundError:
        pass
