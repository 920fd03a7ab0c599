"""What a log says of itself: topics, groups and how far they are behind. JSON-able, for pages and tools."""

import asyncio
from typing import Any

import orjson

from streamcore.clock import Clock
from streamcore.transport.base import PartitionInfo, Transport, consumed
from streamcore.transport.lag_times import LagTimes
from streamcore.types import TP


class LogStatus:
    """Asks a transport."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self._clock = clock
        self.lag_times = LagTimes(transport)

    async def topics(self, partitions: dict[TP, PartitionInfo]) -> list[dict[str, Any]]:
        """Every topic with its partitions."""
        return [
            {
                "name": name,
                "internal": info.internal,
                "config": dict(info.config),
                "partitions": [
                    {
                        "partition": number,
                        "log_start_offset": place.log_start_offset,
                        "log_end_offset": place.log_end_offset,
                        "size_bytes": place.size_bytes,
                        "offline": place.offline,
                    }
                    for number in range(info.partitions)
                    if (place := partitions.get(TP(name, number))) is not None
                ],
            }
            for name, info in sorted((await self.transport.topics()).items())
        ]

    async def groups(self, partitions: dict[TP, PartitionInfo]) -> list[dict[str, Any]]:
        """Every group with what it has committed."""
        found: list[dict[str, Any]] = []
        for name in sorted(await self.transport.groups()):
            found.append(await self.group(name, partitions))
            # An embedded log answers at once: whoever else is served by this loop gets a turn in between.
            await asyncio.sleep(0)
        return found

    async def group(self, group: str, partitions: dict[TP, PartitionInfo]) -> dict[str, Any]:
        """One group: per partition what is committed, and how far that is behind in records and in time.

        `lag_ms` is None where it is not known; of the group it is the worst that is.
        """
        committed = {
            tp: place.offset
            for tp, place in consumed(await self.transport.committed(group)).items()
            if tp in partitions
        }
        # What retention has taken nobody can consume: the oldest record is the first there is.
        positions = {tp: max(offset, partitions[tp].log_start_offset) for tp, offset in committed.items()}
        ends = {tp: partitions[tp].log_end_offset for tp in committed}
        lag_times = await self.lag_times.of(positions, ends, self._clock.now_ms())
        rows: list[dict[str, Any]] = [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "committed_offset": offset,
                "log_end_offset": ends[tp],
                "lag": max(0, ends[tp] - offset),
                "lag_ms": lag_times.get(tp),
            }
            for tp, offset in sorted(committed.items())
        ]
        return {
            "group": group,
            "lag": sum(row["lag"] for row in rows),
            "lag_ms": max((row["lag_ms"] for row in rows if row["lag_ms"] is not None), default=None if rows else 0),
            "partitions": rows,
        }

    async def records(self, topic: str, partition: int, offset: int, count: int) -> list[dict[str, Any]]:
        """Up to `count` records from `offset`, readable.

        Raises:
            UnknownTopicError, OffsetOutOfRangeError
        """
        tp = TP(topic, partition)
        records: list[dict[str, Any]] = []
        while len(records) < count:
            fetched = await self.transport.fetch({tp: offset}, max_bytes=256 << 10, max_wait_ms=0)
            if not fetched:
                break
            if fetched[0].error is not None:
                raise fetched[0].error
            for record in fetched[0].records[: count - len(records)]:
                records.append(
                    {
                        "offset": record.offset,
                        "timestamp": record.timestamp,
                        "key": readable(record.key),
                        "value": readable(record.value),
                        "headers": [[name, value.decode(errors="replace")] for name, value in record.headers],
                    }
                )
            if fetched[0].next_offset <= offset:
                break
            offset = fetched[0].next_offset
        return records


def readable(data: bytes | None) -> Any:
    """A key or value for people: its JSON, its text, or its bytes as Python writes them."""
    if data is None:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return repr(data)
