"""What flows through the app: readings, log lines, a minute's statistics, and the picture that rules look at.

A value that a reading does not have (a failed probe, a recording of CPU alone) is None, never a zero that looks
measured.
"""

import ipaddress
import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from streamcore.models import Record

Severity = Literal["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
SEVERITIES: tuple[Severity, ...] = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip

# What a failing or full disk makes the kernel and programs say, whatever severity the line has.
DISK_TROUBLE = re.compile(
    r"I/O error|medium error|read-only file ?system|no space left|no space for|critical target error"
    r"|EXT4-fs (error|warning)|XFS .*(error|shutdown)|BTRFS.*error|nvme\w*: .*(timeout|reset)"
    r"|failed \(28\b|SMART.*fail",
    re.IGNORECASE,
)

LINES_MAX = 50  # a Health keeps the newest of the lines around it: a host that floods its log stays one small record
STORY_LINES_MAX = 20  # and an alarm, of which a host may have many, fewer


def short_host(name: str) -> str:
    """The key of a machine: its first label, as RFC 3164 and most `hostname`s have it; an address stays whole."""
    if "." not in name:
        return name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.split(".", 1)[0] or name
    return name


class Disk(Record):
    """One mounted filesystem."""

    percent: float  # as df counts: of what unprivileged users can have
    used: int  # bytes
    total: int  # bytes


class Process(Record):
    """One of the busiest processes."""

    name: str
    pid: int
    cpu: float  # percent of all cores
    memory: int = 0  # bytes resident
    io: float = 0.0  # bytes read and written per second; 0 where the system does not let us look


class Metrics(Record):
    """One reading of a machine."""

    host: str
    time: datetime  # UTC
    cpu: float | None = None  # percent of all cores
    cores: int = 1
    load1: float | None = None
    load5: float | None = None
    load15: float | None = None
    memory_percent: float | None = None
    memory_used: int | None = None  # bytes
    memory_total: int | None = None
    swap_percent: float | None = None
    disks: dict[str, Disk] = {}  # by mount point  # noqa: RUF012  (msgspec copies it)
    disk_read: float | None = None  # bytes per second, all disks
    disk_write: float | None = None
    network_rx: float | None = None  # bytes per second, all real interfaces
    network_tx: float | None = None
    top: list[Process] = []  # by CPU, busiest first  # noqa: RUF012

    @property
    def load_per_core(self) -> float | None:
        return None if self.load1 is None else self.load1 / max(self.cores, 1)

    @property
    def network(self) -> float | None:
        """Bytes per second in both directions."""
        if self.network_rx is None and self.network_tx is None:
            return None
        return (self.network_rx or 0.0) + (self.network_tx or 0.0)

    @property
    def worst_disk(self) -> str | None:
        """The fullest mount point."""
        return max(self.disks, key=lambda mount: (self.disks[mount].percent, mount), default=None)

    @property
    def disk_percent(self) -> float | None:
        """How full the fullest mount point is."""
        worst = self.worst_disk
        return None if worst is None else self.disks[worst].percent


class LogLine(Record):
    """One syslog line."""

    host: str
    time: datetime  # UTC; the sender's, or `received` where its clock cannot be right
    received: datetime  # UTC
    facility: str = "user"
    severity: Severity = "notice"
    app: str | None = None
    pid: str | None = None  # a number by habit; RFC 5424 allows any word
    message_id: str | None = None
    message: str = ""
    structured: dict[str, dict[str, str | list[str]]] = {}  # SD-ID -> name -> value, or values  # noqa: RUF012
    format: Literal["rfc3164", "rfc5424", "raw", "json"] = "rfc3164"
    raw: str | None = None  # the whole line, only where it could not be read
    claimed: datetime | None = None  # the sender's time, where `time` is not it
    truncated: bool = False  # longer than the receiver takes; the rest is gone

    @property
    def severity_number(self) -> int:
        """0 (emerg) to 7 (debug)."""
        return SEVERITIES.index(self.severity)

    def __str__(self) -> str:
        app = f" {self.app}" + (f"[{self.pid}]" if self.pid else "") + ":" if self.app else ""
        return f"{self.time:%H:%M:%S} {self.facility}.{self.severity}{app} {self.message}"


class Summary(Record, frozen=True):
    """Count, mean, extremes and last of one series."""

    count: int = 0
    mean: float = 0.0
    min: float = 0.0
    max: float = 0.0
    last: float = 0.0

    def with_value(self, value: float | None) -> "Summary":
        """A new summary that has seen `value` too; the same one where there is nothing to see."""
        if value is None or not math.isfinite(value):
            return self
        if not self.count:
            return Summary(1, value, value, value, value)
        count = self.count + 1
        return Summary(
            count,
            self.mean + (value - self.mean) / count,
            value if value < self.min else self.min,
            value if value > self.max else self.max,
            value,
        )


class Stats(Record, frozen=True):
    """A window of readings of one host. A value, never changed in place: `table[host] += metrics`."""

    count: int = 0
    cpu: Summary = Summary()
    memory: Summary = Summary()
    load: Summary = Summary()  # per core
    disk: Summary = Summary()  # the worst disk's percent
    network: Summary = Summary()  # bytes per second, both directions

    def __add__(self, reading: Metrics) -> "Stats":
        return Stats(
            self.count + 1,
            self.cpu.with_value(reading.cpu),
            self.memory.with_value(reading.memory_percent),
            self.load.with_value(reading.load_per_core),
            self.disk.with_value(reading.disk_percent),
            self.network.with_value(reading.network),
        )


class Baseline(Record, frozen=True):
    """What is usual for one series: an exponentially forgetting mean and variance.

    A value counts towards them only as far as CLIP deviations: one spike does not make the next one look normal.
    """

    mean: float = 0.0
    variance: float = 0.0

    def deviation(self, floor: float) -> float:
        """The usual distance from the mean; a flat line must not alarm at a breath, hence `floor` and a tenth."""
        return max(math.sqrt(self.variance), floor, 0.1 * abs(self.mean))

    def with_value(self, value: float, weight: float, floor: float) -> "Baseline":
        reach = CLIP * self.deviation(floor)
        step = min(max(value - self.mean, -reach), reach)
        return Baseline(self.mean + weight * step, (1 - weight) * (self.variance + weight * step * step))


CLIP = 8.0
HALF_LIFE = timedelta(hours=6)  # long against an incident's start, short against a new normal
WARM_UP = timedelta(hours=24)  # a day has every hour once; before that nothing is called unusual
CPU_FLOOR = 0.25  # percentage points
NETWORK_FLOOR = 100.0  # bytes per second


class Usual(Record, frozen=True):
    """What is usual for a host, learned as it goes. A value, never changed in place: `table[host] += metrics`."""

    since: datetime | None = None
    last: datetime | None = None
    cpu: Baseline | None = None
    network: Baseline | None = None

    def __add__(self, reading: Metrics) -> "Usual":
        if self.since is None or self.last is None:
            weight = 1.0
        elif reading.time <= self.last:
            return self  # a repeat, or an old reading that came late
        else:
            weight = 1 - 0.5 ** ((reading.time - self.last) / HALF_LIFE)
        return Usual(
            self.since or reading.time,
            reading.time,
            _learned(self.cpu, reading.cpu, weight, CPU_FLOOR),
            _learned(self.network, reading.network, weight, NETWORK_FLOOR),
        )

    def cpu_score(self, value: float | None, at: datetime) -> float | None:
        """How many deviations `value` lies above (negative: below) the usual; None until WARM_UP has passed."""
        return self._score(self.cpu, value, at, CPU_FLOOR)

    def network_score(self, value: float | None, at: datetime) -> float | None:
        return self._score(self.network, value, at, NETWORK_FLOOR)

    def _score(self, baseline: Baseline | None, value: float | None, at: datetime, floor: float) -> float | None:
        if baseline is None or value is None or self.since is None or at - self.since < WARM_UP:
            return None
        return (value - baseline.mean) / baseline.deviation(floor)


def _learned(baseline: Baseline | None, value: float | None, weight: float, floor: float) -> Baseline | None:
    if value is None or not math.isfinite(value):
        return baseline
    return Baseline(value) if baseline is None else baseline.with_value(value, weight, floor)


class Health(Record):
    """What is known of a host at one reading: the rules look at its fields, the alarm's story is told from it."""

    host: str
    time: datetime
    metrics: Metrics
    stats: Stats  # the current minute
    lines: list[LogLine] = []  # around the reading, oldest first, at most LINES_MAX  # noqa: RUF012
    # From here on: what rules compare. None where the reading has no such value.
    cpu: float | None = None
    cpu_mean: float | None = None  # of the minute
    load_per_core: float | None = None
    memory_percent: float | None = None
    memory_mean: float | None = None  # of the minute
    swap_percent: float | None = None
    worst_disk: str | None = None  # its mount point
    disk_percent: float | None = None  # of the worst disk
    network: float | None = None  # bytes per second, both directions
    cpu_unusual: float | None = None  # deviations from this host's usual; None during its first day
    network_unusual: float | None = None
    errors: int = 0  # lines of severity err and worse among those around the reading
    disk_errors: int = 0  # lines among them that speak of a failing or full disk

    @classmethod
    def of(cls, metrics: Metrics, stats: Stats, lines: Sequence[LogLine] = (), usual: Usual | None = None) -> Self:
        """Build the picture.

        Args:
            stats: the minute with this reading in it.
            usual: what was usual *before* this reading.
        """
        around = sorted(lines, key=lambda line: line.time)
        return cls(
            host=metrics.host,
            time=metrics.time,
            metrics=metrics,
            stats=stats,
            lines=around[-LINES_MAX:],
            cpu=metrics.cpu,
            cpu_mean=stats.cpu.mean if stats.cpu.count else None,
            load_per_core=metrics.load_per_core,
            memory_percent=metrics.memory_percent,
            memory_mean=stats.memory.mean if stats.memory.count else None,
            swap_percent=metrics.swap_percent,
            worst_disk=metrics.worst_disk,
            disk_percent=metrics.disk_percent,
            network=metrics.network,
            cpu_unusual=usual.cpu_score(metrics.cpu, metrics.time) if usual else None,
            network_unusual=usual.network_score(metrics.network, metrics.time) if usual else None,
            errors=sum(line.severity_number <= 3 for line in around),
            disk_errors=sum(DISK_TROUBLE.search(line.message) is not None for line in around),
        )

    def story(self) -> dict[str, Any]:
        """What an alarm of this moment carries along, JSON-able: the minute, the last lines, the busiest processes."""
        return {
            "stats": self.stats.to_representation(),
            "lines": [line.to_representation() for line in self.lines[-STORY_LINES_MAX:]],
            "top": [process.to_representation() for process in self.metrics.top],
        }
