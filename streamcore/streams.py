"""Streams: what an agent iterates over."""

from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol

from streamcore.config import Seconds, milliseconds
from streamcore.errors import UsageError
from streamcore.events import Event, Watermark
from streamcore.joins import How, IntervalJoinSpec, interval_join
from streamcore.state.partitions import MISSING, TablePartition

if TYPE_CHECKING:
    from streamcore.topics import Topic


class Source(Protocol):
    """What the engine gives a stream to read from: one agent's place in one partition."""

    @property
    def partition(self) -> int: ...
    def event(self) -> Event | None: ...
    def watermark_ms(self) -> int: ...
    def values(self) -> AsyncIterator[Any]: ...
    def batches(
        self, max_: int, within_ms: int | None, accept: Callable[[Any], bool] | None
    ) -> AsyncIterator[list[Any]]: ...
    def joined(self, spec: IntervalJoinSpec, accept: Callable[[Any], bool] | None) -> AsyncIterator[Any]: ...
    def wake_at(self, time_ms: int) -> None: ...
    def state(self, name: str, value_type: Any) -> TablePartition: ...


class Stream(AsyncIterator[Any]):
    """The values of a topic's partition, in the order of their offsets."""

    def __init__(self, source: Source, accept: tuple[Callable[[Any], Any], ...] = ()) -> None:
        self._source = source
        self._accept = accept
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._filtered(self._source.values()) if self._accept else self._source.values()

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = self.__aiter__()
        try:
            return await anext(self._iterator)
        except BaseException:
            self._iterator = None  # an iterator that raised is over, also where a timeout ended the wait
            raise

    async def _filtered(self, values: AsyncIterator[Any]) -> AsyncIterator[Any]:
        accept = self._accept
        async for value in values:
            if type(value) is Watermark:
                yield value
                continue
            for function in accept:
                verdict = function(value)
                if not (await verdict if iscoroutinefunction(function) else verdict):
                    break
            else:
                yield value

    def filter(self, function: Callable[[Any], Any]) -> "Stream":
        """Only the values that `function` (plain or async) is true for; the others are done."""
        return Stream(self._source, (*self._accept, function))

    async def events(self) -> AsyncIterator[Event]:
        """Events instead of values: with key, headers, time and place."""
        async for value in self:
            if type(value) is not Watermark:
                event = self._source.event()
                assert event is not None, "a value has an event"
                yield event

    async def items(self) -> AsyncIterator[tuple[Any, Any]]:
        """(key, value) pairs."""
        async for event in self.events():
            yield event.key, event.value

    async def enumerate(self, start: int = 0) -> AsyncIterator[tuple[int, Any]]:
        """(n, value), counting this partition's values since the agent started."""
        async for value in self:
            yield start, value
            start += 1

    def take(self, max_: int, within: Seconds | None = None) -> AsyncIterator[list[Any]]:
        """Lists of up to `max_` values, given out when full or `within` seconds after their first value.

        A list's events are in flight until the agent asks for the next list.
        """
        if max_ < 1:
            raise UsageError(f"take({max_}): a list holds at least one value")
        within_ms = None if within is None else milliseconds(within, "take within")
        return self._source.batches(max_, within_ms, self._plain_filter("take"))

    def join(
        self,
        other: "Topic",
        *,
        before: Seconds = 0,
        after: Seconds = 0,
        how: How = "inner",
        collect: bool = False,
        grace: Seconds = 0,
        late: Any = "drop",
    ) -> "JoinedStream":
        """Match every value with those of `other` that have the same key and lie around it in event time.

        Both topics need the same number of partitions.

        Args:
            before, after: a value at time t matches those in [t - before, t + after], ends included.
            how: "inner" gives matches; "left" also values without one, as (value, None); "outer" also (None, other).
                Unmatched rows come once, when the watermark has passed the last moment that could match.
            collect: give each value once, when its window closes, with the list of all its matches in time order.
            grace: how far out of order events may come, in seconds.
            late: "drop" counts what comes too late for any match; a topic receives it as it was.
        """
        spec = interval_join(other, before=before, after=after, grace=grace, how=how, collect=collect, late=late)
        return JoinedStream(self._source, spec, self._plain_filter("join"))

    def _plain_filter(self, verb: str) -> Callable[[Any], bool] | None:
        if any(iscoroutinefunction(function) for function in self._accept):
            raise UsageError(f"{verb} follows plain filters: an async one belongs into the agent's body")
        accept = self._accept
        return (lambda value: all(function(value) for function in accept)) if accept else None

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def watermark_ms(self) -> int:
        """Event time of this partition: nothing older is expected. Unix ms."""
        return self._source.watermark_ms()

    def wake_at(self, time_ms: int) -> None:
        """Ask `with_time` for a Watermark when event time reaches `time_ms`; the earliest asked for counts."""
        self._source.wake_at(time_ms)

    async def with_time(self) -> AsyncIterator[Event | Watermark]:
        """Events, and a Watermark whenever event time reaches a moment asked for by `wake_at`.

        Event time moves on by data, just before the event that moved it, and by the clock while the source is idle.
        """
        async for value in self:
            if type(value) is Watermark:
                yield value
            else:
                event = self._source.event()
                assert event is not None, "a value has an event"
                yield event

    # -- state ---------------------------------------------------------------------------------------------------------

    def state(self, name: str, *, value_type: Any = None) -> "State":
        """A durable map of this agent's own in this partition, exact with its input: what a table is, without a name
        in the app. Keys are str, values what JSON can hold."""
        return State(self._source.state(name, value_type))


class JoinedStream(AsyncIterator[Any]):
    """Joined rows: (left, right), or (left, [right, …]) with `collect`.

    The current event is the left one, or the right one of an unmatched right row.
    """

    def __init__(
        self,
        source: Source,
        spec: IntervalJoinSpec,
        accept_left: Callable[[Any], bool] | None,
        accept: tuple[Callable[[Any], bool], ...] = (),
    ) -> None:
        self._source = source
        self._spec = spec
        self._accept_left = accept_left
        self._accept = accept
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        rows = self._source.joined(self._spec, self._accept_left)
        return self._filtered(rows) if self._accept else rows

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = self.__aiter__()
        return await anext(self._iterator)

    async def _filtered(self, rows: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for row in rows:
            if all(function(row) for function in self._accept):
                yield row

    def filter(self, function: Callable[[Any], bool]) -> "JoinedStream":
        """Only the rows that `function` is true for."""
        return JoinedStream(self._source, self._spec, self._accept_left, (*self._accept, function))


class State(MutableMapping[str, Any]):
    """A durable map in the agent's partition. A value changed in place is not seen: assign it again."""

    def __init__(self, partition: TablePartition) -> None:
        self._partition = partition

    def __getitem__(self, key: str) -> Any:
        value = self._partition.get(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._partition.set(key, value)

    def __delitem__(self, key: str) -> None:
        if self._partition.get(key) is MISSING:
            raise KeyError(key)
        self._partition.delete(key)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._partition.items())

    def __len__(self) -> int:
        return sum(1 for _ in self)
