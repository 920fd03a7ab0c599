"""A disk that forgets what was not synced, tears writes, runs full and fails.

What a file's name and bytes are now, and what of them would survive a loss of power, are kept apart:

- `kill()`: the process dies. Everything handed to the disk stays; locks and handles are gone.
- `lose_power(random)`: unsynced writes and truncations of each file survive in part: any of them or none,
  the last one perhaps cut in the middle; unsynced names survive up to some point (a journal keeps their order).
- `room`: bytes that may still be written; a write that does not fit is written in part and raises ENOSPC.
- `fail`: the next calls of an operation raise an error.
- `kill_after(n)`: the n-th change from now raises `Killed`; a write is torn.

Making and renaming directories is durable at once: what is looked at here is files.
"""

import errno
import os
import random as random_module
from collections.abc import Callable
from typing import Literal

from streamcore.log.disk import File, HeldError, Lock

Operation = Literal["read", "write", "sync", "truncate", "open", "rename", "remove", "sync_directory", "list"]
Change = tuple[Literal["write"], int, bytes] | tuple[Literal["truncate"], int, bytes]


class Killed(BaseException):
    """The process is dead from here on; not an Exception, so that nothing handles it."""


class Inode:
    """A file's bytes now, its bytes after the last sync, and the changes in between."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.unsynced: list[Change] = []

    def apply(self, change: Change, to: bytearray) -> None:
        kind, position, data = change
        if kind == "truncate":
            if position < len(to):
                del to[position:]
            else:
                to.extend(bytes(position - len(to)))
        else:
            if position > len(to):
                to.extend(bytes(position - len(to)))
            to[position : position + len(data)] = data

    def change(self, change: Change) -> None:
        self.apply(change, self.data)
        self.unsynced.append(change)

    def sync(self) -> None:
        self.durable = bytearray(self.data)
        self.unsynced = []

    def lose(self, random: random_module.Random) -> None:
        survived = bytearray(self.durable)
        in_order = random.random() < 0.5
        for change in self.unsynced[: random.randrange(len(self.unsynced) + 1)] if in_order else self.unsynced:
            if not in_order and random.random() < 0.5:
                continue
            kind, position, data = change
            if kind == "write" and data and random.random() < 0.3:
                start, stop = sorted((random.randrange(len(data)), random.randrange(len(data) + 1)))
                change = ("write", position + start, data[start:stop])
            self.apply(change, survived)
        self.data, self.durable, self.unsynced = survived, bytearray(survived), []


class FaultyFile:
    def __init__(self, disk: "FaultyDisk", path: str, inode: Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._life = disk.life

    def read_at(self, position: int, size: int) -> bytes:
        self._enter("read")
        if position < 0:
            raise OSError(errno.EINVAL, "negative position")
        return bytes(memoryview(self._inode.data)[position : position + size])

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        self._enter("write")
        data = bytes(data)
        disk = self._disk
        if disk.is_last_step():
            self._inode.change(("write", position, data[: disk.random.randrange(len(data) + 1)]))
            raise Killed
        growth = max(0, position + len(data) - len(self._inode.data))
        if disk.room is not None and growth > disk.room:
            fits = len(data) - (growth - disk.room)
            self._inode.change(("write", position, data[: max(0, fits)]))
            disk.room = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if disk.room is not None:
            disk.room -= growth
        self._inode.change(("write", position, data))

    def size(self) -> int:
        return len(self._inode.data)

    def truncate(self, size: int) -> None:
        self._enter("truncate")
        self._disk.step()
        if self._disk.room is not None:
            self._disk.room += max(0, len(self._inode.data) - size)
        self._inode.change(("truncate", size, b""))

    def sync(self) -> None:
        self._enter("sync")
        self._disk.step()
        self._inode.sync()

    def close(self) -> None:
        pass

    def _enter(self, operation: Operation) -> None:
        assert self._life == self._disk.life, "a dead process uses its handle"
        self._disk.enter(operation, self._path)


class FaultyLock:
    def __init__(self, disk: "FaultyDisk", path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.held.pop(self._path, None)


class FaultyDisk:
    """Everything in memory, and a list of what is to go wrong."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random_module.Random(seed)
        self.room: int | None = None
        self.read_only = False
        self.life = 0
        self.held: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []  # (operation, path) of every call
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._unsynced_names: list[tuple[str, dict[str, Inode | None]]] = []  # (directory, names changed)
        self._directories: set[str] = set()
        self._faults: list[tuple[Operation, Callable[[str], bool], int, int | None]] = []
        self._steps_left: int | None = None

    # ---- what goes wrong

    def fail(self, operation: Operation, error: int, *, path: str = "", times: int | None = 1) -> None:
        """The next `times` calls (None: all) of `operation` on a path that contains `path` raise `error`."""
        self._faults.append((operation, lambda actual: path in actual, error, times))

    def heal(self) -> None:
        self._faults = []
        self.room = None
        self.read_only = False

    def kill_after(self, steps: int) -> None:
        self._steps_left = steps

    def kill(self) -> None:
        self.life += 1
        self.held.clear()
        self._steps_left = None

    def lose_power(self) -> None:
        self.kill()
        kept = self.random.randrange(len(self._unsynced_names) + 1)
        names = dict(self._durable_names)
        for _, changes in self._unsynced_names[:kept]:
            for path, inode in changes.items():
                if inode is None:
                    names.pop(path, None)
                else:
                    names[path] = inode
        for inode in dict.fromkeys(names.values()):  # in order, so that a seed tells all
            inode.lose(self.random)
        self._names, self._durable_names, self._unsynced_names = names, dict(names), []

    def enter(self, operation: Operation, path: str) -> None:
        self.log.append((operation, path))
        for index, (failing, matches, error, times) in enumerate(self._faults):
            if failing == operation and matches(path):
                if times == 1:
                    del self._faults[index]
                elif times is not None:
                    self._faults[index] = (failing, matches, error, times - 1)
                raise OSError(error, os.strerror(error), path)
        if self.read_only and operation not in ("read", "open", "list"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def step(self) -> None:
        if self.is_last_step():
            raise Killed

    def is_last_step(self) -> bool:
        if self._steps_left is None:
            return False
        self._steps_left -= 1
        return self._steps_left < 0

    # ---- the Disk protocol

    def open(self, path: str, *, create: bool = False, is_secret: bool = False) -> File:
        self.enter("open", path)
        inode = self._names.get(path)
        if inode is None:
            if not create or os.path.dirname(path) not in self._directories:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            if self.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            self.step()
            inode = Inode()
            self._rename({path: inode})
        return FaultyFile(self, path, inode)

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def size(self, path: str) -> int:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return len(self._names[path].data)

    def list_directory(self, path: str) -> list[str]:
        self.enter("list", path)
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        names = {name[len(path) + 1 :] for name in (*self._names, *self._directories) if name.startswith(path + "/")}
        return sorted(name for name in names if "/" not in name)

    def make_directory(self, path: str) -> None:
        if path not in self._directories and self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        while path and path != "/":
            self._directories.add(path)
            path = os.path.dirname(path)

    def rename(self, old: str, new: str) -> None:
        self.enter("rename", old)
        self.step()
        if old in self._names:
            self._rename({new: self._names[old], old: None})
            return
        if old not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such file or directory", old)
        for names in (self._names, self._durable_names):
            for path in [path for path in names if path.startswith(old + "/")]:
                names[new + path[len(old) :]] = names.pop(path)
        self._unsynced_names = [
            (
                new if directory == old else directory,
                {(new + path[len(old) :] if path.startswith(old + "/") else path): i for path, i in changes.items()},
            )
            for directory, changes in self._unsynced_names
        ]
        self._directories.remove(old)
        self._directories.add(new)

    def remove(self, path: str) -> None:
        self.enter("remove", path)
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        self.step()
        if self.room is not None:
            self.room += len(self._names[path].data)
        self._rename({path: None})

    def remove_directory(self, path: str) -> None:
        self.enter("remove", path)
        self.step()
        if any(name.startswith(path + "/") for name in self._names):
            raise OSError(errno.ENOTEMPTY, "directory not empty", path)
        self._directories.remove(path)

    def sync_directory(self, path: str) -> None:
        self.enter("sync_directory", path)
        self.step()
        for directory, changes in self._unsynced_names:
            if directory == path:
                for name, inode in changes.items():
                    if inode is None:
                        self._durable_names.pop(name, None)
                    else:
                        self._durable_names[name] = inode
        self._unsynced_names = [entry for entry in self._unsynced_names if entry[0] != path]

    def lock(self, path: str, holder: bytes) -> Lock:
        if path in self.held:
            raise HeldError(self.held[path])
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        self.held[path] = holder
        return FaultyLock(self, path)

    # ---- for tests that damage what is there

    def paths(self, suffix: str = "") -> list[str]:
        return sorted(path for path in self._names if path.endswith(suffix))

    def contents(self, path: str) -> bytes:
        return bytes(self._names[path].data)

    def set_contents(self, path: str, data: bytes) -> None:
        inode = self._names.setdefault(path, Inode())
        self._durable_names[path] = inode
        inode.data = bytearray(data)
        inode.sync()

    def erase(self, path: str) -> None:
        self._names.pop(path, None)
        self._durable_names.pop(path, None)

    def copy(self) -> "FaultyDisk":
        """The same files on another disk, everything synced, nothing going wrong."""
        other = FaultyDisk(self.random.randrange(1 << 30))
        other._directories = set(self._directories)
        for path, inode in self._names.items():
            other.set_contents(path, bytes(inode.data))
        return other

    def _rename(self, changes: dict[str, Inode | None]) -> None:
        for path, inode in changes.items():
            if inode is None:
                self._names.pop(path, None)
            else:
                self._names[path] = inode
        self._unsynced_names.append((os.path.dirname(next(iter(changes))), changes))
