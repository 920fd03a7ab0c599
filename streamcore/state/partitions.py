"""A table's rows in one partition: a write-back cache over the store.

Reads and writes between two commits touch dictionaries only; a commit takes the dirty rows out, once each, as
bytes, and writes them to the changelog and to the store. A rollback forgets everything since the last commit.

Layout in the store. A plain row is `JSON key → value`. A windowed row is `start (8 bytes, big-endian) + JSON key →
value`: rows lie in the order of their windows, so finding what is due for closing or expiry is a look at the front,
after a restart as well as before.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import msgspec
import orjson

from streamcore.codecs import Codec
from streamcore.errors import ValueRefusedError
from streamcore.state.store import Change, Store
from streamcore.windows import Window

MISSING: Final = object()
NOTHING_CLOSED = -(1 << 62)  # a watermark before all events
_START_BIAS = 1 << 63  # times before 1970 sort first
_encode_key = msgspec.json.Encoder().encode

# A record's own lengths, a batch header and a window's bounds around a row's bytes; generous.
ROW_OVERHEAD_BYTES = 192

# A row as it goes to the changelog: key, value (None is a tombstone).
Row = tuple[bytes, bytes | None]


def decode_key(data: bytes) -> Any:
    """The key behind its JSON; arrays come back as tuples, since keys are hashable."""
    return _hashable(orjson.loads(data))


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value


class KeyLayout:
    """How a row's key in the store and in the changelog belong together: they are the same, or a window's."""

    def __init__(self, window: Window | None) -> None:
        self._window = window

    def store_key(self, changelog_key: bytes) -> bytes:
        """The store's key; a windowed row's changelog key is `[key,[start,end]]` in seconds, as Faust writes it."""
        if self._window is None:
            return changelog_key
        key, (start, _) = orjson.loads(changelog_key)
        return window_prefix(round(start * 1000)) + _encode_key(_hashable(key))

    def changelog_key(self, store_key: bytes) -> bytes:
        """The changelog's key for a key of the store."""
        if self._window is None:
            return store_key
        start_ms = int.from_bytes(store_key[:8], "big") - _START_BIAS
        end_ms = start_ms + self._window.size_ms
        return b"[%b,[%b,%b]]" % (store_key[8:], repr(start_ms / 1000).encode(), repr(end_ms / 1000).encode())


def window_prefix(start_ms: int) -> bytes:
    """The first bytes of the store keys of a window's rows."""
    return (start_ms + _START_BIAS).to_bytes(8, "big")


def _encode(name: str, codec: Codec, key: Any, value: Any) -> tuple[bytes, bytes]:
    try:
        return _encode_key(key), codec.dumps(value)
    except Exception as error:  # the codecs raise TypeError, ValueError, OverflowError, RecursionError, UsageError …
        raise ValueRefusedError(
            f"table {name} cannot hold {value!r:.100} under the key {key!r:.100}: {error}"
        ) from error


class _ValueCheck:
    """Looks at values when they are set, once a commit has found one that cannot be written."""

    def __init__(self, name: str, codec: Codec, max_bytes: int | None) -> None:
        self._name = name
        self._codec = codec
        self._max_bytes = max_bytes

    def __call__(self, key: Any, value: Any) -> None:
        """
        Raises:
            ValueRefusedError: the value cannot be written, or is too large.
        """
        if value is MISSING:
            return
        size = sum(map(len, _encode(self._name, self._codec, key, value))) + ROW_OVERHEAD_BYTES
        if self._max_bytes is not None and size > self._max_bytes:
            raise ValueRefusedError(
                f"table {self._name}: {size} bytes under the key {key!r:.100} are more than its changelog's "
                f"max.message.bytes of {self._max_bytes}: spread the value over several keys, or raise the limit"
            )


