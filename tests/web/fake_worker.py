"""A worker without an engine, with realistic data that moves: for tests, and to look at the pages.

`python -m tests.web.fake_worker [--port 6066] [--generic] [--empty] [--hostile]`
"""

import argparse
import asyncio
import random
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from apps.health_monitoring.page.board import Board
from apps.health_monitoring.page.page import register
from processors.rules import Rule
from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.engine.log_status import LogStatus
from streamcore.web.server import WebServer
from streamcore.web.views import Handler, Page
from tests.web.fake_cluster import FakeTransport
from tests.web.fake_fleet import Fleet

RULES = [
    Rule("HighCpu", "cpu_mean > 90", clear=80),
    Rule("CpuNow", "cpu > 90", clear=80),
    Rule("DiskFull", "disk_percent > 95", clear=90),
    Rule("HighMemory", "memory_percent > 95", clear=90),
]
# topic, partitions, records per second over all partitions, internal, settings
TOPICS: list[tuple[str, int, float, bool, dict[str, str]]] = [
    ("server-metrics", 8, 24, False, {"retention.ms": "604800000", "compression.type": "zstd"}),
    ("syslog", 8, 11, False, {"retention.ms": "604800000"}),
    ("health", 8, 24, False, {}),
    ("alarms", 8, 0.2, False, {"cleanup.policy": "compact"}),
    ("logins", 2, 0, False, {}),
    ("dead-letters", 1, 0, False, {}),
    ("health-monitoring-minutes-changelog", 8, 30, True, {"cleanup.policy": "compact"}),
    ("__consumer_offsets", 1, 10, True, {"cleanup.policy": "compact"}),
]


