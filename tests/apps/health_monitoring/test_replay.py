"""Recordings, good and bad; and the real ones through the real app, which gives the same alarms every time."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import streamcore as sc
from apps.health_monitoring import app as health_app
from apps.health_monitoring.models import LogLine, Metrics
from apps.health_monitoring.replay import (
    NAB_SERIES,
    ReplayReport,
    Series,
    Window,
    labelled_windows,
    recorded,
    replay,
    score,
)
from processors.alerts import Alarm
from streamcore.engine import run
from streamcore.errors import UsageError
from streamcore.testing import AppTest
from streamcore.transport import base


def play(
    series: list[Series], syslog: Path | None = None, **options: object
) -> tuple[list[Metrics | LogLine], ReplayReport]:
    events: list[Metrics | LogLine] = []

    async def send(event: Metrics | LogLine) -> None:
        events.append(event)

    report = asyncio.run(replay(send, send, series, syslog=syslog, **options))  # type: ignore[arg-type]
    return events, report


def series(path: Path, text: str, field: str = "cpu", **options: object) -> Series:
    path.write_text(text)
    return Series(path, path.stem, field, **options)  # type: ignore[arg-type]


def test_the_recordings_of_the_project_are_whole() -> None:
    report = ReplayReport()
    readings = [event for event in recorded(NAB_SERIES, None, report) if isinstance(event, Metrics)]
    assert (len(readings), report.bad_rows) == (4 * 4032, 0)
    assert [reading.time for reading in readings] == sorted(reading.time for reading in readings)
    assert {reading.host for reading in readings if reading.network_rx is not None} == {"ec2-257a54"}
    assert {reading.host for reading in readings if reading.cpu is None} == {"ec2-257a54"}
    assert len(labelled_windows()) == 6


def test_series_come_in_the_order_of_their_times_with_field_and_scale(tmp_path: Path) -> None:
    events, report = play([
        series(tmp_path / "a.csv", "timestamp,value\n2026-01-01 00:00:00,10\n2026-01-01 00:10:00,30\n"),
        series(tmp_path / "b.csv", "2026-01-01T00:05:00+01:00,600\n1767226200,900\n", "network_rx", scale=0.5),
    ])  # fmt: skip
    assert [(event.host, f"{event.time:%d %H:%M}") for event in events] == [
        ("b", "31 23:05"), ("a", "01 00:00"), ("a", "01 00:10"), ("b", "01 00:10"),
    ]  # fmt: skip
    assert [event.network_rx for event in events if isinstance(event, Metrics)] == [300, None, None, 450]
    assert (report.metrics, report.bad_rows) == (4, 0)


def test_bad_rows_are_counted_and_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    text = (
        "timestamp,value\n"
        "2026-01-01 00:00:00,1\n"
        "yesterday,2\n"
        "2026-01-01 00:10:00,nan\n"
        "2026-01-01 00:15:00\n"
        "2026-01-01 00:20:00,1e999\n"
        "\n"
        "2026-01-01 00:25:00,x\n"
        '"2026-01-01 00:26:00,unclosed\n'
        "2026-01-01 00:30:00,3\n"
    )
    events, report = play([series(tmp_path / "a.csv", text)])
    assert [event.cpu for event in events if isinstance(event, Metrics)] == [1.0, 3.0]
    assert report.bad_rows == 6
    assert [problem.split(":")[1] for problem in report.problems] == ["3", "4", "5", "6", "8", "9"]
    assert "'yesterday' is no time" in report.problems[0]


def test_many_bad_rows_do_not_fill_the_memory(tmp_path: Path) -> None:
    _, report = play([series(tmp_path / "a.csv", "bad\n" * 5000)])
    assert (report.bad_rows, len(report.problems)) == (5000, 20)


def test_bytes_that_are_no_text_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00,1\n2026-01-01 00:00:00,1\n")
    events, report = play([Series(path, "a", "cpu")])
    assert (len(events), report.bad_rows) == (1, 1)


def test_syslog_files_are_read_as_they_lie_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    path.write_bytes(
        b"a continuation of nothing\n"
        b"2026-01-01T00:00:01.5+00:00 web-01 nginx[8]: as rsyslog writes it\n"
        b"\ta continuation\n"
        b"Jan  1 00:00:02 2026 web-01 kernel: the old way\n"
        b"<34>1 2026-01-01T00:00:03Z web-01 app - - - from the network \xff\n"
    )
    metrics = series(tmp_path / "web-01.csv", "timestamp,value\n2026-01-01 00:00:02.5,9\n")
    events, report = play([metrics], path)
    assert [type(event).__name__ for event in events] == ["LogLine", "LogLine", "LogLine", "Metrics", "LogLine"]
    lines = [event for event in events if isinstance(event, LogLine)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert [line.time - start for line in lines] == [timedelta(seconds=s) for s in (1.5, 1.5, 2, 3)]
    assert [line.message for line in lines] == [
        "as rsyslog writes it", "\ta continuation", "the old way", "from the network \\xff"
    ]  # fmt: skip
    assert (report.lines, report.bad_rows) == (4, 1)


def test_speed_is_seconds_of_the_recording_per_second(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    text = "2026-01-01 00:00:00,1\n2026-01-01 01:00:00,1\n2026-01-01 02:00:00,1\n"
    play([series(tmp_path / "a.csv", text)], speed=0.5, sleep=sleep)
    assert [round(pause / 100) for pause in pauses] == [72, 144]  # nobody really slept, so the second waits for both
    pauses.clear()
    play([series(tmp_path / "a.csv", text)], sleep=sleep)
    assert pauses == []


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_a_speed_that_makes_no_sense_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="0 full speed"):
        play([], speed=speed)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened: No such file"):
        play([Series(tmp_path / "none.csv", "a", "cpu")])


def test_progress_ends_with_the_number_of_reports() -> None:
    seen: list[int] = []
    play(list(NAB_SERIES[:1]), on_progress=seen.append)
    assert seen == [1000, 2000, 3000, 4000, 4032]


def test_alarms_are_scored_against_their_hosts_windows() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    hour = timedelta(hours=1)
    windows = [
        Window("a", start, start + hour),
        Window("b", start, start + hour),
        Window("a", start + 5 * hour, start + 6 * hour),
    ]
    alarms = [("a", start), ("a", start + hour), ("b", start + 2 * hour), ("a", start + 5 * hour), ("c", start)]
    result = score(alarms, windows)
    assert result == (2, 3, 2)
    assert str(result) == "2 of 3 labelled incidents caught, 2 alarms outside of them"


# -- the recordings through the real app -------------------------------------------------------------------------------


class Silent:
    """Tells nobody."""

    async def notify(self, alarm: Alarm) -> None: ...
    async def run(self) -> None: ...


@cache
def readings() -> list[Metrics]:
    return [event for event in recorded(NAB_SERIES, None, ReplayReport()) if isinstance(event, Metrics)]


def replayed(
    monkeypatch: pytest.MonkeyPatch,
    between: Callable[[AppTest, int], None] | None = None,
    *,
    chunk_records: int = base.RECORDS_AT_A_TIME,
    fetch_bytes: int = run.FETCH_MAX_BYTES,
    **settings: Any,
) -> dict[tuple[str, int], dict[str, Any]]:
    """The alarms' records by id and sequence, each repeat of one the same to the letter.

    The places of the readings behind an alarm are replaced by what lies there: a crash may repeat records of `health`,
    so that later ones lie further on.

    Args:
        between: called with the number of readings sent, after each of them.
    """
    monkeypatch.setattr(base, "RECORDS_AT_A_TIME", chunk_records)
    monkeypatch.setattr(run, "FETCH_MAX_BYTES", fetch_bytes)
    monkeypatch.setattr(health_app, "_notifiers", [Silent()])
    monkeypatch.setattr(health_app.options, "live", False)
    monkeypatch.setattr(health_app.options, "rules", health_app.HERE / "nab.yaml")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    with AppTest(health_app.app, start=readings()[-1].time, **settings) as test:
        for sent, reading in enumerate(readings(), 1):
            test.send(health_app.metrics, value=reading, timestamp=reading.time, settle=False)
            if between is not None:
                between(test, sent)
        test.advance(10)  # the last readings wait for the clock
        assert test.dead_letters() == []
        behind = {
            (event.tp.topic, event.tp.partition, event.offset): event.message.value
            for event in test.all_events(health_app.health)
        }
        for event in test.all_events(health_app.alarms):
            alarm = event.value
            alarm.records = [behind[tuple(place)] for place in alarm.records]
            assert found.setdefault((alarm.id, alarm.sequence), alarm.asdict()) == alarm.asdict()
    return found


@pytest.fixture(scope="module")
def expected() -> Iterator[dict[tuple[str, int], dict[str, Any]]]:
    """All in one go."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield replayed(monkeypatch)


