"""What a table store is: one ordered map of bytes per table, and one atomic write for all of them.

There is one store per partition slice of an app. Everything that must change together changes in one `write`:
table rows, the input offsets they came from and the changelog offsets they went to.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

# (table, key, value); None deletes.
Change = tuple[str, bytes, bytes | None]

# The table of the engine's own entries: offsets, watermarks, changelog ends.
META = "streamcore.meta"


class Store(Protocol):
    """One partition slice's tables."""

    def tables(self) -> set[str]:
        """The names of the tables that exist, META aside."""

    def open_table(self, table: str) -> None:
        """Create the table if it is not there."""

    def drop_table(self, table: str) -> None: ...

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < end, in byte order, as of this moment."""

    def seek(self, table: str, start: bytes) -> bytes | None:
        """The first key at or after `start`."""

    def write(self, changes: Iterable[Change]) -> None:
        """All changes, or none of them.

        Raises:
            StateError: nothing was written.
        """

    def estimated_keys(self, table: str) -> int: ...

    def close(self) -> None: ...
