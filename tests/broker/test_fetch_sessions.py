"""Fetch sessions (KIP-227): the table of the module, room for them, and that incremental answers equal full ones."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamcore.broker import fetch_sessions
from streamcore.broker.authentication import Authentication
from streamcore.broker.broker import Broker
from streamcore.broker.config import BrokerConfig
from streamcore.broker.fetch_sessions import EVICTION_MS, FetchSession, FetchSessions, Key, next_epoch
from streamcore.broker.handlers.fetch import fetch
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.node import Node, NodeConfig
from streamcore.broker.requests import Context, Peer
from streamcore.clock import ManualClock
from streamcore.log.directory import LogDirectory
from streamcore.log.memory_disk import MemoryDisk
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.records.codec import encode
from streamcore.types import TP

Fetch = messages.Fetch
PARTITIONS = 4
EVERYTHING = 1 << 30
NO_RECORDS = b""
RETENTION_MS = 1000
CONFIG = {"retention.ms": str(RETENTION_MS)}


def partition(index: int, offset: int = 0) -> Any:
    return Fetch.FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=EVERYTHING)


def asked(*indexes: int) -> list[tuple[Key, Any]]:
    return [(("t", index), partition(index)) for index in indexes]


def context_on(broker: Broker) -> Context:
    return Context(11, "test", Peer("", 0), Authentication(broker.config, broker.users, lambda: 0.0))


def answer(index: int, high_watermark: int = 0, *, records: bytes = NO_RECORDS, error: int = 0) -> tuple[Key, Any]:
    data = Fetch.PartitionData(
        partition_index=index, high_watermark=high_watermark, log_start_offset=0, records=records, error_code=error
    )
    return ("t", index), data


def sessions(slots: int = 10, clock: ManualClock | None = None, forgotten: list[TP] | None = None) -> FetchSessions:
    seen: list[TP] = forgotten if forgotten is not None else []
    return FetchSessions(slots, clock or ManualClock(), on_forgotten=lambda watch, tp: seen.append(tp))


def begun(known: FetchSessions, *indexes: int) -> FetchSession:
    session = known.begin(0, 0, by_id=False, asked=asked(*indexes))
    assert isinstance(session, FetchSession)
    return session


def indexes_of(answers: list[tuple[Key, Any]]) -> list[int]:
    return [key[1] for key, _ in answers]


def test_a_session_goes_on_with_the_next_epoch_only() -> None:
    known = sessions()
    session = begun(known, 0, 1)
    assert known.begin(session.id, 2, by_id=False, asked=[]) == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert known.begin(session.id + 1, 1, by_id=False, asked=[]) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert known.begin(session.id, 1, by_id=True, asked=[]) == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    assert known.begin(session.id, 1, by_id=False, asked=[]) is session
    assert known.begin(session.id, 1, by_id=False, asked=[]) == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert known.begin(session.id, 2, by_id=False, asked=[]) is session


def test_epochs_begin_again_at_1() -> None:
    assert (next_epoch(1), next_epoch((1 << 31) - 1)) == (2, 1)


@pytest.mark.parametrize("epoch", [0, -1])
def test_a_full_fetch_ends_the_session_that_it_names(epoch: int) -> None:
    known = sessions()
    session = begun(known, 0)
    after = known.begin(session.id, epoch, by_id=False, asked=asked(0))
    assert len(known) == (1 if epoch == 0 else 0)
    assert (after == ErrorCode.NONE) == (epoch == -1)
    assert known.begin(session.id, 1, by_id=False, asked=[]) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_session_without_partitions_ends() -> None:
    known = sessions()
    session = begun(known, 0)
    assert known.begin(session.id, 1, by_id=False, asked=[], forgotten=[("t", 0)]) == ErrorCode.NONE
    assert len(known) == 0


def test_nobody_listens_for_a_partition_that_no_session_has() -> None:
    forgotten: list[TP] = []
    known = sessions(forgotten=forgotten)
    session = begun(known, 0, 1, 2)
    for key, one in session.partitions.items():
        one.watched = TP(str(key[0]), key[1])
    known.begin(session.id, 1, by_id=False, asked=[], forgotten=[("t", 1)])
    assert forgotten == [TP("t", 1)]
    known.begin(session.id, -1, by_id=False, asked=[])
    assert forgotten == [TP("t", 1), TP("t", 0), TP("t", 2)]


def test_a_full_cache_gives_up_what_is_unused_or_smaller_and_old() -> None:
    clock = ManualClock()
    known = sessions(2, clock)
    small, large = begun(known, 0), begun(known, 0, 1, 2)
    assert known.begin(0, 0, by_id=False, asked=asked(0, 1)) == ErrorCode.NONE
    clock.advance(EVICTION_MS + 1)
    for session in (small, large):
        assert known.begin(session.id, 1, by_id=False, asked=[]) is session
    assert known.begin(0, 0, by_id=False, asked=asked(0)) == ErrorCode.NONE  # no smaller one
    begun(known, 0, 1)
    assert small.has_ended
    assert not large.has_ended
    clock.advance(EVICTION_MS + 1)
    begun(known, 0)
    assert large.has_ended


def test_sessions_have_no_more_partitions_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_sessions, "PARTITIONS_MAX", 3)
    known = sessions()
    begun(known, 0, 1)
    assert known.begin(0, 0, by_id=False, asked=asked(0, 1)) == ErrorCode.NONE
    begun(known, 0)


def test_no_slots_are_no_sessions() -> None:
    assert sessions(0).begin(0, 0, by_id=False, asked=asked(0)) == ErrorCode.NONE


def test_only_what_changed_is_told() -> None:
    session = begun(sessions(), 0, 1)
    assert indexes_of(session.answered([answer(0), answer(1)])) == [0, 1]
    assert session.due() == []
    session.watch.wake(("t", 1))
    assert session.due() == [("t", 1)]
    assert indexes_of(session.answered([answer(1, 5, records=b"r")])) == [1]
    session.update([(("t", 1), partition(1, 5))], ())
    assert session.answered([answer(1, 5)]) == []
    assert session.due() == []


def test_an_error_is_told_every_time_and_so_is_its_end() -> None:
    session = begun(sessions(), 0)
    failed = answer(0, -1, error=ErrorCode.UNKNOWN_TOPIC_ID)
    for _ in range(2):
        assert session.answered([failed]) == [failed]
        assert session.due() == [("t", 0)]
    assert indexes_of(session.answered([answer(0)])) == [0]
    assert session.answered([answer(0)]) == []


def test_a_partition_that_had_records_waits_for_the_others_turn() -> None:
    session = begun(sessions(), 0, 1, 2)
    session.answered([answer(0, 9, records=b"r"), answer(1, 9), answer(2, 9)])
    assert session.due() == [("t", 1), ("t", 2), ("t", 0)]


# ---- against full answers


async def with_broker(test: Callable[[Broker], Awaitable[None]]) -> None:
    disk, clock = MemoryDisk(), ManualClock()
    node = Node(
        lambda: LogDirectory.open("/data", disk=disk, clock=clock), NodeConfig(background=False, off_loop=False), clock
    )
    await node.start()
    broker = Broker(node, LocalMetadataStore(disk, "/data"), BrokerConfig(), clock)
    await broker.start()
    try:
        await test(broker)
    finally:
        await broker.stop()
        await node.stop()


class Consumer:
    """Keeps what it was told, as the Java client does."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.session_id = self.epoch = 0
        self.offsets = dict.fromkeys(range(PARTITIONS), 0)
        self.changed = set(self.offsets)
        self.forgotten: set[int] = set()
        self.told: dict[int, tuple[int, int]] = {}

    async def ask(self, max_bytes: int) -> dict[int, Any]:
        session = {"session_id": self.session_id, "session_epoch": self.epoch}
        response = await self.fetch(self.changed, max_bytes, forgotten=self.forgotten, **session)
        assert response.error_code == ErrorCode.NONE
        self.changed, self.forgotten = set(), set()
        self.session_id = response.session_id
        self.epoch = next_epoch(self.epoch) if self.session_id else 0
        if not self.session_id:
            self.changed = set(self.offsets)
        answers = {one.partition_index: one for topic in response.responses for one in topic.partitions}
        for index, one in answers.items():
            self.told[index] = (one.high_watermark, one.log_start_offset)
        return answers

    async def fetch(self, indexes: set[int], max_bytes: int, **session: Any) -> Any:
        forgotten = sorted(session.pop("forgotten", ()))
        partitions = [partition(index, self.offsets[index]) for index in sorted(indexes)]
        request = Fetch.Request(
            max_wait_ms=0,
            min_bytes=1,
            max_bytes=max_bytes,
            topics=[Fetch.FetchTopic(topic="t", partitions=partitions)] if partitions else [],
            forgotten_topics_data=[Fetch.ForgottenTopic(topic="t", partitions=forgotten)] if forgotten else [],
            **session,
        )
        return await fetch(self.broker, request, context_on(self.broker))

    def move(self, index: int, offset: int) -> None:
        self.offsets[index] = offset
        self.changed.add(index)
        self.forgotten.discard(index)

    def forget(self, index: int) -> None:
        if len(self.offsets) > 1 and index in self.offsets:
            del self.offsets[index]
            self.changed.discard(index)
            self.told.pop(index, None)
            self.forgotten.add(index)


