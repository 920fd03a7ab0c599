"""What a connection does with good, bad, slow and hostile clients; the others must not notice."""

import asyncio
import logging
import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streamcore.broker.connection import PIPELINE_MAX_FRAMES
from streamcore.broker.server import Server
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.records.codec import encode

from .wire import Client, serving

Fetch: Any = messages.Fetch
Produce: Any = messages.Produce
Metadata: Any = messages.Metadata
ApiVersions: Any = messages.ApiVersions
NOW_MS = 1_767_225_600_000


def run(path: Path, test: Callable[[Server], Awaitable[None]], **settings: object) -> None:
    async def main() -> None:
        async with serving(path, **settings) as server:
            await test(server)

    asyncio.run(main())


def a_produce(topic: str, *values: bytes, acks: int = 1) -> Any:
    batch = encode([(b"k", value, NOW_MS, ()) for value in values])
    return Produce.Request(
        acks=acks,
        timeout_ms=1000,
        topic_data=[
            Produce.TopicProduceData(
                name=topic, partition_data=[Produce.PartitionProduceData(index=0, records=memoryview(batch))]
            )
        ],
    )


def a_fetch(topic: str, offset: int, **changes: Any) -> Any:
    settings: dict[str, Any] = {"max_wait_ms": 0, "min_bytes": 1, **changes}
    return Fetch.Request(
        topics=[
            Fetch.FetchTopic(
                topic=topic,
                partitions=[Fetch.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)],
            )
        ],
        **settings,
    )


async def make_topic(client: Client, name: str) -> None:
    request = Metadata.Request(topics=[Metadata.MetadataRequestTopic(name=name)], allow_auto_topic_creation=True)
    response = await client.ask(Metadata, 9, request)
    assert response.topics[0].error_code == ErrorCode.NONE


