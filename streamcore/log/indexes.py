"""The two sparse indexes beside a segment, in Kafka's binary formats, searched on disk.

`.index`: 8 bytes per entry, (last offset of a batch - base offset) int32, position of that batch int32.
`.timeindex`: 12 bytes per entry, largest timestamp so far int64, (last offset of its batch - base offset) int32.

Both columns of a file increase strictly. Nothing of them is held in memory, so a log of any length costs the same.
Kafka preallocates its files and trims them when a segment closes; ours have their true length always.
"""

import struct
from typing import Final

from streamcore.log.disk import replace_file
from streamcore.log.open_files import OpenFiles

_BLOCK_ENTRIES: Final = 256  # a search reads this many entries at once instead of one by one


class IndexFile:
    """Entries of two integers, the first of them increasing."""

    def __init__(self, files: OpenFiles, path: str, entry: struct.Struct) -> None:
        self.path = path
        self._files = files
        self._entry = entry
        self._count = -1  # not looked yet

    @property
    def count(self) -> int:
        """Whole entries in the file; 0 where there is none."""
        if self._count < 0:
            try:
                self._count = self._files.get(self.path).size() // self._entry.size
            except FileNotFoundError:
                self._count = 0
        return self._count

    def has_whole_entries(self) -> bool:
        """Whether the file is there, and no entry in it is cut off."""
        try:
            return self._files.get(self.path).size() % self._entry.size == 0
        except FileNotFoundError:
            return False

    def is_full(self, limit_bytes: int) -> bool:
        return (self.count + 1) * self._entry.size > limit_bytes

    def entry(self, index: int) -> tuple[int, int]:
        data = self._files.get(self.path).read_at(index * self._entry.size, self._entry.size)
        first, second = self._entry.unpack(data)
        return first, second

    def append(self, first: int, second: int) -> None:
        """Add an entry; on a failure the file is as it was."""
        count = self.count
        file = self._files.get(self.path, create=True)
        try:
            file.write_at(count * self._entry.size, self._entry.pack(first, second))
        except OSError:
            file.truncate(count * self._entry.size)
            raise
        self._count = count + 1

    def floor(self, value: int, column: int = 0) -> int:
        """The number of entries whose `column` is at most `value`, so the last of them is at that minus one."""
        low, high = 0, self.count
        while high - low > _BLOCK_ENTRIES:
            middle = (low + high) // 2
            if self.entry(middle)[column] <= value:
                low = middle + 1
            else:
                high = middle
        if not high:
            return 0
        block = self._files.get(self.path).read_at(low * self._entry.size, (high - low) * self._entry.size)
        first, last = 0, len(block) // self._entry.size
        while first < last:
            middle = (first + last) // 2
            if self._entry.unpack_from(block, middle * self._entry.size)[column] <= value:
                first = middle + 1
            else:
                last = middle
        return low + first

    def truncate(self, count: int) -> None:
        """Keep the first `count` entries."""
        if count < self.count:
            self._files.get(self.path).truncate(count * self._entry.size)
            self._count = count

    def replace(self, entries: list[tuple[int, int]]) -> None:
        """These entries and no others; `entries` are as they are stored."""
        file = self._files.get(self.path, create=True)
        file.truncate(0)
        self._count = 0
        file.write_at(0, self._packed(entries))
        self._count = len(entries)

    def replace_durably(self, entries: list[tuple[int, int]]) -> None:
        """As `replace`, at one stroke: for an index that no recovery would look at again after a crash."""
        data = self._packed(entries)
        self._files.forget(self.path)
        self._count = -1
        replace_file(self._files.disk, self.path, data)

    def _packed(self, entries: list[tuple[int, int]]) -> bytes:
        return b"".join(self._entry.pack(first, second) for first, second in entries)


class OffsetIndex(IndexFile):
    """Offset to position."""

    def __init__(self, files: OpenFiles, path: str, base_offset: int) -> None:
        super().__init__(files, path, struct.Struct(">ii"))
        self._base_offset = base_offset

    def add(self, last_offset: int, position: int) -> None:
        self.append(last_offset - self._base_offset, position)

    def at(self, index: int) -> tuple[int, int]:
        """(last offset of the batch, its position)"""
        relative, position = self.entry(index)
        return self._base_offset + relative, position

    def lookup(self, offset: int) -> tuple[int, int]:
        """The entry with the largest offset at most `offset`; (base offset - 1, 0) where there is none."""
        found = self.floor(offset - self._base_offset)
        return self.at(found - 1) if found else (self._base_offset - 1, 0)

    def truncate_to_position(self, position: int) -> None:
        """Forget the batches that start at or after `position`."""
        self.truncate(self.floor(position - 1, column=1))


class TimeIndex(IndexFile):
    """Timestamp to offset."""

    def __init__(self, files: OpenFiles, path: str, base_offset: int) -> None:
        super().__init__(files, path, struct.Struct(">qi"))
        self._base_offset = base_offset

    def add(self, timestamp: int, last_offset: int) -> None:
        """Only a timestamp above the last entry's makes an entry."""
        if not self.count or timestamp > self.entry(self.count - 1)[0]:
            self.append(timestamp, last_offset - self._base_offset)

    def at(self, index: int) -> tuple[int, int]:
        """(largest timestamp up to the batch, last offset of the batch)"""
        timestamp, relative = self.entry(index)
        return timestamp, self._base_offset + relative

    def before(self, timestamp: int) -> int:
        """An offset up to which every timestamp is below `timestamp`; base offset - 1 where none is known."""
        found = self.floor(timestamp - 1)
        return self.at(found - 1)[1] if found else self._base_offset - 1

    def truncate_to_offset(self, offset: int) -> None:
        """Forget entries for batches whose last offset is `offset` or more."""
        self.truncate(self.floor(offset - 1 - self._base_offset, column=1))