INDEXES = st.integers(0, PARTITIONS - 1)
STEPS = st.one_of(
    st.tuples(st.just("append"), INDEXES),
    st.tuples(st.just("move"), INDEXES, st.integers(0, 8)),
    st.tuples(st.just("forget"), INDEXES),
    st.tuples(st.just("delete"), INDEXES),
    st.tuples(st.sampled_from(["retain", "drop", "recreate"]), INDEXES),
    st.tuples(st.just("fetch"), st.booleans(), st.booleans()),
)


IDLE = [("append", 1), *[("fetch", False, True)] * 3]


@given(st.lists(STEPS, max_size=40))
@example([*IDLE, ("append", 1)])
@example([*IDLE, ("delete", 1)])
@example([*IDLE, ("retain", 1)])
@example([*IDLE, ("recreate", 1)])
@example([*IDLE, ("drop", 1), ("fetch", False, True), ("recreate", 1)])
@example([*IDLE, ("forget", 1), ("fetch", False, True), ("move", 1, 0)])
@settings(deadline=None)
def test_incremental_answers_equal_full_ones(steps: list[tuple[Any, ...]]) -> None:
    async def test(broker: Broker) -> None:
        node, clock = broker.node, broker.clock
        assert isinstance(clock, ManualClock)
        node.create_topic("t", PARTITIONS, CONFIG)
        consumer = Consumer(broker)
        for name, *details in [*steps, ("fetch", False, True)]:
            if name == "append" and "t" in node.topics:
                tp = TP("t", details[0])
                batch = encode([(None, b"v" * 50, clock.now_ms(), ())])
                await node.append({tp: [batch]}, records={tp: 1}, durable=False)
            elif name == "move":
                consumer.move(*details)
            elif name == "forget":
                consumer.forget(*details)
            elif name == "delete" and "t" in node.topics:
                node.delete_records(TP("t", details[0]), -1)
            elif name == "retain":
                clock.advance(RETENTION_MS + 1)
                await node.keep_house()
            elif name in ("drop", "recreate"):
                if "t" in node.topics:
                    node.delete_topic("t")
                if name == "recreate":
                    node.create_topic("t", PARTITIONS, CONFIG)
            elif name == "fetch":
                await check(consumer, limited=details[0], moves_on=details[1])

    asyncio.run(with_broker(test))


