"""Any interleaving of produce, fetch, commit, deletion and restart against lists and dicts."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamcore.errors import OffsetOutOfRangeError, UnknownTopicError
from streamcore.transport.base import EARLIEST, LATEST, Acks, Committed, Fetched
from streamcore.transport.embedded import MemoryTransport
from streamcore.types import TP, OutRecord
from tests.transport.support import read_all
from tests.transport.virtual_loop import VirtualLoop, run_virtually

T = TypeVar("T")
START_MS = 1_700_000_000_000
TPS = [TP("a", 0), TP("a", 1), TP("b", 0), TP("b", 1)]
SETTINGS = {"segment.bytes": "1500", "max.message.bytes": "400"}

tps = st.sampled_from(TPS)
groups = st.sampled_from(["g", "h"])
values = st.lists(st.binary(max_size=80), min_size=1, max_size=12)


class TransportAgainstLists(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.transport = MemoryTransport()
        self.logs: dict[TP, list[tuple[bytes, int]]] = {}  # (value, timestamp)
        self.starts: dict[TP, int] = {}
        self.offsets: dict[str, dict[TP, Committed]] = {}
        self.polls: list[tuple[dict[TP, int], asyncio.Task[list[Fetched]]]] = []
        self.time_ms = START_MS

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(main)

    @initialize(flush=st.sampled_from(["interval", "always"]))
    def start(self, flush: str) -> None:
        self.transport = MemoryTransport(flush=flush)
        self.run(self.transport.start())
        for topic in ("a", "b"):
            self._create(topic)

    def _create(self, topic: str) -> None:
        self.run(self.transport.create_topic(topic, partitions=2, config=SETTINGS))
        for tp in TPS:
            if tp.topic == topic:
                self.logs[tp], self.starts[tp] = [], 0

    @rule(batches=st.dictionaries(tps, values), acks=st.sampled_from(list(Acks)), pause_ms=st.integers(0, 500))
    def produce(self, batches: dict[TP, list[bytes]], acks: Acks, pause_ms: int) -> None:
        self.time_ms += pause_ms
        out: dict[TP, list[OutRecord]] = {
            tp: [(b"k", value, self.time_ms + n, ()) for n, value in enumerate(batch)] for tp, batch in batches.items()
        }
        results = self.run(self.transport.produce(out, acks=acks))
        assert results == {tp: len(self.logs[tp]) for tp in batches}
        for tp, batch in out.items():
            self.logs[tp] += [(value or b"", timestamp_ms) for _, value, timestamp_ms, _ in batch]

    @rule(wanted=st.dictionaries(tps, st.integers(0, 60)), max_bytes=st.sampled_from([1, 300, 5000]))
    def fetch(self, wanted: dict[TP, int], max_bytes: int) -> None:
        shares = self.run(self.transport.fetch(wanted, max_bytes=max_bytes, max_wait_ms=100))
        self._check(wanted, shares)
        assert {share.tp for share in shares} == {tp for tp, offset in wanted.items() if offset != len(self.logs[tp])}

    def _check(self, wanted: dict[TP, int], shares: list[Fetched]) -> None:
        for share in shares:
            tp, offset = share.tp, wanted[share.tp]
            if not self.starts[tp] <= offset <= len(self.logs[tp]):
                assert isinstance(share.error, OffsetOutOfRangeError)
                continue
            assert share.error is None
            got = [(record.offset, record.value, record.timestamp) for record in share.records]
            expected = [(n, *entry) for n, entry in enumerate(self.logs[tp])][offset : share.next_offset]
            assert got == expected
            assert offset < share.next_offset <= share.high_watermark == len(self.logs[tp])
            assert share.log_start_offset == self.starts[tp]

    @rule(wanted=st.lists(tps, min_size=1, unique=True))
    def begin_a_long_poll_at_the_end(self, wanted: list[TP]) -> None:
        positions = {tp: len(self.logs[tp]) for tp in wanted}

        async def begin() -> asyncio.Task[list[Fetched]]:
            task = asyncio.create_task(self.transport.fetch(positions, max_wait_ms=10**9))
            await asyncio.sleep(0)
            return task

        self.polls.append((positions, self.run(begin())))

    @rule()
    def whoever_polls_has_been_woken_if_there_is_something(self) -> None:
        async def settle() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.run(settle())
        waiting = []
        for positions, task in self.polls:
            has_news = any(len(self.logs[tp]) != offset for tp, offset in positions.items())
            assert task.done() or not has_news
            if not task.done():
                waiting.append((positions, task))
        self.polls = waiting

    @rule(group=groups, tps=st.lists(tps, min_size=1, unique=True), metadata=st.text(max_size=5))
    def commit(self, group: str, tps: list[TP], metadata: str) -> None:
        offsets = {tp: Committed(len(self.logs[tp]), metadata, 7) for tp in tps}
        self.run(self.transport.commit(group, offsets))
        self.offsets.setdefault(group, {}).update(offsets)

    @rule(group=groups)
    def delete_group(self, group: str) -> None:
        self.run(self.transport.delete_group(group))
        self.offsets.pop(group, None)

    @rule(tp=tps, part=st.floats(0, 1))
    def delete_records(self, tp: TP, part: float) -> None:
        before = int(part * len(self.logs[tp]))
        self.starts[tp] = max(self.starts[tp], before)
        assert self.run(self.transport.delete_records(tp, before)) == self.starts[tp]

    @rule(tp=tps, back_ms=st.integers(-100, 3000))
    def find_by_time(self, tp: TP, back_ms: int) -> None:
        wanted_ms = self.time_ms - back_ms
        found = self.run(self.transport.list_offsets([tp], wanted_ms))
        later = [n for n, (_, ms) in enumerate(self.logs[tp]) if ms >= wanted_ms and n >= self.starts[tp]]
        assert found == {tp: later[0] if later else len(self.logs[tp])}

    @precondition(lambda self: not self.polls)
    @rule(topic=st.sampled_from(["a", "b"]))
    def recreate(self, topic: str) -> None:
        self.run(self.transport.delete_topic(topic))
        (share,) = self.run(self.transport.fetch({TP(topic, 0): 0}))
        assert isinstance(share.error, UnknownTopicError)
        self._create(topic)
        for known in self.offsets.values():
            for tp in [tp for tp in known if tp.topic == topic]:
                del known[tp]

    @precondition(lambda self: not self.polls)
    @rule()
    def restart(self) -> None:
        self.run(self.transport.stop())
        self.run(self.transport.start())

    @invariant()
    def extents_and_offsets_are_the_models(self) -> None:
        if not self.logs:
            return
        assert self.run(self.transport.list_offsets(TPS, EARLIEST)) == self.starts
        assert self.run(self.transport.list_offsets(TPS, LATEST)) == {tp: len(self.logs[tp]) for tp in TPS}
        committed = {group: known for group, known in self.offsets.items() if known}
        assert self.run(self.transport.groups()) == sorted(committed)
        for group, known in committed.items():
            assert self.run(self.transport.committed(group)) == known

    def teardown(self) -> None:
        if self.logs:
            for tp in TPS:
                read = self.run(read_all(self.transport, tp, self.starts[tp]))
                assert [value for _, value in read] == [value for value, _ in self.logs[tp]][self.starts[tp] :]
            self.run(self.transport.stop())
        for _, task in self.polls:
            assert self.run(_result(task)) == [] or task.done()
        self.runner.close()


async def _result(task: asyncio.Task[T]) -> T:
    return await task


TestTransportAgainstLists = TransportAgainstLists.TestCase
TestTransportAgainstLists.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_concurrent_producers_and_consumers_see_one_order() -> None:
    async def run() -> None:
        transport = MemoryTransport(flush="always")
        await transport.start()
        await transport.create_topic("a", partitions=2)
        acknowledged: dict[int, bytes] = {}

        async def produce(name: bytes) -> None:
            for number in range(50):
                value = b"%s %d" % (name, number)
                results = await transport.produce({TPS[0]: [(None, value, START_MS, ())]})
                offset = results[TPS[0]]
                assert isinstance(offset, int)
                assert offset not in acknowledged
                acknowledged[offset] = value

        async def consume() -> list[bytes | None]:
            seen: list[bytes | None] = []
            while len(seen) < 200:
                for share in await transport.fetch({TPS[0]: len(seen), TPS[1]: 0}, max_wait_ms=10**9):
                    seen += [record.value for record in share.records]
            return seen

        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        await asyncio.gather(*(produce(b"producer %d" % n) for n in range(4)))
        in_order = [acknowledged[offset] for offset in range(200)]
        assert await asyncio.gather(*consumers) == [in_order] * 3
        await transport.stop()

    run_virtually(run())
