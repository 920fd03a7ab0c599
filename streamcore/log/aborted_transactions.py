"""Which transactions of a partition were aborted, `<base offset>.txnindex` beside each segment, in Kafka's format:

```
version int16 = 0 | producer_id int64 | first_offset int64 | last_offset int64 | last_stable_offset int64
```
34 bytes an entry, in the segment that has the marker, whose offset is `last_offset`. `last_stable_offset` is what it is
after the marker: no transaction that ends later has records below it, so a search stops there. A segment without
aborted transactions has no such file.

An entry is written before its marker: a reader must never find the marker and take the records before it for committed
ones. What a crash leaves of them is made anew with the segment's other indexes, from its batches; a closed segment's
file is synced with those. It is the one index that a start after an orderly stop cannot do without.
"""

import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Container, Iterable, Sequence
from typing import Final, NamedTuple

from streamcore.log import filenames
from streamcore.log.disk import File
from streamcore.log.open_files import OpenFiles

_ENTRY = struct.Struct(">hqqqq")
_VERSION: Final = 0
_BLOCK_ENTRIES: Final = 256  # are read at once


class AbortedTransaction(NamedTuple):
    """Offsets are those of the first record and of the marker."""

    first_offset: int
    producer_id: int
    last_offset: int
    last_stable_offset: int


class AbortedTransactions:
    """Those of one partition. One thread changes them."""

    def __init__(self, files: OpenFiles, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._base_offsets: list[int] = []  # of the segments that have some, increasing

    def found(self, names: Iterable[str]) -> None:
        """What is in the directory, at a start."""
        self._base_offsets = sorted(base for base in map(filenames.transaction_index_offset, names) if base is not None)

    def path(self, base_offset: int) -> str | None:
        """Of a segment's file; None where it has none."""
        index = bisect_left(self._base_offsets, base_offset)
        if index < len(self._base_offsets) and self._base_offsets[index] == base_offset:
            return self._path(base_offset)
        return None

    def _path(self, base_offset: int) -> str:
        return filenames.segment_path(self._directory, base_offset) + filenames.TRANSACTION_INDEX

    def append(self, base_offset: int, aborted: AbortedTransaction) -> None:
        """Add one whose marker is about to be written to the segment.

        Raises:
            OSError: nothing was added.
        """
        known = self.path(base_offset)
        path = known or self._path(base_offset)
        file = self._files.get(path, create=True)
        size = file.size() // _ENTRY.size * _ENTRY.size if known else 0
        data = _ENTRY.pack(
            _VERSION, aborted.producer_id, aborted.first_offset, aborted.last_offset, aborted.last_stable_offset
        )
        try:
            file.write_at(size, data)
        except OSError:
            file.truncate(size)
            raise
        if known is None:
            insort(self._base_offsets, base_offset)

    def between(self, offset: int, end_offset: int, base_offsets: Sequence[int]) -> list[AbortedTransaction]:
        """Those that have records in [offset, end_offset), in the order of their markers.

        Args:
            base_offsets: of the partition's segments.
        """
        if not self._base_offsets:
            return []
        first = base_offsets[max(0, bisect_right(base_offsets, offset) - 1)]
        found: list[AbortedTransaction] = []
        for base_offset in self._base_offsets[bisect_left(self._base_offsets, first) :]:
            file = self._files.get(self._path(base_offset))
            count = file.size() // _ENTRY.size
            index = self._first_from(file, count, offset)
            while index < count:
                block = file.read_at(index * _ENTRY.size, _BLOCK_ENTRIES * _ENTRY.size)
                block = block[: len(block) // _ENTRY.size * _ENTRY.size]
                for _, producer_id, first_offset, last_offset, last_stable_offset in _ENTRY.iter_unpack(block):
                    if first_offset < end_offset:
                        found.append(AbortedTransaction(first_offset, producer_id, last_offset, last_stable_offset))
                    if last_stable_offset >= end_offset:
                        return found
                index += _BLOCK_ENTRIES
        return found

    def _first_from(self, file: File, count: int, offset: int) -> int:
        """The first entry that ends at `offset` or later; entries are in the order of their ends."""
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if _ENTRY.unpack(file.read_at(middle * _ENTRY.size, _ENTRY.size))[3] < offset:
                low = middle + 1
            else:
                high = middle
        return low

    def truncate(self, end_offset: int) -> None:
        """Take back what ends at `end_offset` or later.

        Raises:
            OSError
        """
        while self._base_offsets and self._base_offsets[-1] >= end_offset:
            self.remove(self._base_offsets[-1])
        if self._base_offsets:
            file = self._files.get(self._path(self._base_offsets[-1]))
            file.truncate(self._first_from(file, file.size() // _ENTRY.size, end_offset) * _ENTRY.size)

    def keep(self, base_offsets: Container[int]) -> None:
        """Only these segments are left.

        Raises:
            OSError
        """
        for base_offset in [known for known in self._base_offsets if known not in base_offsets]:
            self.remove(base_offset)

    def remove(self, base_offset: int) -> None:
        """The segment is gone, or its file is about to be made anew.

        Raises:
            OSError
        """
        path = self.path(base_offset)
        if path is None:
            return
        self._base_offsets.remove(base_offset)
        self._files.forget(path)
        try:
            self._files.disk.remove(path)
        except FileNotFoundError:
            pass
