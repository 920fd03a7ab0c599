"""Tables in RocksDB: one database per partition slice, a column family per table."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from rocksdict import ColumnFamily, Options, Rdict, WriteBatch

from streamcore.errors import StateError, StoreHeldError
from streamcore.state.store import META, Change

# RocksDB's default of 64 MiB per column family would let 8 partitions of 4 tables hold 2 GiB of memtables.
WRITE_BUFFER_BYTES = 16 << 20
DAMAGED = "DAMAGED"  # the file in a database that could not be read
MAX_OPEN_FILES = 128  # per database; with 100 partitions that stays below the usual 64 k limit of a process


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_keep_log_file_num(2)
    # A damaged tail of the write-ahead log (a crash in the middle of a write) loses that write and opens:
    # the input offsets in the same batch go with it, so its events are simply read again.
    return options


class RocksStore:
    """A store on disk; survives a killed process (writes reach the kernel before `write` returns).

    Raises:
        StoreHeldError: somebody else has it open.
        StateError: the database is damaged or cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._options = _options()
        if Path(path, DAMAGED).exists():
            raise StateError(f"the table store {path} was found damaged: {Path(path, DAMAGED).read_text()[:200]}")
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
            exists = (Path(path) / "CURRENT").exists()
            names = Rdict.list_cf(path, self._options) if exists else ["default"]
            families = dict.fromkeys({*names, META} - {"default"}, self._options)
            self._db = Rdict(path, self._options, column_families=families)
        except Exception as error:  # rocksdict raises bare Exception
            # RocksDB's words for a LOCK file that is locked, by another process and by this one.
            if "While lock file" in str(error) or "lock hold by current process" in str(error):
                raise StoreHeldError(f"the table store {path} is open elsewhere") from error
            raise StateError(f"the table store {path} does not open: {error}") from error
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, ColumnFamily] = {}
        for name in families:
            self._hold(name)

    def _hold(self, table: str) -> None:
        self._families[table] = self._db.get_column_family(table)
        self._handles[table] = self._db.get_column_family_handle(table)

    def tables(self) -> set[str]:
        return set(self._families) - {META}

    def open_table(self, table: str) -> None:
        if table not in self._families:
            self._db.create_column_family(table, self._options)
            self._hold(table)

    def drop_table(self, table: str) -> None:
        if table in self._families:
            self._families.pop(table).close()
            del self._handles[table]
            self._db.drop_column_family(table)

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            return self._families[table].get(key)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._damaged(error) from error

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        # In raw mode keys and values are bytes, which rocksdict's annotations do not know. The iterator is made now:
        # it shows the rows of this moment.
        rows = cast(Iterator[tuple[bytes, bytes]], self._families[table].items(from_key=start or None))
        return self._checked(table, rows, start, end)

    def _checked(
        self, table: str, rows: Iterator[tuple[bytes, bytes]], start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The rows before `end`, and an error where damage cut them short.

        RocksDB's own iterate_upper_bound is out of the question: rocksdict's iterator does not keep the bound alive,
        and a scan with one ends now and then before rows that are there.
        """
        for row in rows:
            if end is not None and row[0] >= end:
                return
            yield row
            start = row[0]
        # The iterator ends at the last row as at a damaged block; another one, set on that place, can tell.
        iterator = self._families[table].iter()
        iterator.seek(start)
        if iterator.valid() and iterator.key() == start:
            iterator.next()
        self._check(iterator)

    def seek(self, table: str, start: bytes) -> bytes | None:
        iterator = self._families[table].iter()
        iterator.seek(start)
        if iterator.valid():
            return cast(bytes, iterator.key())
        self._check(iterator)
        return None

    def _check(self, iterator: Any) -> None:
        try:
            iterator.status()
        except Exception as error:  # rocksdict raises bare Exception
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StateError:
        """Remember that the database cannot be read: the next start sets it aside."""
        try:
            Path(self._path, DAMAGED).write_text(str(error))
        except OSError:
            pass  # then the next start finds out again
        return StateError(
            f"the table store {self._path} is damaged: {error}. "
            "Start again: its tables are rebuilt from their changelogs"
        )

    def write(self, changes: Iterable[Change]) -> None:
        batch = WriteBatch(raw_mode=True)
        handles = self._handles
        for table, key, value in changes:
            if value is None:
                batch.delete(key, handles[table])
            else:
                batch.put(key, value, handles[table])
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"the table store {self._path} does not take a write: {error}") from error

    def estimated_keys(self, table: str) -> int:
        return int(self._families[table].property_int_value("rocksdb.estimate-num-keys") or 0)

    def close(self) -> None:
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._handles.clear()
        self._db.close()


def set_aside(path: str, now_ms: int) -> str:
    """Move a damaged database out of the way, so that its tables are rebuilt from their changelogs.

    Returns:
        Where it is now, for whoever wants to look at it.
    """
    target = f"{path}.damaged-{now_ms}"
    shutil.move(path, target)
    return target
