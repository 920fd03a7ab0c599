"""What must come of an input, computed once more: plain loops over the input topics, no stream, no app, no engine.

Only the life of an alarm is taken from `processors`: its pure Evaluation, reading after reading.
"""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.health_monitoring.models import Health, Metrics, Usual
from processors.alerts import Alarm, Origin, Rule
from processors.evaluation import Evaluation, SourceState
from streamcore.types import TP, InRecord
from tests.chaos import windows_app
from tests.chaos.known_input import METRICS, SYSLOG

LINES_BEFORE_MS = 30_000
LINES_MAX = 50
MINUTE_MS = 60_000
ERRORS = {"emerg", "alert", "crit", "err"}
# What the known input's lines on disks say, in the words of apps/health_monitoring/fleet.py.
DISK_WORDS = ("EXT4-fs error", "No space left", "no space left", "I/O error", "(28")

Records = Mapping[TP, Sequence[InRecord]]


@dataclass
class Input:
    """The readable records of both topics by host, in the order of their times, and the places of the others."""

    readings: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)  # host -> (time, value)
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)  # of a host
    garbage: set[tuple[str, int, int]] = field(default_factory=set)  # topic, partition, offset

    @classmethod
    def of(cls, log: Records) -> "Input":
        found = cls()
        for tp in sorted(log):
            if tp.topic not in (METRICS, SYSLOG):
                continue
            hosts = found.readings if tp.topic == METRICS else found.lines
            for record in log[tp]:
                assert record.key is not None, "the input has keys"
                try:
                    value = orjson.loads(record.value or b"")
                except ValueError:
                    found.garbage.add((tp.topic, tp.partition, record.offset))
                    continue
                hosts.setdefault(record.key.decode(), []).append((record.timestamp, value))
                found.partitions[record.key.decode()] = tp.partition
        for entries in (*found.readings.values(), *found.lines.values()):
            entries.sort(key=lambda entry: entry[0])  # stable: what came first stays first
        return found


