"""Starting and stopping: orderly stops, hanging agents, the watchdog, shared tables, a process that is killed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

import streamcore as sc
from streamcore.engine.worker import Worker
from streamcore.errors import PartitionsMismatchError
from streamcore.state.rocksdb import RocksStore
from streamcore.testing import AppTest
from streamcore.types import TP

from .faulty import FaultyAppTest

T0 = 1_767_225_600


def put(test: FaultyAppTest, topic: sc.Topic, *values: Any, key: bytes | None = b"k") -> None:
    test.put({TP(topic.name, 0): [(key, orjson.dumps(value), T0 * 1000, ()) for value in values]})


def stop(test: AppTest) -> float:
    """An orderly stop; the virtual seconds that it took."""
    before = test.now
    test._run(test.worker.stop())
    return test.now - before


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_an_orderly_stop_finishes_the_events_in_flight_and_commits_them() -> None:
    app = sc.App("test", topic_partitions=1)
    source, sink = app.topic("source"), app.topic("sink")
    counts = app.Table("counts", default=int)

    @app.agent(source, sink=[sink])
    async def slow(stream: sc.Stream) -> Any:
        async for value in stream:
            counts["begun"] += 1
            await asyncio.sleep(1)
            counts["done"] += 1
            yield value

    with FaultyAppTest(app) as test:
        put(test, source, *range(5))
        test.pass_time(1.5)
        assert stop(test) < 1
        assert test.committed(source) == {0: 2}
        test.crash()
        test.lose_tables()
        test.restart()
        assert test.table(counts) == {"begun": 5, "done": 5}
        assert test.values(sink) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_agent_that_hangs_is_cut_off_and_its_event_is_read_again(stubborn: bool) -> None:
    app = sc.App("test", topic_partitions=1, drain=2)
    source, sink = app.topic("source"), app.topic("sink")
    counts = app.Table("counts", default=int)
    hangs = [True]

    @app.agent(source, sink=[sink])
    async def hang(stream: sc.Stream) -> Any:
        async for value in stream:
            counts["begun"] += 1
            yield value
            while value == 2 and hangs:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    if not stubborn:
                        raise

    with FaultyAppTest(app) as test:
        put(test, source, *range(4))
        test.pass_time(1)
        assert stop(test) < 5
        hangs.clear()
        test.crash_and_restart()
        assert test.table(counts) == {"begun": 4}
        assert dict.fromkeys(test.values(sink)) == dict.fromkeys(range(4))


@pytest.mark.parametrize("step", range(8))
def test_a_stop_at_any_step_of_a_commit_loses_no_output(step: int) -> None:
    app = sc.App("test", topic_partitions=1)
    source, sink = app.topic("source"), app.topic("sink")
    counts = app.Table("counts", default=int)

    @app.agent(source, sink=[sink])
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            counts["all"] += 1
            yield value

    with FaultyAppTest(app) as test:
        held: list[asyncio.Future[None]] = []

        async def hold(name: str) -> None:
            test.faults.steps.append(name)
            if len(test.faults.steps) == step + 1:
                held.append(asyncio.get_running_loop().create_future())
                await held[0]

        test.faults.wait = hold  # type: ignore[method-assign]
        put(test, source, 1, 2, 3)
        test.pass_time(0.5)
        stopping = test._loop.create_task(test.worker.stop())
        test.pass_time(0.1)
        if held:
            held[0].set_result(None)
        test.pass_time(6)
        assert stopping.done()
        test.crash_and_restart()
        assert dict.fromkeys(test.values(sink)) == {1: None, 2: None, 3: None}
        assert test.table(counts) == {"all": 3}


def test_a_stop_while_a_source_is_sending_loses_none_of_its_records() -> None:
    app = sc.App("test", topic_partitions=1)
    source = app.topic("source")

    with FaultyAppTest(app) as test:
        gate = test._loop.create_future()

        async def hold(name: str) -> None:
            await asyncio.shield(gate)

        test.faults.wait = hold  # type: ignore[method-assign]
        test.send(source, value=1, settle=False)
        test.pass_time(0.1)
        test.send(source, value=2, settle=False)
        stopping = test._loop.create_task(test.worker.stop())
        test.pass_time(0.1)
        gate.set_result(None)
        test.pass_time(1)
        assert stopping.done()
        assert [event.value for event in test._events(source, only_new=True)] == [1, 2]


def test_a_stop_is_bounded_when_the_log_takes_nothing() -> None:
    app = sc.App("test", topic_partitions=1, drain=3)
    source, sink = app.topic("source"), app.topic("sink")

    @app.agent(source, sink=[sink])
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            yield value

    with FaultyAppTest(app) as test:
        test.faults.answer = lambda step: sc.StreamcoreError("disk full") if step.startswith("produce") else None
        put(test, source, 1)
        test.pass_time(1)
        put(test, source, 2)
        test.pass_time(1)
        assert stop(test) < 5
        test.faults.answer = lambda step: None
        test.crash_and_restart()
        assert test.values(sink) == [1, 2]


def test_a_task_that_does_not_let_itself_be_cancelled_does_not_keep_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = sc.App("test", topic_partitions=1)
    ends = []

    @app.task
    async def stubborn() -> None:
        while not ends:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass

    with AppTest(app) as test:
        assert stop(test) < 2
        ends.append(True)
    assert "does not end though it was cancelled" in caplog.text


def test_a_usage_error_in_a_task_stops_the_worker_with_it() -> None:
    app = sc.App("test", topic_partitions=1)

    @app.task
    async def wrong() -> None:
        raise sc.UsageError("port 514 needs root")

    with AppTest(app) as test:
        test.pass_time(1)
        running = test.worker._failed
        assert running is not None
        with pytest.raises(sc.UsageError, match="port 514"):
            running.result()


# -- the watchdog ------------------------------------------------------------------------------------------------------


def test_the_watchdog_tells_an_agent_that_hangs_and_when_it_moves_again(caplog: pytest.LogCaptureFixture) -> None:
    app = sc.App("test", topic_partitions=1, watchdog_after=30)
    source = app.topic("source")
    gate: list[asyncio.Event] = []

    @app.agent(source)
    async def hang(stream: sc.Stream) -> None:
        async for value in stream:
            if value == 1:
                gate.append(asyncio.Event())
                await gate[0].wait()

    with FaultyAppTest(app) as test:
        put(test, source, 0, 1, 2)
        test.pass_time(25)
        assert test.worker.healthy() == (True, "ok")
        test.pass_time(20)
        healthy, reason = test.worker.healthy()
        assert not healthy
        assert "hang[0] has 2 records to read and has not moved for" in reason
        assert "gate[0].wait()" in caplog.text or "test_worker.py" in caplog.text
        gate[0].set()
        test.pass_time(20)
        assert test.worker.healthy() == (True, "ok")


def test_the_watchdog_lets_an_agent_wait_that_only_collects_a_list() -> None:
    app = sc.App("test", topic_partitions=1, watchdog_after=30)
    source = app.topic("source")

    @app.agent(source)
    async def collect(stream: sc.Stream) -> None:
        async for _ in stream.take(100):
            pass

    with FaultyAppTest(app) as test:
        put(test, source, 0, 1, 2)
        test.pass_time(200)
        assert test.worker.healthy() == (True, "ok")


# -- partitions --------------------------------------------------------------------------------------------------------


def test_a_topic_that_exists_keeps_its_partitions_and_the_worker_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = sc.App("test")
    source = app.topic("source", partitions=4)
    seen = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        async for event in stream.events():
            seen.append((event.message.partition, event.value))

    test = FaultyAppTest(app)
    test._run(test.log.start())
    test._run(test.log.create_topic("source", partitions=2))
    with test:
        assert "source has 2 partitions, not the declared 4" in caplog.text
        test.put({TP("source", n): [(None, b"%d" % n, T0 * 1000, ())] for n in range(2)})
        test.settle()
    assert sorted(seen) == [(0, 0), (1, 1)]


def test_a_table_written_from_topics_with_different_partitions_stops_the_worker() -> None:
    app = sc.App("test")
    one, two = app.topic("one", partitions=1), app.topic("two", partitions=2)
    table = app.Table("table", default=int)

    async def write(stream: sc.Stream) -> None:
        async for value in stream:
            table[str(value)] += 1

    app.agent(one, name="a")(write)
    app.agent(two, name="b", on_error="dead_letter")(write)
    with FaultyAppTest(app) as test:
        put(test, one, 1)
        test.settle()
        put(test, two, 2)
        test.pass_time(5)
        letters = test.dead_letters()
        assert test.worker.healthy()[0] is False or len(letters) == 1
        if letters:
            assert PartitionsMismatchError.__name__.encode() in letters[0].headers["streamcore.error"]


# -- two agents on one table -------------------------------------------------------------------------------------------


def sharing_app(retries: int = 1) -> tuple[sc.App, sc.Topic, sc.Topic, sc.Table]:
    app = sc.App("test", topic_partitions=1, on_error=sc.retry(retries, backoff=0.05))
    left, right = app.topic("left"), app.topic("right")
    sums = app.Table("sums", default=int)

    @app.agent(left)
    async def add_left(stream: sc.Stream) -> None:
        async for value in stream:
            sums["both"] += value
            sums["left"] += value

    @app.agent(right)
    async def add_right(stream: sc.Stream) -> None:
        async for value in stream:
            if value == 1000:
                raise ValueError("no thousands")
            await asyncio.sleep(0)
            sums["both"] += value
            sums["right"] += value
            if value == 100:
                raise ValueError("no hundreds")

    return app, left, right, sums


@pytest.mark.parametrize("cut", range(20))
def test_two_agents_that_share_a_table_commit_together(cut: int) -> None:
    app, left, right, sums = sharing_app()
    with FaultyAppTest(app) as test:
        put(test, left, 1, 2, 3)
        test.faults.cut_at = cut
        test.pass_time(0.003)
        put(test, right, 10, 100, 20)
        put(test, left, 4)
        test.pass_time(1)
        test.crash_and_restart(lose_tables=cut % 2 == 1)
        put(test, right, 30)
        put(test, left, 5)
        assert test.table(sums) == {"both": 75, "left": 15, "right": 60}
        test.assert_changelogs_equal_stores()
        assert {letter.value for letter in test.dead_letters()} == {b"100"}
        assert test.committed(left) == {0: 5}
        assert test.committed(right) == {0: 4}


@pytest.mark.parametrize("hold", range(10))
@pytest.mark.parametrize("first", [10, 100, 1000])
def test_an_agent_that_first_touches_a_table_in_the_middle_of_its_commit_is_exact(hold: int, first: int) -> None:
    app, left, right, sums = sharing_app()
    with FaultyAppTest(app) as test:
        gates: list[asyncio.Future[None]] = []

        async def wait(name: str) -> None:
            test.faults.steps.append(name)
            if len(test.faults.steps) == hold + 1:
                gates.append(test._loop.create_future())
                await gates[0]

        test.faults.wait = wait  # type: ignore[method-assign]
        put(test, left, 1, 2)
        test.pass_time(0.5)  # the commit of `left` stands still in the middle
        put(test, right, first, 20)
        test.pass_time(0.3)
        for gate in gates:
            gate.set_result(None)
        test.settle()
        put(test, left, 3)
        total = sum(value for value in (first, 20) if value not in (100, 1000))
        assert test.table(sums) == {"both": 6 + total, "left": 6, "right": total}
        test.crash_and_restart(lose_tables=True)
        assert test.table(sums) == {"both": 6 + total, "left": 6, "right": total}
        test.assert_changelogs_equal_stores()


def test_an_agent_that_swallows_its_cancellation_does_not_keep_what_was_rolled_back() -> None:
    app, _, right, sums = sharing_app()
    stubborn_topic = app.topic("stubborn")

    @app.agent(stubborn_topic)
    async def stubborn(stream: sc.Stream) -> None:
        async for value in stream:
            sums["stubborn"] += value
            try:
                await asyncio.sleep(0.3)
            except asyncio.CancelledError:
                pass
            sums["stubborn"] += value

    with FaultyAppTest(app) as test:
        put(test, right, 1)
        put(test, stubborn_topic, 1, 2)
        test.pass_time(0.1)
        put(test, right, 1000)
        put(test, stubborn_topic, 4)
        test.settle()
        assert test.table(sums) == {"both": 1, "right": 1, "stubborn": 14}
        test.crash_and_restart(lose_tables=True)
        assert test.table(sums) == {"both": 1, "right": 1, "stubborn": 14}


@pytest.mark.parametrize("concurrency", [1, 2])
def test_an_agent_that_awaits_something_cancelled_fails_at_its_event(concurrency: int) -> None:
    app = sc.App("test", topic_partitions=1, on_error=sc.retry(1, backoff=0.05))
    source, sink = app.topic("source"), app.topic("sink")

    @app.agent(source, sink=[sink], concurrency=concurrency)
    async def work(stream: sc.Stream) -> Any:
        async for value in stream:
            if value == 2:
                helper = asyncio.ensure_future(asyncio.sleep(10))
                helper.cancel()
                await helper
            yield value

    with FaultyAppTest(app) as test:
        put(test, source, 1, 2, 3)
        test.settle()
        assert dict.fromkeys(test.values(sink)) == {1: None, 3: None}
        assert [letter.value for letter in test.dead_letters()] == [b"2"]


def test_a_failing_agent_without_an_event_stops_the_worker_after_its_retries() -> None:
    app = sc.App("test", topic_partitions=1, on_error=sc.retry(2, backoff=0.1))
    source = app.topic("source")
    starts = []

    @app.agent(source)
    async def work(stream: sc.Stream) -> None:
        starts.append(True)
        raise OSError("the model file is missing")

    with AppTest(app) as test:
        test.pass_time(5)
        assert len(starts) == 3
        assert "the model file is missing" in test.worker.healthy()[1]


def test_an_agent_that_stays_stopped_does_not_hold_up_those_that_share_its_table() -> None:
    app, left, right, sums = sharing_app()

    @app.agent(left)
    async def leaves(stream: sc.Stream) -> None:
        sums["starts"] += 1

    with FaultyAppTest(app) as test:
        put(test, left, 1, 2)
        put(test, right, 10, 1000, 100, 20)
        test.pass_time(5)
        assert test.committed(right) == {0: 4}
        rows = test.table(sums)
        assert (rows["left"], rows["right"]) == (3, 30)
        assert "returned without reading its stream" in test.worker.healthy()[1]


def test_an_agent_that_needs_a_few_starts_gets_them_and_its_neighbour_on_the_same_table_goes_on() -> None:
    app, left, right, sums = sharing_app(retries=3)
    starts = []

    @app.agent(left)
    async def shaky(stream: sc.Stream) -> None:
        sums["starts"] += 1
        starts.append(True)
        if len(starts) < 3:
            raise OSError("not yet")
        async for value in stream:
            sums["shaky"] += value

    with FaultyAppTest(app) as test:
        put(test, left, 1, 2)
        put(test, right, 10, 1000, 20)
        test.pass_time(5)
        rows = test.table(sums)
        assert (rows["left"], rows["right"], rows["shaky"]) == (3, 30, 3)


# -- real processes ----------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
import streamcore as sc

app = sc.App("killed", broker=f"embedded:{sys.argv[1]}", web_enabled=False, topic_partitions=2, commit_interval=0.02)
source = app.topic("source", key_type=str)
sink = app.topic("sink", key_type=str)
counts = app.Table("counts", default=int)

@app.agent(source, sink=[sink])
async def count(stream):
    async for event in stream.events():
        counts[event.key] += 1
        yield {"place": [event.message.partition, event.offset], "count": counts[event.key]}

@app.task
async def feed():
    first = int(sys.argv[2])
    for n in range(first, first + int(sys.argv[3])):
        place = await source.send(key=f"k{n % 7}", value=n)
        if n % 20 == 0:
            print("acknowledged", n, (await place).offset, flush=True)
    await place
    await app.drained()
    print("done", flush=True)

async def main():
    worker = app.worker()
    loop = asyncio.get_running_loop()
    import signal
    loop.add_signal_handler(signal.SIGTERM, worker.request_stop)
    return await worker.run()

sys.exit(asyncio.run(main()))
"""


