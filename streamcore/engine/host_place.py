"""The first worker of an app on a machine: it does what is done once per machine, and it has a name that lasts.

Workers on one machine share the app's data directory; the lock in it tells who is the first, and ends with its process.
"""

import os
import uuid
from pathlib import Path

from streamcore.errors import StateError
from streamcore.log.disk import HeldError, Lock, RealDisk, read_file, replace_file

_LOCK = "worker.lock"
_NAME = "instance-id"


class HostPlace:
    """Claim it, and release it when the worker stops."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: Lock | None = None

    def claim(self) -> bool:
        """Be the first, if nobody is.

        Raises:
            StateError: the data directory cannot be written.
        """
        if self._lock is not None:
            return True
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = RealDisk().lock(str(self._directory / _LOCK), str(os.getpid()).encode())
        except HeldError:
            return False
        except OSError as error:
            raise StateError(f"the data directory {self._directory} cannot be written: {error}") from error
        return True

    @property
    def is_first(self) -> bool:
        return self._lock is not None

    def name(self) -> str:
        """A name for the first worker here, the same one after every restart.

        Raises:
            StateError: the data directory cannot be read or written.
        """
        disk, path = RealDisk(), str(self._directory / _NAME)
        try:
            if disk.exists(path) and (known := read_file(disk, path).decode("ascii", "replace").strip()):
                return known
            made = str(uuid.uuid4())
            replace_file(disk, path, made.encode() + b"\n")
        except OSError as error:
            raise StateError(f"the data directory {self._directory} cannot be written: {error}") from error
        return made

    def release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
