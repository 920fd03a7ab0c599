"""W1 and W2 over the wire from our broker: one worker, two workers, and the way of one event from end to end.

The floor is that of the first benchmarks: decode every stored batch and parse every value in a bare loop over bytes in
memory. The broker and every worker are processes of their own.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

import streamcore as sc
from benchmarks import latency, w1, w2
from benchmarks.broker import ours
from benchmarks.measure import PARTITIONS, SEED, Stopwatch, figure, floor, run, store, stored_batches
from benchmarks.sensor_events import TOPIC, events, readings
from streamcore.transport import connect
from streamcore.transport.base import EARLIEST, LATEST, Transport
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP

APPS = {"w1": w1.declare, "w2": w2.declare}
BARS = {"w1": 30, "w2": 15}
P50_MS, P99_MS = 5, 20
_POLL_S = 0.02
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


# -- a worker in a process of its own ----------------------------------------------------------------------------------


async def work(name: str, number: int, url: str, tasks: int, directory: str) -> None:
    """Join, say so, wait for the word, work until the input is closed."""
    app = latency.declare(url) if name == "latency" else APPS[name](number, url)
    go = asyncio.Event()
    worker = app.worker(datadir=directory)
    fetch = worker.services.transport.fetch

    async def fetch_after_word(*args: Any, **options: Any) -> Any:
        if not go.is_set():
            await asyncio.sleep(_POLL_S)
            return []
        return await fetch(*args, **options)

    worker.services.transport.fetch = fetch_after_word  # type: ignore[method-assign]
    await worker.start()
    while len(worker.tasks) != tasks:  # noqa: ASYNC110 - until the other one has its share
        await asyncio.sleep(_POLL_S)
    print("READY", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    go.set()
    await asyncio.to_thread(sys.stdin.readline)
    await worker.stop()


@contextmanager
def workers(name: str, number: int, url: str, count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Workers that have shared the partitions and wait for a line on their standard input."""
    home = tempfile.mkdtemp(prefix="streamcore-wire-")
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks.wire", "--work", name, "--number", str(number), "--url", url,
                "--tasks", str(PARTITIONS // count), "--directory", f"{home}/{slot}",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for slot in range(count)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "READY\n", "a worker could not start, see above"
        yield processes
    finally:
        for process in processes:
            say(process)
        for process in processes:
            process.wait(30)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        shutil.rmtree(home, ignore_errors=True)


def say(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has died, and has said why


async def until_committed(log: Transport, group: str, ends: dict[TP, int]) -> None:
    while True:
        committed = await log.committed(group, ends)
        if all(tp in committed and committed[tp].offset >= end for tp, end in ends.items()):
            return
        await asyncio.sleep(_POLL_S)


async def work_off(log: Transport, name: str, number: int, url: str, count: int, broker: int) -> tuple[float, float]:
    """(seconds, share of a core that the broker took) for some workers to work the topic off."""
    tps = [TP(TOPIC, partition) for partition in range(PARTITIONS)]
    ends = {tp: end for tp, end in (await log.list_offsets(tps, LATEST)).items() if end}
    with workers(name, number, url, count) as processes:
        before, started_s = cpu_s(broker), time.perf_counter()
        for process in processes:
            say(process)
        await until_committed(log, f"{name}-{number}", ends)
        took_s = time.perf_counter() - started_s
        return took_s, (cpu_s(broker) - before) / took_s


async def read_values(log: Transport, topic: str) -> list[Any]:
    tps = [TP(topic, partition) for partition in range(PARTITIONS)]
    positions, ends = dict(await log.list_offsets(tps, EARLIEST)), await log.list_offsets(tps, LATEST)
    values: list[Any] = []
    for tp in tps:
        while positions[tp] < ends[tp]:
            (part,) = await log.fetch({tp: positions[tp]}, max_bytes=4 << 20, max_wait_ms=0)
            values += [orjson.loads(record.value or b"null") for record in part.records]
            positions[tp] = part.next_offset
    return values


# -- the figures -------------------------------------------------------------------------------------------------------


def time_floor(batches: Sequence[memoryview]) -> float:
    watch = Stopwatch()
    floor(batches)
    return watch.stop().wall_s


async def bare_loop(url: str, records: int) -> float:
    """Seconds for the same records in a bare loop of confluent-kafka, decoded from JSON."""
    import confluent_kafka

    def loop() -> float:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": url.removeprefix("kafka://"), "group.id": "bare", "auto.offset.reset": "earliest"}
        )
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
        left, started_s = records, time.perf_counter()
        while left:
            for message in consumer.consume(1000, 5.0):
                orjson.loads(message.value())
                left -= 1
        took_s = time.perf_counter() - started_s
        consumer.close()
        return took_s

    return await asyncio.to_thread(loop)


async def throughput(url: str, broker: int, batches: Sequence[memoryview], records: int, rounds: int) -> None:
    log = connect(url)
    await log.start()
    number = 0
    for name in APPS:
        shares: list[float] = []
        pairs: list[float] = []
        cores: list[float] = []
        floor_s = time_floor(batches)
        for _ in range(rounds):
            number += 1
            one_s, one_core = await work_off(log, name, number, url, 1, broker)
            after_s = time_floor(batches)
            shares.append(100 * (floor_s + after_s) / 2 / one_s)
            floor_s = after_s
            number += 1
            two_s, two_core = await work_off(log, name, number, url, 2, broker)
            pairs.append(one_s / two_s)
            cores.append(two_core)
            print(
                f"{name}: one worker {records / one_s:,.0f} records/s, {shares[-1]:.1f} % of the floor, broker "
                f"{one_core:.2f} of a core; two workers {records / two_s:,.0f} records/s, broker {two_core:.2f}",
                flush=True,
            )
            await check(log, name, number, records)
        figure(f"{name} over the wire, of the floor", statistics.median(shares), "%", at_least=BARS[name])
        figure(f"{name}, two workers to one", statistics.median(pairs), "times")
        figure(f"{name}, the broker's share of a core under two workers", statistics.median(cores), "cores")
    bare_s = await bare_loop(url, records)
    figure("a bare confluent-kafka loop, of the floor", 100 * time_floor(batches) / bare_s, "%")
    await log.stop()


async def check(log: Transport, name: str, number: int, records: int) -> None:
    if name == "w1":
        expected = sorted(r.id for r in readings(records, SEED) if r.value >= w1.HOT)
        found = sorted(value["id"] for value in await read_values(log, f"hot-{number}"))
        assert found == expected, f"W1 gave {len(found)} events, not {len(expected)}"
        return
    means, closed = w2.offline(records, SEED)
    rows = {(row["key"], float(row["start"])): row["count"] for row in await read_values(log, f"means-{number}")}
    assert closed <= rows.keys() <= means.keys(), "W2 gave other windows than there are"
    assert all(means[window][0] == count for window, count in rows.items()), "W2 counted wrong"


async def end_to_end(url: str, broker: int) -> None:
    """From a producer over an agent to a consumer, every one of them over the wire."""
    total = int((10 + latency.WARM_UP_S) * latency.RATE)
    with workers("latency", 0, url, 1) as processes:
        say(processes[0])
        app = sc.App("ends", broker=url, web_enabled=False)
        requests, answers = app.topic("requests", key_type=str), app.topic("answers", key_type=str)
        latencies: list[float] = []
        async with app.running():

            async def read() -> None:
                async for event in answers.tail():
                    latencies.append(time.perf_counter() - event.value["sent"])
                    if len(latencies) == total:
                        return

            pids = {"broker": broker, "worker": processes[0].pid, "producer and consumer": os.getpid()}
            before, started_s = {name: cpu_s(pid) for name, pid in pids.items()}, time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read(), name="reader")
                await asyncio.sleep(0.5)
                await latency.send_at_rate(requests, total)
            took_s = time.perf_counter() - started_s
            shares = [f"{name} {(cpu_s(pid) - before[name]) / took_s:.2f}" for name, pid in pids.items()]
            print(f"shares of a core: {', '.join(shares)}", flush=True)
        counted = sorted(latencies[int(latency.WARM_UP_S * latency.RATE) :])
    for percent, bar_ms in ((50, P50_MS), (99, P99_MS)):
        value_ms = 1000 * counted[len(counted) * percent // 100]
        figure(f"end to end at 10 k events/s, p{percent}", value_ms, "ms", at_most=bar_ms)


async def main(options: argparse.Namespace) -> None:
    home = Path(tempfile.mkdtemp(prefix="streamcore-wire-"))
    try:
        log = EmbeddedTransport(str(home / "log"))
        await log.start()
        await store(log, TOPIC, events(options.records, SEED))
        batches = await stored_batches(log, TOPIC)
        await log.stop()
        with ours(home / "log") as broker:
            url = f"kafka://{broker.address}"
            if not options.only_latency:
                await throughput(url, broker.process.pid, batches, options.records, options.rounds)
            await end_to_end(url, broker.process.pid)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-latency", action="store_true")
    parser.add_argument("--work", choices=[*APPS, "latency"], help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        run(work(given.work, given.number, given.url, given.tasks, given.directory))
    else:
        run(main(given))
