"""Put one new segment in the place of several old ones, so that any crash leaves the old set or the new one.

1. the new batches are written to BASE.cleaned and synced: until here the old set is the log
2. BASE.cleaned is renamed to BASE-END.swap: from here on the new one is, and END says which old ones it replaces
3. the old segments from BASE up to END are removed, all but the first
4. BASE-END.swap is renamed to BASE.log, over the first old one, whose indexes have been removed

A start removes `.cleaned` files and does steps 3 and 4 for every `.swap`.
"""

from collections.abc import Iterable

from streamcore.log import filenames
from streamcore.log.disk import Disk


def write_replacement(disk: Disk, directory: str, base_offset: int, end_offset: int, batches: Iterable[bytes]) -> int:
    """Steps 1 and 2.

    Returns:
        The new segment's size in bytes.
    """
    cleaned = filenames.segment_path(directory, base_offset) + filenames.CLEANED
    file = disk.open(cleaned, create=True)
    try:
        file.truncate(0)
        size = 0
        for batch in batches:
            file.write_at(size, batch)
            size += len(batch)
        file.sync()
    finally:
        file.close()
    disk.rename(cleaned, filenames.swap_path(directory, base_offset, end_offset))
    disk.sync_directory(directory)
    return size


def finish_replacement(disk: Disk, directory: str, base_offset: int, end_offset: int) -> None:
    """Steps 3 and 4; repeated after a crash, they do what is left of them."""
    names = disk.list_directory(directory)
    for name in names:
        other = filenames.segment_base_offset(name)
        if other is not None and base_offset < other < end_offset:
            for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX, filenames.LOG):
                _remove(disk, filenames.segment_path(directory, other) + suffix)
    path = filenames.segment_path(directory, base_offset)
    _remove(disk, path + filenames.OFFSET_INDEX)
    _remove(disk, path + filenames.TIME_INDEX)
    disk.rename(filenames.swap_path(directory, base_offset, end_offset), path + filenames.LOG)
    disk.sync_directory(directory)


def finish_replacements(disk: Disk, directory: str) -> None:
    """For a start: complete what had reached step 2."""
    for name in disk.list_directory(directory):
        swap = filenames.parse_swap(name)
        if swap is not None:
            finish_replacement(disk, directory, *swap)


def _remove(disk: Disk, path: str) -> None:
    try:
        disk.remove(path)
    except FileNotFoundError:
        pass
