"""A stream without an engine: a list of events and idle times in, what `with_time` promises out."""

from collections.abc import AsyncIterator, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from streamcore.events import Event, Watermark
from streamcore.types import TP


class FakeRecord(NamedTuple):
    """What a record of the log has."""

    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Idle(NamedTuple):
    """The source says nothing, and the clock moves event time to here."""

    until_ms: int


def event(key: Any, at_ms: int, value: Any, offset: int = 0, written_ms: int | None = None) -> Event:
    record = FakeRecord(offset, at_ms if written_ms is None else written_ms)
    return Event(TP("readings", 0), record, key, value, at_ms)


class FakeState(MutableMapping[str, Any]):
    """Rows as bytes: what is not JSON, or is changed in place without being assigned, does not survive."""

    def __init__(self, rows: dict[str, bytes], value_type: Any) -> None:
        self.rows = rows
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(value_type)

    def __getitem__(self, key: str) -> Any:
        return self._decoder.decode(self.rows[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self.rows[key] = msgspec.json.encode(value)

    def __delitem__(self, key: str) -> None:
        del self.rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.rows))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Kept:
    """What outlives a process."""

    rows: dict[str, bytes] = field(default_factory=dict)
    watermark_ms: int = -1

    def copy(self) -> "Kept":
        return Kept(dict(self.rows), self.watermark_ms)


class FakeStream:
    """Event time is the newest timestamp seen, and moves just before the event that moves it."""

    def __init__(self, items: Iterable[Event | Idle], kept: Kept | None = None) -> None:
        self.items = list(items)
        self.kept = kept or Kept()
        self.wake_ms: int | None = None

    @property
    def watermark_ms(self) -> int:
        return self.kept.watermark_ms

    def state(self, name: str, *, value_type: Any = None) -> FakeState:
        return FakeState(self.kept.rows, value_type)

    def wake_at(self, time_ms: int) -> None:
        self.wake_ms = time_ms if self.wake_ms is None else min(self.wake_ms, time_ms)

    def _moved_to(self, time_ms: int) -> Iterator[Watermark]:
        self.kept.watermark_ms = max(self.watermark_ms, time_ms)
        while self.wake_ms is not None and self.wake_ms <= self.watermark_ms:
            self.wake_ms = None
            yield Watermark(self.watermark_ms)

    async def with_time(self) -> AsyncIterator[Event | Watermark]:
        for item in self.items:
            if isinstance(item, Idle):
                for watermark in self._moved_to(item.until_ms):
                    yield watermark
                continue
            for watermark in self._moved_to(item.timestamp):
                yield watermark
            yield item
