"""Produce, fetch and replay, in memory and on disk."""

import asyncio
from collections.abc import Callable

import pytest

from streamcore.clock import ManualClock
from streamcore.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
)
from streamcore.transport.base import EARLIEST, FETCH_MAX_BYTES, LATEST, Acks
from streamcore.transport.embedded import EmbeddedTransport, MemoryTransport
from streamcore.types import TP
from tests.transport.support import A0, A1, NOW_MS, opened, read_all, records
from tests.transport.virtual_loop import run_virtually

Make = Callable[..., EmbeddedTransport]
HOUR_MS = 3_600_000


@pytest.mark.parametrize("acks", list(Acks))
@pytest.mark.parametrize("flush", ["interval", "always"])
def test_records_come_back_as_they_went_in(make: Make, acks: Acks, flush: str) -> None:
    async def run() -> None:
        async with opened(make(flush=flush), {"a": 1}) as transport:
            sent = [
                (b"key", b"value", NOW_MS, [("h", b"1"), ("h", b"2")]),
                (None, b"", NOW_MS - 5, ()),
                (b"", None, NOW_MS + 5, ()),
            ]
            assert await transport.produce({A0: sent}, acks=acks) == {A0: 0}
            assert await transport.produce({A0: records(b"x")}, acks=acks) == {A0: 3}
            (fetched,) = await transport.fetch({A0: 0})
            got = [(r.key, r.value, r.timestamp, list(r.headers)) for r in fetched.records]
            assert got[:3] == [(*record[:3], list(record[3])) for record in sent]
            assert [r.offset for r in fetched.records] == [0, 1, 2, 3]
            assert fetched[2:] == (4, 4, 0, None)

    asyncio.run(run())


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression_is_the_producers_choice_unless_the_topic_has_one(make: Make, compression: str) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.create_topic("b", partitions=1, config={"compression.type": "uncompressed"})
            b0 = TP("b", 0)
            sent = records(b"x" * 10_000)
            await transport.produce({A0: sent, b0: sent}, compression=compression)
            sizes = {info.tp: info.size_bytes for info in await transport.describe_partitions()}
            assert (sizes[A0] < 5000) == (compression != "none")
            assert sizes[b0] > 10_000
            assert await read_all(transport, A0) == await read_all(transport, b0) == [(0, b"x" * 10_000)]

    asyncio.run(run())


def test_one_failing_partition_does_not_affect_another(make: Make) -> None:
    async def run() -> None:
        async with opened(make(clock=ManualClock(NOW_MS)), {"a": 2}) as transport:
            await transport.create_topic("keyed", partitions=1, config={"cleanup.policy": "compact"})
            results = await transport.produce(
                {
                    TP("nowhere", 0): records(b"x"),
                    TP("a", 7): records(b"x"),
                    A0: records(b"small", b"x" * 3_000_000),
                    TP("keyed", 0): [(None, b"keyless", NOW_MS, ())],
                    A1: records(b"fine"),
                }
            )
            assert [type(result) for result in results.values()][:3] == [UnknownTopicError] * 2 + [RecordTooLargeError]
            assert isinstance(results[TP("keyed", 0)], InvalidRecordError)
            assert results[A1] == 0
            late = records(b"x", timestamp_ms=NOW_MS + 2 * HOUR_MS)
            results = await transport.produce({A0: late, A1: records(b"fine")})
            assert isinstance(results[A0], InvalidTimestampError)
            assert results[A1] == 1
            assert await read_all(transport, A0) == []
            assert await read_all(transport, A1) == [(0, b"fine"), (1, b"fine")]
            assert transport.counters.of("a").failed_produces == 3
            assert transport.counters.unknown.failed_produces == 1
            assert "nowhere" not in transport.counters.topics

    asyncio.run(run())


def test_records_that_need_several_batches_get_consecutive_offsets(make: Make) -> None:
    async def run() -> None:
        async with opened(make()) as transport:
            await transport.create_topic(
                "a", partitions=1, config={"max.message.bytes": "1000", "segment.bytes": "2500"}
            )
            values = [b"%03d" % number * 50 for number in range(100)]
            assert await transport.produce({A0: records(b"first")}) == {A0: 0}
            assert await transport.produce({A0: records(*values)}) == {A0: 1}
            assert await read_all(transport, A0, 1) == list(enumerate(values, start=1))

    asyncio.run(run())


