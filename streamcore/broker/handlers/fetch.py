"""Fetch 4-18: stored batches as they are, waiting for `min_bytes` or `max_wait_ms`; sessions (KIP-227).

Who reads committed records only gets the batches below the last stable offset, aborted ones among them, and is told
which transactions these belong to (KIP-98). Left out: followers, rack awareness.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from streamcore.broker.fetch_sessions import FINAL_EPOCH, FetchSession
from streamcore.broker.handlers.partition_offsets import READ_COMMITTED
from streamcore.broker.requests import Context
from streamcore.errors import OffsetOutOfRangeError, StreamcoreError
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import PartitionLog
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Fetch = messages.Fetch
_Partition = _Fetch.PartitionData
_BY_ID_FROM = 13
LEADER_EPOCH = 0  # of a node that has always led
# By topic, as its name or id says; in the order in which the partitions have their turn.
_Asked = list[tuple[str | UUID, list[Any]]]  # FetchPartitions
_Served = tuple[str, int, int]  # topic, offsets, bytes; -1 offsets where it failed
_Answers = list[tuple[str | UUID, list[Any]]]  # PartitionData


async def fetch(broker: "Broker", request: Any, context: Context) -> Any:
    by_id = context.version >= _BY_ID_FROM
    asked: _Asked = [(topic.topic_id if by_id else topic.topic, topic.partitions) for topic in request.topics]
    session: FetchSession | int = ErrorCode.NONE
    if request.session_epoch != FINAL_EPOCH or request.session_id:
        session = broker.fetch_sessions.begin(
            request.session_id,
            request.session_epoch,
            by_id=by_id,
            asked=[
                ((topic, partition.partition), partition) for topic, partitions in asked for partition in partitions
            ],
            forgotten=[
                (topic.topic_id if by_id else topic.topic, partition)
                for topic in request.forgotten_topics_data
                for partition in topic.partitions
            ],
        )
    if isinstance(session, FetchSession):
        return await _fetch_in_session(broker, request, session)
    if session != ErrorCode.NONE:
        return _Fetch.Response(error_code=session)
    if not asked:
        return _Fetch.Response()

    async def wait(max_wait_ms: float) -> bool:
        named = [(_name(broker, topic), partitions) for topic, partitions in asked]
        tps = [TP(name, p.partition) for name, partitions in named if name is not None for p in partitions]
        return await broker.node.wait_for_records(tps, max_wait_ms)

    return _response(0, by_id, await _read_until(broker, request, lambda: asked, wait))


async def _fetch_in_session(broker: "Broker", request: Any, session: FetchSession) -> Any:
    answers = await _read_until(broker, request, lambda: _due(broker, session), session.watch.wait)
    keyed = (((topic, answer.partition_index), answer) for topic, found in answers for answer in found)
    told: dict[str | UUID, list[Any]] = {}
    for (topic, _), answer in session.answered(keyed):
        told.setdefault(topic, []).append(answer)
    return _response(session.id, session.by_id, list(told.items()))


def _due(broker: "Broker", session: FetchSession) -> _Asked:
    found: _Asked = []
    last: Any = None
    for key in session.due():
        partition = session.partitions[key]
        if partition.watched is None and not session.has_ended and (name := _name(broker, key[0])) is not None:
            partition.watched = TP(name, key[1])
            broker.node.watch(partition.watched, session.watch, key)
        if key[0] != last:
            last = key[0]
            found.append((last, []))
        found[-1][1].append(partition.asked)
    return found


async def _read_until(
    broker: "Broker", request: Any, asked: Callable[[], _Asked], wait: Callable[[float], Awaitable[bool]]
) -> _Answers:
    """Read until there is as much as the request wants, or its time is up."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + request.max_wait_ms / 1000
    while True:
        served: list[_Served] = []
        answers, size, failed = _read(broker, request, asked(), served)
        remaining_s = deadline_s - loop.time()
        if size >= request.min_bytes or failed or remaining_s <= 0 or broker.node.is_stopping:
            break
        if not await _counted(broker, wait(remaining_s * 1000)):
            served = []
            answers, _, _ = _read(broker, request, asked(), served)
            break
    # What was read before a wait was not sent.
    _count(broker, served)
    return answers


