"""Both stores against a dictionary, over reopening."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamcore.errors import StateError, StoreHeldError
from streamcore.state.memory import MemoryStore
from streamcore.state.rocksdb import RocksStore, set_aside
from streamcore.state.store import META, Store

TABLES = ("one", "two")
keys = st.binary(max_size=3)
values = st.one_of(st.none(), st.binary(max_size=4))


class StoreAgainstDictionary(RuleBasedStateMachine):
    """Writes of several tables at once, scans and seeks, and opening again."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, dict[bytes, bytes]] = {META: {}}
        self.store: Store = self.open()

    def open(self) -> Store:
        return MemoryStore()

    def reopen(self) -> None:
        """A memory store stays."""

    @initialize()
    def make_the_first_table(self) -> None:
        self.open_table("one")

    @rule(table=st.sampled_from(TABLES))
    def open_table(self, table: str) -> None:
        self.store.open_table(table)
        self.model.setdefault(table, {})

    @rule(table=st.sampled_from(TABLES))
    def drop_table(self, table: str) -> None:
        self.store.drop_table(table)
        self.model.pop(table, None)

    @rule(changes=st.lists(st.tuples(st.sampled_from((*TABLES, META)), keys, values), max_size=6))
    def write(self, changes: list[tuple[str, bytes, bytes | None]]) -> None:
        changes = [change for change in changes if change[0] in self.model]
        self.store.write(changes)
        for table, key, value in changes:
            if value is None:
                self.model[table].pop(key, None)
            else:
                self.model[table][key] = value

    @rule(start=keys, end=st.one_of(st.none(), keys))
    def scan(self, start: bytes, end: bytes | None) -> None:
        for table, rows in self.model.items():
            expected = sorted((k, v) for k, v in rows.items() if k >= start and (end is None or k < end))
            assert list(self.store.scan(table, start, end)) == expected

    @rule(start=keys)
    def seek(self, start: bytes) -> None:
        for table, rows in self.model.items():
            assert self.store.seek(table, start) == min((k for k in rows if k >= start), default=None)

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        for table, rows in self.model.items():
            assert self.store.get(table, key) == rows.get(key)

    @rule(changes=st.lists(st.tuples(keys, values), min_size=1, max_size=4))
    def a_scan_shows_the_moment_at_which_it_began(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        table = next(iter(self.model))
        before = sorted(self.model[table].items())
        rows = self.store.scan(table)
        self.write([(table, key, value) for key, value in changes])
        assert list(rows) == before

    @rule()
    def open_again(self) -> None:
        self.reopen()

    @invariant()
    def tables_are_known(self) -> None:
        assert self.store.tables() == set(self.model) - {META}


class RocksAgainstDictionary(StoreAgainstDictionary):
    def __init__(self) -> None:
        self.path = tempfile.mkdtemp()
        super().__init__()

    def open(self) -> Store:
        return RocksStore(self.path)

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.path)


TestMemoryStore = StoreAgainstDictionary.TestCase
TestMemoryStore.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRocksStore = RocksAgainstDictionary.TestCase
TestRocksStore.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


def test_a_store_that_was_not_closed_keeps_what_was_written(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.open_table("t")
    store.write([("t", b"a", b"1"), (META, b"m", b"2")])
    copy = tmp_path / "copy"  # what a killed process leaves behind
    shutil.copytree(tmp_path / "db", copy, ignore=shutil.ignore_patterns("LOCK"))
    store.close()
    again = RocksStore(str(copy))
    assert list(again.scan("t")) == [(b"a", b"1")]
    assert again.get(META, b"m") == b"2"
    again.close()


def test_a_torn_write_ahead_log_loses_whole_writes_only(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.open_table("t")
    for n in range(20):
        store.write([("t", b"row", b"%d" % n), (META, b"offset", b"%d" % n)])
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "db", copy, ignore=shutil.ignore_patterns("LOCK"))
    store.close()
    (log,) = [path for path in copy.glob("*.log") if path.stat().st_size]
    log.write_bytes(log.read_bytes()[:-25])
    again = RocksStore(str(copy))
    assert again.get("t", b"row") == again.get(META, b"offset")
    again.close()


@pytest.mark.parametrize("damage", ["CURRENT", "MANIFEST"])
def test_a_damaged_store_raises_and_can_be_set_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "db"
    store = RocksStore(str(path))
    store.open_table("t")
    store.write([("t", b"a", b"1")])
    store.close()
    for file in path.glob(f"{damage}*"):
        file.write_bytes(b"rubbish")
    with pytest.raises(StateError, match="does not open"):
        RocksStore(str(path))
    moved = set_aside(str(path), 123)
    assert Path(moved).is_dir()
    fresh = RocksStore(str(path))
    assert fresh.tables() == set()
    fresh.close()


def test_a_second_process_or_object_cannot_open_a_store_that_is_in_use(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    with pytest.raises(StoreHeldError, match="open elsewhere"):
        RocksStore(str(tmp_path / "db"))
    store.close()


def test_a_path_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="file"):
        RocksStore(str(tmp_path / "file"))


def test_long_scans_with_bounds_give_every_row(tmp_path: Path) -> None:
    store: Any = RocksStore(str(tmp_path / "db"))
    store.open_table("t")
    rows = [(n.to_bytes(4, "big"), b"x" * 100) for n in range(20_000)]
    store.write([("t", *row) for row in rows])
    assert list(store.scan("t", rows[5][0], rows[19_000][0])) == rows[5:19_000]
    store.close()


def test_damage_that_reading_meets_is_an_error_and_never_missing_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    store = RocksStore(path)
    store.open_table("t")
    store.write([("t", b"%06d" % n, b"x" * 100) for n in range(20_000)])
    store._families["t"].flush()
    store.close()
    for file in Path(path).glob("*.sst"):
        data = bytearray(file.read_bytes())
        data[1000 : len(data) // 2] = b"U" * (len(data) // 2 - 1000)
        file.write_bytes(data)
    store = RocksStore(path)
    reads: list[Callable[[], Any]] = [
        lambda: store.get("t", b"000500"),
        lambda: list(store.scan("t")),
        lambda: list(store.scan("t", b"000400", b"000900")),
        lambda: store.seek("t", b"000500"),
    ]
    for read in reads:
        with pytest.raises(StateError, match="is damaged"):
            read()
    store.close()
    with pytest.raises(StateError, match="found damaged"):
        RocksStore(path)
    set_aside(path, 1)
    RocksStore(path).close()
