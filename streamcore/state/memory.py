"""A store in memory, for tests and for apps that rebuild their tables from the changelog at every start."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from streamcore.state.store import META, Change


class MemoryStore:
    """Dictionaries with a sorted view, made when a scan asks for it."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {META: {}}
        self._sorted: dict[str, list[bytes] | None] = {}

    def tables(self) -> set[str]:
        return set(self._tables) - {META}

    def open_table(self, table: str) -> None:
        self._tables.setdefault(table, {})

    def drop_table(self, table: str) -> None:
        self._tables.pop(table, None)
        self._sorted.pop(table, None)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def _keys(self, table: str) -> list[bytes]:
        keys = self._sorted.get(table)
        if keys is None:
            keys = self._sorted[table] = sorted(self._tables[table])
        return keys

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        rows = self._tables[table]
        keys = self._keys(table)
        first = bisect_left(keys, start)
        last = len(keys) if end is None else bisect_left(keys, end)
        return iter([(key, rows[key]) for key in keys[first:last]])

    def seek(self, table: str, start: bytes) -> bytes | None:
        keys = self._keys(table)
        first = bisect_left(keys, start)
        return keys[first] if first < len(keys) else None

    def write(self, changes: Iterable[Change]) -> None:
        for table, key, value in changes:
            rows = self._tables[table]
            if value is None:
                if rows.pop(key, None) is not None:
                    self._sorted[table] = None
            else:
                if key not in rows:
                    self._sorted[table] = None
                rows[key] = value

    def estimated_keys(self, table: str) -> int:
        return len(self._tables[table])

    def close(self) -> None:
        """Nothing to release; a test reopens the same object after a crash."""
