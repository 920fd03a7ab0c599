"""Reading segment files that may be damaged, without opening the log they belong to.

Nothing here changes a file or takes a lock, so it works beside a running worker and after an accident.
"""

import struct
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from streamcore.records.batch import HEADER_BYTES, LENGTH_OVERHEAD, MAGIC, BatchHeader, is_intact

INDEX_ENTRY = struct.Struct(">ii")  # relative offset, position
TIMEINDEX_ENTRY = struct.Struct(">qi")  # timestamp, relative offset
_MAGIC_POSITION = 16
_LEAST_LENGTH = HEADER_BYTES - LENGTH_OVERHEAD


class Batch(NamedTuple):
    """One whole batch of a segment, or what is wrong with the bytes there."""

    position: int
    size_bytes: int
    header: BatchHeader | None  # None where the bytes are no batch at all
    data: bytes
    problem: str | None


class Entry(NamedTuple):
    """One index entry; `key` is an offset in an .index and a timestamp in a .timeindex."""

    key: int
    target: int  # a position in an .index, an offset in a .timeindex
    problem: str | None


def batches(path: Path) -> Iterator[Batch]:
    """Every batch of a .log file in the order of their bytes; damaged stretches come as one `Batch` with a problem."""
    with path.open("rb") as file:
        size = path.stat().st_size
        if not size:
            return
        with mmap(file.fileno(), size, access=ACCESS_READ) as view:
            yield from _batches(view, size)


def _batches(view: mmap, size: int) -> Iterator[Batch]:
    position = 0
    while position < size:
        header = _header(view, position, size)
        following = size + 1 if header is None else position + header.size_bytes
        if header is not None and following > size and _find_batch(view, position + 1, size) == size:
            problem = f"cut off: {following - size} bytes are missing at the end"
            yield Batch(position, size - position, header, b"", problem)
            return
        if header is not None and following <= size:
            data = view[position:following]
            next_header = _header(view, following, size) if _is_batch(view, following, size) else None
            problem = ""
            if not is_intact(data):
                problem = "the checksum does not match"
            elif next_header is not None and next_header.base_offset <= header.last_offset:
                # The base offset is outside the checksum.
                problem = f"its offsets reach beyond the next batch, which begins at {next_header.base_offset}"
            # A batch with wrong bytes inside still says where it ends, if another one begins there.
            if not problem or following == size or next_header is not None:
                yield Batch(position, header.size_bytes, header, data, problem or None)
                position = following
                continue
        found = _find_batch(view, position + 1, size)
        problem = "no record batch" if view[position:found].strip(b"\0") else "only zero bytes"
        yield Batch(position, found - position, None, b"", problem)
        position = found


def _header(view: mmap, position: int, size: int) -> BatchHeader | None:
    """The batch header at `position`, None where no header of ours can be."""
    if size - position < HEADER_BYTES:
        return None
    header = BatchHeader.parse(view[position : position + HEADER_BYTES])
    return header if header.magic == MAGIC and header.length >= _LEAST_LENGTH else None


def _is_batch(view: mmap, position: int, size: int) -> bool:
    """Whether an intact batch begins at `position`."""
    header = _header(view, position, size)
    if header is None or position + header.size_bytes > size:
        return False
    return is_intact(view[position : position + header.size_bytes])


def _find_batch(view: mmap, position: int, size: int) -> int:
    """Where the next intact batch begins; `size` when there is none."""
    while True:
        magic = view.find(bytes([MAGIC]), position + _MAGIC_POSITION)
        if magic < 0:
            return size
        position = magic - _MAGIC_POSITION
        if _is_batch(view, position, size):
            return position
        position += 1


def index_entries(path: Path, base_offset: int) -> Iterator[Entry]:
    """The entries of an .index file; the zeros of a preallocated file are left out."""
    last = (-1, -1)
    for relative, position in _entries(path, INDEX_ENTRY):
        problem = None if relative > last[0] and position > last[1] else "not after the entry before it"
        last = (relative, position)
        yield Entry(base_offset + relative, position, problem)


def timeindex_entries(path: Path, base_offset: int) -> Iterator[Entry]:
    """The entries of a .timeindex file; the zeros of a preallocated file are left out."""
    last = (-1, -1)
    for timestamp, relative in _entries(path, TIMEINDEX_ENTRY):
        problem = None if timestamp > last[0] and relative >= last[1] else "not after the entry before it"
        last = (timestamp, relative)
        yield Entry(timestamp, base_offset + relative, problem)


def _entries(path: Path, entry: struct.Struct) -> Iterator[tuple[int, int]]:
    data = path.read_bytes()
    data = data[: len(data) - len(data) % entry.size]
    written = len(data.rstrip(b"\0"))
    yield from entry.iter_unpack(data[: -(-written // entry.size) * entry.size])


def odd_bytes(path: Path) -> int:
    """How many bytes at the end of an index file are no whole entry."""
    size = INDEX_ENTRY.size if path.suffix == ".index" else TIMEINDEX_ENTRY.size
    return path.stat().st_size % size


def check_index(entries: list[Entry], segment: Path) -> list[Entry]:
    """Index entries with the problem that the batch they point at does not hold their offset."""
    with segment.open("rb") as file:
        checked = []
        for entry in entries:
            file.seek(entry.target)
            head = file.read(HEADER_BYTES)
            problem = entry.problem
            if len(head) < HEADER_BYTES:
                problem = problem or "points behind the end of the .log file"
            else:
                header = BatchHeader.parse(head)
                if header.magic != MAGIC or not header.base_offset <= entry.key <= header.last_offset:
                    problem = problem or "points at no batch with that offset"
            checked.append(entry._replace(problem=problem))
        return checked
