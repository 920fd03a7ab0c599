"""What a broker counts, and what Prometheus is told of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streamcore.broker.counters import Durations
from streamcore.broker.metrics import OTHER_TOPICS, PARTITIONS_MAX, TOPICS_MAX, UNKNOWN_TOPICS, NodeMetrics
from streamcore.broker.node import NodeConfig
from streamcore.broker.server import Server
from streamcore.protocol import messages
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP

from .test_connection import a_fetch, a_produce
from .wire import Client, serving

Api: Any = messages
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(server: Server) -> Samples:
    """Every sample by name and labels."""
    node = server.broker.node
    node.door = server.broker
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in NodeMetrics(lambda: node).collect()
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def run(path: Path, test: Callable[[Server], Awaitable[None]], **settings: object) -> None:
    async def main() -> None:
        async with serving(path, **settings) as server:
            await test(server)

    asyncio.run(main())


@pytest.mark.parametrize("session_epoch", [-1, 0], ids=["alone", "in a session"])
def test_requests_records_and_bytes_are_counted(tmp_path: Path, session_epoch: int) -> None:
    async def test(server: Server) -> None:
        server.broker.node.create_topic("t", 1, {})
        async with Client.of(server) as client:
            for _ in range(3):
                await client.ask(Api.Produce, 7, a_produce("t", b"one", b"two"))
            first = await client.ask(Api.Fetch, 11, a_fetch("t", 2, session_epoch=session_epoch))
        found = samples(server)
        assert of(found, "streamcore_broker_requests_total", api="Produce") == 3
        assert of(found, "streamcore_log_records_in_total", topic="t") == 6
        assert of(found, "streamcore_log_records_out_total", topic="t") == 4
        size = len(first.responses[0].partitions[0].records)
        assert of(found, "streamcore_log_bytes_out_total", topic="t") == size
        assert of(found, "streamcore_log_bytes_in_total", topic="t") == size * 3 / 2
        assert of(found, "streamcore_broker_response_bytes_total", api="Fetch") > size
        assert of(found, "streamcore_broker_request_bytes_total", api="Produce") > size
        assert of(found, "streamcore_broker_handler_seconds_total", api="Produce") > 0
        assert of(found, "streamcore_broker_queue_seconds_total", api="Produce") > 0
        assert of(found, "streamcore_log_end_offset", topic="t", partition="0") == 6
        assert of(found, "streamcore_log_start_offset", topic="t", partition="0") == 0
        assert of(found, "streamcore_log_partition_bytes", topic="t", partition="0") == size * 3 / 2
        assert of(found, "streamcore_log_partitions") == 1

    run(tmp_path, test)


def test_what_a_fetch_reads_twice_while_it_waits_for_more_counts_once(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        server.broker.node.create_topic("t", 1, {})
        async with Client.of(server) as reader, Client.of(server) as writer:
            await writer.ask(Api.Produce, 7, a_produce("t", b"one"))
            reader.send(Api.Fetch, 11, a_fetch("t", 0, min_bytes=100, max_wait_ms=30_000))
            while server.broker.counters.waiting_fetches == 0:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0)
            assert of(samples(server), "streamcore_broker_waiting_fetches") == 1
            await writer.ask(Api.Produce, 7, a_produce("t", b"two"))
            await reader.receive(Api.Fetch, 11)
        found = samples(server)
        assert of(found, "streamcore_log_records_out_total", topic="t") == 2
        assert of(found, "streamcore_broker_waiting_fetches") == 0
        assert of(found, "streamcore_broker_fetch_wait_seconds_total") > 0

    run(tmp_path, test)


def test_errors_are_counted_by_their_code(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        server.broker.node.create_topic("t", 1, {})
        async with Client.of(server) as client:
            await client.ask(Api.Produce, 7, a_produce("nowhere", b"lost"))
            await client.ask(Api.Fetch, 11, a_fetch("t", 99))
            await client.ask(Api.Heartbeat, 3, Api.Heartbeat.Request(group_id="g", generation_id=1, member_id="m"))
        found = samples(server)
        errors = "streamcore_broker_errors_total"
        assert of(found, errors, api="Produce", code="UNKNOWN_TOPIC_OR_PARTITION") == 1
        assert of(found, errors, api="Fetch", code="OFFSET_OUT_OF_RANGE") == 1
        assert of(found, errors, api="Heartbeat", code="UNKNOWN_MEMBER_ID") == 1
        assert of(found, "streamcore_log_failed_produces_total", topic=UNKNOWN_TOPICS) == 1
        assert of(found, "streamcore_log_failed_fetches_total", topic="t") == 1

    run(tmp_path, test)


def test_connections_are_counted_and_why_they_end(tmp_path: Path) -> None:
    async def ended(server: Server, left: int) -> None:
        while len(server.connections) > left:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            request = Api.ApiVersions.Request(client_software_name="librdkafka", client_software_version="2.6.1")
            await client.ask(Api.ApiVersions, 3, request)
            (connection,) = server.connections
            known = connection.client
            assert (known.client_id, known.software_name, known.software_version) == ("test", "librdkafka", "2.6.1")
            assert (known.requests, connection.in_flight) == (1, 0)
            assert known.bytes_in > 0
            assert known.bytes_out > 0
            assert of(samples(server), "streamcore_broker_connections") == 1
        await ended(server, 0)
        async with Client.of(server) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n")
            assert await client.ended()
        await ended(server, 0)
        async with Client.of(server) as client:
            client.send(Api.Produce, 7, a_produce("nowhere", b"lost", acks=0))
            assert await client.ended()
        await ended(server, 0)
        found = samples(server)
        assert of(found, "streamcore_broker_connections") == 0
        assert of(found, "streamcore_broker_connections_opened_total") == 3
        for reason in ("client", "protocol", "refused"):
            assert of(found, "streamcore_broker_connections_closed_total", reason=reason) == 1

    run(tmp_path, test)


def test_a_connection_too_many_is_counted_as_one(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as first, Client.of(server) as second:
            assert await second.ended()
            await first.ask(Api.ApiVersions, 0, Api.ApiVersions.Request())
            found = samples(server)
        assert of(found, "streamcore_broker_connections_closed_total", reason="limit") == 1
        assert of(found, "streamcore_broker_connections") == 1

    run(tmp_path, test, max_connections=1)


def test_groups_are_counted_by_state_with_their_members_and_rebalances(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            protocol = Api.JoinGroup.JoinGroupRequestProtocol(name="range", metadata=b"")
            request = Api.JoinGroup.Request(
                group_id="g",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=10_000,
                protocol_type="consumer",
                protocols=[protocol],
            )
            joined = await client.ask(Api.JoinGroup, 3, request)
            found = samples(server)
            assert of(found, "streamcore_broker_groups", state="CompletingRebalance") == 1
            sync = Api.SyncGroup.Request(group_id="g", generation_id=joined.generation_id, member_id=joined.member_id)
            await client.ask(Api.SyncGroup, 2, sync)
        found = samples(server)
        assert of(found, "streamcore_broker_groups", state="Stable") == 1
        assert of(found, "streamcore_broker_groups", state="Empty") == 0
        assert of(found, "streamcore_broker_group_members") == 1
        assert of(found, "streamcore_broker_rebalances_total") == 1

    run(tmp_path, test)


def test_syncs_are_timed_apart_by_who_asked_for_them(tmp_path: Path) -> None:
    async def main() -> dict[str, float]:
        config = NodeConfig(background=False)
        transport = EmbeddedTransport(str(tmp_path), flush="always", config=config)
        await transport.start()
        try:
            await transport.create_topic("t", partitions=1)
            await transport.produce({TP("t", 0): [(None, b"v", 1, ())]})
            await transport.node.flush()
            return {
                sample.labels["reason"]: sample.value
                for family in transport.metrics().collect()
                for sample in family.samples
                if sample.name == "streamcore_log_sync_seconds_count"
            }
        finally:
            await transport.stop()

    assert asyncio.run(main()) == {"request": 1, "interval": 1}


def test_many_topics_and_partitions_share_what_is_over_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamcore.broker.metrics.TOPICS_MAX", 2)
    monkeypatch.setattr("streamcore.broker.metrics.PARTITIONS_MAX", 3)
    assert TOPICS_MAX > 2
    assert PARTITIONS_MAX > 3

    async def test(server: Server) -> None:
        async with Client.of(server) as client:
            for topic in ("c", "a", "d", "b"):
                server.broker.node.create_topic(topic, 1, {})
                await client.ask(Api.Produce, 7, a_produce(topic, b"one", b"two"))
        found = samples(server)
        written = {labels[0][1]: value for (name, labels), value in found.items() if name.endswith("records_in_total")}
        # The first ones keep their names whatever comes after them.
        assert written == {"c": 2, "a": 2, OTHER_TOPICS: 4, UNKNOWN_TOPICS: 0}
        sized = [labels for name, labels in found if name == "streamcore_log_partition_bytes"]
        assert len(sized) == 3
        assert of(found, "streamcore_log_partitions_left_out") == 1

    run(tmp_path, test)


def test_durations_fall_into_the_first_bucket_that_holds_them() -> None:
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        durations.observe(seconds)
    assert durations.cumulative() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert durations.sum_s == pytest.approx(2.65)