def test_when_the_last_of_several_batches_is_refused_none_is_kept(make: Make) -> None:
    async def run() -> None:
        async with opened(make(clock=ManualClock(NOW_MS))) as transport:
            await transport.create_topic(
                "a", partitions=1, config={"max.message.bytes": "1000", "segment.bytes": "2500"}
            )
            await transport.produce({A0: records(b"first")})
            values = [b"%03d" % number * 50 for number in range(100)]
            refused = records(*values) + records(b"from the future", timestamp_ms=NOW_MS + 2 * HOUR_MS)
            results = await transport.produce({A0: refused})
            assert isinstance(results[A0], InvalidTimestampError)
            assert await read_all(transport, A0) == [(0, b"first")]
            assert await transport.produce({A0: records(b"second")}) == {A0: 1}
            assert await read_all(transport, A0) == [(0, b"first"), (1, b"second")]

    asyncio.run(run())


def test_a_fetch_starts_at_the_asked_offset_also_inside_a_batch(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.produce({A0: records(*(b"%d" % n for n in range(10)))})
            await transport.produce({A0: records(*(b"%d" % n for n in range(10, 20)))})
            for offset in range(20):
                (fetched,) = await transport.fetch({A0: offset}, max_bytes=1)
                assert fetched.records[0].offset == offset
                assert fetched.next_offset == (10 if offset < 10 else 20)
                assert fetched.high_watermark == 20

    asyncio.run(run())


def test_positions_outside_the_log_are_that_partitions_error_alone(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2}) as transport:
            await transport.produce({A0: records(b"0", b"1"), A1: records(b"x")})
            assert await transport.delete_records(A0, 1) == 1
            nowhere = TP("nowhere", 0)
            for bad_offset in (0, 3):
                shares = await transport.fetch({A0: bad_offset, A1: 0, nowhere: 0}, max_wait_ms=HOUR_MS)
                by_tp = {share.tp: share for share in shares}
                error = by_tp[A0].error
                assert isinstance(error, OffsetOutOfRangeError)
                assert (error.offset, error.log_start_offset, error.log_end_offset) == (bad_offset, 1, 2)
                assert isinstance(by_tp[nowhere].error, UnknownTopicError)
                assert [r.value for r in by_tp[A1].records] == [b"x"]

    asyncio.run(run())


def test_a_long_poll_is_woken_by_an_append_to_any_of_its_partitions(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2, "b": 1}) as transport:
            polls = [asyncio.create_task(transport.fetch({A0: 0, A1: 0}, max_wait_ms=HOUR_MS)) for _ in range(3)]
            other = asyncio.create_task(transport.fetch({TP("b", 0): 0}, max_wait_ms=HOUR_MS))
            await asyncio.sleep(0)
            await transport.produce({A1: records(b"x")})
            for (fetched,) in await asyncio.gather(*polls):
                assert (fetched.tp, fetched.records[0].value) == (A1, b"x")
            assert not other.done()
            other.cancel()

    asyncio.run(run())


def test_a_long_poll_ends_empty_when_its_time_is_up() -> None:
    async def run() -> None:
        async with opened(MemoryTransport(), {"a": 2}) as transport:
            started = asyncio.get_running_loop().time()
            assert await transport.fetch({A0: 0, A1: 0}, max_wait_ms=HOUR_MS) == []
            assert asyncio.get_running_loop().time() - started == pytest.approx(3600)
            assert await transport.fetch({}, max_wait_ms=500) == []

    run_virtually(run())


def test_stopping_ends_the_long_polls(make: Make) -> None:
    async def run() -> None:
        transport = make()
        await transport.start()
        await transport.create_topic("a", partitions=1)
        poll = asyncio.create_task(transport.fetch({A0: 0}, max_wait_ms=HOUR_MS))
        await asyncio.sleep(0)
        await transport.stop()
        assert await poll == []

    asyncio.run(run())


def test_the_order_of_the_partitions_rotates(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 3}) as transport:
            tps = [TP("a", n) for n in range(3)]
            await transport.produce({tp: records(b"x") for tp in tps})
            firsts = [(await transport.fetch(dict.fromkeys(tps, 0)))[0].tp for _ in range(6)]
            assert sorted(firsts) == sorted(tps * 2)
            assert len(set(firsts[:3])) == 3

    asyncio.run(run())