def test_responses_leave_in_the_order_of_their_requests(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            # The first one waits; those behind it could be answered at once.
            expected = [(client.send(Fetch, 11, a_fetch("t", 0, max_wait_ms=200)), Fetch, 11)]
            for version in (0, 3, 9, 12):
                expected.append((client.send(Metadata, version, Metadata.Request(topics=[])), Metadata, version))
            expected.append((client.send(Produce, 7, a_produce("t", b"x")), Produce, 7))
            for correlation_id, api, version in expected:
                assert (await client.receive(api, version))[0] == correlation_id

    run(tmp_path, test)


def test_a_waiting_fetch_is_answered_when_records_come(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as consumer, Client.of(server) as producer:
            await make_topic(consumer, "t")
            consumer.send(Fetch, 11, a_fetch("t", 0, max_wait_ms=30_000))
            await producer.ask(Produce, 7, a_produce("t", b"news"))
            _, response = await consumer.receive(Fetch, 11)
            assert b"news" in bytes(response.responses[0].partitions[0].records)

    run(tmp_path, test)


def test_a_fetch_waits_until_there_are_as_many_bytes_as_it_wants(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as consumer, Client.of(server) as producer:
            await make_topic(consumer, "t")
            consumer.send(Fetch, 11, a_fetch("t", 0, max_wait_ms=30_000, min_bytes=250))
            for _ in range(3):
                await producer.ask(Produce, 7, a_produce("t", b"x" * 50))
            _, response = await consumer.receive(Fetch, 11)
            assert len(response.responses[0].partitions[0].records) >= 250

    run(tmp_path, test)


def test_a_produce_without_acks_has_no_answer_and_a_failed_one_ends_the_connection(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            client.send(Produce, 7, a_produce("t", b"x", acks=0))
            response = await client.ask(Fetch, 11, a_fetch("t", 0))
            assert response.responses[0].partitions[0].high_watermark == 1
            client.send(Produce, 7, a_produce("no-such-topic", b"x", acks=0))
            assert await client.ended()

    run(tmp_path, test)


def test_a_version_of_api_versions_that_nobody_knows_is_answered_in_version_0(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            client.writer.write(struct.pack(">ihhih", 12, ApiVersions.key, 99, 7, 2) + b"me")
            correlation_id, response = await client.receive(ApiVersions, 0)
            assert (correlation_id, response.error_code) == (7, ErrorCode.UNSUPPORTED_VERSION)
            assert [(e.api_key, e.min_version, e.max_version) for e in response.api_keys] == [(ApiVersions.key, 0, 4)]
            # The connection is still good.
            response = await client.ask(ApiVersions, 2, ApiVersions.Request())
            ranges = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}
            assert ranges[Produce.key] == (0, 13), "librdkafka takes a missing version 0 for a broker without zstd"

    run(tmp_path, test)


def test_what_is_advertised_is_what_is_answered(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            response = await client.ask(ApiVersions, 2, ApiVersions.Request())
            for entry in response.api_keys:
                api = messages.APIS[entry.api_key]
                for version in range(max(entry.min_version, api.first_version), entry.max_version + 1):
                    if api.name == "Produce":
                        request = api.Request(acks=1)
                    elif api.name == "ApiVersions":
                        request = api.Request(client_software_name="test", client_software_version="1")
                    else:
                        request = api.Request()
                    await client.ask(api, version, request)

    run(tmp_path, test)


GARBAGE = {
    "a browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "a negative size": struct.pack(">i", -5) + bytes(10),
    "more than is taken": struct.pack(">i", 1 << 30),
    "no header": struct.pack(">i", 3) + b"abc",
    "an unknown API": struct.pack(">ihhih", 10, 999, 0, 1, 0),
    "an unknown version": struct.pack(">ihhih", 10, 3, 99, 1, 0),
    "a name that is not UTF-8": struct.pack(">ihhih", 12, 3, 0, 1, 2) + b"\xff\xfe",
    "a list that is not there": struct.pack(">ihhih", 14, 3, 0, 1, 0) + struct.pack(">i", 1 << 30),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_bytes_that_are_no_request_end_their_connection_and_no_other(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as good, Client.of(server) as bad:
            bad.writer.write(GARBAGE[what])
            assert await bad.ended()
            assert (await good.ask(ApiVersions, 0, ApiVersions.Request())).error_code == ErrorCode.NONE

    with caplog.at_level(logging.WARNING):
        run(tmp_path, test)
    assert [r.levelname for r in caplog.records if "connection of" in r.getMessage()] == ["WARNING"], "one line of log"


def test_random_frames_never_end_the_broker(tmp_path: Path) -> None:
    rng = random.Random(20_261_125)
    keys = sorted(messages.APIS)

    async def test(server: Server) -> None:
        for _ in range(300):
            async with Client.of(server) as bad:
                api = messages.APIS[rng.choice(keys)]
                version = rng.randint(api.first_version, api.last_version)
                body = rng.randbytes(rng.randint(0, 80))
                head = struct.pack(">hhih", api.key, version, 1, -1) + (
                    b"\0" if api.request_header_version(version) == 2 else b""
                )
                bad.writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
                bad.writer.write_eof()
                await bad.reader.read()
        async with Client.of(server) as good:
            assert (await good.ask(ApiVersions, 0, ApiVersions.Request())).error_code == ErrorCode.NONE

    run(tmp_path, test)


def test_a_frame_that_comes_in_pieces_is_one_frame(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            # Larger than what is read at once, and than the first piece of memory that a frame gets.
            value = random.Random(7).randbytes(700_000)
            correlation_id, frame = client.frame(Produce, 7, a_produce("t", value))
            for start in range(0, len(frame), 50_001):
                client.writer.write(frame[start : start + 50_001])
                await client.writer.drain()
                await asyncio.sleep(0.001)
            assert (await client.receive(Produce, 7))[0] == correlation_id
            response = await client.ask(Fetch, 11, a_fetch("t", 0))
            assert value in bytes(response.responses[0].partitions[0].records)

    run(tmp_path, test)


def test_many_frames_in_one_piece_are_all_answered(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            frames = [client.frame(ApiVersions, 0, ApiVersions.Request()) for _ in range(5 * PIPELINE_MAX_FRAMES)]
            client.writer.write(b"".join(frame for _, frame in frames))
            for correlation_id, _ in frames:
                assert (await client.receive(ApiVersions, 0))[0] == correlation_id

    run(tmp_path, test)


def test_a_client_that_never_reads_is_not_read_from_for_ever(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as good, Client.of(server) as slow:
            await make_topic(good, "t")
            for _ in range(8):
                await good.ask(Produce, 7, a_produce("t", bytes(500_000)))
            _, frame = slow.frame(Fetch, 11, a_fetch("t", 0))
            slow.reader._limit = 1  # type: ignore[attr-defined]
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.writer.write(frame * 20_000)  # answers of some 10 GB
            for _ in range(50):
                await good.ask(ApiVersions, 0, ApiVersions.Request())
                await asyncio.sleep(0.01)
            connection = max(server.connections, key=lambda c: len(c._frames))
            assert len(connection._frames) <= 2 * PIPELINE_MAX_FRAMES + 64 * 1024 // len(frame)
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_size() < 8 << 20
            slow.writer.transport.abort()

    run(tmp_path, test)


def test_a_client_that_hangs_up_in_a_long_poll_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            await make_topic(client, "t")
            client.send(Fetch, 11, a_fetch("t", 0, max_wait_ms=60_000))
            await asyncio.sleep(0.05)
        for _ in range(100):
            if not server.connections:
                break
            await asyncio.sleep(0.01)
        assert not server.connections
        assert not server.broker.node._delayed._waiting

    run(tmp_path, test)
