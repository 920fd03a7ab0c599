"""A bounded number of open files, however many partitions and segments there are."""

import resource
from collections import OrderedDict
from typing import Final

from streamcore.log.disk import Disk, File

# A quarter of what the process may have (often 1,024): sockets and the table stores want descriptors as well. An append
# to a partition whose file is not open costs four times one whose file is.
_SHARE: Final = 4
OPEN_FILES_MIN: Final = 16
OPEN_FILES_MAX: Final = 16_384  # some 300 bytes of memory each


def open_files_limit() -> int:
    """How many files a log keeps open in this process."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    return min(max(allowed // _SHARE, OPEN_FILES_MIN), OPEN_FILES_MAX)


class OpenFiles:
    """Open handles by path; the least recently used one is closed when there are too many.

    A handle is good until the next `get`: nobody keeps one. One thread only.
    """

    def __init__(self, disk: Disk, limit: int | None = None) -> None:
        """`limit` is `open_files_limit()` by default."""
        self.disk = disk
        self._limit = limit if limit is not None else open_files_limit()
        self._files: OrderedDict[str, File] = OrderedDict()

    def get(self, path: str, *, create: bool = False) -> File:
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
            return file
        file = self.disk.open(path, create=create)
        self._files[path] = file
        if len(self._files) > self._limit:
            _, oldest = self._files.popitem(last=False)
            oldest.close()
        return file

    def forget(self, path: str) -> None:
        """Close the handle of a file that is going to be removed or renamed."""
        file = self._files.pop(path, None)
        if file is not None:
            file.close()

    def forget_directory(self, directory: str) -> None:
        prefix = directory + "/"
        for path in [path for path in self._files if path.startswith(prefix)]:
            self.forget(path)

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def __len__(self) -> int:
        return len(self._files)
