"""Topics as an app declares them: a name, types, and how the log should keep them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from streamcore.codecs import codec_for
from streamcore.config import Seconds, milliseconds
from streamcore.context import current_cursor
from streamcore.errors import UsageError
from streamcore.events import Event
from streamcore.models import field_name
from streamcore.types import Headers
from streamcore.windows import to_ms, value_time

HeadersArg = Mapping[str, bytes | str] | Sequence[tuple[str, bytes]] | None


class SentRecord(NamedTuple):
    """Where a sent record landed (Faust's RecordMetadata)."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # Unix ms

    @property
    def topic_partition(self) -> tuple[str, int]:
        return self.topic, self.partition


class Outlet(Protocol):
    """What a running worker offers to topics used outside of an agent."""

    async def send(
        self,
        topic: "Topic",
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> Awaitable[SentRecord]: ...

    def send_soon(
        self,
        topic: "Topic",
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> Awaitable[SentRecord]: ...

    def tail(self, topic: "Topic", since_ms: int | None) -> AsyncIterator[Event]: ...
    def history(self, topic: "Topic") -> AsyncIterator[Event]: ...


def headers_of(headers: HeadersArg) -> Headers:
    if not headers:
        return ()
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in items]


def _key_function(key: Any, where: str) -> Callable[[Any], Any]:
    if field_name(key) is not None:
        get: Callable[[Any], Any] = key.__get__
        return get
    if callable(key):
        function: Callable[[Any], Any] = key
        return function
    raise UsageError(f"{where}: key= is Model.field or a function of the value, not {key!r}")


class Topic:
    """A topic of the app's log.

    Args:
        name: 1 to 249 letters, digits, '.', '_' or '-'.
        key_type, value_type: bytes, str, a Record, any type JSON can hold, or None (keys: bytes as they are,
            values: any JSON value).
        partitions: how many to create it with; an existing topic keeps its own count.
        retention: how long records are kept; by default the log's own week.
        compacting: keep the newest record of every key instead.
        config: further settings under Kafka's names.
        key: how a value sent without a key gets one; by default the current event's.
        event_time: where the event's time is in a value; by default the record's timestamp.
    """

    def __init__(
        self,
        name: str,
        *,
        key_type: Any = None,
        value_type: Any = None,
        key_serializer: str | None = None,
        value_serializer: str | None = None,
        partitions: int | None = None,
        retention: Seconds | None = None,
        compacting: bool = False,
        deleting: bool = False,
        config: Mapping[str, str] | None = None,
        key: Any = None,
        event_time: Any = None,
        internal: bool = False,
    ) -> None:
        self.name = name
        self.key_type = key_type
        self.value_type = value_type
        # An untyped key is bytes, as in Faust: most keys are, and JSON would quote text.
        self.key_codec = codec_for(bytes if key_type is None else key_type, key_serializer)
        self.value_codec = codec_for(value_type, value_serializer)
        self._dumps_value = self.value_codec.dumps
        self.partitions = partitions
        self.internal = internal
        self.config = dict(config or {})
        if retention is not None:
            self.config.setdefault("retention.ms", str(milliseconds(retention, f"topic {name}: retention")))
        if compacting:
            self.config.setdefault("cleanup.policy", "compact,delete" if deleting else "compact")
        self.key_of = None if key is None else _key_function(key, f"topic {name}")
        self.time_of = None if event_time is None else value_time(event_time)
        self.outlet: Outlet | None = None

    def encode(
        self, key: Any, value: Any, timestamp: float | datetime | None
    ) -> tuple[bytes | None, bytes | None, int | None]:
        if key is None and self.key_of is not None and value is not None:
            key = self.key_of(value)
        return (
            None if key is None else self.encode_key(key),
            None if value is None else self.encode_value(value),
            None if timestamp is None else to_ms(timestamp),
        )

    def encode_key(self, key: Any) -> bytes:
        if isinstance(key, bytes):
            return key
        try:
            return self.key_codec.dumps(key)
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"topic {self.name} cannot hold the key {key!r}: {error}") from error

    def encode_value(self, value: Any) -> bytes:
        try:
            return value if isinstance(value, bytes) else self._dumps_value(value)
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"topic {self.name} cannot hold the value {value!r:.200}: {error}") from error

    def _outlet(self) -> Outlet:
        if self.outlet is None:
            raise UsageError(
                f"topic {self.name} is not connected: start the app's worker, or use it in `async with app`"
            )
        return self.outlet

    async def send(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | datetime | None = None,
        headers: HeadersArg = None,
    ) -> Awaitable[SentRecord]:
        """Send a record; await what comes back to learn its offset.

        Inside an agent the record leaves with the agent's next commit; elsewhere within a few milliseconds.

        Args:
            value: None is a tombstone; bytes go as they are.
            partition: by default by the key, as Kafka's own clients choose it.
            timestamp: Unix seconds or a datetime; by default the current event's time, or now.
        Raises:
            UsageError: the topic's types cannot hold it.
            RecordTooLargeError: larger than the topic's max.message.bytes.
        """
        encoded = self.encode(key, value, timestamp)
        cursor = current_cursor.get()
        if cursor is not None:
            return cursor.send(self, partition, *encoded, headers_of(headers))
        return await self._outlet().send(self, partition, *encoded, headers_of(headers))

    def send_soon(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | datetime | None = None,
        headers: HeadersArg = None,
    ) -> Awaitable[SentRecord]:
        """As `send`, from code that cannot wait: nothing slows down the caller when the log is slow.

        Raises:
            UsageError, RecordTooLargeError: as `send`.
        """
        encoded = self.encode(key, value, timestamp)
        cursor = current_cursor.get()
        if cursor is not None:
            return cursor.send(self, partition, *encoded, headers_of(headers))
        return self._outlet().send_soon(self, partition, *encoded, headers_of(headers))

    def tail(self, *, since: Seconds | None = None) -> AsyncIterator[Event]:
        """Every record of every partition from now on, without a group: for pages and watchers.

        Args:
            since: begin this many seconds back; by default with what comes next.
        """
        return self._outlet().tail(self, None if since is None else milliseconds(since, "since"))

    def history(self) -> AsyncIterator[Event]:
        """Every record that the topic holds now, partition by partition, without a group."""
        return self._outlet().history(self)

    def __repr__(self) -> str:
        return f"<Topic {self.name}>"
