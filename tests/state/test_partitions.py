"""The write-back cache of tables against a model: commits, refused commits, rollbacks, evictions, restarts."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamcore.codecs import codec_for
from streamcore.errors import ValueRefusedError
from streamcore.state.memory import MemoryStore
from streamcore.state.partitions import MISSING, KeyLayout, TablePartition, WindowPartition, decode_key, window_prefix
from streamcore.windows import Window

KEYS = st.sampled_from(["a", "b", "c", 1, 2, ("t", 1), ("t", ("u", None)), None, 1.5, "é\n"])


def commit(partition: Any, store: MemoryStore) -> None:
    rows = partition.take()
    if rows:
        store.write(partition.changes(rows))
    partition.committed()


class TableAgainstDictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.table = self.open()
        self.rows: dict[Any, Any] = {}
        self.saved: dict[Any, Any] = {}
        self.changelog: dict[bytes, bytes | None] = {}
        self.taken: dict[Any, Any] | None = None

    def open(self) -> TablePartition:
        return TablePartition("t", self.store, codec_for(None), cache_entries=2)

    @rule(key=KEYS, value=st.integers(0, 5))
    def set(self, key: Any, value: int) -> None:
        self.table.set(key, value)
        self.rows[key] = value

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        self.table.delete(key)
        self.rows.pop(key, None)

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        value = self.table.get(key)
        assert value == self.rows.get(key, MISSING) or value is self.rows.get(key, MISSING)

    @precondition(lambda self: self.taken is None)
    @rule()
    def take(self) -> None:
        rows = self.table.take()
        self.taken = dict(self.rows)
        self.taken_rows = rows

    @precondition(lambda self: self.taken is not None)
    @rule()
    def it_goes_through(self) -> None:
        assert self.taken is not None
        self.store.write(self.table.changes(self.taken_rows))
        self.changelog.update(self.taken_rows)
        self.table.committed()
        self.saved, self.taken = self.taken, None

    @precondition(lambda self: self.taken is not None)
    @rule()
    def it_is_taken_again(self) -> None:
        self.taken = None
        self.take()

    @rule()
    def rollback(self) -> None:
        self.table.rollback()
        self.rows, self.taken = dict(self.saved), None

    @rule()
    def restart(self) -> None:
        self.table = self.open()
        self.rows, self.taken = dict(self.saved), None

    @invariant()
    def items_are_the_rows(self) -> None:
        items = list(self.table.items())
        assert len(items) == len(dict(items)), "a key twice"
        assert dict(items) == self.rows

    @invariant()
    def changelog_is_the_store(self) -> None:
        replayed = {key: value for key, value in self.changelog.items() if value is not None}
        assert replayed == dict(self.store.scan("t"))
        assert {decode_key(key): int(value) for key, value in replayed.items()} == self.saved


TestTable = TableAgainstDictionary.TestCase
TestTable.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


class WindowsAgainstDictionary(RuleBasedStateMachine):
    """Time moves on; windows open, close once and expire; the model keeps rows by (start, key)."""

    window = Window(10, 10, grace_ms=5, expires_ms=0)

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.now = 0
        self.table = self.open(-(1 << 62))
        self.state = self.fresh()
        self.saved = self.copy()

    def fresh(self) -> dict[str, Any]:
        return {"open": {}, "closed": {}, "now": 0, "limit": -(1 << 62), "emitted": []}

    def copy(self) -> dict[str, Any]:
        state = self.state
        return {
            "open": {start: dict(rows) for start, rows in state["open"].items()},
            "closed": {start: dict(rows) for start, rows in state["closed"].items()},
            "now": state["now"],
            "limit": state["limit"],
            "emitted": list(state["emitted"]),
        }

    def open(self, closed_to_ms: int) -> WindowPartition:
        return WindowPartition("t", self.store, codec_for(None), 3, self.window, int, closed_to_ms)

    @rule(back=st.integers(0, 30), key=KEYS)
    def add(self, back: int, key: Any) -> None:
        time = self.state["now"] - back
        for start in self.window.starts(time):
            bucket = self.table.bucket(start, self.state["now"])
            is_open = self.window.closes_at(start) > self.state["now"]
            assert (bucket is not None) == is_open
            if bucket is not None:
                value = bucket.values.get(key, MISSING)
                if value is MISSING:
                    value = self.table.value_or_default(start, bucket, key)
                self.table.set(bucket, key, value + 1)
                rows = self.state["open"].setdefault(start, {})
                rows[key] = rows.get(key, 0) + 1

    @rule(key=KEYS, value=st.integers(0, 3))
    def put(self, key: Any, value: int) -> None:
        start = self.window.current(self.state["now"])
        bucket = self.table.bucket(start, self.state["now"])
        assert bucket is not None
        self.table.set(bucket, key, value)
        self.state["open"].setdefault(start, {})[key] = value

    @rule(step=st.integers(0, 25))
    def advance(self, step: int) -> None:
        self.state["now"] += step
        now = self.state["now"]
        due = self.table.due(now)
        assert due == sorted(s for s in self.state["open"] if self.window.closes_at(s) <= now)
        for start in due:
            rows = self.table.rows(start)
            assert dict(rows) == self.state["open"][start]
            self.state["emitted"].append(start)
            self.table.close(start)
            closed = self.state["open"].pop(start)
            if self.window.expires_ms:
                self.state["closed"][start] = closed
        self.table.expire(now)
        for start in list(self.state["closed"]):
            if self.window.closes_at(start) + self.window.expires_ms <= now:
                del self.state["closed"][start]

    @rule(key=KEYS, back=st.integers(0, 60))
    def get(self, key: Any, back: int) -> None:
        start = self.window.current(self.state["now"] - back)
        rows = self.state["open"].get(start) or self.state["closed"].get(start) or {}
        value = self.table.get(start, key)
        assert value is MISSING if key not in rows else value == rows[key]

    @rule()
    def commit(self) -> None:
        commit(self.table, self.store)
        self.saved = self.copy()
        rows = {
            (start, decode_key(key[8:])): int(value)
            for key, value in self.store.scan("t")
            for start in [int.from_bytes(key[:8], "big") - (1 << 63)]
        }
        known = {**self.saved["open"], **self.saved["closed"]}
        assert rows == {(start, key): value for start, values in known.items() for key, value in values.items()}
        assert self.table.dirty_count == 0

    @rule()
    def rollback(self) -> None:
        self.table.rollback()
        self.state = self.saved
        self.saved = self.copy()

    @rule()
    def restart(self) -> None:
        closed_to = self.table._committed_closed_to_ms
        self.table = self.open(closed_to)
        self.state = self.saved
        self.saved = self.copy()

    @invariant()
    def items_are_the_open_rows(self) -> None:
        expected = {(key, start): v for start, rows in self.state["open"].items() for key, v in rows.items()}
        assert dict(self.table.items()) == expected

    @invariant()
    def no_window_closes_twice(self) -> None:
        emitted = self.state["emitted"]
        assert len(emitted) == len(set(emitted))


class ReadableWindows(WindowsAgainstDictionary):
    window = Window(10, 10, grace_ms=0, expires_ms=25)


class HoppingWindows(WindowsAgainstDictionary):
    window = Window(10, 4, grace_ms=3, expires_ms=10)


TestWindows = WindowsAgainstDictionary.TestCase
TestReadableWindows = ReadableWindows.TestCase
TestHoppingWindows = HoppingWindows.TestCase
TestWindows.settings = TestReadableWindows.settings = TestHoppingWindows.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)


def test_a_read_of_many_rows_does_not_stay_in_memory() -> None:
    store = MemoryStore()
    store.open_table("t")
    store.write([("t", b"%d" % n, b"1") for n in range(1000)])
    table = TablePartition("t", store, codec_for(None), cache_entries=10)
    for n in range(2000):
        table.get(n)
    table.committed()
    assert len(table._cache) <= 10


def test_a_window_that_closes_while_a_commit_writes_its_rows_leaves_none_behind() -> None:
    store = MemoryStore()
    table = WindowPartition("t", store, codec_for(None), 100, Window(10, 10), int)
    bucket = table.bucket(0, 0)
    assert bucket is not None
    table.set(bucket, "a", 1)
    rows = table.take()
    table.close(0)
    table.expire(10)
    store.write(table.changes(rows))
    table.committed()
    commit(table, store)
    assert list(store.scan("t")) == []


def test_keys_of_a_windowed_table_read_in_the_changelog_as_fausts_do() -> None:
    layout = KeyLayout(Window(10_000, 10_000))
    for key in ("a", 1, ("x", 2)):
        store_key = window_prefix(1_767_225_600_000) + codec_for(None).dumps(key)
        changelog_key = layout.changelog_key(store_key)
        assert layout.store_key(changelog_key) == store_key
    assert layout.changelog_key(window_prefix(1_767_225_600_500) + b'"a"') == b'["a",[1767225600.5,1767225610.5]]'
    before_1970 = window_prefix(-5000) + b'"a"'
    assert layout.store_key(layout.changelog_key(before_1970)) == before_1970
    assert before_1970 < window_prefix(0)


@pytest.mark.parametrize("value", [object(), {1: object()}, float])
def test_a_value_that_cannot_be_written_is_named(value: Any) -> None:
    store = MemoryStore()
    table = TablePartition("t", store, codec_for(None), 10)
    table.set("good", 1)
    table.set("bad", value)
    with pytest.raises(ValueRefusedError, match=r"table t cannot hold .* under the key 'bad'"):
        table.take()
    table.rollback()
    assert table.check_values(None) is False
    assert table.check_values(None) is True
    with pytest.raises(ValueRefusedError):
        table.set("bad", value)
    table.set("good", 1)
    table.delete("good")
    assert len(table.take()) == 1