class TablePartition:
    """One partition of a plain table."""

    def __init__(self, name: str, store: Store, codec: Codec, cache_entries: int) -> None:
        self.name = name
        self.changelog_offset = 0  # the changelog's end as of the last commit
        self._store = store
        self._codec = codec
        self._cache_entries = cache_entries
        self.layout = KeyLayout(None)
        self._cache: dict[Any, Any] = {}
        self._dirty: set[Any] = set()
        self._taken: set[Any] = set()
        self._check: _ValueCheck | None = None
        store.open_table(name)

    def check_values(self, max_bytes: int | None) -> bool:
        """From now on, refuse a value that cannot be written when it is set; True where that was so already."""
        known, self._check = self._check is not None, _ValueCheck(self.name, self._codec, max_bytes)
        return known

    def get(self, key: Any) -> Any:
        """The value, or MISSING."""
        value = self._cache.get(key)
        if value is not None or key in self._cache:
            return value
        data = self._store.get(self.name, _encode_key(key))
        value = MISSING if data is None else self._codec.loads(data)
        self._cache[key] = value
        return value

    def set(self, key: Any, value: Any) -> None:
        if self._check is not None:
            self._check(key, value)
        self._cache[key] = value
        self._dirty.add(key)

    def delete(self, key: Any) -> None:
        self.set(key, MISSING)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Every row, uncommitted ones included; in the store's order, new ones last."""
        fresh = {_encode_key(key): key for key in self._dirty | self._taken}
        for data_key, data in self._store.scan(self.name):
            if data_key in fresh:
                continue
            key = decode_key(data_key)
            # The cached object wins over its bytes, so that a caller never sees two of the same row.
            value = self._cache.get(key, MISSING)
            yield key, self._codec.loads(data) if value is MISSING else value
        for data_key in sorted(fresh):
            if (value := self.get(fresh[data_key])) is not MISSING:
                yield fresh[data_key], value

    @property
    def dirty_count(self) -> int:
        return len(self._dirty)

    def take(self) -> list[Row]:
        """The rows changed since the last commit, as bytes; they stay known until `committed` or `rollback`.

        Raises:
            ValueRefusedError: a value that its codec cannot write.
        """
        self._taken |= self._dirty
        self._dirty = set()
        rows: list[Row] = []
        cache, dumps = self._cache, self._codec.dumps
        try:
            for key in self._taken:
                value = cache[key]
                rows.append((_encode_key(key), None if value is MISSING else dumps(value)))
        except Exception:
            for key in self._taken:
                _encode(self.name, self._codec, key, None if cache[key] is MISSING else cache[key])
            raise
        return rows

    def changes(self, rows: list[Row]) -> Iterator[Change]:
        """The rows as changes of the store."""
        return ((self.name, key, value) for key, value in rows)

    def committed(self) -> None:
        """The taken rows are in the store."""
        self._taken.clear()
        if len(self._cache) > self._cache_entries and not self._dirty:
            self._cache.clear()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._cache.clear()
        self._dirty.clear()
        self._taken.clear()


class Bucket:
    """The rows of one open window."""

    __slots__ = ("complete", "dirty", "stored", "taken", "values")

    def __init__(self, *, stored: bool) -> None:
        self.values: dict[Any, Any] = {}
        self.dirty: set[Any] = set()
        self.taken: set[Any] = set()  # dirty rows that a commit is writing
        self.stored = stored  # the store has rows of this window
        self.complete = not stored  # `values` has every row of this window

    def forget(self) -> None:
        """Leave the rows to the store."""
        self.values.clear()
        self.complete = False


