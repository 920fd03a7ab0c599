"""Names shared by every layer: a partition's address, and records before and after the log."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]

# A record on its way to the log: key, value (None is a tombstone), create time in Unix ms, headers.
# A tuple, not a class: a million of them are made per second on the hot path.
OutRecord = tuple[bytes | None, bytes | None, int, Headers]

# The metadata of an offset that a group commits in a compacted topic which it writes itself: records from there on do
# not count yet, so the log's cleaner must not let older ones of their keys disappear for them.
COMPACTION_LIMIT: Final = "compaction-limit"


class TP(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class InRecord(Protocol):
    """A record read from the log; aiokafka's compiled record has exactly these attributes."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...