def close_to(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of a float that was added up in another order."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close_to(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close_to, one, other))
    return bool(one == other)


# -- the health app ----------------------------------------------------------------------------------------------------


def _values(reading: dict[str, Any]) -> dict[str, float]:
    """What statistics are made of."""
    return {
        "cpu": reading["cpu"],
        "memory": reading["memory_percent"],
        "load": reading["load1"] / reading["cores"],
        "disk": max(disk["percent"] for disk in reading["disks"].values()),
        "network": reading["network_rx"] + reading["network_tx"],
    }


def _statistics(readings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    rows = [_values(reading) for reading in readings]
    summaries = {}
    for name in ("cpu", "memory", "load", "disk", "network"):
        column = [row[name] for row in rows]
        summaries[name] = {
            "count": len(column), "mean": math.fsum(column) / len(column), "min": min(column), "max": max(column),
            "last": column[-1],
        }  # fmt: skip
    return {"count": len(rows), **summaries}


def minutes(given: Input) -> dict[tuple[str, int], dict[str, Any]]:
    """(host, start of the minute) -> its statistics."""
    windows: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for host, readings in given.readings.items():
        for time_ms, reading in readings:
            windows[host, time_ms - time_ms % MINUTE_MS].append(reading)
    return {window: _statistics(readings) for window, readings in windows.items()}


def health(given: Input) -> dict[tuple[str, int], dict[str, Any]]:
    """(host, time) -> the health record: the reading, its minute so far, the lines of the 30 s before it."""
    expected: dict[tuple[str, int], dict[str, Any]] = {}
    for host, readings in given.readings.items():
        lines = given.lines.get(host, [])
        times = [time_ms for time_ms, _ in lines]
        minute: list[dict[str, Any]] = []
        minute_ms = -1
        for time_ms, reading in readings:
            if time_ms - time_ms % MINUTE_MS != minute_ms:
                minute, minute_ms = [], time_ms - time_ms % MINUTE_MS
            minute.append(reading)
            around = [
                line for _, line in lines[bisect_left(times, time_ms - LINES_BEFORE_MS) : bisect_right(times, time_ms)]
            ]
            statistics, values = _statistics(minute), _values(reading)
            expected[host, time_ms] = {
                "host": host,
                "time": reading["time"],
                "metrics": reading,
                "stats": statistics,
                "lines": around[-LINES_MAX:],
                "cpu": values["cpu"],
                "cpu_mean": statistics["cpu"]["mean"],
                "load_per_core": values["load"],
                "memory_percent": values["memory"],
                "memory_mean": statistics["memory"]["mean"],
                "swap_percent": reading["swap_percent"],
                "worst_disk": max((disk["percent"], mount) for mount, disk in reading["disks"].items())[1],
                "disk_percent": values["disk"],
                "network": values["network"],
                "cpu_unusual": None,  # the input is shorter than the first day
                "network_unusual": None,
                "errors": sum(line["severity"] in ERRORS for line in around),
                "disk_errors": sum(any(word in line["message"] for word in DISK_WORDS) for line in around),
            }
    return expected


def usual(given: Input) -> dict[str, dict[str, Any]]:
    """What every host's readings add up to."""
    expected = {}
    for host, readings in given.readings.items():
        known = Usual()
        for _, reading in readings:
            known = known + Metrics.from_data(reading)
        expected[host] = known.to_representation()
    return expected


def alarms(
    records: Iterable[InRecord], tp: TP, rules: Iterable[Rule], watermark_ms: int
) -> tuple[list[Alarm], dict[str, SourceState]]:
    """What one partition of `health` gives, by the pure evaluation.

    Args:
        watermark_ms: how far event time has come after the last record.
    Returns:
        Every alarm's changes, each alarm's in their order; and what is remembered of every host.
    """
    evaluation = Evaluation(rules)
    sources: dict[str, SourceState] = {}
    found: list[Alarm] = []
    stream_ms = -1

    def pass_time(until_ms: int) -> None:
        for host, source in list(sources.items()):
            outcome = evaluation.pass_time({"host": host}, source, until_ms)
            found.extend(outcome.alarms)
            if outcome.source is None:
                del sources[host]
            else:
                sources[host] = outcome.source

    for record in records:
        picture = Health.loads(record.value or b"")
        stream_ms = max(stream_ms, record.timestamp)
        pass_time(stream_ms)
        outcome = evaluation.take(
            {"host": picture.host},
            sources.get(picture.host),
            picture,
            record.timestamp,
            stream_ms,
            Origin(tp.topic, tp.partition, record.offset),
            picture.story,
        )
        found.extend(outcome.alarms)
        if outcome.source is not None:
            sources[picture.host] = outcome.source
    pass_time(watermark_ms)
    return found, sources


# -- the second app ----------------------------------------------------------------------------------------------------


def _window_starts(time_ms: int, size_ms: int, step_ms: int) -> Iterator[int]:
    start_ms = time_ms - time_ms % step_ms
    while start_ms + size_ms > time_ms:
        yield start_ms
        start_ms -= step_ms


def tallies(given: Input, size_s: int, step_s: int) -> dict[tuple[str, int], dict[str, Any]]:
    """(host, start of the window) -> count, total and highest of its CPU readings."""
    windows: dict[tuple[str, int], list[float]] = defaultdict(list)
    for host, readings in given.readings.items():
        for time_ms, reading in readings:
            for start_ms in _window_starts(time_ms, size_s * 1000, step_s * 1000):
                windows[host, start_ms].append(reading["cpu"])
    return {
        window: {"count": len(values), "total": math.fsum(values), "highest": max(values)}
        for window, values in windows.items()
    }


def numbers(given: Input) -> dict[tuple[str, str], int]:
    """(host, time) -> the how manieth reading of the host it is."""
    return {
        (host, reading["time"]): number
        for host, readings in given.readings.items()
        for number, (_, reading) in enumerate(readings, 1)
    }


def pairs(given: Input) -> set[bytes]:
    """Every reading with every line within PAIRS_S, and what is near nothing, as the bytes of the output."""
    expected: set[bytes] = set()
    reach_ms = windows_app.PAIRS_S * 1000
    for host in given.readings.keys() | given.lines.keys():
        lines, readings = given.lines.get(host, []), given.readings.get(host, [])
        matched: set[int] = set()
        for time_ms, reading in readings:
            near = [place for place, (line_ms, _) in enumerate(lines) if abs(line_ms - time_ms) <= reach_ms]
            matched.update(near)
            for line in [lines[place][1] for place in near] or [None]:
                expected.add(_pair(reading, line))
        expected.update(_pair(None, line) for place, (_, line) in enumerate(lines) if place not in matched)
    return expected


def _pair(reading: dict[str, Any] | None, line: dict[str, Any] | None) -> bytes:
    return orjson.dumps({
        "reading": reading and reading["time"], "line": line and [line["time"], line["message"]]
    })  # fmt: skip
