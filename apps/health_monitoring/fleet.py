"""Simulated hosts that live like real ones: daily load with noise, and now and then an incident with its log lines.

`Fleet.step(now)` is a plain function of the seed and of the moments it was called at; `run_fleet` calls it on time.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from apps.health_monitoring.models import Disk, LogLine, Metrics, Process, Severity

logger = logging.getLogger(__name__)

GB = 1 << 30
INTERVAL_S = 2.0

Kind = Literal["cpu", "disk", "memory", "silence"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a kind of server is like on an ordinary day."""

    name: str
    cores: int
    memory_gb: int
    cpu: float  # percent, the day's mean
    memory: float  # percent
    disk_gb: int
    disk: float  # percent
    data_mount: str
    network: float  # bytes per second, the day's mean
    daemon: str
    processes: tuple[str, ...]
    chatter: tuple[tuple[str, Severity, str], ...]  # app, severity, text: what it logs when all is well


ROLES = (
    Role("web", 4, 8, 22, 48, 80, 52, "/var", 9e6, "nginx", ("nginx", "php-fpm", "node_exporter", "sshd", "systemd"), (
        ("nginx", "info", "GET /api/items 200 {n}ms"),
        ("sshd", "info", "Accepted publickey for deploy from 10.0.0.{n}"),
        ("systemd", "info", "Started logrotate.service"),
    )),
    Role("db", 8, 32, 31, 71, 500, 61, "/var/lib/postgresql", 4e6, "postgres",
         ("postgres", "pgbouncer", "walsender", "node_exporter", "sshd"), (
        ("postgres", "info", "checkpoint complete: wrote {n} buffers"),
        ("postgres", "info", "automatic vacuum of table \"shop.orders\": removed {n} dead rows"),
        ("cron", "info", "(root) CMD (run-parts /etc/cron.hourly)"),
    )),
    Role("cache", 2, 16, 14, 63, 40, 31, "/var", 14e6, "redis-server",
         ("redis-server", "node_exporter", "sshd", "systemd", "chronyd"), (
        ("redis-server", "notice", "Background saving started by pid {n}"),
        ("redis-server", "notice", "DB saved on disk"),
    )),
    Role("queue", 4, 8, 18, 44, 120, 45, "/var", 6e6, "rabbitmq",
         ("beam.smp", "node_exporter", "sshd", "systemd", "chronyd"), (
        ("rabbitmq", "info", "connection accepted from 10.0.1.{n}"),
        ("systemd", "info", "Started Session {n} of user root"),
    )),
)  # fmt: skip


class IncidentLine(NamedTuple):
    app: str
    severity: Severity
    text: str
    facility: str = "daemon"


INCIDENT_LINES: dict[Kind, tuple[IncidentLine, ...]] = {
    "cpu": (
        IncidentLine("{daemon}", "warning", "worker {n} busy for {n}s, request queue is {n} long"),
        IncidentLine("systemd", "warning", "{daemon}.service: watchdog: no sign of life for {n}s"),
        IncidentLine("{daemon}", "err", "upstream timed out (110: Connection timed out) while reading response header"),
        IncidentLine("kernel", "warning", "sched: RT throttling activated", "kern"),
    ),
    "disk": (
        IncidentLine("kernel", "crit", "EXT4-fs error (device sdb1): ext4_mb_generate_buddy: group {n} is bad", "kern"),
        IncidentLine("nginx", "crit", 'pwrite() "{mount}/cache/nginx/{n}.tmp" failed (28: No space left on device)'),
        IncidentLine("kernel", "err", "blk_update_request: I/O error, dev sdb, sector {n}", "kern"),
        IncidentLine("{daemon}", "err", 'could not write to file "{mount}/{n}.tmp": No space left on device'),
        IncidentLine("rsyslogd", "err", "action 'omfile' suspended: file error: No space left on device"),
    ),
    "memory": (
        IncidentLine("kernel", "warning", "{daemon} invoked oom-killer: gfp_mask=0x140cca, order=0", "kern"),
        IncidentLine("kernel", "err", "Out of memory: Killed process {n} ({daemon}) anon-rss:{n}{n}kB", "kern"),
        IncidentLine("systemd", "warning", "{daemon}.service: a process was killed by the OOM killer"),
    ),
    "silence": (),
}

