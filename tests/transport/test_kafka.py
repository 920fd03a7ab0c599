"""The transport over the wire against a broker in this process: as the embedded one, and when connections are lost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamcore.broker.server import Server
from streamcore.errors import (
    BrokerUnreachableError,
    InvalidConfigError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
    UsageError,
)
from streamcore.transport import connect
from streamcore.transport.base import EARLIEST, LATEST, Acks, Committed
from streamcore.transport.kafka import KafkaTransport
from streamcore.types import TP, OutRecord
from tests.broker.wire import serving

NOW_MS = 1_767_225_600_000
T0, T1 = TP("t", 0), TP("t", 1)


def records(*values: bytes) -> list[OutRecord]:
    return [(b"key", value, NOW_MS + number, [("h", b"1")]) for number, value in enumerate(values)]


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[KafkaTransport]:
    transport = connect(f"kafka://127.0.0.1:{server.broker.endpoint.port}")
    assert isinstance(transport, KafkaTransport)
    await transport.start()
    try:
        yield transport
    finally:
        await transport.stop()


def run(path: Path, test: Callable[[Server, KafkaTransport], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(path) as server, connected(server) as transport:
            await test(server, transport)

    asyncio.run(main())


def test_topics_are_made_described_changed_and_deleted(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        made = await transport.create_topic("t", partitions=2, config={"retention.ms": "1000"})
        assert (made.name, made.partitions, made.config, made.internal) == ("t", 2, {"retention.ms": "1000"}, False)
        assert (await transport.add_partitions("t", 3)).partitions == 3
        changed = await transport.alter_config("t", {"retention.ms": None, "cleanup.policy": "compact"})
        assert changed.config == {"cleanup.policy": "compact"}
        with pytest.raises(TopicExistsError):
            await transport.create_topic("t", partitions=1)
        with pytest.raises(InvalidTopicError):
            await transport.create_topic("no/name", partitions=1)
        with pytest.raises(InvalidConfigError, match=r"retention\.ms"):
            await transport.create_topic("u", partitions=1, config={"retention.mss": "1"})
        await transport.delete_topic("t")
        assert await transport.topics() == {}
        with pytest.raises(UnknownTopicError):
            await transport.delete_topic("t")

    run(tmp_path, test)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_is_produced_is_fetched(tmp_path: Path, compression: str) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=2)
        sent = {T0: records(b"a", b"b"), T1: records(b"c")}
        assert await transport.produce(sent, compression=compression) == {T0: 0, T1: 0}
        assert await transport.produce({T0: records(b"d")}, compression=compression) == {T0: 2}
        fetched = {part.tp: part for part in await transport.fetch({T0: 1, T1: 0}, max_wait_ms=0)}
        assert [(r.offset, r.value, r.timestamp) for r in fetched[T0].records] == [
            (1, b"b", NOW_MS + 1),
            (2, b"d", NOW_MS),
        ]
        assert [(r.key, r.value, list(r.headers)) for r in fetched[T1].records] == [(b"key", b"c", [("h", b"1")])]
        assert (fetched[T0].next_offset, fetched[T0].high_watermark) == (3, 3)
        assert await transport.fetch({T0: 3}, max_wait_ms=0) == []

    run(tmp_path, test)


def test_more_than_a_batch_takes_comes_in_order_and_once(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1)
        values = [b"%05d" % n + bytes(1000) for n in range(5000)]
        assert await transport.produce({T0: records(*values)}) == {T0: 0}
        assert await transport.produce({T0: records(b"last")}) == {T0: 5000}
        found: list[bytes | None] = []
        while fetched := await transport.fetch({T0: len(found)}, max_wait_ms=0):
            found += [record.value for record in fetched[0].records]
        assert found == [*values, b"last"]

    run(tmp_path, test)


def test_a_fetch_waits_for_records_and_others_do_not_wait_for_it(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=2)
        waiting = [asyncio.create_task(transport.fetch({tp: 0}, max_wait_ms=20_000)) for tp in (T0, T1)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert await transport.produce({T1: records(b"x")}) == {T1: 0}
            ((part,),) = [await waiting[1]]
        assert part.tp == T1
        assert not waiting[0].done()
        waiting[0].cancel()
        assert await transport.fetch({T0: 0}, max_wait_ms=30) == []

    run(tmp_path, test)


def test_errors_are_those_of_the_embedded_log(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1, config={"max.message.bytes": "2000"})
        gone = TP("gone", 0)
        results = await transport.produce({T0: records(bytes(5000)), gone: records(b"x")})
        assert isinstance(results[T0], RecordTooLargeError)
        assert isinstance(results[gone], UnknownTopicError)
        assert await transport.produce({T0: records(b"fits")}) == {T0: 0}, "the one before took no sequence with it"
        (part,) = await transport.fetch({T0: 99}, max_wait_ms=0)
        assert isinstance(part.error, OffsetOutOfRangeError)
        assert (part.error.log_start_offset, part.error.log_end_offset) == (0, 1)
        (part,) = await transport.fetch({gone: 0}, max_wait_ms=0)
        assert isinstance(part.error, UnknownTopicError)
        with pytest.raises(UnknownTopicError):
            await transport.list_offsets([gone], EARLIEST)
        with pytest.raises(OffsetOutOfRangeError):
            await transport.delete_records(T0, 5)

    run(tmp_path, test)


def test_offsets_by_time_and_extent(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1)
        await transport.produce({T0: records(b"a", b"b", b"c")})
        assert await transport.list_offsets([T0], NOW_MS + 1) == {T0: 1}
        assert await transport.list_offsets([T0], NOW_MS + 99) == {T0: 3}
        assert await transport.delete_records(T0, 2) == 2
        assert await transport.list_offsets([T0], EARLIEST) == {T0: 2}
        assert await transport.list_offsets([T0], LATEST) == {T0: 3}
        (info,) = await transport.describe_partitions()
        assert (info.tp, info.log_start_offset, info.log_end_offset, info.offline) == (T0, 2, 3, None)
        assert info.size_bytes > 0

    run(tmp_path, test)


def test_offsets_are_committed_and_forgotten(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=2)
        assert await transport.committed("g") == {}
        await transport.commit("g", {T0: Committed(5, "where I am"), T1: Committed(7)})
        assert await transport.committed("g") == {T0: Committed(5, "where I am"), T1: Committed(7)}
        assert await transport.committed("g", [T1]) == {T1: Committed(7)}
        assert await transport.groups() == ["g"]
        with pytest.raises(UnknownTopicError):
            await transport.commit("g", {TP("gone", 0): Committed(1)})
        await transport.delete_group("g")
        await transport.delete_group("g")
        assert await transport.committed("g") == {}

    run(tmp_path, test)


def test_a_lost_connection_doubles_and_loses_nothing(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1)
        stop = asyncio.Event()

        async def cut_wires() -> None:
            while not stop.is_set():
                await asyncio.sleep(0.004)
                for connection in list(server.connections):
                    connection.end()

        cutting = asyncio.create_task(cut_wires())
        sent = [b"%d" % n for n in range(300)]
        for value in sent:
            result = await transport.produce({T0: records(value)})
            assert isinstance(result[T0], int), result
        stop.set()
        await cutting
        found: list[bytes | None] = []
        while fetched := await transport.fetch({T0: len(found)}, max_wait_ms=0):
            found += [record.value for record in fetched[0].records]
        assert found == sent

    run(tmp_path, test)


def test_a_caller_that_is_cancelled_leaves_the_others_sequences_whole(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1)
        for steps in range(40):
            cancelled = asyncio.create_task(transport.produce({T0: records(b"maybe")}))
            for _ in range(steps):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            result = await transport.produce({T0: records(b"surely")})
            assert isinstance(result[T0], int), result
        end = (await transport.list_offsets([T0], LATEST))[T0]
        found: list[bytes | None] = []
        while len(found) < end:
            fetched = await transport.fetch({T0: len(found)}, max_wait_ms=0)
            found += [record.value for record in fetched[0].records]
        assert found.count(b"surely") == 40

    run(tmp_path, test)


def test_a_broker_that_is_not_there_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def main() -> None:
        with pytest.raises(BrokerUnreachableError, match=rf"no broker at 127\.0\.0\.1:{port}: .*Is it running"):
            await connect(f"kafka://127.0.0.1:{port}").start()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["kafka://", "kafka://host:port", "kafka://a:1,,b:2", "kafka://h:99999"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        connect(url)


def test_acks_of_every_kind(tmp_path: Path) -> None:
    async def test(server: Server, transport: KafkaTransport) -> None:
        await transport.create_topic("t", partitions=1)
        assert await transport.produce({T0: records(b"a")}, acks=Acks.ALL) == {T0: 0}
        assert await transport.produce({T0: records(b"b")}, acks=Acks.LEADER) == {T0: 1}
        await transport.produce({T0: records(b"c")}, acks=Acks.NONE)
        async with asyncio.timeout(5):
            assert [r.value for r in (await transport.fetch({T0: 2}, max_wait_ms=5000))[0].records] == [b"c"]

    run(tmp_path, test)
