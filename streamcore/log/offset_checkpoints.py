"""Recovery points, log starts and cleaned offsets of every partition, in memory and in their three files."""

import logging
import threading
from collections.abc import Mapping

from streamcore.log import filenames
from streamcore.log.checkpoints import CheckpointError, read_offsets, write_offsets
from streamcore.log.disk import Disk
from streamcore.log.partition_log import PartitionLog

logger = logging.getLogger(__name__)

Key = tuple[str, int]  # topic, partition


class OffsetCheckpoints:
    """What the files say of partitions that did not open is kept, so that nothing is forgotten about them.

    `save` may run in another thread than the rest.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        names = [filenames.RECOVERY_POINTS, filenames.LOG_STARTS, filenames.CLEANED_OFFSETS]
        self._paths = [f"{directory}/{name}" for name in names]
        self._offsets: list[dict[Key, int]] = [{}, {}, {}]
        self._saved: list[dict[Key, int] | None] = [None, None, None]
        self._is_cleaned_known = True
        self._lock = threading.Lock()

    def load(self) -> bool:
        """Read the files; False where recovery points are damaged, and logs must be verified from their beginnings."""
        intact = [True, True, True]
        for index, path in enumerate(self._paths):
            try:
                self._offsets[index] = read_offsets(self._disk, path)
                self._saved[index] = dict(self._offsets[index])
            except CheckpointError as error:
                logger.warning("%s; every log is verified from its beginning", error)
                intact[index] = False
        self._is_cleaned_known = intact[2]
        return intact[0]

    def recovery_point(self, key: Key) -> int:
        return self._offsets[0].get(key, 0)

    def log_start_offset(self, key: Key) -> int:
        return self._offsets[1].get(key, 0)

    def cleaned_offset(self, key: Key) -> int | None:
        """None where the cleaner has never been; where the file is damaged, it may have been anywhere."""
        return self._offsets[2].get(key, None if self._is_cleaned_known else 0)

    def forget(self, logs: dict[Key, PartitionLog], key: Key) -> PartitionLog | None:
        """Take a partition out of `logs` and of the checkpoints, against a `save` in another thread."""
        with self._lock:
            for offsets in self._offsets:
                offsets.pop(key, None)
            return logs.pop(key, None)

    def save(self, logs: Mapping[Key, PartitionLog]) -> None:
        """Make the present offsets of `logs` durable; unchanged ones cost nothing.

        Raises:
            OSError: a file is as it was.
        """
        with self._lock:
            for key, log in list(logs.items()):
                # Zero is what a missing entry means.
                present = (log.recovery_point or None, log.log_start_offset or None, log.cleaned_offset)
                for offsets, offset in zip(self._offsets, present, strict=True):
                    if offset is not None:
                        offsets[key] = offset
                    else:
                        offsets.pop(key, None)
            for index, path in enumerate(self._paths):
                offsets = self._offsets[index]
                if self._saved[index] != offsets:
                    self._saved[index] = None
                    write_offsets(self._disk, path, offsets)
                    self._saved[index] = dict(offsets)
