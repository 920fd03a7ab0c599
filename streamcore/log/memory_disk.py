"""A disk in memory: what `memory:` logs live on."""

import errno
import os

from streamcore.log.disk import HeldError, Lock


class MemoryFile:
    """The bytes of one file; several open handles share them."""

    __slots__ = ("data",)

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def read_at(self, position: int, size: int) -> bytes:
        return bytes(memoryview(self.data)[position : position + size])

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        if position > len(self.data):
            self.data.extend(bytes(position - len(self.data)))
        self.data[position : position + len(data)] = data

    def size(self) -> int:
        return len(self.data)

    def truncate(self, size: int) -> None:
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryLock:
    def __init__(self, held: dict[str, bytes], path: str) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        self._held.pop(self._path, None)


class MemoryDisk:
    """Files and directories as a dict and a set; everything is lost with the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}
        self._directories: set[str] = set()
        self._held: dict[str, bytes] = {}

    def open(self, path: str, *, create: bool = False, is_secret: bool = False) -> MemoryFile:
        data = self._files.get(path)
        if data is None:
            if not create or not self._is_directory(os.path.dirname(path)):
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            data = self._files[path] = bytearray()
        return MemoryFile(data)

    def exists(self, path: str) -> bool:
        return path in self._files or self._is_directory(path)

    def size(self, path: str) -> int:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return len(self._files[path])

    def list_directory(self, path: str) -> list[str]:
        if not self._is_directory(path):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        prefix = path.rstrip("/") + "/"
        names = {name[len(prefix) :] for name in (*self._files, *self._directories) if name.startswith(prefix)}
        return sorted(name for name in names if name and "/" not in name)

    def make_directory(self, path: str) -> None:
        while path and path != "/":
            self._directories.add(path)
            path = os.path.dirname(path)

    def rename(self, old: str, new: str) -> None:
        if old in self._files:
            self._files[new] = self._files.pop(old)
            return
        if old not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such file or directory", old)
        prefix = old + "/"
        for name in [name for name in self._files if name.startswith(prefix)]:
            self._files[new + name[len(old) :]] = self._files.pop(name)
        for name in [name for name in self._directories if name == old or name.startswith(prefix)]:
            self._directories.remove(name)
            self._directories.add(new + name[len(old) :])

    def remove(self, path: str) -> None:
        if self._files.pop(path, None) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def remove_directory(self, path: str) -> None:
        if self.list_directory(path):
            raise OSError(errno.ENOTEMPTY, "directory not empty", path)
        self._directories.remove(path)

    def sync_directory(self, path: str) -> None:
        pass

    def lock(self, path: str, holder: bytes) -> Lock:
        if path in self._held:
            raise HeldError(self._held[path])
        self._held[path] = holder
        return MemoryLock(self._held, path)

    def _is_directory(self, path: str) -> bool:
        return path in ("", "/") or path in self._directories
