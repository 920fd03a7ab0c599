"""What an agent gives out, on its way into the outbox: yielded to a sink, sent, or forwarded as it came."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from streamcore.engine.inputs import NO_TIME
from streamcore.errors import UsageError
from streamcore.events import Event
from streamcore.records.partitioner import partition_for
from streamcore.topics import Topic
from streamcore.types import TP, Headers

if TYPE_CHECKING:
    from streamcore.engine.cursor import Cursor
    from streamcore.engine.group import Sent
    from streamcore.engine.run import Run


def emit(run: "Run", cursor: "Cursor", topic: Topic, output: Any) -> None:
    """Send a yielded value to a sink: under the topic's key, or under the current event's."""
    key: bytes | None
    event = cursor.row
    if topic.key_of is not None and output is not None:
        key = topic.encode_key(topic.key_of(output))
    elif event is not None:
        key = event.raw_key
    else:
        key = cursor.chunk.records[cursor.index].key if cursor.chunk is not None else None
    value = None if output is None else topic.encode_value(output)
    # As `send`, without what only a caller who awaits the place on the log needs: most outputs come this way.
    services = run.services
    target = services.target(topic)
    if len(key or b"") + len(value or b"") > target.safe_bytes:
        services.check_size(topic, key, value, ())
    count = len(target.places)
    partition = partition_for(key, count) if key is not None else run.task.partition % count
    time_ms = event.timestamp if event is not None and run.closing_ms is None else cursor.time_ms()
    # Event time is seldom ahead of the clock, and the clock was read not long ago.
    if time_ms > run.last_progress_ms:
        services.check_time(topic, time_ms)
    elif time_ms <= NO_TIME:
        time_ms = services.clock.now_ms()
    run.group.put(target.places[partition], (key, value, time_ms, ()))


def send(
    run: "Run",
    topic: Topic,
    partition: int | None,
    key: bytes | None,
    value: bytes | None,
    time_ms: int,
    headers: Headers,
) -> Awaitable[Any]:
    """Put a record into the outbox.

    Raises:
        RecordTooLargeError, UsageError
    """
    services = run.services
    services.check_known(topic)
    services.check_size(topic, key, value, headers)
    # Event time is seldom ahead of the clock, and the clock was read not long ago.
    if time_ms > run.last_progress_ms:
        services.check_time(topic, time_ms)
    count = services.partitions(topic.name)
    if partition is None:
        # A record without a key stays with its slice: the same place at every replay.
        partition = services.partition_for(topic.name, key) if key is not None else run.task.partition % count
    elif not 0 <= partition < count:
        raise UsageError(f"topic {topic.name} has partitions 0 to {count - 1}, not {partition}")
    if time_ms <= NO_TIME:
        time_ms = services.clock.now_ms()
    return run.group.send(TP(topic.name, partition), (key, value, time_ms, headers))


def forward(run: "Run", topic: Topic, event: Event) -> "Sent":
    """Send an event's record on as it was."""
    services, message = run.services, event.message
    services.check_known(topic)
    services.check_size(topic, message.key, message.value, message.headers)
    count = services.partitions(topic.name)
    partition = (
        services.partition_for(topic.name, message.key) if message.key is not None else run.task.partition % count
    )
    origin = [("streamcore.topic", message.topic.encode()), ("streamcore.offset", str(message.offset).encode())]
    return run.group.send(
        TP(topic.name, partition), (message.key, message.value, message.timestamp, [*message.headers, *origin])
    )
