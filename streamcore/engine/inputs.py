"""One partition as an agent's input: what was fetched and not yet handed out, decoded a chunk at a time."""

from collections.abc import Callable
from itertools import accumulate
from operator import attrgetter
from typing import Any

from streamcore.errors import CorruptRecordError, DecodeError
from streamcore.events import Event
from streamcore.topics import Topic
from streamcore.transport.base import Fetched, Records
from streamcore.types import TP, InRecord

NO_TIME = -(1 << 62)  # a watermark before all events
FOREVER = 1 << 62  # a deadline after all events

_timestamp = attrgetter("timestamp")
_NOTHING = Records()
KEYS_REMEMBERED = 10_000
_UNCHANGEABLE = (str, bytes, int)


class Chunk:
    """Some records of one input, decoded. With `error`, the one record that cannot be."""

    __slots__ = ("error", "next_offset", "records", "timestamps", "values", "watermarks")

    def __init__(self, records: list[InRecord], values: list[Any], error: DecodeError | None = None) -> None:
        self.records = records
        self.values = values
        self.error = error
        self.next_offset = records[-1].offset + 1
        self.timestamps: list[int] | None = None  # event times, Unix ms; made when somebody asks
        self.watermarks: list[int] | None = None  # the watermark as of each record, itself included


class Input:
    """A cursor over one partition.

    `position` is the offset of the first record that is not done. Records between it and what was fetched wait in
    memory; there is one fetch of them at most.
    """

    def __init__(self, tp: TP, topic: Topic, now_ms: int) -> None:
        self.tp = tp
        self.topic = topic
        self.position = 0
        self.fetch_position = 0
        self.high_watermark = -1  # the log's end as of the last fetch; -1 before the first
        self.log_start_offset = 0
        self.max_timestamp_ms = NO_TIME
        self.idle = False
        self.last_data_ms = now_ms  # wall clock; also the start, from which silence is counted
        self._source = _NOTHING  # what was fetched and is not decoded yet
        self._ready: list[InRecord] = []  # decoded and not in a chunk yet
        self._loads: Callable[[bytes], Any] | None = None if topic.value_type is bytes else topic.value_codec.loads_fast
        self.chunk: Chunk | None = None  # of peek() and advance()
        self.index = 0
        self.head_ms: int | None = None  # event time of the record that peek() shows; None where it shows none
        self.head_times: list[int] = []  # event times of the chunk that peek() shows from
        self.keys: dict[bytes | None, Any] = {None: None}  # decoded keys that `key` remembers

    def seek(self, offset: int) -> None:
        """Begin again at `offset`."""
        self.position = self.fetch_position = offset
        self._source = _NOTHING
        self._ready = []
        self.chunk = self.head_ms = None

    def offer(self, fetched: Fetched, now_ms: int) -> bool:
        """Take in a fetch's records, if there are any; only when the ones before have been handed out."""
        self._ready = fetched.reader.take()
        self._source = fetched.reader
        self.fetch_position = fetched.next_offset
        self.high_watermark = fetched.high_watermark
        self.log_start_offset = fetched.log_start_offset
        if self._ready:
            self.last_data_ms = now_ms
            self.idle = False
            return True
        self._source = _NOTHING
        if self.chunk is None:
            # Nothing but a gap (compaction, control batches): it counts as done.
            self.position = fetched.next_offset
        return False

    @property
    def is_empty(self) -> bool:
        return not self._ready and self._source is _NOTHING and self.chunk is None

    @property
    def is_caught_up(self) -> bool:
        """Everything the log had at the last fetch has been handed out."""
        return self.is_empty and 0 <= self.high_watermark <= self.fetch_position

    def next_chunk(self) -> Chunk | None:
        """The next records, decoded, or None where the next fetch is due."""
        records = self._ready or self._take()
        if not records:
            return None
        loads = self._loads
        try:
            if loads is None:
                values = [record.value for record in records]
            else:
                values = [loads(record.value) for record in records]  # type: ignore[arg-type]
        except Exception:  # whatever decoding raises, a tombstone's AttributeError among it: find the record
            return self._careful_chunk(records)
        self._ready = []
        return self._timed(Chunk(records, values))

    def _take(self) -> list[InRecord]:
        try:
            records = self._source.take()
        except CorruptRecordError:
            # The records before it are a chunk that is done by now: the next fetch begins here, and tells of it.
            self.fetch_position = self.position
            records = []
        # A chunk that is not the last of its fetch is full, so this seldom asks once too often.
        if not records or records[-1].offset + 1 >= self.fetch_position:
            self._source = _NOTHING
        return records

    def put_back(self, chunk: Chunk, first: int) -> None:
        """Give the records of the newest chunk out again, from its index `first` on."""
        self._ready = chunk.records[first:] + self._ready
        self.position = chunk.records[first].offset if first < len(chunk.records) else chunk.next_offset

    def _careful_chunk(self, records: list[InRecord]) -> Chunk:
        """As far as the records can be decoded; a tombstone is None, and a bad one is a chunk of its own."""
        values: list[Any] = []
        loads = self.topic.value_codec.loads
        for record in records:
            try:
                values.append(None if record.value is None else loads(record.value))
            except DecodeError as error:
                if not values:
                    self._ready = records[1:]
                    return self._timed(Chunk([record], [None], error))
                break
        self._ready = records[len(values) :]
        return self._timed(Chunk(records[: len(values)], values))

    def _timed(self, chunk: Chunk) -> Chunk:
        time_of = self.topic.time_of
        if time_of is not None and chunk.error is None:
            try:
                chunk.timestamps = [
                    record.timestamp if value is None else time_of(value)
                    for record, value in zip(chunk.records, chunk.values, strict=True)
                ]
            except Exception as error:  # a user's accessor: find the record whose value has no such time
                return self._untimed(chunk, error)
        return chunk

    def _untimed(self, chunk: Chunk, error: Exception) -> Chunk:
        """Keep what comes before the value that has no event time; that one is a bad record of its own."""
        time_of = self.topic.time_of
        assert time_of is not None
        timestamps: list[int] = []
        for record, value in zip(chunk.records, chunk.values, strict=True):
            try:
                timestamps.append(record.timestamp if value is None else time_of(value))
            except Exception as cause:
                error = cause
                break
        count = len(timestamps)
        self._ready = chunk.records[max(count, 1) :] + self._ready
        if count == 0:
            return Chunk(chunk.records[:1], [None], DecodeError(f"the value has no event time: {error}"))
        kept = Chunk(chunk.records[:count], chunk.values[:count])
        kept.timestamps = timestamps
        return kept

    def times(self, chunk: Chunk) -> list[int]:
        """The chunk's event times."""
        if chunk.timestamps is None:
            chunk.timestamps = [record.timestamp for record in chunk.records]
        return chunk.timestamps

    def watermarks(self, chunk: Chunk, before_ms: int) -> list[int]:
        """The watermark as of each record: the greatest event time so far."""
        if chunk.watermarks is None:
            chunk.watermarks = list(accumulate(self.times(chunk), max, initial=before_ms))[1:]
        return chunk.watermarks

    def greatest_time(self, chunk: Chunk) -> int:
        return max(chunk.timestamps) if chunk.timestamps else max(map(_timestamp, chunk.records))

    def key(self, data: bytes | None) -> Any:
        """A decoded key. Keys repeat, so the last ones are remembered where nobody can change them.

        Raises:
            DecodeError: the key is not what the topic's key_type says.
        """
        try:
            return self.keys[data]
        except KeyError:
            assert data is not None, "None is among them"
            key = self.topic.key_codec.loads(data)
            if type(key) in _UNCHANGEABLE:
                if len(self.keys) > KEYS_REMEMBERED:
                    self.keys = {None: None}
                self.keys[data] = key
            return key

    def event(self, chunk: Chunk, index: int) -> Event:
        """The event of one record; its key is decoded now.

        Raises:
            DecodeError: the key is not what the topic's key_type says.
        """
        record = chunk.records[index]
        key = self.key(record.key)
        timestamp = record.timestamp if chunk.timestamps is None else chunk.timestamps[index]
        return Event(self.tp, record, key, chunk.values[index], timestamp)

    # -- one record at a time, for merging several inputs --------------------------------------------------------------

    def peek(self) -> tuple[Chunk, int] | None:
        """The next record's place in its chunk, or None where the next fetch is due."""
        chunk = self.chunk
        if chunk is None:
            chunk = self.chunk = self.next_chunk()
            self.index = 0
            if chunk is None:
                return None
            self.head_times = self.times(chunk)
            self.head_ms = self.head_times[0]
        return chunk, self.index

    def advance(self) -> None:
        """The record that `peek` shows is done; `settle` tells `position`."""
        index = self.index = self.index + 1
        if index < len(self.head_times):
            self.head_ms = self.head_times[index]
            return
        assert self.chunk is not None, "advance follows peek"
        self.position = self.chunk.next_offset
        self.chunk = self.head_ms = None

    def settle(self) -> None:
        """Bring `position` to where `advance` has come."""
        if self.chunk is not None:
            self.position = self.chunk.records[self.index].offset
