"""What the page keeps of one host: ten minutes of readings and the newest log lines, and no more."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

WINDOW_MS = 600_000
POINTS_MAX = 600  # one per second for the whole window
LINES_MAX = 200
MESSAGE_MAX = 1000  # characters of a log line that a page gets
NAME_MAX = 255  # DNS allows no longer host name
CARD_POINTS = 120  # more would not be seen on a card

# The columns of a reading, by the names that rules use.
METRICS = (
    "cpu", "memory_percent", "disk_percent", "load_per_core", "network", "swap_percent",
    "cpu_mean", "memory_mean", "cpu_unusual", "network_unusual",
)  # fmt: skip
COLUMN = {name: index for index, name in enumerate(METRICS)}

Values = tuple[float | None, ...]


class Host:
    """One machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = 0  # of the board, when this host last changed
        self.seen_ms = 0  # event time of the newest reading
        self.arrived_ms = 0  # the board's clock at that moment
        self.points: deque[tuple[int, int, Values]] = deque(maxlen=POINTS_MAX)  # version, event time, values
        self.lines: deque[dict[str, Any]] = deque()
        self.newest: Mapping[str, Any] = {}  # the reading itself
        self.shown: str | None = None  # the metric on its card
        self.shown_version = 0  # of the board, when that changed
        self.near: tuple[int, Any] | None = None  # when a value was last near its threshold, and which level that is
        self._known_lines: set[tuple[Any, ...]] = set()

    def read(self, value: Mapping[str, Any], at_ms: int, now_ms: int, version: int) -> None:
        """Take a reading; one that is older than the newest changes nothing but the lines."""
        lines = value.get("lines")
        self.add_lines(lines if isinstance(lines, list | tuple) else ())
        self.version = version
        if at_ms < self.seen_ms:
            return
        values = tuple(finite(value.get(name)) for name in METRICS)
        if self.points and self.points[-1][1] == at_ms:
            self.points.pop()
        self.points.append((version, at_ms, values))
        while self.points[0][1] < at_ms - WINDOW_MS:
            self.points.popleft()
        self.seen_ms, self.arrived_ms, self.newest = at_ms, now_ms, value

    def add_lines(self, lines: Iterable[Any]) -> None:
        """Keep lines that are new: consecutive readings carry most of the same ones."""
        added = False
        for line in lines:
            if not isinstance(line, Mapping):
                continue
            kept = log_line(line)
            known = (kept["at_ms"], kept["app"], kept["pid"], kept["message"])
            if known in self._known_lines:
                continue
            self._known_lines.add(known)
            self.lines.append(kept)
            added = True
        if not added:
            return
        ordered = sorted(self.lines, key=lambda line: line["at_ms"])
        for line in ordered[:-LINES_MAX]:
            self._known_lines.discard((line["at_ms"], line["app"], line["pid"], line["message"]))
        self.lines = deque(ordered[-LINES_MAX:])

    @property
    def interval_ms(self) -> float:
        """How often readings come; 10 s until that is known."""
        times = [point[1] for point in list(self.points)[-12:]]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return median(gaps) if gaps else 10_000

    def series(self, metric: str, *, since_version: int = -1) -> list[list[float | None]]:
        """`[[time, value], …]` of one metric, oldest first."""
        column = COLUMN[metric]
        return [[at_ms, values[column]] for version, at_ms, values in self.points if version > since_version]

    def columns(self) -> dict[str, list[float | None]]:
        """Every metric that has a value, and `at_ms`."""
        points = list(self.points)
        found: dict[str, list[float | None]] = {"at_ms": [point[1] for point in points]}
        for name, column in COLUMN.items():
            values = [point[2][column] for point in points]
            if any(value is not None for value in values):
                found[name] = values
        return found


def thinned(points: Sequence[list[float | None]], limit: int = CARD_POINTS) -> list[list[float | None]]:
    """At most `limit` points; of neighbours the highest stays, because a peak is what somebody looks for."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    return [
        max(points[i : i + size], key=lambda point: -math.inf if point[1] is None else point[1])
        for i in range(0, len(points), size)
    ]


def log_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A log line as the page shows it."""
    return {
        "at_ms": milliseconds(line.get("time")) or 0,
        "severity": str(line.get("severity") or "notice")[:20],
        "app": _short(line.get("app")),
        "pid": _short(line.get("pid")),
        "message": str(line.get("message") or line.get("raw") or "")[:MESSAGE_MAX],
    }


def _short(value: Any) -> str | None:
    return None if value is None else str(value)[:100]


def finite(value: Any) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(float(value), 3) if math.isfinite(value) else None


def milliseconds(value: Any) -> int | None:
    """Unix ms of a datetime, of ISO text, or of a number of seconds; None for anything else."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                value = value.replace(tzinfo=UTC)
            return int(value.timestamp() * 1000)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value * 1000)
    except (ValueError, OverflowError, OSError):
        pass
    return None
