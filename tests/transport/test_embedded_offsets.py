"""Consumer groups' committed offsets, in memory and on disk."""

import asyncio
from collections.abc import Callable

import pytest

from streamcore.broker.coordinator.offset_records import decode_key, decode_value
from streamcore.broker.node import NodeConfig
from streamcore.clock import ManualClock
from streamcore.errors import InvalidRecordError, LogOfflineError, OffsetMetadataTooLargeError, UnknownTopicError
from streamcore.transport.base import METADATA_MAX_BYTES, Committed
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP
from tests.transport.support import A0, A1, NOW_MS, opened, read_all, records

Make = Callable[..., EmbeddedTransport]
OFFSETS = TP("__consumer_offsets", 0)


def test_groups_read_the_same_topic_independently(make: Make) -> None:
    async def run() -> None:
        async with opened(make(clock=ManualClock(NOW_MS)), {"a": 2}) as transport:
            await transport.commit("one", {A0: Committed(5), A1: Committed(6)})
            await transport.commit("two", {A0: Committed(7, "metadata", 99)})
            assert await transport.committed("one") == {A0: (5, "", NOW_MS), A1: (6, "", NOW_MS)}
            assert await transport.committed("one", [A1, TP("b", 0)]) == {A1: (6, "", NOW_MS)}
            assert await transport.committed("two") == {A0: (7, "metadata", 99)}
            assert await transport.committed("three") == {}
            assert await transport.groups() == ["one", "two"]
            await transport.delete_group("one")
            await transport.delete_group("nobody")
            assert await transport.groups() == ["two"]

    asyncio.run(run())


@pytest.mark.parametrize("flush", ["interval", "always"])
def test_commits_outlive_a_restart(make: Make, flush: str) -> None:
    longest = "ö" * (METADATA_MAX_BYTES // 2)

    async def run() -> None:
        async with opened(make(flush=flush), {"a": 2}) as transport:
            await transport.commit("g", {A0: Committed(1), A1: Committed(2)})
            await transport.commit("g", {A0: Committed(3, longest)})
            await transport.commit("gone", {A0: Committed(1)})
            await transport.delete_group("gone")
            before = await transport.committed("g")
        async with opened(make(flush=flush)) as transport:
            assert await transport.committed("g") == before
            assert before[A0].metadata == longest
            assert await transport.groups() == ["g"]

    asyncio.run(run())


def test_a_commit_is_all_or_nothing(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2}) as transport:
            too_long = "x" * (METADATA_MAX_BYTES + 1)
            for error, bad in [
                (UnknownTopicError, {A0: Committed(1), TP("nowhere", 0): Committed(1)}),
                (UnknownTopicError, {A0: Committed(1), TP("a", 2): Committed(1)}),
                (OffsetMetadataTooLargeError, {A0: Committed(1), A1: Committed(1, too_long)}),
                (InvalidRecordError, {A0: Committed(1), A1: Committed(-1)}),
            ]:
                with pytest.raises(error):
                    await transport.commit("g", bad)
            assert await transport.committed("g") == {}

    asyncio.run(run())


def test_a_commit_is_one_batch_in_kafkas_record_format(make: Make) -> None:
    async def run() -> None:
        async with opened(make(clock=ManualClock(NOW_MS)), {"a": 2}) as transport:
            await transport.commit("g", {A0: Committed(5, "m"), A1: Committed(6)})
            assert (await transport.topics())["__consumer_offsets"].internal
            (fetched,) = await transport.fetch({OFFSETS: 0})
            read = [(decode_key(r.key or b""), decode_value(r.value or b"")) for r in fetched.records]
            assert read == [(("g", A0), (5, "m", NOW_MS, -1)), (("g", A1), (6, "", NOW_MS, -1))]
            log = transport.node.directory.log(*OFFSETS)
            assert len(list(log.segments[0].scan())) == 1

    asyncio.run(run())


def test_a_recreated_topic_does_not_reuse_committed_offsets(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1, "b": 1}) as transport:
            await transport.commit("g", {A0: Committed(5), TP("b", 0): Committed(6)})
            await transport.delete_topic("a")
            await transport.create_topic("a", partitions=1)
            assert list(await transport.committed("g")) == [TP("b", 0)]
        async with opened(make()) as transport:
            assert list(await transport.committed("g")) == [TP("b", 0)]

    asyncio.run(run())


def test_offsets_whose_topic_was_deleted_just_before_a_crash_do_not_come_back_with_the_topic(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.commit("g", {A0: Committed(5)})
            # The topic goes, and the process with it before the tombstones are written.
            transport.node.directory.delete_topic("a")
        async with opened(make(), {"a": 1}) as transport:
            assert await transport.committed("g") == {}

    asyncio.run(run())


def test_the_offsets_topic_stays_short_under_many_commits(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 2}) as transport:
            await transport.commit("other", {A1: Committed(1, "stays")})
            await transport.alter_config(OFFSETS.topic, {"segment.bytes": "5000"})
            largest = 0
            for offset in range(2000):
                await transport.commit("g", {A0: Committed(offset), A1: Committed(offset)})
                if offset % 20 == 0:
                    await transport.node.flush()
                    await transport.node.compact()
                    largest = max(largest, _size(transport))
            assert largest < 15_000
            assert transport.counters.compactions > 20
            assert transport.counters.commits == 2001
            everything = {group: await transport.committed(group) for group in await transport.groups()}
        async with opened(make()) as transport:
            assert {group: await transport.committed(group) for group in await transport.groups()} == everything
            assert everything["g"][A0].offset == 1999
            assert everything["other"][A1].metadata == "stays"

    asyncio.run(run())


def test_offsets_that_cannot_be_read_are_an_error_and_never_nothing(make: Make) -> None:
    async def run() -> None:
        async with opened(make(), {"a": 1}) as transport:
            await transport.produce({A0: records(b"x")})
            for offset in range(10):
                await transport.commit("g", {A0: Committed(offset)})
                await transport.alter_config(OFFSETS.topic, {"segment.bytes": "200"})
            first, *others = transport.node.directory.log(*OFFSETS).segments
            assert others
            first.file.write_at(0, bytes(first.size_bytes))
        async with opened(make()) as transport:
            asks = [
                lambda: transport.committed("g"),
                lambda: transport.groups(),
                lambda: transport.commit("g", {A0: Committed(6)}),
                lambda: transport.delete_group("g"),
            ]
            for ask in asks:
                with pytest.raises(LogOfflineError, match="committed offsets cannot be read"):
                    await ask()
            assert await read_all(transport, A0) == [(0, b"x")]

    asyncio.run(run())


def _config(make: Make) -> NodeConfig:
    return make()._config


def _size(transport: EmbeddedTransport) -> int:
    return transport.node.directory.log(*OFFSETS).size_bytes
