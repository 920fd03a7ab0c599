"""Tables as an app uses them: mappings whose rows live with the partition of the current event."""

import operator
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from streamcore.codecs import Codec, codec_for
from streamcore.config import Seconds, milliseconds
from streamcore.context import Cursor, current_cursor
from streamcore.errors import UsageError
from streamcore.state.partitions import MISSING, TablePartition, WindowPartition
from streamcore.windows import Window, hopping_window, tumbling_window, value_time

if TYPE_CHECKING:
    pass


class TableRuntime(Protocol):
    """What a running worker offers to tables used outside of an agent."""

    def table_for_key(self, table: "Table", key: Any, *, writes: bool = False) -> TablePartition: ...
    def table_partitions(self, table: "Table") -> list[TablePartition]: ...
    def window_for_key(self, table: "Table", key: Any) -> WindowPartition: ...


class Table(MutableMapping[Any, Any]):
    """Keys and values that survive a crash exactly as the committed input left them.

    In an agent, a row belongs to the partition of the current event. Changing a value in place is not seen:
    assign it again. Keys and values are what JSON can hold; a class given as `default` or `value_type` types them.
    """

    def __init__(
        self,
        name: str,
        *,
        default: Callable[[], Any] | None = None,
        value_type: Any = None,
        key_type: Any = None,
        partitions: int | None = None,
        on_window_close: Callable[[Any, Any], Any] | None = None,
        use_partitioner: bool = False,
        help: str = "",
    ) -> None:
        if value_type is None and isinstance(default, type) and issubclass(default, msgspec.Struct):
            value_type = default
        self.name = name
        self.default = default
        self.help = help
        self.partitions = partitions
        self.codec: Codec = codec_for(value_type)
        self.on_window_close = on_window_close
        self.use_partitioner = use_partitioner
        self.window: Window | None = None
        self.late: Any = "drop"
        self.runtime: TableRuntime | None = None

    # -- where a row lives ---------------------------------------------------------------------------------------------

    def _runtime(self) -> TableRuntime:
        if self.runtime is None:
            raise UsageError(f"table {self.name} has no rows before the app's worker has started")
        return self.runtime

    def _readable(self, key: Any) -> TablePartition:
        cursor = current_cursor.get()
        return cursor.table(self) if cursor is not None else self._runtime().table_for_key(self, key)

    def _writable(self, key: Any) -> TablePartition:
        cursor = current_cursor.get()
        if cursor is not None:
            return cursor.table(self)
        if not self.use_partitioner:
            # Faust's words; without an event there is no partition, unless the app says that the key decides.
            raise TypeError(
                "Cannot modify table key from outside of stream iteration "
                f"(table {self.name}; use_partitioner=True lets the key choose the partition)"
            )
        return self._runtime().table_for_key(self, key, writes=True)

    def _all(self) -> list[TablePartition]:
        cursor = current_cursor.get()
        return [cursor.table(self)] if cursor is not None else self._runtime().table_partitions(self)

    # -- a mapping -----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        value = self._readable(key).get(key)
        if value is not MISSING:
            return value
        if self.default is None:
            raise KeyError(key)
        return self.default()

    def __setitem__(self, key: Any, value: Any) -> None:
        self._writable(key).set(key, value)

    def __delitem__(self, key: Any) -> None:
        partition = self._writable(key)
        if partition.get(key) is MISSING:
            raise KeyError(key)
        partition.delete(key)

    def __contains__(self, key: object) -> bool:
        return self._readable(key).get(key) is not MISSING

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a row and return its value; the table's own default is no row."""
        value = self._readable(key).get(key)
        if value is MISSING:
            if default:
                return default[0]
            raise KeyError(key)
        self._writable(key).delete(key)
        return value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The row's value, made first where there is none."""
        value = self._readable(key).get(key)
        if value is MISSING:
            self[key] = value = default
        return value

    def get(self, key: Any, default: Any = None) -> Any:
        value = self._readable(key).get(key)
        return default if value is MISSING else value

    def __iter__(self) -> Iterator[Any]:
        for partition in self._all():
            for key, _ in partition.items():
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> Iterator[tuple[Any, Any]]:  # type: ignore[override]
        """Rows one by one: a table may be larger than memory."""
        for partition in self._all():
            yield from partition.items()

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        for _, value in self.items():
            yield value

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    # -- windows -------------------------------------------------------------------------------------------------------

    def tumbling(
        self, size: Seconds, *, grace: Seconds = 0, expires: Seconds = 0, late: Any = "drop"
    ) -> "WindowedTable":
        """One value per key and window of `size` seconds.

        Args:
            size: a window holds [n · size, (n + 1) · size) since the epoch.
            grace: how long after its end a window still takes late events; then it closes, once.
            expires: how long after that it can still be read.
            late: "drop" counts an event that comes later still; a topic receives it as it was.
        """
        return self.using_window(tumbling_window(size, grace=grace, expires=expires), late=late)

    def hopping(
        self, size: Seconds, step: Seconds, *, grace: Seconds = 0, expires: Seconds = 0, late: Any = "drop"
    ) -> "WindowedTable":
        """As `tumbling`, with a new window every `step` seconds, so that an event belongs to size / step of them."""
        return self.using_window(hopping_window(size, step, grace=grace, expires=expires), late=late)

    def using_window(self, window: Window, *, late: Any = "drop") -> "WindowedTable":
        if self.window is not None:
            raise UsageError(f"table {self.name} has a window already: declare another table")
        if late != "drop" and not hasattr(late, "encode_value"):
            raise UsageError(f"table {self.name}: late is 'drop' or a topic, not {late!r}")
        self.window = window
        self.late = late
        return WindowedTable(self, window)


