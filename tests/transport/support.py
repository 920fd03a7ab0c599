"""What the transport's tests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP, OutRecord

NOW_MS = 1_700_000_000_000
A0, A1 = TP("a", 0), TP("a", 1)


@asynccontextmanager
async def opened(
    transport: EmbeddedTransport, topics: dict[str, int] | None = None
) -> AsyncIterator[EmbeddedTransport]:
    """The transport, started, with topics of so many partitions; stopped in the end."""
    await transport.start()
    try:
        known = await transport.topics()
        for name, partitions in (topics or {}).items():
            if name not in known:
                await transport.create_topic(name, partitions=partitions)
        yield transport
    finally:
        await transport.stop()


def records(*values: bytes, timestamp_ms: int = NOW_MS) -> list[OutRecord]:
    return [(b"key", value, timestamp_ms, ()) for value in values]


async def read_all(transport: EmbeddedTransport, tp: TP, offset: int = 0) -> list[tuple[int, bytes | None]]:
    """(offset, value) of everything from `offset` to the present end."""
    found: list[tuple[int, bytes | None]] = []
    while True:
        fetched = await transport.fetch({tp: offset}, max_wait_ms=0)
        if not fetched:
            return found
        (share,) = fetched
        if share.error is not None:
            raise share.error
        found += [(record.offset, record.value) for record in share.records]
        offset = share.next_offset
