"""What an agent sees of a record: its event."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamcore.types import TP, Headers, InRecord

if TYPE_CHECKING:
    from streamcore.topics import Topic


class Message(NamedTuple):
    """The record behind an event, as it lies on the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # Unix ms
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def tp(self) -> TP:
        return TP(self.topic, self.partition)


class Watermark(NamedTuple):
    """Event time has reached this moment: nothing older is expected any more."""

    timestamp_ms: int


# A struct is made in half the time of a class with slots; the collector need not look at it, since nothing that an
# event holds points back at it.
class Event(msgspec.Struct, eq=False, gc=False):
    """One decoded record."""

    tp: TP
    _record: InRecord
    key: Any
    value: Any
    timestamp: int  # event time, Unix ms

    @property
    def message(self) -> Message:
        record = self._record
        return Message(
            self.tp.topic, self.tp.partition, record.offset, record.timestamp, record.key, record.value, record.headers
        )

    @property
    def raw_key(self) -> bytes | None:
        """The key's bytes, as they lie on the log."""
        return self._record.key

    @property
    def offset(self) -> int:
        return self._record.offset

    @property
    def headers(self) -> dict[str, bytes]:
        """The last value of each header; `message.headers` has them all."""
        return dict(self._record.headers)

    async def forward(self, channel: "Topic", **changes: Any) -> Awaitable[Any]:
        """Send the record on as it is, bytes untouched, to another topic."""
        message = self.message
        raw = {
            "key": message.key,
            "value": message.value,
            "headers": message.headers,
            "timestamp": self.timestamp / 1000,
        }
        return await channel.send(**{**raw, **changes})

    def __repr__(self) -> str:
        return f"<Event {self.tp}@{self.offset} key={self.key!r} value={self.value!r}>"