LENGTH_S: dict[Kind, tuple[float, float]] = {
    "cpu": (40, 120), "disk": (60, 150), "memory": (45, 120), "silence": (45, 90)
}  # fmt: skip
EARLY = (6.0, 41.0, 1.0)  # begin, end and ramp of the early incident, in seconds after the start
EARLY_DISK = (75.0, 135.0, 6.0)  # and of the one after it, so that a demo has more than one story
RAMP_S = 6.0  # how long an ordinary incident takes to its full height, and back
GAP_S = (90.0, 420.0)  # between two incidents of one host


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that goes wrong on one host; times in seconds since the fleet's start."""

    kind: Kind
    host: str
    start_s: float
    end_s: float
    ramp_s: float = RAMP_S

    def height(self, at_s: float) -> float:
        """0 (nothing) to 1 (in full)."""
        if not self.start_s <= at_s < self.end_s:
            return 0.0
        return min(1.0, (at_s - self.start_s) / self.ramp_s, (self.end_s - at_s) / self.ramp_s)


@dataclass(slots=True)
class _Host:
    name: str
    role: Role
    random: random.Random
    phase: float  # of its day, in days
    noise: float = 0.0  # slow, wandering: what makes a load curve look like one
    load: float = 0.0
    incident: Incident | None = None
    next_incident_s: float = math.inf
    later: list[Incident] = field(default_factory=list)  # planned, first one first


