"""The health join: every reading of 500 hosts with the log lines of its host in the 30 s before it, typed and emitted.

Half of the records are readings (each host one every 10 s), half are log lines (each host one every 10 s on average).
Models, join and grace are those of apps/health_monitoring, the models with fewer fields, so that a record is as
small as the floor's of the other workloads.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from random import Random

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
from benchmarks.sensor_events import TOPIC, events
from streamcore.records.partitioner import partition_for
from streamcore.types import OutRecord

BAR_PERCENT = 10
METRICS, SYSLOG = "server-metrics", "syslog"
HOSTS = 500
START_MS = 1_735_689_600_000  # 2025-01-01
EVERY_MS = 10_000  # between two readings of a host
BEFORE_S, GRACE_S = 30, 1


class Metrics(sc.Record):
    host: str
    time: datetime
    cpu: float
    memory: float


class LogLine(sc.Record):
    host: str
    time: datetime
    severity: str
    message: str


class Health(sc.Record):
    host: str
    time: datetime
    cpu: float
    memory: float
    lines: list[LogLine]

    @classmethod
    def of(cls, reading: Metrics, lines: list[LogLine]) -> "Health":
        return cls(reading.host, reading.time, reading.cpu, reading.memory, lines)


def declare(number: int, broker: str) -> sc.App:
    """The app; every round has a group and an output of its own."""
    app = sc.App(f"health-{number}", broker=broker, web_enabled=False)
    metrics = app.topic(METRICS, key_type=str, value_type=Metrics, partitions=PARTITIONS)
    syslog = app.topic(SYSLOG, key_type=str, value_type=LogLine, partitions=PARTITIONS)
    health = app.topic(f"health-{number}", key_type=str, value_type=Health, partitions=PARTITIONS, config=KEEP)

    @app.agent(metrics, sink=[health])
    async def describe(stream: sc.Stream) -> AsyncIterator[Health]:
        async for reading, lines in stream.join(syslog, before=BEFORE_S, grace=GRACE_S, how="left", collect=True):
            yield Health.of(reading, lines)

    return app


def host(number: int) -> str:
    return f"web-{number:03}"


def time_text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ms % 1000:03}Z"


def readings(count: int, seed: int) -> Iterator[tuple[str, int, str]]:
    """(host, time, the rest of the JSON); hosts take turns, so that each has its reading at its own moment."""
    random = Random(seed)
    for number in range(count):
        cpu, memory = random.random() * 100, random.random() * 100
        yield (
            host(number % HOSTS),
            START_MS + number * EVERY_MS // HOSTS,
            f'"cpu":{cpu:.2f},"memory":{memory:.2f}',
        )


def lines(count: int, seed: int) -> Iterator[tuple[str, int, str]]:
    random = Random(seed + 1)
    for number in range(count):
        severity = "err" if random.random() < 0.1 else "info"
        yield (
            host(random.randrange(HOSTS)),
            START_MS + number * EVERY_MS // HOSTS,
            f'"severity":"{severity}","message":"request {number} done"',
        )


def records(rows: Iterator[tuple[str, int, str]]) -> Iterator[OutRecord]:
    for name, time_ms, rest in rows:
        yield name.encode(), f'{{"host":"{name}","time":"{time_text(time_ms)}",{rest}}}'.encode(), time_ms, ()


def offline(count: int, seed: int) -> tuple[dict[tuple[str, str], list[str]], set[tuple[str, str]]]:
    """(host, time) of a reading → the messages around it, and which of the readings the events themselves close."""
    times: dict[str, list[int]] = defaultdict(list)
    messages: dict[str, list[str]] = defaultdict(list)
    last_ms: dict[tuple[str, int], int] = {}
    partitions = {host(number): partition_for(host(number).encode(), PARTITIONS) for number in range(HOSTS)}
    for name, time_ms, rest in lines(count, seed):
        times[name].append(time_ms)
        messages[name].append(orjson.loads(f"{{{rest}}}")["message"])
        last_ms[SYSLOG, partitions[name]] = time_ms
    for name, time_ms, _ in readings(count, seed):
        last_ms[METRICS, partitions[name]] = time_ms
    joined: dict[tuple[str, str], list[str]] = {}
    closed: set[tuple[str, str]] = set()
    for name, time_ms, _ in readings(count, seed):
        first = bisect_left(times[name], time_ms - BEFORE_S * 1000)
        last = bisect_right(times[name], time_ms)
        joined[name, time_text(time_ms)] = messages[name][first:last]
        partition = partitions[name]
        if time_ms + GRACE_S * 1000 < min(last_ms[METRICS, partition], last_ms[SYSLOG, partition]):
            closed.add((name, time_text(time_ms)))
    return joined, closed


async def main() -> None:
    options = arguments(__doc__.splitlines()[0], rounds=3).parse_args()
    half = options.records // 2
    async with temporary_log() as log:
        await store(log, METRICS, records(readings(half, options.seed)))
        await store(log, SYSLOG, records(lines(half, options.seed)))
        # The floor is that of W1 and W2, over the same events, and not over these somewhat smaller records.
        await store(log, TOPIC, events(options.records, options.seed))
        batches = await stored_batches(log, TOPIC)

        async def workload(number: int, is_last: bool) -> Timing:
            app = declare(number, log.url)
            return await work_off(log, app, [METRICS, SYSLOG], profile=options.profile if is_last else None)

        await compare(
            "health join", batches, workload, records=2 * half, rounds=options.rounds, bar_percent=BAR_PERCENT
        )
        joined, closed = offline(half, options.seed)
        for number in range(1, options.rounds + 1):
            found = [orjson.loads(record.value) for record in await read_all(log, f"health-{number}")]
            rows = {(row["host"], time_text(_milliseconds(row["time"]))) for row in found}
            assert len(rows) == len(found), f"round {number} gave {len(found) - len(rows)} readings twice"
            assert closed <= rows, f"round {number} lacks {len(closed - rows)} readings"
            for row in found:
                key = (row["host"], time_text(_milliseconds(row["time"])))
                assert [line["message"] for line in row["lines"]] == joined[key], row
        matches = sum(map(len, joined.values()))
        print(f"verified: {len(closed)} readings of every round, {matches} matches")


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


if __name__ == "__main__":
    run(main())
