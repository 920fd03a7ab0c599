"""How a benchmark measures: against a floor, in one run, in several rounds, with real files.

The floor is the least that a Python program does with the same records: the record codec over every stored batch and
`orjson.loads` of every value, in a bare loop over bytes that are in memory already. A shared machine is fast one
minute and slow the next; floor and workload slow down alike, so their ratio is what tells.
"""

import argparse
import asyncio
import cProfile
import gc
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

import streamcore as sc
from streamcore.engine.worker import Worker
from streamcore.records.batch import BatchHeader, split
from streamcore.records.codec import decode, iterate
from streamcore.records.partitioner import partition_for
from streamcore.transport.base import EARLIEST, LATEST
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP, InRecord, OutRecord

SEED = 20_250_101
PARTITIONS = 8  # the default of an app's topics
KEEP = {"retention.ms": "-1"}  # event times are fixed, so by the log's usual week they would be too old

_POLL_S = 0.005  # how finely the end of a workload is seen
_FETCH_BYTES = 4 << 20


def arguments(description: str, *, records: int = 1_000_000, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--records", type=int, default=records, help=f"how many records (default {records})")
    parser.add_argument("--seed", type=int, default=SEED, help="of the generated records")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"floor and workload in turn (default {rounds})")
    parser.add_argument("--profile", metavar="FILE", help="also write a cProfile of the last round's workload")
    return parser


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a benchmark in the event loop that `streamcore worker` uses."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def figure(name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None) -> None:
    """Print one figure, and whether it meets its bar."""
    verdict = ""
    if at_least is not None:
        verdict = f" (bar >= {_number(at_least)} {unit}: {'pass' if value >= at_least else 'miss'})"
    elif at_most is not None:
        verdict = f" (bar <= {_number(at_most)} {unit}: {'pass' if value <= at_most else 'miss'})"
    print(f"{name}: {_number(value)} {unit}{verdict}", flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


@asynccontextmanager
async def temporary_log() -> AsyncIterator[EmbeddedTransport]:
    """A real log on disk, open in this process until the end; workers on the same URL share it."""
    directory = Path(tempfile.mkdtemp(prefix="streamcore-benchmark-"))
    transport = EmbeddedTransport(str(directory / "log"))
    try:
        await transport.start()
        try:
            yield transport
        finally:
            await transport.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def store(log: EmbeddedTransport, topic: str, records: Iterable[OutRecord], *, batch_records: int = 1000) -> None:
    """Produce keyed records as a client with full batches would.

    Args:
        batch_records: how many records a stored batch has.
    """
    await log.create_topic(topic, partitions=PARTITIONS, config=KEEP)
    waiting: dict[TP, list[OutRecord]] = {TP(topic, partition): [] for partition in range(PARTITIONS)}
    place: dict[bytes, list[OutRecord]] = {}
    for record in records:
        key = record[0]
        assert key is not None, "benchmarks use keys"
        queue = place.get(key)
        if queue is None:
            queue = place[key] = waiting[TP(topic, partition_for(key, PARTITIONS))]
        queue.append(record)
        if len(queue) == batch_records:
            await _produce(log, {TP(topic, partition_for(key, PARTITIONS)): queue})
            queue.clear()
    await _produce(log, {tp: queue for tp, queue in waiting.items() if queue})


async def _produce(log: EmbeddedTransport, batches: Mapping[TP, Sequence[OutRecord]]) -> None:
    for result in (await log.produce(batches)).values():
        if isinstance(result, Exception):
            raise result


async def stored_batches(log: EmbeddedTransport, topic: str) -> list[memoryview]:
    """Every stored batch of a topic, as it lies on disk."""
    batches: list[memoryview] = []
    for partition in range(PARTITIONS):
        tp = TP(topic, partition)
        positions = await log.list_offsets([tp], EARLIEST)
        while True:
            reads = await log.node.fetch(positions, max_bytes=_FETCH_BYTES, total_max_bytes=_FETCH_BYTES, max_wait_ms=0)
            if not reads:
                break
            found = list(split(bytes(reads[0].batches)))
            batches += found
            positions = {tp: BatchHeader.parse(found[-1]).last_offset + 1}
    return batches


async def read_all(log: EmbeddedTransport, topic: str) -> list[InRecord]:
    """Every record of a topic, partition by partition."""
    records: list[InRecord] = []
    for batch in await stored_batches(log, topic):
        records += decode(batch)
    return records


def floor(batches: Sequence[memoryview]) -> None:
    """What no program in Python does without: decode every batch, parse every value."""
    loads = orjson.loads
    for batch in batches:
        # One record at a time: a list of them would wake Python's collector and make the floor a fifth lower.
        for record in iterate(batch):
            loads(record.value)  # type: ignore[arg-type]


async def until_committed(log: EmbeddedTransport, worker: Worker, topics: Sequence[str]) -> None:
    """Wait until a worker has committed everything that the topics hold.

    Raises:
        RuntimeError: an agent failed, so there is nothing to measure.
    """
    group = worker.services.group
    tps = [TP(topic, partition) for topic in topics for partition in range(PARTITIONS)]
    ends = {tp: end for tp, end in (await log.list_offsets(tps, LATEST)).items() if end}
    while True:
        committed = await log.committed(group, ends)
        if all(tp in committed and committed[tp].offset >= end for tp, end in ends.items()):
            return
        for run in worker.runs:
            if run.errors_total or run.failing:
                raise RuntimeError(f"agent {run.name} failed: {run.failing or 'see the log above'}")
        await asyncio.sleep(_POLL_S)


@dataclass(frozen=True)
class Timing:
    """How long something took, by the wall and in this process's own CPU time (all threads)."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    def __init__(self) -> None:
        gc.collect()
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def stop(self) -> Timing:
        return Timing(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s)


async def work_off(log: EmbeddedTransport, app: sc.App, topics: Sequence[str], *, profile: str | None = None) -> Timing:
    """Run an app's worker over what the topics hold.

    The time is from a worker that has started to the last committed offset: outputs and changelog written, tables in
    RocksDB.
    """
    async with app.running() as worker:
        with profiled(profile):
            watch = Stopwatch()
            await until_committed(log, worker, topics)
            return watch.stop()


@contextmanager
def profiled(path: str | None) -> Iterator[None]:
    """cProfile what happens inside, into a file, if there is one."""
    if path is None:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(path)


async def compare(
    title: str,
    batches: Sequence[memoryview],
    workload: Callable[[int, bool], Awaitable[Timing]],
    *,
    records: int,
    rounds: int,
    bar_percent: float | None,
) -> None:
    """Floor and workload in turn; the median of the rounds' ratios is the figure.

    Args:
        workload: called with the round's number and whether it is the last.
    """
    before = _time_floor(batches)
    ratios: list[float] = []
    rates: list[float] = []
    for number in range(1, rounds + 1):
        worked = await workload(number, number == rounds)
        after = _time_floor(batches)
        floor_s = (before.wall_s + after.wall_s) / 2
        ratios.append(100 * floor_s / worked.wall_s)
        rates.append(records / worked.wall_s)
        cpu = 100 * (before.cpu_s + after.cpu_s) / 2 / worked.cpu_s
        print(
            f"round {number}: floor {records / floor_s:,.0f} records/s, {title} {rates[-1]:,.0f} records/s, "
            f"ratio {ratios[-1]:.1f} % (CPU time {cpu:.1f} %)",
            flush=True,
        )
        before = after
    figure(f"{title}, rate", statistics.median(rates), "records/s")
    figure(f"{title}, of the floor", statistics.median(ratios), "%", at_least=bar_percent)


def _time_floor(batches: Sequence[memoryview]) -> Timing:
    watch = Stopwatch()
    floor(batches)
    return watch.stop()
