"""W2: tumbling 10 s mean per key: RocksDB, changelog, a commit every 100 ms, final results when a window closes."""

from collections import defaultdict
from math import isclose

import orjson

import streamcore as sc
from benchmarks.measure import (
    KEEP,
    PARTITIONS,
    Timing,
    arguments,
    compare,
    read_all,
    run,
    store,
    stored_batches,
    temporary_log,
    work_off,
)  # fmt: skip
from benchmarks.sensor_events import TOPIC, events, readings
from streamcore.records.partitioner import partition_for

BAR_PERCENT = 20
WINDOW_S = 10


class Mean(sc.Record):
    """A mean that takes one value at a time."""

    count: int = 0
    total: float = 0.0

    def __iadd__(self, value: float) -> "Mean":
        self.count += 1
        self.total += value
        return self

    @property
    def mean(self) -> float:
        return self.total / self.count


def declare(number: int, broker: str) -> sc.App:
    """The app; every round has a group, tables and an output of its own."""
    app = sc.App(f"w2-{number}", broker=broker, commit_interval=0.1, web_enabled=False)
    source = app.topic(TOPIC, key_type=str, partitions=PARTITIONS)
    results = app.topic(f"means-{number}", key_type=str, partitions=PARTITIONS, config=KEEP)

    async def emit(window: tuple[str, tuple[float, float]], mean: Mean) -> None:
        key, (start, _) = window
        await results.send(key=key, value={"key": key, "start": start, "count": mean.count, "mean": mean.mean})

    means = app.Table("means", default=Mean, on_window_close=emit).tumbling(WINDOW_S)

    @app.agent(source)
    async def average(stream: sc.Stream) -> None:
        async for event in stream:
            means[event["key"]] += event["value"]

    return app


def offline(count: int, seed: int) -> tuple[dict[tuple[str, float], tuple[int, float]], set[tuple[str, float]]]:
    """(key, start of the window) → (count, mean), and which of the windows the events themselves close.

    The last window of a partition closes by the clock, when its source has been idle for a second.
    """
    values: dict[tuple[str, float], list[float]] = defaultdict(list)
    last_ms: dict[int, int] = {}
    partitions: dict[str, int] = {}
    for reading in readings(count, seed):
        key = reading.key
        partition = partitions.get(key)
        if partition is None:
            partition = partitions[key] = partition_for(key.encode(), PARTITIONS)
        last_ms[partition] = reading.time_ms
        values[(key, float(reading.time_ms // (WINDOW_S * 1000) * WINDOW_S))].append(reading.value)
    means = {window: (len(of), sum(of) / len(of)) for window, of in values.items()}
    closed = {(key, start) for key, start in means if (start + WINDOW_S) * 1000 <= last_ms[partitions[key]]}
    return means, closed


async def main() -> None:
    options = arguments(__doc__).parse_args()
    async with temporary_log() as log:
        await store(log, TOPIC, events(options.records, options.seed))
        batches = await stored_batches(log, TOPIC)

        async def workload(number: int, is_last: bool) -> Timing:
            app = declare(number, log.url)
            return await work_off(log, app, [TOPIC], profile=options.profile if is_last else None)

        await compare("W2", batches, workload, records=options.records, rounds=options.rounds, bar_percent=BAR_PERCENT)
        means, closed = offline(options.records, options.seed)
        for number in range(1, options.rounds + 1):
            found = [orjson.loads(record.value) for record in await read_all(log, f"means-{number}")]
            windows = {(window["key"], window["start"]) for window in found}
            assert len(windows) == len(found), f"round {number} gave {len(found) - len(windows)} windows twice"
            assert closed <= windows, f"round {number} lacks {len(closed - windows)} windows"
            for window in found:
                count, mean = means[(window["key"], window["start"])]
                assert window["count"] == count, window
                assert isclose(window["mean"], mean, rel_tol=1e-12), (window, mean)
        print(f"verified: {len(closed)} windows of every round")


if __name__ == "__main__":
    run(main())
