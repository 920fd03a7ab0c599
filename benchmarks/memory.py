"""Memory: a worker's RSS while its log and the number of closed windows grow to ten times what they were.

RocksDB fills its write buffers before it writes them out, which looks like growth and is not: they are bounded by
`streamcore.state.rocksdb.WRITE_BUFFER_BYTES`. So that they do not hide real growth, they are written out before each
look; the RSS before that is printed as well.
"""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator
from random import Random
from statistics import linear_regression

import psutil

import streamcore as sc
from benchmarks.measure import KEEP, PARTITIONS, arguments, figure, run, temporary_log
from streamcore.engine.worker import Worker
from streamcore.records.partitioner import partition_for
from streamcore.state.rocksdb import RocksStore
from streamcore.transport.base import LATEST
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP, OutRecord

STEPS = 10
SENSORS = 500
START_MS = 1_735_689_600_000
GROWTH_MAX_PERCENT = 10  # from the first step to the last, along the fitted line
BURST = 5_000  # records that are produced at a time
TOPIC = "readings"


def declare(broker: str) -> sc.App:
    app = sc.App("memory", broker=broker, web_enabled=False)
    source = app.topic(TOPIC, key_type=str, partitions=PARTITIONS, config=KEEP)
    results = app.topic("means", key_type=str, partitions=PARTITIONS, config=KEEP)

    async def emit(window: tuple[str, tuple[float, float]], total: float) -> None:
        await results.send(key=window[0], value=total)

    sums = app.Table("sums", default=float, on_window_close=emit).tumbling(1)

    @app.agent(source)
    async def add(stream: sc.Stream) -> None:
        async for event in stream:
            sums[event["key"]] += event["value"]

    return app


def bursts(count: int, seed: int) -> Iterator[dict[TP, list[OutRecord]]]:
    """One event per millisecond of event time, so that every 1000th event closes a window."""
    random = Random(seed)
    keys = [f"sensor-{number:04}" for number in range(SENSORS)]
    places = {key: TP(TOPIC, partition_for(key.encode(), PARTITIONS)) for key in keys}
    for first in range(0, count, BURST):
        burst: dict[TP, list[OutRecord]] = {}
        for number in range(first, min(first + BURST, count)):
            key, value = keys[random.randrange(SENSORS)], round(random.random() * 100, 3)
            event = f'{{"id":{number},"key":"{key}","value":{value}}}'.encode()
            burst.setdefault(places[key], []).append((key.encode(), event, START_MS + number, ()))
        yield burst


async def main() -> None:
    options = arguments(__doc__.splitlines()[0], records=2_000_000, rounds=1).parse_args()
    process = psutil.Process()
    async with temporary_log() as log, declare(log.url).running() as worker:
        step = options.records // STEPS
        sizes: list[float] = []
        sent = 0
        started_s = time.perf_counter()
        for burst in bursts(options.records, options.seed):
            await log.produce(burst)
            sent += sum(map(len, burst.values()))
            await _until_read(log, worker, burst)
            if sent >= step * (len(sizes) + 1):
                filled = process.memory_info().rss / 1e6
                _empty_write_buffers(worker)
                gc.collect()
                sizes.append(process.memory_info().rss / 1e6)
                windows = sum(task.tables["sums"].closed_total for task in worker.tasks)  # type: ignore[union-attr]
                print(
                    f"step {len(sizes)}: {sent:,} records in the log, {windows:,} windows closed, "
                    f"RSS {sizes[-1]:.1f} MB ({filled:.1f} MB before its write buffers were emptied), "
                    f"after {time.perf_counter() - started_s:.0f} s",
                    flush=True,
                )
    slope, _ = linear_regression(range(STEPS), sizes)
    figure("memory, RSS at the end", sizes[-1], "MB")
    figure("memory, slope", slope * 1000 / (step / 1e6), "kB per 1 M records")
    growth = 100 * slope * (STEPS - 1) / sizes[0]
    figure("memory, growth while log and windows grow tenfold", growth, "%", at_most=GROWTH_MAX_PERCENT)


def _empty_write_buffers(worker: Worker) -> None:
    for task in worker.tasks:
        assert isinstance(task.store, RocksStore)
        for family in task.store._families.values():
            family.flush()


async def _until_read(log: EmbeddedTransport, worker: Worker, tps: Iterable[TP]) -> None:
    """Let the worker catch up with a burst, so that what is waiting does not count as growth."""
    inputs = {run.inputs[0].tp: run.inputs[0] for run in worker.runs}
    ends = await log.list_offsets(tps, LATEST)
    while any(inputs[tp].position < end for tp, end in ends.items()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    run(main())
