"""Simulated hosts: the same seed is the same life, and the early incident comes when the demo needs it."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from apps.health_monitoring.fleet import EARLY, Fleet, run_fleet
from apps.health_monitoring.models import LogLine, Metrics

START = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def life(fleet: Fleet, seconds: float, interval: float = 2.0) -> list[Metrics | LogLine]:
    steps = int(seconds / interval) + 1
    return [report for step in range(steps) for report in fleet.step(START + timedelta(seconds=step * interval))]


def readings(reports: list[Metrics | LogLine], host: str) -> dict[float, Metrics]:
    return {(r.time - START).total_seconds(): r for r in reports if isinstance(r, Metrics) and r.host == host}


def test_the_same_seed_lives_the_same_life() -> None:
    assert life(Fleet(5, 7, early_incident=True), 600) == life(Fleet(5, 7, early_incident=True), 600)
    assert life(Fleet(5, 7), 20) != life(Fleet(5, 8), 20)


def test_hosts_are_named_by_their_role() -> None:
    assert Fleet(6).hosts == ["web-01", "db-01", "cache-01", "queue-01", "web-02", "db-02"]


@pytest.mark.parametrize("seed", range(10))
def test_the_early_incident_saturates_the_first_host_and_ends(seed: int) -> None:
    reports = life(Fleet(3, seed, start=START, early_incident=True), 90)
    cpu = {at: reading.cpu or 0 for at, reading in readings(reports, "web-01").items()}
    begin, end, ramp = EARLY
    assert begin <= 8
    assert end - begin == 35
    for at, value in cpu.items():
        if begin + ramp <= at <= end - ramp:
            assert value > 95
        elif at < begin or at >= end:
            assert value < 75
    lines = [line for line in reports if isinstance(line, LogLine) and line.host == "web-01"]
    assert any(line.severity_number <= 4 and begin <= (line.received - START).total_seconds() <= end for line in lines)


def test_a_filling_disk_is_told_of_by_the_log() -> None:
    reports = life(Fleet(2, 3, start=START, early_incident=True), 140)
    assert max(reading.disk_percent or 0 for reading in readings(reports, "db-01").values()) > 95
    texts = [line.message for line in reports if isinstance(line, LogLine) and line.host == "db-01"]
    assert any("EXT4-fs error" in text or "No space left" in text for text in texts)


def test_a_silent_host_says_nothing_and_returns() -> None:
    reports = life(Fleet(4, 5), 4000)
    gaps = {
        host: max(b - a for a, b in pairwise(times))
        for host in Fleet(4).hosts
        if (times := sorted(readings(reports, host)))
    }
    assert any(gap >= 45 for gap in gaps.values())
    assert all(max(readings(reports, host)) > 3800 for host in gaps)


def test_every_report_is_plausible_and_survives_its_own_json() -> None:
    for report in life(Fleet(8, 11, early_incident=True), 1200):
        assert type(report).loads(report.dumps()) == report
        if isinstance(report, Metrics):
            assert 0 <= (report.cpu or 0) <= 100
            assert 0 <= (report.memory_percent or 0) <= 100
            assert all(0 <= disk.percent <= 100 for disk in report.disks.values())
            assert len(report.top) == 5
        else:
            assert "{" not in report.message


def test_an_ordinary_day_stays_below_every_threshold() -> None:
    hot = [
        r
        for r in life(Fleet(4, 2), 100)
        if isinstance(r, Metrics) and ((r.cpu or 0) > 85 or (r.disk_percent or 0) > 90)
    ]
    assert hot == []


def test_the_fleet_goes_on_after_a_log_that_refused() -> None:
    sent: list[Metrics] = []

    async def scenario() -> None:
        done = asyncio.Event()

        async def send(reading: Metrics) -> None:
            sent.append(reading)
            if len(sent) == 1:
                raise RuntimeError("full")
            if len(sent) == 4:
                done.set()

        async def ignore(line: LogLine) -> None:
            pass

        task = asyncio.create_task(run_fleet(send, ignore, 2, interval_s=0.01))
        async with asyncio.timeout(10):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert [reading.host for reading in sent[:4]] == ["web-01", "db-01", "web-01", "db-01"]
