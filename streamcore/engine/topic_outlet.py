"""Topics outside of agents: what a page, a timer or a script sends and reads."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from streamcore.engine.producer import Producer
from streamcore.engine.services import Services
from streamcore.errors import DecodeError, OffsetOutOfRangeError
from streamcore.events import Event
from streamcore.topics import Topic
from streamcore.transport.base import EARLIEST, LATEST, Fetched
from streamcore.types import TP

TAIL_RETRY_S = 0.2  # after an error at one of the partitions


class TopicOutlet:
    """The `Outlet` of a running worker's topics."""

    def __init__(self, services: Services, producer: Producer) -> None:
        self._services = services
        self._producer = producer

    async def send(self, topic: Topic, *record: Any) -> Any:
        return await self._producer.send(topic, *record)

    def send_soon(self, topic: Topic, *record: Any) -> Any:
        return self._producer.send_soon(topic, *record)

    async def tail(self, topic: Topic, since_ms: int | None) -> AsyncIterator[Event]:
        """Records of all partitions as they come; those that do not decode are left out."""
        transport, services = self._services.transport, self._services
        tps = self._partitions_of(topic)
        when_ms = LATEST if since_ms is None else services.clock.now_ms() - since_ms
        positions = dict(await transport.list_offsets(tps, when_ms))
        while True:
            for part in await transport.fetch(positions, max_wait_ms=30_000):
                if isinstance(part.error, OffsetOutOfRangeError):
                    # Retention was quicker, or the log is shorter than it was.
                    low, high = part.error.log_start_offset, part.error.log_end_offset
                    positions[part.tp] = low if positions[part.tp] < low else high
                    continue
                if part.error is not None:
                    await asyncio.sleep(TAIL_RETRY_S)
                    continue
                positions[part.tp] = part.next_offset
                for event in _decoded(topic, part):
                    yield event

    async def history(self, topic: Topic) -> AsyncIterator[Event]:
        """Every record that is there now; those that do not decode are left out."""
        transport = self._services.transport
        tps = self._partitions_of(topic)
        positions = dict(await transport.list_offsets(tps, EARLIEST))
        ends = await transport.list_offsets(tps, LATEST)
        for tp in tps:
            while positions[tp] < ends[tp]:
                fetched = await transport.fetch({tp: positions[tp]}, max_wait_ms=0)
                if not fetched:
                    break
                if fetched[0].error is not None:
                    raise fetched[0].error
                positions[tp] = fetched[0].next_offset
                for event in _decoded(topic, fetched[0]):
                    if event.offset < ends[tp]:
                        yield event

    def _partitions_of(self, topic: Topic) -> list[TP]:
        return [TP(topic.name, partition) for partition in range(self._services.partitions(topic.name))]


def _decoded(topic: Topic, part: Fetched) -> Iterator[Event]:
    for record in part.records:
        try:
            value = None if record.value is None else topic.value_codec.loads(record.value)
            key = None if record.key is None else topic.key_codec.loads(record.key)
        except DecodeError:
            continue
        yield Event(part.tp, record, key, value, record.timestamp)
