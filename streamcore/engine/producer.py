"""Sends records that belong to no event: those of sources, timers and tasks."""

import asyncio
from collections.abc import Mapping

from streamcore.engine.services import Services, logger
from streamcore.errors import (
    BatchTooLargeError,
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    RecordTooLargeError,
    StreamcoreError,
    UnknownTopicError,
    UsageError,
)
from streamcore.topics import SentRecord, Topic
from streamcore.types import TP, Headers, OutRecord

LINGER_S = 0.002  # records that come within this time go as one batch
# Above this many waiting records `send` waits: a source is slowed down instead of filling memory.
QUEUE_MAX_RECORDS = 20_000
RETRY_MAX_S = 5.0

# Trying again does not help: the record itself, or its topic, is the reason.
_FINAL = (
    BatchTooLargeError, CorruptRecordError, InvalidRecordError, InvalidTimestampError, RecordTooLargeError,
    UnknownTopicError, UsageError,
)  # fmt: skip

_Entry = tuple[OutRecord, asyncio.Future[SentRecord]]


class Producer:
    """One queue per partition, emptied by one task."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._queues: dict[TP, list[_Entry]] = {}
        self._count = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._flushing: asyncio.Task[bool] | None = None
        self._turn = 0  # of keyless records; they change the partition with every batch (KIP-480)
        self.failing: str | None = None

    async def send(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> "asyncio.Future[SentRecord]":
        """Queue a record; waits only while the queue is full."""
        while not self._room.is_set():
            await self._room.wait()
        return self.send_soon(topic, partition, key, value, time_ms, headers)

    def send_soon(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        time_ms: int | None,
        headers: Headers,
    ) -> "asyncio.Future[SentRecord]":
        """Queue a record.

        Raises:
            RecordTooLargeError, UsageError
        """
        services = self._services
        services.check_known(topic)
        services.check_size(topic, key, value, headers)
        count = services.partitions(topic.name)
        if partition is None:
            partition = services.partition_for(topic.name, key) if key is not None else self._turn % count
        elif not 0 <= partition < count:
            raise UsageError(f"topic {topic.name} has partitions 0 to {count - 1}, not {partition}")
        record = (key, value, services.clock.now_ms() if time_ms is None else time_ms, headers)
        future: asyncio.Future[SentRecord] = asyncio.get_running_loop().create_future()
        # Nobody has to await the acknowledgement; an error is logged and counted in any case.
        future.add_done_callback(_retrieve)
        self._queues.setdefault(TP(topic.name, partition), []).append((record, future))
        self._count += 1
        if self._count >= QUEUE_MAX_RECORDS:
            self._room.clear()
        self._ready.set()
        return future

    @property
    def is_empty(self) -> bool:
        return self._count == 0

    async def run(self) -> None:
        """Send what is queued, for ever; records that the log does not take at the moment stay queued, in order."""
        delay = 0.0
        while True:
            await self._ready.wait()
            await asyncio.sleep(max(LINGER_S, delay))
            self._ready.clear()
            self._flushing = asyncio.create_task(self.flush(), name="producer flush")
            # A stop must not tear a request to the log: nobody would know which of its records are there.
            failed = await asyncio.shield(self._flushing)
            delay = min(RETRY_MAX_S, max(0.05, delay * 2)) if failed else 0.0
            if failed:
                self._ready.set()

    async def finish(self) -> None:
        """Send what is still queued, once."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing})
        if await self.flush():
            logger.error("%d records could not be sent before the stop: %s", self._count, self.failing)

    async def flush(self) -> bool:
        """Send what is queued now.

        Returns:
            Whether something has to be tried again.
        """
        taken, self._queues = self._queues, {}
        self._turn += 1
        if not taken:
            return False
        results = await self._produce(taken)
        failing: str | None = None
        for tp, entries in taken.items():
            result = results[tp]
            if isinstance(result, StreamcoreError):
                self._services.metrics.produce_errors[(tp.topic,)] += len(entries)
                if not isinstance(result, _FINAL):
                    failing = f"{tp}: {result}"
                    self._queues[tp] = entries + self._queues.get(tp, [])
                    continue
                if len(entries) > 1:
                    left = await self._one_by_one(tp, entries)
                    if left:
                        failing = f"{tp}: {result}"
                        self._queues[tp] = left + self._queues.get(tp, [])
                        self._count += len(left)
                else:
                    await self._refuse(tp, entries[0], result)
            else:
                for index, (record, future) in enumerate(entries):
                    if not future.done():
                        future.set_result(SentRecord(tp.topic, tp.partition, result + index, record[2]))
            self._count -= len(entries)
        if failing is not None and self.failing is None:
            logger.error("the log does not take records, trying on: %s", failing)
        self.failing = failing
        if self._count < QUEUE_MAX_RECORDS:
            self._room.set()
        return failing is not None

    async def _produce(self, taken: dict[TP, list[_Entry]]) -> Mapping[TP, int | StreamcoreError]:
        try:
            return await self._services.transport.produce(
                {tp: [record for record, _ in entries] for tp, entries in taken.items()}
            )
        except StreamcoreError as error:
            return dict.fromkeys(taken, error)
        except OSError as error:
            return dict.fromkeys(taken, StreamcoreError(f"{type(error).__name__}: {error}"))

    async def _one_by_one(self, tp: TP, entries: list[_Entry]) -> list[_Entry]:
        """One bad record must not take its neighbours with it; those that have to be tried again."""
        for index, entry in enumerate(entries):
            result = (await self._produce({tp: [entry]}))[tp]
            if isinstance(result, _FINAL):
                await self._refuse(tp, entry, result)
            elif isinstance(result, StreamcoreError):
                return entries[index:]
            elif not entry[1].done():
                entry[1].set_result(SentRecord(tp.topic, tp.partition, result, entry[0][2]))
        return []

    async def _refuse(self, tp: TP, entry: _Entry, error: StreamcoreError) -> None:
        (key, value, time_ms, headers), future = entry
        logger.error("%s refuses a record: %s", tp, error)
        if not future.done():
            future.set_exception(error)
        letter = self._services.dead_letter("", tp, -1, key, value, time_ms, headers, error, 1)
        self._services.metrics.dead_letters[("", tp.topic)] += 1
        await self._produce({TP(self._services.dead_letter_topic, 0): [(letter, future)]})


def _retrieve(future: "asyncio.Future[SentRecord]") -> None:
    if not future.cancelled():
        future.exception()