def test_the_real_app_catches_what_the_pure_rules_catch(expected: dict[tuple[str, int], dict[str, Any]]) -> None:
    fired = [alarm for alarm in expected.values() if alarm["state"] == "firing" and alarm["notify"]]
    began = [(alarm["labels"]["host"], datetime.fromtimestamp(alarm["fired_ms"] / 1000, UTC)) for alarm in fired]
    assert str(score(began, labelled_windows())) == "4 of 6 labelled incidents caught, 3 alarms outside of them"


@pytest.mark.parametrize(
    ("chunk_records", "fetch_bytes", "commit_interval", "portion"),
    [(1, 2_000, 0.001, 5_000), (13, 50_000, 30.0, 3_001), (512, 1 << 20, 0.1, 500)],
)
def test_the_alarms_do_not_depend_on_the_sizes_of_batches(
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[tuple[str, int], dict[str, Any]],
    chunk_records: int,
    fetch_bytes: int,
    commit_interval: float,
    portion: int,
) -> None:
    def between(test: AppTest, sent: int) -> None:
        if sent % portion == 0:
            test.advance(2)

    sizes: dict[str, Any] = {"chunk_records": chunk_records, "fetch_bytes": fetch_bytes}
    assert replayed(monkeypatch, between, commit_interval=commit_interval, **sizes) == expected


