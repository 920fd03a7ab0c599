"""Recorded metrics and syslog, sent again at a chosen speed with their original times.

A recording is a CSV of `timestamp,value` per series and, if there is one, a syslog file. A row that cannot be read is
counted and reported with its line number; the rest goes on.
"""

import asyncio
import csv
import heapq
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prometheus_client import Counter

from apps.health_monitoring.models import LogLine, Metrics
from apps.health_monitoring.syslog_parser import parse
from streamcore.errors import UsageError

logger = logging.getLogger(__name__)

Field = Literal["cpu", "memory_percent", "swap_percent", "load1", "disk_read", "disk_write", "network_rx", "network_tx"]

NAB = Path(__file__).parent / "data" / "nab"
PROBLEMS_MAX = 20  # of one replay that are kept in words; all are counted
PROGRESS_EVERY = 1000  # reports

BAD_ROWS = Counter("replay_bad_rows", "Rows of recordings that could not be read.")


@dataclass(frozen=True, slots=True)
class Series:
    """One CSV file: whose readings it holds, and which field of Metrics its values fill."""

    path: Path
    host: str
    field: Field
    scale: float = 1.0  # value -> the field's unit


# CloudWatch counts network bytes per sample of five minutes; Metrics has bytes per second.
NAB_SERIES = (
    Series(NAB / "ec2_cpu_utilization_24ae8d.csv", "ec2-24ae8d", "cpu"),
    Series(NAB / "ec2_cpu_utilization_825cc2.csv", "ec2-825cc2", "cpu"),
    Series(NAB / "rds_cpu_utilization_cc0c53.csv", "rds-cc0c53", "cpu"),
    Series(NAB / "ec2_network_in_257a54.csv", "ec2-257a54", "network_rx", scale=1 / 300),
)


class Window(NamedTuple):
    """A labelled incident of a recording; both ends belong to it."""

    host: str
    start: datetime
    end: datetime


@dataclass(slots=True)
class ReplayReport:
    """What a replay did."""

    metrics: int = 0
    lines: int = 0
    bad_rows: int = 0
    problems: list[str] = field(default_factory=list)  # "file:line: what", the first PROBLEMS_MAX

    def add_problem(self, path: Path, line: int, what: str) -> None:
        self.bad_rows += 1
        BAD_ROWS.inc()
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{path}:{line}: {what}")
            logger.warning("replay: %s:%d: %s; the row is left out", path, line, what)


async def replay(
    send_metrics: Callable[[Metrics], Awaitable[Any]],
    send_line: Callable[[LogLine], Awaitable[Any]],
    series: Iterable[Series] = NAB_SERIES,
    *,
    syslog: Path | None = None,
    speed: float = 0.0,
    on_progress: Callable[[int], None] | None = None,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> ReplayReport:
    """Send everything in the order of its time; returns when all is sent.

    Args:
        speed: seconds of the recording per second; 0 is as fast as it goes.
        on_progress: called with the number of reports sent, now and then and at the end.
    Raises:
        UsageError: a file that cannot be opened.
    """
    if speed < 0 or not math.isfinite(speed):
        raise UsageError(
            f"a replay speed of {speed} makes no sense; 1 is real time, 60 a minute per second, 0 full speed"
        )
    report = ReplayReport()
    loop = asyncio.get_running_loop()
    started, first = loop.time(), None
    for event in recorded(series, syslog, report):
        if first is None:
            first = event.time
        if speed and (ahead := (event.time - first).total_seconds() / speed - (loop.time() - started)) > 0:
            await sleep(ahead)
        if isinstance(event, Metrics):
            report.metrics += 1
            await send_metrics(event)
        else:
            report.lines += 1
            await send_line(event)
        if on_progress and (report.metrics + report.lines) % PROGRESS_EVERY == 0:
            on_progress(report.metrics + report.lines)
    if on_progress:
        on_progress(report.metrics + report.lines)
    if report.bad_rows:
        logger.warning("replay: %d rows could not be read and were left out", report.bad_rows)
    return report


def recorded(series: Iterable[Series], syslog: Path | None, report: ReplayReport) -> Iterator[Metrics | LogLine]:
    """Every reading and line in the order of time; within a file in the file's own order."""
    sources: list[Iterator[Metrics | LogLine]] = [read_series(one, report) for one in series]
    if syslog is not None:
        sources.append(read_syslog(syslog, report))
    return heapq.merge(*sources, key=lambda event: event.time)


def read_series(series: Series, report: ReplayReport) -> Iterator[Metrics]:
    """The readings of one file."""
    with _opened(series.path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or (number == 1 and line.lower().lstrip("\ufeff").startswith("timestamp")):
                continue
            try:
                columns = next(csv.reader([line.strip()]))
                if len(columns) != 2:
                    raise ValueError(f"{len(columns)} columns where there should be timestamp,value")
                time, value = _time(columns[0]), float(columns[1]) * series.scale
                if not math.isfinite(value):
                    raise ValueError(f"the value is {columns[1].strip()}")
            except (ValueError, csv.Error) as error:
                report.add_problem(series.path, number, str(error))
                continue
            reading = Metrics(host=series.host, time=time)
            setattr(reading, series.field, value)
            yield reading


def read_syslog(path: Path, report: ReplayReport) -> Iterator[LogLine]:
    """The lines of a syslog file, as they lie in /var/log (no priority) or as they came over the network.

    Times without a year are taken nearest to the file's own date. A line without a time has that of the line before
    it; with none before it, it is left out.
    """
    with _opened(path) as file:
        received = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        last: datetime | None = None
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            line = parse(text.encode(errors="surrogateescape"), "unknown", received, zone=UTC, check_clock=False)
            if line.time is received:  # it has none of its own
                if last is None:
                    report.add_problem(path, number, "no time in this line, and none before it")
                    continue
                line.time = last
            last = line.time
            line.received = line.time
            yield line


def labelled_windows(path: Path = NAB / "anomaly_windows.json", series: Iterable[Series] = NAB_SERIES) -> list[Window]:
    """The labelled incidents of `series`, in order of time."""
    labels: dict[str, list[tuple[str, str]]] = json.loads(path.read_text())
    by_file = {name.rsplit("/", 1)[-1]: spans for name, spans in labels.items()}
    windows = [
        Window(one.host, _time(start), _time(end)) for one in series for start, end in by_file.get(one.path.name, [])
    ]
    return sorted(windows, key=lambda window: window.start)


class Score(NamedTuple):
    """How alarms met the labels."""

    caught: int
    windows: int
    outside: int  # alarms that began in no window of their host

    def __str__(self) -> str:
        return f"{self.caught} of {self.windows} labelled incidents caught, {self.outside} alarms outside of them"


def score(alarms: Iterable[tuple[str, datetime]], windows: list[Window]) -> Score:
    """Args: alarms: host, and when it began to fire."""
    hit: set[Window] = set()
    outside = 0
    for host, at in alarms:
        met = {window for window in windows if window.host == host and window.start <= at <= window.end}
        hit |= met
        outside += not met
    return Score(len(hit), len(windows), outside)


def _time(text: str) -> datetime:
    """ISO, or Unix seconds; UTC unless it says otherwise."""
    text = text.strip()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.fromtimestamp(float(text), UTC)
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"{text[:40]!r} is no time") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8", errors="surrogateescape", newline=None)
    except OSError as error:
        raise UsageError(f"the recording {path} cannot be opened: {error.strerror}; check the path") from error