class FakeWorker:
    """What the pages need of a worker, made up."""

    app_id = "health-monitoring"

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, empty: bool = False, stuck: bool = True) -> None:
        self.clock = clock
        self.started_ms = clock.now_ms() - 4_000_000
        self.empty = empty
        self.stuck = stuck
        self.pages: list[Page] = []
        self.mounts: list[tuple[str, Any, str | None]] = []
        self.health: tuple[bool, str] = (True, "")
        self.readiness: tuple[bool, str] = (True, "")
        self.failure: Exception | None = None
        self.status_calls = 0
        self.log_status = LogStatus(FakeTransport(clock, empty=empty), clock)  # type: ignore[arg-type]
        self.metrics_registry = CollectorRegistry()
        Counter("streamcore_events", "Events taken", registry=self.metrics_registry).inc(42)

    def page(self, path: str, *, title: str | None = None) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.pages.append(Page.of(path, handler, title=title))
            return handler

        return add

    def healthy(self) -> tuple[bool, str]:
        return self.health

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def _end(self, topic: str, partition: int) -> int:
        for name, partitions, rate, _, _ in TOPICS:
            if name == topic:
                share = rate / partitions * random.Random(f"{topic}{partition}").uniform(0.6, 1.4)
                base = 900_000 if rate else 0
                return base + int((self.clock.now_ms() - self.started_ms) / 1000 * share)
        return 0

    async def status(self) -> dict[str, Any]:
        self.status_calls += 1
        if self.failure:
            raise self.failure
        now_ms = self.clock.now_ms()
        healthy, reason = self.health
        status: dict[str, Any] = {
            "app": self.app_id,
            "state": "running",
            "started_ms": self.started_ms,
            "now_ms": now_ms,
            "broker": "embedded:./streamcore-data",
            "healthy": healthy,
            "unhealthy_reason": reason or None,
            "topics": [],
            "groups": [],
            "agents": [],
            "tables": [],
        }
        if self.empty:
            return status
        for name, partitions, rate, internal, config in TOPICS:
            status["topics"].append(
                {
                    "name": name,
                    "internal": internal,
                    "config": config,
                    "partitions": [
                        {
                            "partition": p,
                            "log_start_offset": 412_000 if rate else 0,
                            "log_end_offset": self._end(name, p),
                            "size_bytes": self._end(name, p) * 143,
                            "offline": None,
                        }
                        for p in range(partitions)
                    ],
                }
            )
        status["agents"] = [
            self._agent("describe", ["server-metrics", "syslog"], ["health"], 2_140_000, now_ms),
            self._agent("judge", ["health"], ["alarms"], 1_830_000, now_ms),
            self._agent("notify", ["alarms"], [], 1412, now_ms, stuck=self.stuck),
            self._agent("count_logins", ["logins"], ["alarms"], 0, now_ms),
        ]
        lag = [int(6 * random.random()) for _ in range(8)]
        status["groups"] = [
            self._group("health-monitoring", "server-metrics", lag, now_ms),
            self._group("alertmanager-sink", "alarms", [0] * 8, now_ms),
            self._group("lake", "syslog", [6011 + i * 300 for i in range(8)], now_ms),
        ]
        status["tables"] = [
            self._table("minutes", "tumbling 60 s, grace 10 s", 24 * 3, "health-monitoring-minutes-changelog"),
            self._table("usual", None, 24, "health-monitoring-usual-changelog"),
        ]
        return status

    def _agent(
        self, name: str, topics: list[str], sinks: list[str], base: int, now_ms: int, *, stuck: bool = False
    ) -> dict[str, Any]:
        partitions = min(p for t, p, _, _, _ in TOPICS if t in topics)
        seconds = (now_ms - self.started_ms) / 1000
        rate = sum(r for t, _, r, _, _ in TOPICS if t in topics)
        parts = []
        for p in range(partitions):
            ends = {t: self._end(t, p) for t in topics}
            bad = stuck and p == 5
            parts.append(
                {
                    "partition": p,
                    "state": "retrying" if bad else "running" if rate else "idle",
                    "inputs": [
                        {
                            "topic": t,
                            "position": end,
                            "done_offset": end - (3 if bad else 0),
                            "log_end_offset": end,
                            "lag": 3 if bad else 0,
                            "max_timestamp_ms": now_ms - 800 if end else None,
                            "idle": not rate,
                        }
                        for t, end in ends.items()
                    ],
                    "watermark_ms": now_ms - 1200 if rate else None,
                    "in_flight": 1 if bad else 0,
                    "held_back_by": "alarms-5 @ 900114 fails with ConnectionRefusedError and is tried again in 4 s"
                    if bad
                    else None,
                }
            )
        return {
            "name": name,
            "topics": topics,
            "sinks": sinks,
            "events_total": int(base + rate * seconds),
            "errors_total": 14 if stuck else 0,
            "dead_letters_total": 0,
            "late_total": 31 if name == "describe" else 0,
            "partitions": parts,
        }

    def _group(self, group: str, topic: str, lags: list[int], now_ms: int) -> dict[str, Any]:
        parts = []
        for p, lag in enumerate(lags):
            end = self._end(topic, p)
            parts.append(
                {
                    "topic": topic,
                    "partition": p,
                    "committed_offset": end - lag,
                    "log_end_offset": end,
                    "lag": lag,
                    "lag_ms": lag * 8 if lag else 0,
                }
            )
        return {"group": group, "lag": sum(lags), "lag_ms": max(p["lag_ms"] for p in parts), "partitions": parts}

    def _table(self, name: str, window: str | None, keys: int, changelog: str) -> dict[str, Any]:
        return {
            "name": name,
            "window": window,
            "keys": keys,
            "dirty": 3,
            "changelog": changelog,
            "partitions": [
                {
                    "partition": p,
                    "keys": keys // 8,
                    "open_windows": 3 if window else 0,
                    "closed_windows_total": 900 if window else 0,
                    "late_total": 2 if window else 0,
                }
                for p in range(8)
            ],
        }

    async def read_records(self, topic: str, partition: int, offset: int, count: int) -> list[dict[str, Any]]:
        end = self._end(topic, partition)
        records = []
        for each in range(offset, min(end, offset + count)):
            rand = random.Random(each)
            value: Any = {
                "host": f"web-{each % 12:02}",
                "time": "2026-11-25T10:01:13.250Z",
                "cpu": round(rand.uniform(2, 99), 2),
                "memory_percent": round(rand.uniform(20, 80), 1),
                "cores": 8,
                "note": '<img src=x onerror="window.hit=1">',
                "disks": {"/": {"percent": 41.5, "total": 9_007_199_254_740_993}},
                "top": [{"name": "nginx", "pid": 812}],
            }
            if each % 7 == 0:
                value = "b'\\xff\\x00 not JSON'"
            records.append(
                {
                    "offset": each,
                    "timestamp": self.clock.now_ms() - (end - each) * 300,
                    "key": f"web-{each % 12:02}",
                    "value": value,
                    "headers": [("trace-id", "4bf92f3577b34da6")] if each % 3 == 0 else [],
                }
            )
        return records

    async def table_rows(self, table: str, prefix: str, limit: int) -> list[dict[str, Any]]:
        start = self.clock.now_ms() // 60_000 * 60_000
        rows = []
        for n in range(1, 25):
            key = f"web-{n:02}"
            row: dict[str, Any] = {
                "key": key,
                "value": {"count": 6 * n, "cpu": {"mean": 41.25, "min": 3.0, "max": 97.5}},
                "partition": n % 8,
            }
            if table == "minutes":
                row |= {"window_start_ms": start, "window_end_ms": start + 60_000}
            if key.startswith(prefix):
                rows.append(row)
        return rows[:limit]


def fill(board: Board, fleet: Fleet, now_ms: int) -> None:
    """Ten minutes of readings every 5 s, and the alarms."""
    for at_ms in range(now_ms - 600_000, now_ms, 5_000):
        for name in fleet.names:
            reading = fleet.health(name, at_ms)
            if reading is not None:
                board.health(reading)
    for alarm in fleet.alarms():
        board.alarm(alarm)


async def serve(options: argparse.Namespace) -> None:
    worker = FakeWorker(empty=options.empty, stuck=not options.calm)
    board = Board(RULES)
    fleet = Fleet(worker.clock.now_ms(), hostile=options.hostile)
    if not options.generic:
        register(worker, board)
    if not options.empty:
        fill(board, fleet, worker.clock.now_ms())
    server = WebServer(worker, clock=worker.clock)
    await server.start("127.0.0.1", options.port)
    print(server.url, flush=True)
    try:
        while True:
            await asyncio.sleep(2)
            if options.empty:
                continue
            for name in fleet.names:
                reading = fleet.health(name, worker.clock.now_ms())
                if reading is not None:
                    board.health(reading)
    finally:
        await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="the pages over made-up data")
    parser.add_argument("--port", type=int, default=6066)
    parser.add_argument("--generic", action="store_true", help="without the health pages")
    parser.add_argument("--empty", action="store_true", help="a worker that has nothing yet")
    parser.add_argument("--calm", action="store_true", help="no stuck partition")
    parser.add_argument("--hostile", action="store_true", help="names and lines that try to be markup")
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
