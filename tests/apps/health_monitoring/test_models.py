"""Statistics, what is usual, and the picture the rules look at."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health_monitoring.models import (
    LINES_MAX,
    WARM_UP,
    Disk,
    Health,
    LogLine,
    Metrics,
    Process,
    Stats,
    Summary,
    Usual,
    short_host,
)

START = datetime(2026, 3, 4, tzinfo=UTC)


def metrics(cpu: float | None = None, seconds: float = 0, **fields: object) -> Metrics:
    return Metrics(host="web-01", time=START + timedelta(seconds=seconds), cpu=cpu, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("web-01.example.com", "web-01"),
        ("web-01", "web-01"),
        ("192.0.2.1", "192.0.2.1"),
        ("fe80::1", "fe80::1"),
        (".x", ".x"),
    ],
)
def test_a_machine_is_known_by_its_first_label(name: str, short: str) -> None:
    assert short_host(name) == short


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_a_summary_is_what_the_whole_list_says(values: list[float]) -> None:
    summary = Summary()
    for value in values:
        summary = summary.with_value(value)
    assert (summary.count, summary.min, summary.max, summary.last) == (
        len(values),
        min(values),
        max(values),
        values[-1],
    )
    assert math.isclose(summary.mean, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-3)


def test_what_a_reading_does_not_have_is_not_counted() -> None:
    stats = Stats() + metrics(10.0) + metrics(None) + metrics(math.nan) + metrics(30.0)
    assert (stats.count, stats.cpu.count, stats.cpu.mean) == (4, 2, 20.0)
    assert stats.memory.count == 0


def test_adding_leaves_the_old_statistics_alone() -> None:
    before = Stats() + metrics(10.0)
    after = before + metrics(90.0)
    assert (before.cpu.max, after.cpu.max) == (10.0, 90.0)


def test_the_worst_disk_is_the_fullest() -> None:
    reading = metrics(disks={"/": Disk(40.0, 4, 10), "/var": Disk(91.0, 9, 10)})
    assert (reading.worst_disk, reading.disk_percent) == ("/var", 91.0)
    assert (metrics().worst_disk, metrics().disk_percent) == (None, None)


def test_load_is_counted_per_core() -> None:
    assert metrics(load1=6.0, cores=4).load_per_core == 1.5
    assert metrics(load1=6.0, cores=0).load_per_core == 6.0
    assert metrics().load_per_core is None


def test_nothing_is_unusual_on_the_first_day() -> None:
    usual = Usual() + metrics(10.0)
    assert usual.cpu_score(90.0, START + WARM_UP - timedelta(seconds=1)) is None
    assert usual.cpu_score(90.0, START + WARM_UP) == pytest.approx(80)


def test_a_spike_hardly_changes_what_is_usual_and_a_new_level_becomes_usual() -> None:
    usual = Usual()
    for step in range(300):
        usual += metrics(10 + 0.1 * (step % 3), step * 300)
    at = 300 * 300
    spiked = usual + metrics(100.0, at)
    assert spiked.cpu_score(100.0, START + timedelta(seconds=at)) > 50  # type: ignore[operator]
    for step in range(300, 900):
        spiked += metrics(40.0, step * 300)
    assert abs(spiked.cpu_score(40.0, START + timedelta(seconds=900 * 300)) or 99) < 1


def test_a_repeated_or_late_reading_teaches_nothing() -> None:
    usual = Usual() + metrics(10.0, 0) + metrics(12.0, 300)
    assert usual + metrics(12.0, 300) == usual
    assert usual + metrics(99.0, 100) == usual


def test_a_picture_has_what_the_rules_compare() -> None:
    reading = metrics(50.0, load1=2.0, cores=2, memory_percent=70.0, disks={"/": Disk(95.0, 1, 2)}, network_rx=5.0)
    lines = [
        LogLine(host="web-01", time=START + timedelta(seconds=n), received=START, severity="err" if n % 2 else "info")
        for n in reversed(range(LINES_MAX + 10))
    ]
    health = Health.of(reading, Stats() + metrics(10.0) + reading, lines, Usual())
    assert (health.cpu, health.cpu_mean, health.load_per_core) == (50.0, 30.0, 1.0)
    assert (health.worst_disk, health.disk_percent, health.network) == ("/", 95.0, 5.0)
    assert health.cpu_unusual is None
    assert health.errors == (LINES_MAX + 10) // 2
    assert len(health.lines) == LINES_MAX
    assert health.lines == sorted(health.lines, key=lambda line: line.time)
    assert health.lines[-1].time == START + timedelta(seconds=LINES_MAX + 9)


def test_every_model_survives_its_own_json() -> None:
    reading = metrics(50.0, disks={"/": Disk(95.0, 1, 2)})
    for value in (
        reading,
        Stats() + reading,
        Usual() + reading,
        Health.of(reading, Stats() + reading, [], Usual() + reading),
    ):
        assert type(value).loads(value.dumps()) == value


def test_a_line_reads_like_a_log() -> None:
    line = LogLine(
        host="h", time=START, received=START, facility="kern", severity="crit", app="nginx", pid="7", message="x"
    )
    assert str(line) == "00:00:00 kern.crit nginx[7]: x"


def test_a_story_is_the_minute_the_last_lines_and_the_busiest_processes() -> None:
    reading = metrics(50.0, top=[Process("nginx", 7, 40.0)])
    lines = [LogLine("web-01", START + timedelta(seconds=n), START, message=str(n)) for n in range(30)]
    story = Health.of(reading, Stats() + reading, lines).story()
    assert json.loads(json.dumps(story)) == story
    assert story["stats"]["cpu"]["mean"] == 50.0
    assert [line["message"] for line in story["lines"]] == [str(n) for n in range(10, 30)]
    assert [process["name"] for process in story["top"]] == ["nginx"]