def test_a_killed_process_leaves_tables_that_are_exact_after_the_next_start(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    fate = random.Random(seed)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    command = [sys.executable, str(program), str(tmp_path / "log")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for number in range(2):
        process = subprocess.Popen(
            [*command, str(number * 100_000), "100000"], stdout=subprocess.PIPE, env=environment, text=True
        )
        assert process.stdout is not None
        for _ in range(fate.randrange(1, 60)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = subprocess.Popen([*command, "900000", "50"], stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "done\n":
            break
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0

    from streamcore.transport import connect
    from streamcore.transport.base import EARLIEST

    async def everything(topic: str) -> list[Any]:
        transport = connect(f"embedded:{tmp_path / 'log'}")
        await transport.start()
        records = []
        for partition in range(2):
            tp = TP(topic, partition)
            position = (await transport.list_offsets([tp], EARLIEST))[tp]
            while fetched := await transport.fetch({tp: position}, max_wait_ms=0):
                records += [(partition, record.offset, record.key, record.value) for record in fetched[0].records]
                position = fetched[0].next_offset
        await transport.stop()
        return records

    counts: Counter[bytes] = Counter()
    expected: dict[tuple[int, int], int] = {}
    for partition, offset, key, _ in asyncio.run(everything("source")):
        counts[key] += 1
        expected[partition, offset] = counts[key]
    found: dict[tuple[int, int], int] = {}
    for _, _, _, value in asyncio.run(everything("sink")):
        row = orjson.loads(value)
        partition, offset = row["place"]
        assert found.setdefault((partition, offset), row["count"]) == row["count"], "a repeat differs"
    assert found == expected
    rows = {key: value for _, _, key, value in asyncio.run(everything("killed-counts-changelog"))}
    assert {orjson.loads(key).encode(): int(value) for key, value in rows.items()} == counts


def test_a_damaged_table_store_is_set_aside_and_its_tables_are_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make_app() -> tuple[sc.App, sc.Topic, sc.Table]:
        app = sc.App("test", broker=f"embedded:{tmp_path}", web_enabled=False, topic_partitions=1)
        source = app.topic("source", key_type=str)
        counts = app.Table("counts", default=int)

        @app.agent(source)
        async def count(stream: sc.Stream) -> None:
            async for key, _ in stream.items():
                counts[key] += 1

        return app, source, counts

    async def live(times: int) -> dict[str, int]:
        app, source, counts = make_app()
        async with app.running() as worker:
            for _ in range(times):
                await source.send(key="a", value=1)
            await app.drained()
            return dict(worker.table_runtime.table_partitions(counts)[0].items())

    assert asyncio.run(live(3)) == {"a": 3}
    (store,) = [path for path in (tmp_path / "apps" / "test" / "tables").iterdir() if path.name == "0"]
    for path in store.iterdir():
        if path.name.startswith(("MANIFEST", "CURRENT")):
            path.write_bytes(b"rubbish\\n")
    assert asyncio.run(live(2)) == {"a": 5}
    assert "rebuilt from their changelogs" in caplog.text
    assert any("damaged" in path.name for path in store.parent.iterdir())


def test_a_store_that_is_found_damaged_while_it_is_read_blames_no_event(tmp_path: Path) -> None:
    def make_app() -> tuple[sc.App, sc.Topic, sc.Table]:
        app = sc.App(
            "test", broker=f"embedded:{tmp_path}", web_enabled=False, topic_partitions=1, table_cache_entries=0
        )
        source = app.topic("source", key_type=str)
        counts = app.Table("counts", default=int)

        @app.agent(source)
        async def count(stream: sc.Stream) -> None:
            async for key, _ in stream.items():
                counts[key] += 1

        return app, source, counts

    async def live(times: int) -> dict[str, int]:
        app, source, counts = make_app()
        async with app.running() as worker:
            for n in range(times):
                await source.send(key=f"k{n % 500}", value=1)
            await app.drained()
            return dict(worker.table_runtime.table_partitions(counts)[0].items())

    assert asyncio.run(live(1000)) == {f"k{n}": 2 for n in range(500)}
    database = tmp_path / "apps" / "test" / "tables" / "0"
    store = RocksStore(str(database))
    store._families["counts"].flush()
    store.close()
    (rows,) = [file for file in database.glob("*.sst") if file.stat().st_size > 3000]
    data = bytearray(rows.read_bytes())
    data[20:2000] = b"U" * 1980
    rows.write_bytes(data)

    async def meet_the_damage() -> None:
        app, source, _ = make_app()

        @app.task
        async def feed() -> None:
            await source.send(key="k100", value=1)
            await app.drained()
            app.stop()

        await app.worker().run()

    with pytest.raises(sc.StreamcoreError, match="is damaged"):
        asyncio.run(meet_the_damage())
    assert asyncio.run(live(0)) == {f"k{n}": 2 + (n == 100) for n in range(500)}


def test_a_worker_is_an_ordinary_object_with_a_life() -> None:
    app = sc.App("test", broker="memory:", store="memory://", web_enabled=False)
    worker = app.worker()
    assert isinstance(worker, Worker)
    assert worker.ready() == (False, "starting")
    asyncio.run(worker.stop())
    assert worker.ready() == (False, "stopped")
