"""All file access of the log goes through here, so that a test can put a disk underneath that forgets and fails.

Paths are plain strings with `/`. Every call may raise OSError; what that means for a log is the caller's to say.
"""

import errno
import fcntl
import os
from typing import Final, Protocol

_SECRET_MODE: Final = 0o600


class File(Protocol):
    """An open file, addressed by position; it has no cursor."""

    def read_at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of `data`, handed to the operating system, or OSError with part of it written."""

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Returns when the bytes and the size survive a loss of power (fdatasync)."""

    def close(self) -> None: ...


class Lock(Protocol):
    def release(self) -> None: ...


class HeldError(Exception):
    """The lock is another's; `holder` is what that one wrote into the file."""

    def __init__(self, holder: bytes) -> None:
        super().__init__("the lock is held")
        self.holder = holder


class Disk(Protocol):
    """Directories, names and locks; names reach the disk only with `sync_directory`."""

    def open(self, path: str, *, create: bool = False, is_secret: bool = False) -> File:
        """Raises FileNotFoundError unless `create`. A secret file is from then on for its owner's eyes only."""

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...

    def list_directory(self, path: str) -> list[str]:
        """Names inside a directory, sorted."""

    def make_directory(self, path: str) -> None:
        """With its parents; nothing happens where it is there already."""

    def rename(self, old: str, new: str) -> None:
        """Files and directories; a file at `new` is replaced at one stroke."""

    def remove(self, path: str) -> None: ...

    def remove_directory(self, path: str) -> None:
        """An empty one."""

    def sync_directory(self, path: str) -> None: ...

    def lock(self, path: str, holder: bytes) -> Lock:
        """Take the lock and write `holder` into the file; HeldError if somebody has it (a dead process never has)."""


def read_file(disk: Disk, path: str) -> bytes:
    """A small file, whole."""
    file = disk.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def replace_file(disk: Disk, path: str, data: bytes, *, durably: bool = True, is_secret: bool = False) -> None:
    """Old content or new content, never a mixture, whatever happens: write aside, sync, rename, sync the directory.

    Not `durably`, without the syncs: after a loss of power the content may be torn, or the old one.
    """
    aside = path + ".tmp"
    file = disk.open(aside, create=True, is_secret=is_secret)
    try:
        file.truncate(0)
        file.write_at(0, data)
        if durably:
            file.sync()
    finally:
        file.close()
    disk.rename(aside, path)
    if durably:
        disk.sync_directory(os.path.dirname(path))


class RealFile:
    """A file descriptor."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_at(self, position: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, position)
        if len(data) == size or not data:
            return data
        # A signal or a 2 GiB limit may cut a read short; only an empty answer means the end.
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(self._descriptor, size - got, position + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        written = os.pwrite(self._descriptor, data, position)
        if written == len(data):
            return
        view = memoryview(data)
        while written < len(view):
            count = os.pwrite(self._descriptor, view[written:], position + written)
            if count == 0:
                raise OSError(errno.EIO, "a write made no progress")
            written += count

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class RealLock:
    """An flock on an open file; it ends with the process, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


class RealDisk:
    """The operating system's files."""

    def open(self, path: str, *, create: bool = False, is_secret: bool = False) -> RealFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(path, flags, _SECRET_MODE if is_secret else 0o644)
        if is_secret:
            os.fchmod(descriptor, _SECRET_MODE)  # it may have been there
        return RealFile(descriptor)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: str, holder: bytes) -> RealLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # flock, not POSIX locks: those are lost when any descriptor of the file is closed, and never conflict
            # within one process.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.pread(descriptor, 65_536, 0)
            os.close(descriptor)
            raise HeldError(content) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)
        return RealLock(descriptor)