@pytest.mark.parametrize("commit_interval", [0.01, 0.5, 20.0])
def test_the_alarms_do_not_depend_on_crashes_and_restarts(
    monkeypatch: pytest.MonkeyPatch, expected: dict[tuple[str, int], dict[str, Any]], commit_interval: float
) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)

    def between(test: AppTest, sent: int) -> None:
        if rng.random() > 0.002:
            return
        test.pass_time(0.01)  # what was sent is on the log, or nobody would promise that it stays
        test.pass_time(rng.choice((0.0, 0.02, 1.0, 5.0)) * rng.random())
        if rng.random() < 0.7:
            test.crash()
            if rng.random() < 0.3:
                test.lose_tables()
        test.restart()

    sizes = {"chunk_records": rng.choice((3, 100, 512)), "fetch_bytes": rng.choice((5_000, 128 << 10))}
    assert replayed(monkeypatch, between, commit_interval=commit_interval, **sizes) == expected


def test_a_replay_keeps_records_that_are_years_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[sc.App] = []

    def run_worker(app: sc.App, settings: dict[str, Any]) -> int:
        ran.append(app)
        return 0

    monkeypatch.setattr("streamcore.cli.worker.run_worker", run_worker)
    monkeypatch.setattr("streamcore.cli.worker.start_logging", lambda *_: None)
    monkeypatch.setattr(health_app, "options", health_app.Options())
    for topic in health_app.app.topics.values():
        monkeypatch.setattr(topic, "config", dict(topic.config))
    try:
        assert health_app.demo(data=tmp_path, replay="nab") == 0
    finally:
        logging.getLogger("streamcore").setLevel(logging.NOTSET)
    assert {topic.config["retention.ms"] for topic in ran[0].topics.values()} == {"-1"}
