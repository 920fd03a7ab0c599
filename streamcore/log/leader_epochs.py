"""Which leader epoch began at which offset (KIP-101), in memory and in `leader-epoch-checkpoint`."""

import itertools

from streamcore.log import filenames
from streamcore.log.checkpoints import CheckpointError, read_entries
from streamcore.log.disk import Disk, replace_file


class LeaderEpochs:
    """Strictly increasing (epoch, start offset) pairs; truncated at both ends together with the log.

    The file is synced before a batch of a later epoch is written, so no intact batch has an epoch the file does
    not know: recovery takes one for damage. Only the first epoch is written without a sync, which would make every
    partition's first batch wait for the disk, and all behind it: where the file is missing or torn, the batches tell.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = f"{directory}/{filenames.LEADER_EPOCHS}"
        self._entries: list[tuple[int, int]] = []

    def load(self) -> bool:
        """Read the file; False (and no entries) where it is missing or damaged, and batches must tell instead."""
        self._entries = []
        try:
            lines = [[int(word) for word in line] for line in read_entries(self._disk, self._path)]
        except (CheckpointError, ValueError):
            return False
        if any(len(line) != 2 for line in lines):
            return False
        entries = [(line[0], line[1]) for line in lines]
        if any(later[0] <= earlier[0] or later[1] <= earlier[1] for earlier, later in itertools.pairwise(entries)):
            return False
        self._entries = entries
        return bool(entries)

    @property
    def entries(self) -> list[tuple[int, int]]:
        return list(self._entries)

    @property
    def latest(self) -> int:
        """-1 before the first batch."""
        return self._entries[-1][0] if self._entries else -1

    def epoch_at(self, offset: int) -> int:
        """The epoch a batch at `offset` must have, or -1 where none is known."""
        for epoch, start_offset in reversed(self._entries):
            if start_offset <= offset:
                return epoch
        return -1

    def may_have(self, epoch: int, offset: int) -> bool:
        """Whether a batch of `epoch` can be at `offset`; below the first entry only an upper bound is known."""
        known = self.epoch_at(offset)
        if known >= 0:
            return epoch == known
        return not self._entries or epoch <= self._entries[0][0]

    def assign(self, epoch: int, start_offset: int) -> None:
        """A batch of `epoch` is going to be written at `start_offset`; durable on return, but for the first one."""
        if epoch > self.latest:
            # An epoch that wrote nothing leaves no trace.
            entries = [entry for entry in self._entries if entry[1] < start_offset]
            # By what the file says so far: it must never speak of an older epoch than a batch has.
            self._replace([*entries, (epoch, start_offset)], durably=bool(self._entries))

    def note(self, epoch: int, start_offset: int) -> None:
        """As `assign`, while a recovery reads batches; written by `save`."""
        if epoch > self.latest:
            self._entries.append((epoch, start_offset))

    def save(self) -> None:
        self._replace(self._entries)

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget epochs that began at or after `end_offset`."""
        kept = [entry for entry in self._entries if entry[1] < end_offset]
        if kept != self._entries:
            self._replace(kept)

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs that ended at or before `start_offset`; the one in force there begins there now."""
        kept = [entry for entry in self._entries if entry[1] > start_offset]
        epoch = self.epoch_at(start_offset)
        if epoch >= 0:
            kept.insert(0, (epoch, start_offset))
        if kept != self._entries:
            self._replace(kept)

    def _replace(self, entries: list[tuple[int, int]], *, durably: bool = True) -> None:
        lines = ["0", str(len(entries)), *(f"{epoch} {start_offset}" for epoch, start_offset in entries)]
        replace_file(self._disk, self._path, ("\n".join(lines) + "\n").encode(), durably=durably)
        self._entries = entries