async def _counted(broker: "Broker", wait: Awaitable[bool]) -> bool:
    counters, started_s = broker.counters, perf_counter()
    counters.waiting_fetches += 1
    try:
        return await wait
    finally:
        counters.waiting_fetches -= 1
        counters.fetch_wait_s += perf_counter() - started_s


def _count(broker: "Broker", served: list[_Served]) -> None:
    for name, offsets, size in served:
        counters = broker.node.counters_of(name)
        if offsets < 0:
            counters.failed_fetches += 1
        else:
            counters.records_out += offsets
            counters.bytes_out += size


def _name(broker: "Broker", topic: Any) -> str | None:
    if type(topic) is str:
        return topic
    meta = broker.topic_by_id(topic)
    return meta.name if meta is not None else None


def _read(broker: "Broker", request: Any, asked: _Asked, served: list[_Served]) -> tuple[_Answers, int, bool]:
    """(what to answer, bytes in it, whether something is wrong and must not wait); `served` gets what is to count."""
    left = min(max(request.max_bytes, 0), broker.config.fetch_max_bytes)
    read_partition = _committed_partition if request.isolation_level == READ_COMMITTED else _partition
    size = 0
    failed = False
    answers: _Answers = []
    directory = broker.node.directory
    for topic, partitions in asked:
        name = _name(broker, topic)
        found: list[Any] = []
        for partition in partitions:
            answer = read_partition(directory, name, partition, left, served, is_first=size == 0)
            found.append(answer)
            if answer.error_code:
                failed = True
            read = len(answer.records)
            size += read
            left -= read
        answers.append((topic, found))
    return answers, size, failed


def _response(session_id: int, by_id: bool, answers: _Answers) -> Any:
    named = "topic_id" if by_id else "topic"
    responses = [_Fetch.FetchableTopicResponse(**{named: topic}, partitions=found) for topic, found in answers]
    return _Fetch.Response(session_id=session_id, responses=responses)


def _partition(
    directory: LogDirectory,
    name: str | None,
    asked: Any,
    left: int,
    served: list[_Served],
    *,
    is_first: bool,
    is_committed_only: bool = False,
) -> Any:
    index = asked.partition
    if name is None:
        return _failed(index, ErrorCode.UNKNOWN_TOPIC_ID)
    try:
        log = directory.log(name, index)
        if asked.current_leader_epoch > LEADER_EPOCH:
            return _failed(index, ErrorCode.UNKNOWN_LEADER_EPOCH)
        offset, high_watermark = asked.fetch_offset, log.high_watermark
        records: bytes | memoryview = b""
        if left > 0 or is_first:
            # The first batch comes whole, whatever its size (KIP-74).
            max_bytes = min(asked.partition_max_bytes, max(left, 0))
            records = log.read(offset, max_bytes, is_committed_only=is_committed_only)
            if len(records) > left and not is_first:
                records = b""
            if len(records):
                served.append((name, log.read_end_offset - offset, len(records)))
        elif not log.log_start_offset <= offset <= high_watermark:
            raise OffsetOutOfRangeError(offset, log.log_start_offset, high_watermark)
        return _Partition(
            partition_index=index,
            high_watermark=high_watermark,
            last_stable_offset=log.last_stable_offset,
            log_start_offset=log.log_start_offset,
            aborted_transactions=_aborted(log, offset, len(records)) if is_committed_only else None,
            records=records,
        )
    except StreamcoreError as error:
        served.append((name, -1, 0))
        return _failed(index, error.code)


_committed_partition = partial(_partition, is_committed_only=True)


def _aborted(log: PartitionLog, offset: int, size_bytes: int) -> list[Any]:
    """The aborted transactions that have records in what was read."""
    if not size_bytes:
        return []
    return [
        _Fetch.AbortedTransaction(producer_id=aborted.producer_id, first_offset=aborted.first_offset)
        for aborted in log.aborted_transactions(offset, log.read_end_offset)
    ]


def _failed(index: int, code: int) -> Any:
    return _Partition(partition_index=index, error_code=code, high_watermark=-1, aborted_transactions=None, records=b"")


HANDLERS = {_Fetch: fetch}