class Fleet:
    """`n` hosts: web-01, db-01, cache-01, queue-01, web-02, …

    Args:
        seed: the same seed and the same moments give the same readings and lines.
        start: the moment of the first step, if known; the first step's moment otherwise.
        early_incident: the first host runs hot a few seconds after the start, and recovers half a minute later;
            the second one's disk fills after that.
    """

    def __init__(self, n: int, seed: int = 1, *, start: datetime | None = None, early_incident: bool = False) -> None:
        self.start = start
        self._hosts: dict[str, _Host] = {}
        for index in range(n):
            role = ROLES[index % len(ROLES)]
            name = f"{role.name}-{index // len(ROLES) + 1:02d}"
            rng = random.Random(f"{seed}/{name}")
            host = _Host(name, role, rng, rng.uniform(0, 0.1), rng.gauss(0, 1))
            host.next_incident_s = rng.uniform(120, 600)
            self._hosts[name] = host
        if early_incident:
            for host, kind, times in zip(self._hosts.values(), ("cpu", "disk"), (EARLY, EARLY_DISK), strict=False):
                host.later.append(Incident(kind, host.name, *times))  # type: ignore[arg-type]

    @property
    def hosts(self) -> list[str]:
        return list(self._hosts)

    def step(self, now: datetime) -> list[Metrics | LogLine]:
        """What the whole fleet reports at `now` (UTC); call it with moments that go forward."""
        self.start = self.start or now
        out: list[Metrics | LogLine] = []
        for name in self._hosts:
            out += self.readings(name, now)
        return out

    def readings(self, name: str, now: datetime) -> list[Metrics | LogLine]:
        """One host's lines and reading; nothing while it is silent."""
        self.start = self.start or now
        at_s = (now - self.start).total_seconds()
        host = self._hosts[name]
        self._plan(host, at_s)
        incident, height = host.incident, host.incident.height(at_s) if host.incident else 0.0
        # Noise is drawn in any case, so that an incident changes nothing but itself.
        host.noise = 0.95 * host.noise + host.random.gauss(0, 0.31)
        jitter = host.random.gauss(0, 1)
        lines = self._lines(host, incident if height else None, now)
        if incident and incident.kind == "silence" and height:
            return []
        return [*lines, self._reading(host, incident, height, jitter, now)]

    def _plan(self, host: _Host, at_s: float) -> None:
        if host.incident and at_s >= host.incident.end_s:
            logger.debug("fleet: %s has recovered", host.name)
            host.incident = None
            host.next_incident_s = at_s + host.random.uniform(*GAP_S) * max(1.0, len(self._hosts) / 4)
        if host.later and at_s >= host.later[0].start_s:
            host.incident = host.later.pop(0)
        elif host.incident is None and not host.later and at_s >= host.next_incident_s:
            kinds: tuple[Kind, ...] = ("cpu", "disk", "memory", "silence")
            kind = host.random.choice(kinds)
            host.incident = Incident(kind, host.name, at_s, at_s + host.random.uniform(*LENGTH_S[kind]))

    def _reading(self, host: _Host, incident: Incident | None, height: float, jitter: float, now: datetime) -> Metrics:
        role = host.role
        kind = incident.kind if incident else None
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        day = (now - midnight) / timedelta(days=1) + host.phase
        rhythm = 1 + 0.45 * math.sin(2 * math.pi * (day - 0.375))  # lowest at 3 in the morning, highest at 15
        ordinary = max(0.5, role.cpu * rhythm * (1 + 0.12 * host.noise) + 1.5 * jitter)
        cpu = min(ordinary, 70.0)
        memory = role.memory + 1.5 * host.noise
        disk = role.disk + 2 * day
        if kind == "cpu":
            cpu += (98.5 - cpu + 0.4 * jitter) * height
        elif kind == "disk":
            disk += (97.5 - disk) * height
            cpu *= 1 + 0.3 * height
        elif kind == "memory":
            memory += (97 - memory) * height
        cpu = min(max(cpu, 0.0), 100.0)
        # The load follows as the kernel's one-minute mean does, only a little faster.
        host.load += (cpu / 100 * role.cores * (1.6 if kind == "cpu" and height else 1.0) - host.load) * 0.12
        network = role.network * rhythm * max(0.1, 1 + 0.2 * host.noise)
        disks = {"/": _disk(20, 38.0), role.data_mount: _disk(role.disk_gb, disk)}
        return Metrics(
            host=host.name,
            time=now,
            cpu=round(cpu, 2),
            cores=role.cores,
            load1=round(host.load, 2),
            load5=round(host.load * 0.9, 2),
            load15=round(host.load * 0.85, 2),
            memory_percent=round(min(memory, 99.5), 2),
            memory_used=int(role.memory_gb * GB * min(memory, 99.5) / 100),
            memory_total=role.memory_gb * GB,
            swap_percent=round(max(0.0, memory - 80) * 2, 2),
            disks=disks,
            disk_read=round(3e5 * rhythm * max(0.05, 1 + 0.5 * host.noise)),
            disk_write=round(9e5 * rhythm * max(0.05, 1 + 0.4 * jitter) * (20 if kind == "disk" and height else 1)),
            network_rx=round(network * 0.4),
            network_tx=round(network * 0.6),
            top=self._top(host, cpu, kind if height else None),
        )

    def _top(self, host: _Host, cpu: float, kind: Kind | None) -> list[Process]:
        role = host.role
        first = 0.94 if kind == "cpu" else 0.62
        shares = (first, *((1 - first) * share for share in (0.5, 0.25, 0.15, 0.1)))
        memory = role.memory_gb * GB
        return [
            Process(
                name, 800 + 37 * rank, round(cpu * share, 2), int(memory * (0.3 / (rank + 1))), round(2e5 * share, 1)
            )
            for rank, (name, share) in enumerate(zip(role.processes, shares, strict=True))
        ]

    def _lines(self, host: _Host, incident: Incident | None, now: datetime) -> list[LogLine]:
        role, rng = host.role, host.random
        lines: list[LogLine] = []
        if rng.random() < 0.12:
            app, severity, text = rng.choice(role.chatter)
            lines.append(self._line(host, app, severity, "daemon", text, now))
        if incident and INCIDENT_LINES[incident.kind] and rng.random() < 0.7:
            chosen = rng.choice(INCIDENT_LINES[incident.kind])
            lines.append(self._line(host, chosen.app, chosen.severity, chosen.facility, chosen.text, now))
        return lines

    def _line(self, host: _Host, app: str, severity: Severity, facility: str, text: str, now: datetime) -> LogLine:
        role, rng = host.role, host.random
        before = timedelta(milliseconds=rng.randrange(50, 1500))  # a line is about what the next reading shows
        app = app.replace("{daemon}", role.daemon)
        text = text.replace("{daemon}", role.daemon).replace("{mount}", role.data_mount)
        while "{n}" in text:
            text = text.replace("{n}", str(rng.randrange(2, 250)), 1)
        pid = None if app == "kernel" else str(rng.randrange(800, 5000))
        return LogLine(
            host=host.name,
            time=now - before,
            received=now,
            facility=facility,
            severity=severity,
            app=app,
            pid=pid,
            message=text,
        )


def _disk(size_gb: int, percent: float) -> Disk:
    percent = min(percent, 100.0)
    return Disk(round(percent, 2), int(size_gb * GB * percent / 100), size_gb * GB)


async def run_fleet(
    send_metrics: Callable[[Metrics], Awaitable[Any]],
    send_line: Callable[[LogLine], Awaitable[Any]],
    n: int,
    *,
    seed: int = 1,
    interval_s: float = INTERVAL_S,
    early_incident: bool = True,
) -> None:
    """Let `n` hosts live in real time until cancelled."""
    fleet = Fleet(n, seed, early_incident=early_incident)
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        for report in fleet.step(datetime.now(UTC)):
            try:
                await (send_metrics(report) if isinstance(report, Metrics) else send_line(report))
            except Exception as error:  # as a real host's agent would: the next reading may go through
                logger.error("fleet: a report of %s could not be sent on: %s", report.host, error)
        due = max(due + interval_s, loop.time())
        await asyncio.sleep(due - loop.time())