_NOWHERE = object()  # no cursor is this one
# A WindowSet is a key and nothing else, so it can be used again; a table with more keys than this makes new ones.
WINDOW_SETS_MAX = 10_000


class WindowedTable:
    """A table with a value per key and window; `table[key]` is the key's `WindowSet`."""

    def __init__(self, table: Table, window: Window) -> None:
        self.table = table
        self.window = window
        self._time_of: Callable[[Any], int] | None = None
        self._by_clock = False
        # The last partition that was written: nearly every write is of the same one as the write before.
        self._cursor: Any = _NOWHERE
        self._partition: WindowPartition | None = None
        self._sets: dict[Any, WindowSet] = {}

    @property
    def name(self) -> str:
        return self.table.name

    def relative_to_field(self, field: Any) -> Self:
        """The event's time is in its value: `Model.field`, a name, or a function of the value."""
        self._time_of, self._by_clock = value_time(field), False
        return self

    def relative_to_stream(self) -> Self:
        """The event's own time, which is also the default."""
        self._time_of, self._by_clock = None, False
        return self

    def relative_to_now(self) -> Self:
        """The clock, whatever the event says."""
        self._time_of, self._by_clock = None, True
        return self

    def time_ms(self) -> int:
        """The moment that the current event is counted at."""
        cursor = current_cursor.get()
        if cursor is None:
            raise TypeError(f"Cannot choose a window of table {self.name} outside of stream iteration")
        if self._time_of is not None:
            value = cursor.value
            if value is not None:
                return self._time_of(value)
        return cursor.now_ms() if self._by_clock else cursor.time_ms()

    def place(self) -> tuple[Cursor, WindowPartition, int]:
        """Where a write goes: the agent's cursor, the partition, the moment (Unix ms).

        Raises:
            TypeError: outside of an agent.
        """
        cursor = current_cursor.get()
        if cursor is None:
            raise TypeError(f"Cannot modify table key from outside of stream iteration (table {self.name})")
        if cursor is not self._cursor:
            self._cursor, self._partition = cursor, cursor.windows(self.table)
        partition = self._partition
        assert partition is not None, "set together with the cursor"
        times = cursor.times
        if times is not None and self._time_of is None and not self._by_clock:
            return cursor, partition, times[cursor.index]
        return cursor, partition, self.time_ms()

    def partition(self, key: Any) -> WindowPartition:
        cursor = current_cursor.get()
        return (
            cursor.windows(self.table) if cursor is not None else self.table._runtime().window_for_key(self.table, key)
        )

    def __getitem__(self, key: Any) -> "WindowSet":
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= WINDOW_SETS_MAX:
                self._sets.clear()
            found = self._sets[key] = WindowSet(self, key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        # `table[key] += x` ends here with the WindowSet that has done the work.
        if type(value) is not WindowSet:
            self[key].put(value)

    def __contains__(self, key: Any) -> bool:
        return self.partition(key).get(self.window.current(self.time_ms()), key) is not MISSING

    def items(self) -> Iterator[tuple[tuple[Any, tuple[float, float]], Any]]:
        """((key, (start, end)), value) of this partition's open windows; seconds."""
        cursor = current_cursor.get()
        if cursor is None:
            raise TypeError(f"Cannot list table {self.name} outside of stream iteration")
        for (key, start_ms), value in cursor.windows(self.table).items():
            yield (key, self.bounds(start_ms)), value

    def bounds(self, start_ms: int) -> tuple[float, float]:
        """A window's [start, end) in Unix seconds."""
        return start_ms / 1000, (start_ms + self.window.size_ms) / 1000


class WindowSet:
    """One key's windows, seen from the current event."""

    __slots__ = ("_key", "_windows")

    def __init__(self, windows: WindowedTable, key: Any) -> None:
        self._windows = windows
        self._key = key

    def apply(self, operation: Callable[[Any, Any], Any], value: Any) -> Self:
        """value = operation(value or default, value) in every window that contains the event.

        An event too late for a window leaves it as it is; what becomes of the event is the table's `late`.
        """
        windows, key = self._windows, self._key
        cursor, partition, time_ms = windows.place()
        window = windows.window
        late = False
        # A tumbling window is one window: no range to make.
        step_ms = window.step_ms
        starts = window.starts(time_ms) if step_ms != window.size_ms else (time_ms - time_ms % step_ms,)
        for start_ms in starts:
            bucket = partition.open.get(start_ms) or partition.bucket(start_ms, cursor.watermark_ms())
            if bucket is None:
                late = True
                continue
            partition.last_start_ms, partition.last_bucket = start_ms, bucket
            partition.last_end_ms = start_ms + step_ms if step_ms == window.size_ms else start_ms
            values = bucket.values
            current = values.get(key, MISSING)
            if current is MISSING:
                current = partition.value_or_default(start_ms, bucket, key)
            current = operation(current, value)
            if (check := partition.check) is not None:
                check(key, current)
            values[key] = current
            bucket.dirty.add(key)
        if late:
            partition.late_total += 1
            cursor.late(windows.table.late)
        return self

    def put(self, value: Any) -> None:
        """Set the value in every window that contains the event."""
        windows = self._windows
        cursor, partition, time_ms = windows.place()
        late = False
        for start_ms in windows.window.starts(time_ms):
            bucket = partition.bucket(start_ms, cursor.watermark_ms())
            if bucket is None:
                late = True
            else:
                partition.set(bucket, self._key, value)
        if late:
            partition.late_total += 1
            cursor.late(windows.table.late)

    def _get(self, time_ms: int) -> Any:
        windows = self._windows
        value = windows.partition(self._key).get(windows.window.current(time_ms), self._key)
        if value is not MISSING:
            return value
        if windows.table.default is None:
            raise KeyError(self._key)
        return windows.table.default()

    def value(self) -> Any:
        """The value at the moment that the table is relative to."""
        return self._get(self._windows.time_ms())

    def current(self) -> Any:
        """The value of the newest window that contains the current event."""
        return self._get(self._windows.time_ms())

    def now(self) -> Any:
        """The value of the window that the clock is in."""
        cursor = current_cursor.get()
        if cursor is None:
            raise TypeError("Cannot tell the time outside of stream iteration")
        return self._get(cursor.now_ms())

    def delta(self, seconds: Seconds) -> Any:
        """The value that long before; the table's `expires` must reach back so far."""
        return self._get(self._windows.time_ms() - milliseconds(seconds, "delta"))

    # In-place operators of a WindowSet apply to the windows' values.
    def __iadd__(self, other: Any) -> Self:
        # What `apply` does, for what nearly every call is: a tumbling window by the event's own time, the same one as
        # in the call before, and a key that it has. A quarter of the whole cost of an event is saved here.
        windows = self._windows
        cursor: Any = current_cursor.get()
        if cursor is windows._cursor:
            times = cursor.times
            if times is not None and windows._time_of is None and not windows._by_clock:
                partition: Any = windows._partition
                loop = cursor.loop  # as cursor.index, without the call
                time_ms = times[cursor.index if loop is None else cursor.segment_end - 1 - loop.__length_hint__()]
                if partition.last_start_ms <= time_ms < partition.last_end_ms and partition.check is None:
                    bucket = partition.last_bucket
                    key = self._key
                    values = bucket.values
                    value = values.get(key, MISSING)
                    if value is not MISSING:
                        value += other
                        values[key] = value
                        bucket.dirty.add(key)
                        return self
        return self.apply(operator.iadd, other)

    def __isub__(self, other: Any) -> Self:
        return self.apply(operator.isub, other)

    def __imul__(self, other: Any) -> Self:
        return self.apply(operator.imul, other)

    def __itruediv__(self, other: Any) -> Self:
        return self.apply(operator.itruediv, other)

    def __ifloordiv__(self, other: Any) -> Self:
        return self.apply(operator.ifloordiv, other)

    def __imod__(self, other: Any) -> Self:
        return self.apply(operator.imod, other)

    def __ipow__(self, other: Any) -> Self:
        return self.apply(operator.ipow, other)

    def __ilshift__(self, other: Any) -> Self:
        return self.apply(operator.ilshift, other)

    def __irshift__(self, other: Any) -> Self:
        return self.apply(operator.irshift, other)

    def __iand__(self, other: Any) -> Self:
        return self.apply(operator.iand, other)

    def __ior__(self, other: Any) -> Self:
        return self.apply(operator.ior, other)

    def __ixor__(self, other: Any) -> Self:
        return self.apply(operator.ixor, other)