async def check(consumer: Consumer, *, limited: bool, moves_on: bool) -> None:
    answers = await consumer.ask(60 if limited else EVERYTHING)
    assert set(answers) <= set(consumer.offsets)
    full = await consumer.fetch(set(consumer.offsets), EVERYTHING, session_id=0, session_epoch=-1)
    for one in full.responses[0].partitions:
        index = one.partition_index
        mine = answers.get(index)
        if mine is None:
            assert not one.error_code
            if not limited:
                assert not len(one.records)
            assert consumer.told[index] == (one.high_watermark, one.log_start_offset)
        elif not limited:
            assert mine == one
    if limited:
        assert sum(len(one.records) > 0 for one in answers.values()) <= 1
    if moves_on:
        for index, one in answers.items():
            if len(one.records) or one.error_code:
                consumer.move(index, one.high_watermark if not one.error_code else 0)


def test_every_partition_has_its_turn_where_an_answer_holds_one_batch() -> None:
    async def test(broker: Broker) -> None:
        broker.node.create_topic("t", PARTITIONS, {})
        consumer = Consumer(broker)
        for _ in range(3):
            for index in range(PARTITIONS):
                batch = encode([(None, b"v" * 50, 1, ())])
                await broker.node.append({TP("t", index): [batch]}, records={TP("t", index): 1}, durable=False)
        turns = []
        for _ in range(3 * PARTITIONS):
            answers = await consumer.ask(60)
            (index,) = (index for index, one in answers.items() if len(one.records))
            turns.append(index)
            consumer.move(index, consumer.offsets[index] + 1)
        assert turns == list(range(PARTITIONS)) * 3

    asyncio.run(with_broker(test))


def test_an_incremental_fetch_waits_and_is_woken_by_a_partition_that_it_does_not_name() -> None:
    async def test(broker: Broker) -> None:
        broker.node.create_topic("t", PARTITIONS, {})
        consumer = Consumer(broker)
        await consumer.ask(EVERYTHING)
        session = {"session_id": consumer.session_id, "session_epoch": consumer.epoch}
        request = Fetch.Request(max_wait_ms=3_600_000, min_bytes=1, max_bytes=EVERYTHING, topics=[], **session)
        waiting = asyncio.create_task(fetch(broker, request, context_on(broker)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        tp = TP("t", 2)
        await broker.node.append({tp: [encode([(None, b"v", 1, ())])]}, records={tp: 1}, durable=False)
        async with asyncio.timeout(10):
            response = await waiting
        assert [one.partition_index for topic in response.responses for one in topic.partitions] == [2]

    asyncio.run(with_broker(test))