def test_a_full_fetch_names_the_partitions_that_did_not_get_their_turn_and_serves_them_next(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 4}) as transport:
            tps = [TP("a", n) for n in range(4)]
            sixteenth = records(b"x" * (FETCH_MAX_BYTES // 16))
            for _ in range(8):
                await transport.produce(dict.fromkeys(tps, sixteenth))
            first = await transport.fetch(dict.fromkeys(tps, 0), max_bytes=FETCH_MAX_BYTES)
            assert len(first) == 4
            waiting = [share for share in first if not share.records]
            assert waiting
            assert {(share.next_offset, share.high_watermark, share.error) for share in waiting} == {(0, 8, None)}
            positions = {share.tp: share.next_offset for share in first}
            served: list[TP] = []
            for _ in range(4):
                for share in await transport.fetch(positions, max_bytes=FETCH_MAX_BYTES, max_wait_ms=0):
                    positions[share.tp] = share.next_offset
                    served += [share.tp] if share.records else []
            assert set(positions.values()) == {8}
            assert set(served) >= {share.tp for share in waiting}

    asyncio.run(run())


def test_replay_starts_from_a_time_at_record_granularity(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2}) as transport:
            for second in range(0, 20, 2):
                batch = [(None, b"%d" % n, NOW_MS + n * 1000, ()) for n in (second, second + 1)]
                await transport.produce({A0: batch})
            for second in range(20):
                found = await transport.list_offsets([A0], NOW_MS + second * 1000)
                assert found == {A0: second}
                assert (await read_all(transport, A0, second))[0] == (second, b"%d" % second)
            assert await transport.list_offsets([A0, A1], NOW_MS + 60_000) == {A0: 20, A1: 0}
            await transport.delete_records(A0, 3)
            assert await transport.list_offsets([A0, A1], EARLIEST) == {A0: 3, A1: 0}
            assert await transport.list_offsets([A0, A1], LATEST) == {A0: 20, A1: 0}
            assert await transport.list_offsets([A0], NOW_MS) == {A0: 3}
            with pytest.raises(UnknownTopicError):
                await transport.list_offsets([TP("nowhere", 0)], NOW_MS)

    asyncio.run(run())


def test_damaged_bytes_are_that_partitions_error_and_the_others_go_on(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2}) as transport:
            await transport.produce({A0: records(b"good"), A1: records(b"fine")})
            await transport.produce({A0: records(b"damaged")})
            segment = transport.node.directory.log("a", 0).segments[-1]
            segment.file.write_at(segment.size_bytes - 4, b"\xff")
            shares = {share.tp: share for share in await transport.fetch({A0: 0, A1: 0})}
            assert [r.value for r in shares[A0].records] == [b"good"]
            assert [r.value for r in shares[A1].records] == [b"fine"]
            (share,) = await transport.fetch({A0: shares[A0].next_offset, A1: 1}, max_wait_ms=HOUR_MS)
            assert isinstance(share.error, CorruptRecordError)
            assert share.records == []
            assert transport.counters.of("a").failed_fetches == 1

    asyncio.run(run())


def test_a_deleted_topic_ends_its_long_polls_and_its_bytes_are_never_served_again(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.produce({A0: records(b"old")})
            poll = asyncio.create_task(transport.fetch({A0: 1}, max_wait_ms=HOUR_MS))
            await asyncio.sleep(0)
            await transport.delete_topic("a")
            (share,) = await poll
            assert isinstance(share.error, UnknownTopicError)
            await transport.create_topic("a", partitions=1)
            assert await read_all(transport, A0) == []
            assert await transport.produce({A0: records(b"new")}) == {A0: 0}
            assert await read_all(transport, A0) == [(0, b"new")]

    asyncio.run(run())


def test_topics_are_described_with_their_settings(make: Make) -> None:
    async def run() -> None:
        async with opened(make()) as transport:
            info = await transport.create_topic("a", partitions=2, config={"retention.ms": "1000"})
            assert info == ("a", 2, {"retention.ms": "1000"}, False)
            with pytest.raises(TopicExistsError):
                await transport.create_topic("a", partitions=2)
            assert (await transport.add_partitions("a", 3)).partitions == 3
            altered = await transport.alter_config("a", {"retention.ms": None, "segment.bytes": "1000"})
            assert altered.config == {"segment.bytes": "1000"}
            assert await transport.topics() == {"a": altered}
            extents = [(info.tp, *info[1:3], info.offline) for info in await transport.describe_partitions()]
            assert extents == [(TP("a", n), 0, 0, None) for n in range(3)]
            with pytest.raises(UnknownTopicError):
                await transport.delete_topic("nowhere")
            with pytest.raises(InvalidTopicError):
                await transport.delete_topic("__consumer_offsets")

    asyncio.run(run())


def test_counters_say_what_went_through(make: Make) -> None:
    async def run() -> None:
        async with opened(make(flush="always"), {"a": 1}) as transport:
            await transport.produce({A0: records(b"x", b"y")})
            await transport.fetch({A0: 0})
            await transport.fetch({A0: 1})
            counters = transport.counters.of("a")
            assert (counters.records_in, counters.records_out) == (2, 3)
            assert counters.bytes_out == 2 * counters.bytes_in > 0
            assert transport.counters.flushes == 1

    asyncio.run(run())