class WindowPartition:
    """One partition of a windowed table.

    A window is open from its first write until the watermark passes its end plus grace; it is closed once, in
    the order of starts, and its rows go when it has expired.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        codec: Codec,
        cache_entries: int,
        window: Window,
        default: Callable[[], Any] | None,
        closed_to_ms: int = NOTHING_CLOSED,
    ) -> None:
        self.name = name
        self.changelog_offset = 0
        self.window = window
        self.open: dict[int, Bucket] = {}
        self.closed: dict[int, Bucket] = {}  # closed and still readable
        self.closed_total = 0
        self.late_total = 0
        self.listeners: list[Callable[[int], None]] = []  # told when a window opens, with the time of its close
        self.layout = KeyLayout(window)
        self._default = default
        self._store = store
        self._codec = codec
        self._cache_entries = cache_entries
        self._deletes: list[bytes] = []  # store keys of expired rows
        self._taken_deletes: list[bytes] = []
        # Every window that closes at this watermark or before has been closed, and is not opened again.
        self.closed_to_ms = self._taken_closed_to_ms = self._committed_closed_to_ms = closed_to_ms
        self.check: _ValueCheck | None = None  # looks at a key and a value before they are set, where it must
        # The tumbling window that was written last, for whoever writes the same one again; end = start means none.
        self.last_start_ms = self.last_end_ms = 0
        self.last_bucket: Bucket | None = None
        store.open_table(name)
        self._load()

    def check_values(self, max_bytes: int | None) -> bool:
        """As `TablePartition.check_values`."""
        known, self.check = self.check is not None, _ValueCheck(self.name, self._codec, max_bytes)
        return known

    def _load(self) -> None:
        """Find the store's windows: open and retained ones."""
        self.open.clear()
        self.closed.clear()
        self.last_end_ms = self.last_start_ms
        start_ms = self._next_start(b"")
        while start_ms is not None:
            # Without an expiry a closed window has no rows, so whatever is there is still open.
            is_closed = self.window.closes_at(start_ms) <= self.closed_to_ms
            where = self.closed if is_closed and self.window.expires_ms else self.open
            where[start_ms] = Bucket(stored=True)
            start_ms = self._next_start(window_prefix(start_ms + 1))

    def _next_start(self, key: bytes) -> int | None:
        found = self._store.seek(self.name, key)
        return None if found is None else int.from_bytes(found[:8], "big") - _START_BIAS

    def deadline_ms(self) -> int | None:
        """The watermark at which the next window closes or expires."""
        deadlines = [self.window.closes_at(min(self.open))] if self.open else []
        if self.closed:
            deadlines.append(self.window.closes_at(min(self.closed)) + self.window.expires_ms)
        return min(deadlines, default=None)

    def bucket(self, start_ms: int, watermark_ms: int) -> Bucket | None:
        """The window's rows for writing, or None where it has closed."""
        bucket = self.open.get(start_ms)
        if bucket is None:
            closes_at_ms = self.window.closes_at(start_ms)
            if closes_at_ms <= watermark_ms or closes_at_ms <= self.closed_to_ms:
                return None
            bucket = self.open[start_ms] = Bucket(stored=False)
            for listener in self.listeners:
                listener(closes_at_ms)
        return bucket

    def load_value(self, start_ms: int, bucket: Bucket, key: Any) -> Any:
        """The value of a row that the bucket has not in memory; MISSING where there is none."""
        if bucket.complete:
            return MISSING
        data = self._store.get(self.name, window_prefix(start_ms) + _encode_key(key))
        value = MISSING if data is None else self._codec.loads(data)
        bucket.values[key] = value
        return value

    def value_or_default(self, start_ms: int, bucket: Bucket, key: Any) -> Any:
        """The value of a row that the bucket has not in memory, or the table's default.

        Raises:
            KeyError: there is neither.
        """
        value = self.load_value(start_ms, bucket, key)
        if value is not MISSING:
            return value
        if self._default is None:
            raise KeyError(key)
        return self._default()

    def set(self, bucket: Bucket, key: Any, value: Any) -> None:
        if self.check is not None:
            self.check(key, value)
        bucket.values[key] = value
        bucket.dirty.add(key)

    def get(self, start_ms: int, key: Any) -> Any:
        """The value, or MISSING; open and retained windows alike."""
        bucket = self.open.get(start_ms) or self.closed.get(start_ms)
        if bucket is None:
            return MISSING
        if key in bucket.values:
            return bucket.values[key]
        return self.load_value(start_ms, bucket, key)

    def rows(self, start_ms: int) -> list[tuple[Any, Any]]:
        """Every row of an open window in the order of the keys' bytes, which no restart changes."""
        bucket = self.open[start_ms]
        if not bucket.complete:
            prefix = window_prefix(start_ms)
            for store_key, data in self._store.scan(self.name, prefix, window_prefix(start_ms + 1)):
                key = decode_key(store_key[8:])
                if key not in bucket.values:
                    bucket.values[key] = self._codec.loads(data)
            bucket.complete = True
        rows = [(key, value) for key, value in bucket.values.items() if value is not MISSING]
        rows.sort(key=lambda row: _encode_key(row[0]))
        return rows

    def items(self) -> Iterator[tuple[tuple[Any, int], Any]]:
        """((key, window start), value) of every row of every open window."""
        for start_ms in sorted(self.open):
            for key, value in self.rows(start_ms):
                yield (key, start_ms), value

    def due(self, watermark_ms: int) -> list[int]:
        """The open windows that this watermark closes, oldest first."""
        window = self.window
        return sorted(start for start in self.open if window.closes_at(start) <= watermark_ms)

    def close(self, start_ms: int) -> None:
        """The window takes no more events; it goes now, or stays readable until it expires."""
        bucket = self.open.pop(start_ms)
        self.last_end_ms = self.last_start_ms  # it may be the one that was written last
        self.closed_total += 1
        if self.window.expires_ms:
            self.closed[start_ms] = bucket
        else:
            self._delete_rows(start_ms, bucket)

    def _delete_rows(self, start_ms: int, bucket: Bucket) -> None:
        prefix = window_prefix(start_ms)
        # Rows that a commit is writing at this moment will be in the store when the next one deletes them.
        keys = dict.fromkeys(prefix + _encode_key(key) for key in bucket.taken)
        if bucket.stored:
            keys.update((key, None) for key, _ in self._store.scan(self.name, prefix, window_prefix(start_ms + 1)))
        self._deletes.extend(keys)

    def expire(self, watermark_ms: int) -> None:
        """Every window that was due has been closed: delete the rows of those that nobody may read any more."""
        window = self.window
        self.closed_to_ms = max(self.closed_to_ms, watermark_ms)
        for start_ms in [s for s in self.closed if window.closes_at(s) + window.expires_ms <= watermark_ms]:
            self._delete_rows(start_ms, self.closed.pop(start_ms))

    @property
    def dirty_count(self) -> int:
        return sum(len(bucket.dirty) for _, bucket in self._buckets()) + len(self._deletes)

    def _buckets(self) -> Iterator[tuple[int, Bucket]]:
        return chain(self.open.items(), self.closed.items())

    def take(self) -> list[Row]:
        """The rows changed since the last commit, under their store keys.

        Raises:
            ValueRefusedError: a value that its codec cannot write.
        """
        rows: list[Row] = []
        dumps = self._codec.dumps
        self._taken_closed_to_ms = self.closed_to_ms
        for start_ms, bucket in self._buckets():
            if bucket.dirty or bucket.taken:
                bucket.taken |= bucket.dirty
                bucket.dirty = set()
                prefix = window_prefix(start_ms)
                try:
                    for key in bucket.taken:
                        value = bucket.values[key]
                        rows.append((prefix + _encode_key(key), None if value is MISSING else dumps(value)))
                except Exception:
                    for key in bucket.taken:
                        value = bucket.values[key]
                        _encode(self.name, self._codec, key, None if value is MISSING else value)
                    raise
        self._taken_deletes += self._deletes
        self._deletes = []
        rows += [(key, None) for key in self._taken_deletes]
        return rows

    def changes(self, rows: list[Row]) -> Iterator[Change]:
        return ((self.name, key, value) for key, value in rows)

    def committed(self) -> None:
        self._committed_closed_to_ms = self._taken_closed_to_ms
        for _, bucket in self._buckets():
            if bucket.taken:
                bucket.taken = set()
                bucket.stored = True
        self._taken_deletes.clear()
        for bucket in self.closed.values():
            if not bucket.dirty and bucket.stored:
                bucket.forget()
        if sum(len(bucket.values) for bucket in self.open.values()) > self._cache_entries:
            for bucket in self.open.values():
                if not bucket.dirty and bucket.stored:
                    bucket.forget()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._taken_deletes.clear()
        self._deletes.clear()
        self.closed_to_ms = self._committed_closed_to_ms
        self._load()
