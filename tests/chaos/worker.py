"""The child that is killed: the real health app and a second one on a real log, fed with the known input.

It takes the input up where the log says it has stopped, and notes every offset that the log gives out.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from apps.health_monitoring import app as health
from streamcore import App
from streamcore.engine import group
from streamcore.engine.commit import commit
from streamcore.engine.worker import Worker
from streamcore.log.disk import RealFile
from streamcore.records.partitioner import partition_for
from streamcore.state.rocksdb import RocksStore
from streamcore.state.store import Change
from streamcore.transport.base import LATEST, Committed, Generation
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP, OutRecord
from tests.chaos import known_input, windows_app
from tests.chaos.notes import Notes, crc_of

POINTS = ("produce", "produced", "commit", "committed", "store", "stored", "torn write")
# Small segments roll often. Every record is looked for at the end: event times are of last winter, which the usual week
# of retention would not keep, and of an alarm's records the cleaner would leave the last (tests/log kills that one).
TOPIC_CONFIG = {"retention.ms": "-1", "segment.bytes": "262144", "min.compaction.lag.ms": str((1 << 63) - 1)}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DeathPoint:
    """Kills the process at the n-th time that it comes by a place in the code."""

    def __init__(self, point: str | None, count: int) -> None:
        self._point = point
        self._left = count

    def is_now(self, point: str) -> bool:
        if point == self._point:
            self._left -= 1
            return self._left == 0
        return False

    def at(self, point: str) -> None:
        if self.is_now(point):
            die()


def watch(notes: Notes, death: DeathPoint) -> None:
    """Note what the log acknowledges, and die where it was asked for."""
    produce, commit_offsets = EmbeddedTransport.produce, EmbeddedTransport.commit
    write_rows, write_bytes = RocksStore.write, RealFile.write_at

    async def noted_produce(
        self: EmbeddedTransport, batches: Mapping[TP, Sequence[OutRecord]], **options: Any
    ) -> dict[TP, Any]:
        death.at("produce")
        results = await produce(self, batches, **options)
        death.at("produced")
        for tp, offset in results.items():
            if isinstance(offset, int):
                notes.records("A", tp, offset, (crc_of(*record) for record in batches[tp]))
        return results

    async def noted_commit(
        self: EmbeddedTransport, name: str, offsets: Mapping[TP, Committed], member: Generation | None = None
    ) -> None:
        death.at("commit")
        await commit_offsets(self, name, offsets, member)
        death.at("committed")
        notes.committed(name, ((tp, place.offset) for tp, place in offsets.items()))

    async def noted_group_commit(of: group.CommitGroup) -> None:
        notes.phase("committing")
        await commit(of)
        notes.phase("committed")

    def write(self: RocksStore, changes: Any) -> None:
        taken: list[Change] = list(changes)
        death.at("store")
        write_rows(self, taken)
        death.at("stored")

    def torn_write(self: RealFile, position: int, data: Any) -> None:
        if death.is_now("torn write"):
            write_bytes(self, position, memoryview(data)[: len(data) // 2])
            die()
        write_bytes(self, position, data)

    EmbeddedTransport.produce = noted_produce  # type: ignore[method-assign]
    EmbeddedTransport.commit = noted_commit  # type: ignore[method-assign]
    group.commit = noted_group_commit
    RocksStore.write = write  # type: ignore[method-assign]
    RealFile.write_at = torn_write  # type: ignore[method-assign]


async def look_back(log: EmbeddedTransport, notes: Notes, seen: Mapping[TP, int]) -> None:
    """Note what lies on the log from `seen` on: nobody has been told of some of it."""
    for info in (await log.topics()).values():
        if info.internal:
            continue
        for tp in (TP(info.name, partition) for partition in range(info.partitions)):
            position = seen.get(tp, 0)
            while fetched := await log.fetch({tp: position}, max_wait_ms=0):
                (part,) = fetched
                if part.error is not None:
                    raise part.error
                if part.records:
                    crcs = (crc_of(r.key, r.value, r.timestamp, r.headers) for r in part.records)
                    notes.records("S", tp, part.records[0].offset, crcs)
                position = part.next_offset


async def send_input(log: EmbeddedTransport, notes: Notes, path: Path, until: int, pace_s: float) -> None:
    """Send the known input from where the log's ends are, up to step `until`; every step acknowledged before the next.

    A partition has the records of its keys in the order of the input, each of them once, so that the number of records
    that it holds says which one is next.
    """
    topics = {topic.name: topic for topic in (health.metrics, health.syslog)}
    counts = {name: info.partitions for name, info in (await log.topics()).items() if name in topics}
    tps = [TP(name, partition) for name, count in counts.items() for partition in range(count)]
    left = Counter(await log.list_offsets(tps, LATEST))
    for number, step in enumerate(known_input.read(path), 1):
        if number > until:
            break
        has_sent = False
        for records in step:
            sent = []
            for record in records:
                tp = TP(record.topic, partition_for(record.host.encode(), counts[record.topic]))
                if left[tp]:
                    left[tp] -= 1
                    continue
                topic, time_s = topics[record.topic], record.time_ms / 1000
                sent.append(await topic.send(key=record.host, value=record.value, timestamp=time_s))
            has_sent = has_sent or bool(sent)
            for acknowledgement in sent:
                await acknowledgement
        if has_sent:
            await asyncio.sleep(pace_s)
    notes.phase("waiting")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--flush", default="interval")
    parser.add_argument("--commit-interval", type=float, default=0.1)
    parser.add_argument("--idle-after", type=float, default=60.0)
    parser.add_argument("--until", type=int, default=1 << 60, help="step of the input; then wait")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two steps")
    parser.add_argument("--drain", action="store_true", help="stop when everything is done")
    parser.add_argument("--die-at", choices=POINTS)
    parser.add_argument("--die-count", type=int, default=1)
    return parser.parse_args()


def prepare(app: App, options: argparse.Namespace, told: Callable[..., None]) -> Worker:
    for topic in app.topics.values():
        topic.config = {**topic.config, **TOPIC_CONFIG}
    return app.worker(
        on_recovery=told,
        broker=f"embedded:{options.directory / 'log'}",
        flush=options.flush,
        commit_interval=options.commit_interval,
        idle_after=options.idle_after,
        web_enabled=False,
    )


async def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    notes = Notes(options.directory / "notes")
    notes.phase("opening")
    watch(notes, DeathPoint(options.die_at, options.die_count))
    log = EmbeddedTransport(str(options.directory / "log"), flush=options.flush)
    await log.start()
    notes.phase("reading-back")
    seen: list[list[Any]] = json.loads((options.directory / "seen.json").read_text())
    await look_back(log, notes, {TP(topic, partition): end for topic, partition, end in seen})
    notes.phase("starting")
    health.options.live = False
    is_sent = asyncio.Event()

    @health.app.task
    async def send_known_input() -> None:
        # Both apps start at once, and either may be the later one.
        while any(worker.phase in ("starting", "recovering") for worker in workers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        notes.phase("running")
        await send_input(log, notes, options.directory / "input", options.until, options.pace)
        is_sent.set()

    def told(table: str, partition: int, done: int, total: int) -> None:
        notes.phase("recovering")

    workers = [prepare(app, options, told) for app in (windows_app.app, health.app)]

    def stop() -> None:
        notes.phase("stopping")
        for worker in workers:
            worker.request_stop()

    async def stop_when_drained() -> None:
        await is_sent.wait()
        while any(worker.phase != "running" for worker in workers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for worker in (*workers, *workers):  # what one sends, the other may read
            await worker.drained()
        stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    try:
        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(worker.run())
            if options.drain:
                tasks.create_task(stop_when_drained())
    finally:
        await log.stop()
    notes.phase("stopped")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
