"""The known input: some simulated hosts through many short incidents, the same for the same seed.

It comes in segments of a few minutes of event time with a long pause between two of them, in which every host is
silent. So a worker may also stand idle at the end of a segment, event time following the clock for a while, and what
comes next is late for nobody: the results do not depend on when the input was read.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from apps.health_monitoring.fleet import Fleet
from apps.health_monitoring.models import LogLine, Metrics

METRICS, SYSLOG = "server-metrics", "syslog"
START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
HOSTS = 5
INTERVAL = timedelta(seconds=2)
SEGMENT_STEPS = 90  # three minutes
PAUSE = timedelta(minutes=6)  # much longer than a run that only waits
SILENT_STEPS = range(48, 62)  # of one host in each segment: longer than HostSilent's 15 s
CHATTER = 0.4  # log lines per host and step, beside those of the fleet
GARBAGE = 0.004  # per record


class InputRecord(NamedTuple):
    topic: str
    host: str
    time_ms: int
    value: bytes


class Step(NamedTuple):
    """What comes at one moment. The lines are on the log before the readings are, as each line is older."""

    lines: list[InputRecord]
    readings: list[InputRecord]


def steps(seed: int, segments: int) -> Iterator[Step]:
    """The whole input; its last step is one more reading of each host, long after everything else."""
    for segment in range(segments):
        start = START + segment * (SEGMENT_STEPS * INTERVAL + PAUSE)
        rng = random.Random(f"{seed}/{segment}")
        fleet = Fleet(HOSTS, rng.randrange(1 << 30), start=start, early_incident=True)
        silent = rng.choice(fleet.hosts)
        for number in range(SEGMENT_STEPS):
            now = start + number * INTERVAL
            reports = fleet.step(now)
            if number in SILENT_STEPS:
                reports = [report for report in reports if report.host != silent]
            yield _step(reports, now, rng, fleet.hosts)
    start = START + segments * (SEGMENT_STEPS * INTERVAL + PAUSE)
    yield _step([r for r in Fleet(HOSTS, seed, start=start).step(start) if isinstance(r, Metrics)], start)


def _step(
    reports: list[Metrics | LogLine], now: datetime, rng: random.Random | None = None, hosts: list[str] | None = None
) -> Step:
    lines = [_record(SYSLOG, report, report.time) for report in reports if isinstance(report, LogLine)]
    readings = [_record(METRICS, report, report.time) for report in reports if isinstance(report, Metrics)]
    if rng is None:
        return Step(lines, readings)
    for host in hosts or ():
        if rng.random() < CHATTER:
            before = timedelta(milliseconds=rng.randrange(1, 1900))
            line = LogLine(host=host, time=now - before, received=now, app="cron", message=f"job {rng.randrange(1000)}")
            lines.append(_record(SYSLOG, line, line.time))
    for records in (lines, readings):
        for place in [place for place in range(len(records)) if rng.random() < GARBAGE]:
            records.insert(place, records[place]._replace(value=b'{"host":\xff'))
    return Step(lines, readings)


def _record(topic: str, report: Metrics | LogLine, time: datetime) -> InputRecord:
    return InputRecord(topic, report.host, round(time.timestamp() * 1000), report.dumps())


# -- as a file, so that a child need not simulate the past at each of its starts ---------------------------------------


def write(path: Path, seed: int, segments: int) -> int:
    """Returns: the number of steps."""
    count = 0
    with path.open("wb") as file:
        for count, step in enumerate(steps(seed, segments), 1):  # noqa: B007
            for record in (*step.lines, *step.readings):
                file.write(f"{record.topic} {record.host} {record.time_ms} ".encode() + record.value + b"\n")
            file.write(b"\n")
    return count


def read(path: Path) -> Iterator[Step]:
    step = Step([], [])
    with path.open("rb") as file:
        for line in file:
            if line == b"\n":
                yield step
                step = Step([], [])
                continue
            topic, host, time_ms, value = line[:-1].split(b" ", 3)
            record = InputRecord(topic.decode(), host.decode(), int(time_ms), value)
            (step.lines if record.topic == SYSLOG else step.readings).append(record)
