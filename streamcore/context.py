"""Where code runs: which agent, on which partition, at which event.

Tables and topics are declared once for the whole app, but a read or a write belongs to one partition and
leaves in that partition's commit. The engine says through this context variable which one it is.
"""

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol

from streamcore.errors import UsageError
from streamcore.types import Headers

if TYPE_CHECKING:
    from streamcore.events import Event
    from streamcore.state.partitions import TablePartition, WindowPartition
    from streamcore.tables import Table
    from streamcore.topics import Topic


class RecordMetadata(Protocol):
    """Where a sent record landed."""

    topic: str
    partition: int
    offset: int


class Cursor(Protocol):
    """One agent's place in one partition, as tables, topics and streams see it."""

    @property
    def partition(self) -> int: ...
    @property
    def value(self) -> Any: ...
    @property
    def index(self) -> int: ...
    @property
    def times(self) -> list[int] | None:
        """Event times (Unix ms) by `index`, where they can be had that way."""

    def event(self) -> "Event | None": ...
    def time_ms(self) -> int:
        """Event time of the current event."""

    def watermark_ms(self) -> int: ...
    def now_ms(self) -> int: ...
    def late(self, policy: "Literal['drop'] | Topic") -> None:
        """The current event came too late for something: count it, and send it on if the policy is a topic."""

    def table(self, table: "Table") -> "TablePartition": ...
    def windows(self, table: "Table") -> "WindowPartition": ...
    def send(
        self,
        topic: "Topic",
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> Awaitable[Any]: ...


current_cursor: ContextVar[Cursor | None] = ContextVar("streamcore_cursor", default=None)


def current_event() -> "Event | None":
    """The event that the running agent is at; None outside of an agent."""
    cursor = current_cursor.get()
    return cursor.event() if cursor is not None else None


def cursor_for(what: str) -> Cursor:
    """The running agent's place.

    Raises:
        UsageError: nothing is running that has one.
    """
    cursor = current_cursor.get()
    if cursor is None:
        raise UsageError(
            f"{what} belongs to an event: call it inside an agent, or give the partition's key another way"
        )
    return cursor
