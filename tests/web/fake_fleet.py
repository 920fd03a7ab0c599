"""A fleet without a pipeline: Health and Alarm records as the app's topics carry them, seeded, by a clock."""

import math
import random
from datetime import UTC, datetime
from typing import Any

NAMES = [
    *(f"web-{n:02}" for n in range(1, 12)),
    "db-01",
    "db-02",
    "db-03",
    "cache-01",
    "cache-02",
    "mail-01",
    "build-01",
    "build-02",
    "kafka-01",
    "kafka-02",
    "lb-01",
    "lb-02",
    "nas-01",
]
QUIET = [
    ("info", "cron", "1022", "(root) CMD (logrotate /etc/logrotate.conf)"),
    ("info", "sshd", "2231", "Accepted publickey for deploy from 10.0.4.17 port 51812 ssh2"),
    ("notice", "systemd", "1", "Started Daily apt download activities."),
    ("warning", "ntpd", "744", "kernel time sync status change 2001"),
    ("debug", "dhclient", "640", "DHCPREQUEST for 10.0.3.21 on eth0 to 10.0.0.1 port 67"),
]
DISK = [
    ("warning", "kernel", None, "EXT4-fs warning (device sda1): ext4_da_writepages: no free space for metadata"),
    ("err", "nginx", "812", 'write() to "/var/log/nginx/access.log" failed (28: No space left on device)'),
    ("crit", "postgres", "4410", "PANIC: could not write to file pg_wal/xlogtemp.4410: No space left on device"),
    ("err", "rsyslogd", None, "action 'action-0-builtin:omfile' suspended (module 'builtin:omfile'), retry 0"),
]
HOSTILE_LINE = "<img src=x onerror=\"window.hit='line'\"><script>window.hit='script'</script> \u202etxt.exe \x1b[31m"
HOSTILE_HOST = "<img src=x onerror=window.hit='host'>\"'&"


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


class Fleet:
    """Hosts with incidents: web-07's disk fills, db-02's CPU burns, cache-01 falls silent, build-02 comes near."""

    def __init__(self, start_ms: int, *, seed: int = 7, hostile: bool = False) -> None:
        self._start_ms = start_ms
        self._random = random.Random(seed)
        self._base = {name: (self._random.uniform(9, 46), self._random.uniform(28, 70)) for name in NAMES}
        self._cpu = {name: base for name, (base, _) in self._base.items()}
        self.names = [*NAMES, HOSTILE_HOST] if hostile else list(NAMES)
        self._hostile = hostile
        for name in self.names:
            self._base.setdefault(name, (20, 40))
            self._cpu.setdefault(name, 20)

    def health(self, host: str, at_ms: int) -> dict[str, Any] | None:
        """One host's Health at a moment, or None while it is silent."""
        rand = self._random
        minutes = (at_ms - self._start_ms) / 60_000  # 0 is the page's start, -10 the oldest point
        base, memory = self._base[host]
        goal = base + 6 * math.sin(minutes / 3 + len(host))
        disk = 20 + (sum(map(ord, host)) % 47 if host != HOSTILE_HOST else 3)
        lines: list[dict[str, Any]] = []
        if host == "cache-01" and minutes > -2.1:
            return None
        if host == "db-02":
            goal = 98 if minutes > -6 else 55
        if host == "build-02":
            goal = 91
        if host == "web-07":
            disk = min(96.4, 84 + 0.15 * (minutes + 10) + max(0.0, minutes + 6) * 2.6) + rand.uniform(-0.2, 0.2)
            if minutes > -4 and rand.random() < 0.3:
                lines.append(self._line(host, at_ms, rand.choice(DISK)))
        self._cpu[host] += (goal - self._cpu[host]) * 0.25 + rand.uniform(-4, 4)
        self._cpu[host] = min(99.5, max(0.5, self._cpu[host]))
        if rand.random() < 0.05:
            lines.append(self._line(host, at_ms, rand.choice(QUIET)))
        if self._hostile and rand.random() < 0.3:
            lines.append(self._line(host, at_ms, ("err", "<b>app</b>", "1", HOSTILE_LINE)))
        cpu = round(self._cpu[host], 2)
        reading = {
            "host": host,
            "time": iso(at_ms),
            "cpu": cpu,
            "cores": 8,
            "load1": cpu / 11,
            "load5": cpu / 12,
            "load15": cpu / 14,
            "memory_percent": memory + rand.uniform(-0.6, 0.6),
            "memory_used": int(memory * 335_544_320),
            "memory_total": 33_554_432_000,
            "swap_percent": 3.1,
            "disk_read": 1.2e6,
            "disk_write": 4.1e6,
            "network_rx": 2.2e6 * cpu,
            "network_tx": 0.4e6 * cpu,
            "disks": {
                "/": {"percent": disk if host != "web-07" else 41.0, "used": 21 * 10**9, "total": 52 * 10**9},
                "/var": {"percent": disk if host == "web-07" else 33.0, "used": 96 * 10**9, "total": 100 * 10**9},
            },
            "top": self.top(host, cpu),
        }
        summary = {"count": 42, "mean": cpu * 0.97, "min": cpu * 0.8, "max": min(100, cpu * 1.1), "last": cpu}
        return {
            "host": host,
            "time": iso(at_ms),
            "metrics": reading,
            "stats": {
                "count": 42,
                "cpu": summary,
                "disk": summary | {"mean": disk - 0.3, "min": disk - 1, "max": disk, "last": disk},
            },
            "lines": lines,
            "cpu": cpu,
            "cpu_mean": cpu * 0.97,
            "load_per_core": cpu / 88 if host != "web-03" else 1.2 + 1.1 * (minutes > -0.8),
            "memory_percent": reading["memory_percent"],
            "memory_mean": memory,
            "swap_percent": 3.1,
            "worst_disk": "/var" if host == "web-07" else "/",
            "disk_percent": disk,
            "network": 2.6e6 * cpu,
            "errors": sum(line["severity"] in ("err", "crit") for line in lines),
        }

    def _line(self, host: str, at_ms: int, line: tuple[str, str, str | None, str]) -> dict[str, Any]:
        severity, app, pid, message = line
        return {
            "host": host,
            "time": iso(at_ms - self._random.randrange(900)),
            "received": iso(at_ms),
            "severity": severity,
            "facility": "daemon",
            "app": app,
            "pid": pid,
            "message": message,
        }

    def top(self, host: str, cpu: float) -> list[dict[str, Any]]:
        return [
            {
                "name": "postgres" if host.startswith("db") else "nginx",
                "pid": 812,
                "cpu": cpu * 0.6,
                "memory": 2_400_000_000,
                "io": 41e6,
            },
            {"name": "java", "pid": 4410, "cpu": cpu * 0.2, "memory": 1_900_000_000, "io": 9e6},
            {"name": "rsyslogd", "pid": 611, "cpu": cpu * 0.05, "memory": 12_000_000, "io": 0.3e6},
        ]

    def alarms(self) -> list[dict[str, Any]]:
        """The alarms as they stand at the start."""
        now = self._start_ms
        minute = 60_000

        def alarm(key: str, rule: str, state: str, host: str, **more: Any) -> dict[str, Any]:
            labels = {"host": host, **more.pop("labels", {})}
            return {
                "id": key,
                "key": key,
                "rule": rule,
                "state": state,
                "previous": "pending",
                "sequence": 2,
                "at_ms": now - minute,
                "notify": True,
                "labels": labels,
                "severity": labels.get("severity", ""),
                "records": [],
                "context": {},
                **more,
            }

        disk_lines = [
            self._line("web-07", now - 4 * minute + i * 31_000, DISK[i % len(DISK)] if i % 4 else QUIET[0])
            for i in range(8)
        ]
        if self._hostile:
            disk_lines.append(self._line("web-07", now - 20_000, ("err", "<b>app</b>", "1", HOSTILE_LINE)))
        disk = {"count": 60, "mean": 95.9, "min": 94.8, "max": 96.6, "last": 96.4}
        return [
            alarm(
                "a1",
                "DiskFull",
                "firing",
                "web-07",
                labels={"mount": "/var", "severity": "critical"},
                metric="metrics.disks.{mount}.percent",
                comparison=">",
                threshold=95.0,
                clear=90.0,
                value=96.4,
                peak=96.6,
                since_ms=now - 3 * minute,
                started_ms=now - 3 * minute,
                fired_ms=now - 2 * minute,
                annotations={
                    "summary": "/var of web-07 fills up: 3.6 GB are left.",
                    "runbook": "https://wiki.example/disk-full",
                },
                records=[
                    ["server-metrics", 3, 918_204],
                    ["syslog", 3, 55_190],
                    ["syslog", 3, 55_191],
                    ["syslog", 3, 55_192],
                ],
                context={"stats": {"disk": disk}, "lines": disk_lines, "top": self.top("web-07", 40)},
            ),
            alarm(
                "a2",
                "HighCpu",
                "firing",
                "db-02",
                labels={"severity": "warning"},
                metric="cpu_mean",
                comparison=">",
                threshold=90.0,
                clear=80.0,
                value=94.2,
                peak=97.0,
                since_ms=now - 5 * minute,
                started_ms=now - 5 * minute,
                fired_ms=now - 4 * minute,
                annotations={"summary": "CPU of db-02 at 94.2 % on average over a minute."},
                records=[["server-metrics", 1, 918_010]],
                context={
                    "stats": {"cpu": {"count": 60, "mean": 94.2, "min": 91.0, "max": 97.0, "last": 95.1}},
                    "lines": [self._line("db-02", now - 3 * minute, QUIET[1])],
                    "top": self.top("db-02", 94),
                },
            ),
            alarm(
                "a3",
                "HostSilent",
                "no_data",
                "cache-01",
                labels={"severity": "warning"},
                comparison=">",
                threshold=30.0,
                value=90.0,
                since_ms=now - 126_000,
                started_ms=now - 96_000,
                annotations={"summary": "cache-01 sends no readings."},
            ),
            alarm(
                "a4",
                "HighLoad",
                "pending",
                "web-03",
                labels={"severity": "warning"},
                metric="load_per_core",
                comparison=">",
                threshold=2.0,
                clear=1.5,
                value=2.2,
                since_ms=now - 40_000,
                started_ms=now - 40_000,
                annotations={},
            ),
            alarm(
                "a5",
                "HighLoad",
                "resolved",
                "web-11",
                labels={"severity": "warning"},
                metric="load_per_core",
                comparison=">",
                threshold=2.0,
                clear=1.5,
                value=0.8,
                peak=6.2,
                since_ms=now - 19 * minute,
                started_ms=now - 19 * minute,
                fired_ms=now - 17 * minute,
                resolved_ms=now - 9 * minute,
                sequence=4,
                annotations={"summary": "Load of web-11."},
            ),
        ]
