"""The board behind the health page, and the pages it is shown on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.health_monitoring.models import Health, LogLine, Metrics, Stats
from apps.health_monitoring.page.board import ALARMS_MAX, FORGET_MS, RESOLVED_MAX, Board
from apps.health_monitoring.page.page import register
from apps.health_monitoring.page.series import LINES_MAX, POINTS_MAX, WINDOW_MS, thinned
from processors.alarms import Alarm
from processors.rules import Rule
from streamcore.clock import ManualClock
from streamcore.web.payload import dump
from streamcore.web.server import create_web
from tests.web.asgi_client import Client
from tests.web.fake_fleet import HOSTILE_HOST, Fleet, iso
from tests.web.fake_worker import FakeWorker, fill

NOW = 1_700_000_000_000
RULES = [Rule("HighCpu", "cpu > 90", clear=80), Rule("DiskFull", "metrics.disks.{mount}.percent > 95", clear=92)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def board(clock: ManualClock) -> Board:
    return Board(RULES, clock=clock)


def reading(host: str = "web-1", at_ms: int = NOW, cpu: float = 20.0, **more: Any) -> dict[str, Any]:
    return {"host": host, "time": iso(at_ms), "cpu": cpu, "metrics": {}, **more}


def alarm(key: str = "a", state: str = "firing", host: str = "web-1", sequence: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "id": key,
        "rule": "HighCpu",
        "state": state,
        "labels": {"host": host},
        "severity": "warning",
        "sequence": sequence,
        "metric": "cpu",
        "threshold": 90.0,
        "comparison": ">",
        "at_ms": NOW,
        "started_ms": NOW - 60_000,
        "fired_ms": NOW - 30_000,
        "since_ms": NOW - 60_000,
        "value": 95.0,
    } | more


def card(board: Board, host: str = "web-1") -> dict[str, Any]:
    return next(card for card in board.snapshot()["hosts"] if card["host"] == host)


def test_models_are_taken_as_they_come_from_the_topics(board: Board, clock: ManualClock) -> None:
    metrics = Metrics(host="web-1", time=iso(NOW), cpu=41.0, cores=4).to_representation()
    metrics = Metrics.from_data(metrics)
    line = LogLine(host="web-1", time=metrics.time, received=metrics.time, message="hello", severity="err")
    board.health(Health.of(metrics, Stats() + metrics, [line]))
    board.alarm(
        Alarm(
            id="a",
            key="k",
            rule="HighCpu",
            state="firing",
            previous="pending",
            sequence=2,
            at_ms=NOW,
            metric="cpu",
            labels={"host": "web-1"},
            records=[("server-metrics", 3, 9)],
            context={"lines": [line.to_representation()]},
        )
    )
    snapshot = board.snapshot()
    assert snapshot["hosts"][0]["cpu"] == 41.0
    assert snapshot["points"] == {"web-1": [[NOW, 41.0]]}
    assert snapshot["alarms"][0]["records"] == [["server-metrics", 3, 9]]
    assert snapshot["alarms"][0]["lines"][0]["message"] == "hello"
    assert board.host("web-1")["lines"][0]["severity"] == "err"  # type: ignore[index]
    json.loads(dump(snapshot))


def test_hosts_come_in_the_order_of_urgency(board: Board) -> None:
    for host in ("ok-10", "ok-2", "pending", "silent", "firing", "critical"):
        board.health(reading(host, NOW - (60_000 if host == "silent" else 0)))
    board.health(reading("near", cpu=88.0))
    board.alarm(alarm("1", host="firing"))
    board.alarm(alarm("2", host="critical", severity="critical"))
    board.alarm(alarm("3", "pending", host="pending", fired_ms=None))
    order = [(card["host"], card["tone"]) for card in board.snapshot()["hosts"]]
    assert order == [
        ("critical", "bad"),
        ("firing", "bad"),
        ("silent", "gone"),
        ("pending", "warn"),
        ("near", "warn"),
        ("ok-2", "ok"),
        ("ok-10", "ok"),
    ]


def test_a_card_shows_the_metric_its_alarm_is_about(board: Board) -> None:
    board.health(reading(cpu=12.0, disk_percent=96.5, worst_disk="/var"))
    board.alarm(alarm(rule="DiskFull", metric="metrics.disks.{mount}.percent", threshold=95.0))
    shown = card(board)
    assert (shown["metric"], shown["threshold"], shown["label"]) == ("disk_percent", 95.0, "DiskFull")
    assert board.snapshot()["points"]["web-1"] == [[NOW, 96.5]]


def test_an_alarm_that_resolves_keeps_the_chart_that_led_to_it(board: Board, clock: ManualClock) -> None:
    board.health(reading(cpu=97.0))
    board.alarm(alarm())
    board.alarm(alarm(state="resolved", sequence=4, resolved_ms=NOW))
    clock.advance(2 * WINDOW_MS)
    board.health(reading(at_ms=NOW + 2 * WINDOW_MS))
    assert board.snapshot()["alarms"][0]["points"] == [[NOW, 97.0]]
    assert card(board)["tone"] == "ok"


def test_a_repeat_or_an_older_change_of_an_alarm_is_ignored(board: Board) -> None:
    board.alarm(alarm(state="resolved", sequence=4, resolved_ms=NOW))
    board.alarm(alarm(state="firing", sequence=2))
    board.alarm(alarm(state="resolved", sequence=4, resolved_ms=NOW))
    assert [each["state"] for each in board.alarms()] == ["resolved"]


def test_a_pending_alarm_that_did_not_last_leaves(board: Board) -> None:
    board.alarm(alarm(state="pending", sequence=1))
    board.alarm(alarm(state="inactive", sequence=2))
    assert board.alarms() == []


def test_the_newest_critical_alarm_comes_first(board: Board) -> None:
    board.alarm(alarm("old", fired_ms=NOW - 9_000))
    board.alarm(alarm("new", fired_ms=NOW - 1_000))
    board.alarm(alarm("critical", fired_ms=NOW - 90_000, severity="critical"))
    board.alarm(alarm("over", "resolved", resolved_ms=NOW))
    board.alarm(alarm("pending", "pending"))
    assert [each["id"] for each in board.alarms()] == ["critical", "new", "old", "pending", "over"]


def test_a_delta_holds_what_is_new_and_nothing_else(board: Board, clock: ManualClock) -> None:
    board.health(reading("a", NOW - 2000))
    board.health(reading("b", NOW - 2000))
    version = board.snapshot()["version"]
    clock.advance(1000)
    board.health(reading("b", NOW, cpu=33.0))
    delta = board.delta(version)
    assert delta["points"] == {"b": [[NOW, 33.0]]}
    assert (delta["full"], delta["reset"], delta["alarms"]) == (False, [], None)
    assert board.delta(delta["version"])["points"] == {}


def test_a_delta_carries_the_points_of_alarms_too(board: Board) -> None:
    board.health(reading(at_ms=NOW - 2000))
    board.alarm(alarm())
    version = board.snapshot()["version"]
    board.health(reading(cpu=96.0))
    delta = board.delta(version)
    assert delta["alarm_points"] == {"a": [[NOW, 96.0]]}


def test_points_are_replaced_when_a_card_changes_its_metric(board: Board) -> None:
    board.health(reading(disk_percent=50.0))
    version = board.snapshot()["version"]
    board.alarm(alarm(metric="disk_percent", rule="DiskFull"))
    delta = board.delta(version)
    assert delta["reset"] == ["web-1"]
    assert delta["points"]["web-1"] == [[NOW, 50.0]]


def test_a_host_is_silent_when_it_has_missed_three_readings(board: Board, clock: ManualClock) -> None:
    for tick in range(5):
        board.health(reading(at_ms=NOW - (4 - tick) * 10_000))
    clock.advance(34_000)
    assert card(board)["tone"] == "ok"
    clock.advance(2_000)
    assert (card(board)["tone"], card(board)["silent_ms"]) == ("gone", 36_000)


def test_a_host_that_is_gone_for_an_hour_leaves_unless_it_has_an_alarm(board: Board, clock: ManualClock) -> None:
    board.health(reading("sold"))
    board.health(reading("dead"))
    board.health(reading("alive"))
    board.alarm(alarm(state="no_data", host="dead"))
    clock.advance(FORGET_MS + 1000)
    board.health(reading("alive", clock.now_ms()))
    assert [each["host"] for each in board.snapshot()["hosts"]] == ["dead", "alive"]


def test_a_replay_of_old_readings_makes_nobody_silent(board: Board, clock: ManualClock) -> None:
    years_ago = NOW - 5 * 365 * 86_400_000
    for tick in range(20):
        for host in ("a", "b"):
            board.health(reading(host, years_ago + tick * 300_000))
    assert {each["tone"] for each in board.snapshot()["hosts"]} == {"ok"}
    assert board.snapshot()["now_ms"] == years_ago + 19 * 300_000
    assert board.snapshot()["kpis"]["delay_p50_ms"] is None


def test_a_clock_years_ahead_does_not_move_the_page(board: Board) -> None:
    board.health(reading("ahead", NOW + 10**12))
    board.health(reading("fine"))
    assert board.snapshot()["now_ms"] == NOW
    assert {each["tone"] for each in board.snapshot()["hosts"]} == {"ok"}


def test_memory_per_host_is_bounded(board: Board, clock: ManualClock) -> None:
    for second in range(3 * POINTS_MAX):
        at_ms = NOW + second * 500
        clock.advance(500)
        board.health(reading(at_ms=at_ms, lines=[{"time": iso(at_ms), "message": f"line {second}", "severity": "err"}]))
    detail = board.host("web-1")
    assert detail is not None
    assert len(detail["columns"]["at_ms"]) <= POINTS_MAX
    assert detail["columns"]["at_ms"][0] >= at_ms - WINDOW_MS
    assert [line["message"] for line in detail["lines"]] == [
        f"line {n}" for n in range(3 * POINTS_MAX - LINES_MAX, 3 * POINTS_MAX)
    ]
    assert len(board.snapshot()["points"]["web-1"]) <= 120


def test_hosts_and_alarms_are_bounded(clock: ManualClock) -> None:
    board = Board(clock=clock, hosts_max=10)
    board.alarm(alarm(host="host-0"))
    for n in range(50):
        clock.advance(1)
        board.health(reading(f"host-{n}", clock.now_ms()))
    hosts = {each["host"] for each in board.snapshot()["hosts"]}
    assert hosts == {"host-0", *(f"host-{n}" for n in range(41, 50))}
    for n in range(ALARMS_MAX + RESOLVED_MAX + 50):
        board.alarm(alarm(f"f{n}"))
        board.alarm(alarm(f"r{n}", "resolved", resolved_ms=NOW + n))
    assert len(board.alarms()) == ALARMS_MAX + RESOLVED_MAX


def test_lines_that_readings_share_are_kept_once_and_in_order(board: Board) -> None:
    lines = [{"time": iso(NOW - n * 1000), "message": f"{n}", "severity": "info"} for n in range(3)]
    board.health(reading(at_ms=NOW - 1000, lines=lines[1:]))
    board.health(reading(lines=lines))
    assert [line["message"] for line in board.host("web-1")["lines"]] == ["2", "1", "0"]  # type: ignore[index]


def test_a_late_reading_does_not_bend_the_line_backwards(board: Board) -> None:
    board.health(reading())
    board.health(reading(at_ms=NOW - 5000, cpu=99.0))
    assert board.snapshot()["points"]["web-1"] == [[NOW, 20.0]]


def test_of_thinned_points_the_peaks_stay() -> None:
    points = [[float(n), 99.0 if n == 501 else 1.0] for n in range(1200)]
    kept = thinned(points, 120)  # type: ignore[arg-type]
    assert len(kept) <= 120
    assert [501.0, 99.0] in kept


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEALTH_FIELDS = ["host", "time", "cpu", "lines", "metrics", "stats", "errors", "worst_disk"]
ALARM_FIELDS = [
    "id",
    "state",
    "rule",
    "labels",
    "sequence",
    "at_ms",
    "fired_ms",
    "records",
    "context",
    "annotations",
    "metric",
]


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(HEALTH_FIELDS, GARBAGE)) | GARBAGE, max_size=5))
def test_no_reading_can_break_the_board(values: list[Any]) -> None:
    board = Board(RULES, clock=ManualClock(NOW))
    board.health(reading())
    for value in values:
        board.health({"host": "web-1", "time": iso(NOW)} | value if isinstance(value, dict) else value)
    board.host("web-1")
    json.loads(dump(board.snapshot()))


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(ALARM_FIELDS, GARBAGE)) | GARBAGE, max_size=5))
def test_no_alarm_can_break_the_board(values: list[Any]) -> None:
    board = Board(RULES, clock=ManualClock(NOW))
    board.health(reading())
    for value in values:
        board.alarm({"id": "a", "state": "firing"} | value if isinstance(value, dict) else value)
    json.loads(dump(board.snapshot()))


def pages(board: Board) -> Client:
    worker = FakeWorker(ManualClock(NOW))
    register(worker, board)
    return Client(create_web(worker, clock=worker.clock))


def test_the_health_page_is_the_front_page_and_the_generic_one_moves(board: Board) -> None:
    client = pages(board)
    front = client.get("/")
    assert "/health/static/health.js" in front.text
    assert 'data-events="/health/events"' in front.text
    assert '<a href="/" aria-current="page">Health</a><a href="/alarms">Alarms</a><a href="/overview">' in front.text


def test_scripts_and_styles_of_the_health_page_are_in_its_package(board: Board) -> None:
    client = pages(board)
    for name in ("health.js", "alarms.js", "host.js", "story.js", "state.js", "health.css"):
        assert client.get(f"/health/static/{name}").status_code == 200
    assert client.get("/health/static/board.py").status_code == 404


def test_a_hosts_page_takes_any_name_and_refuses_a_longer_one(board: Board) -> None:
    client = pages(board)
    page = client.get("/health/host?name=%3Cscript%3Ehit()%3C/script%3E")
    assert page.status_code == 200
    assert "<script>hit" not in page.text
    assert client.get("/health/host?name=" + "x" * 256).status_code == 400


def test_the_board_is_there_as_text_too(board: Board, clock: ManualClock) -> None:
    fill(board, Fleet(NOW, hostile=True), NOW)
    answer = pages(board).get("/health/board").json()
    assert len(answer["hosts"]) == 25
    assert HOSTILE_HOST in {card["host"] for card in answer["hosts"]}


def test_an_alarm_on_something_without_a_series_is_told_in_its_own_words_and_silence_has_none() -> None:
    board = Board(RULES, clock=ManualClock(NOW))
    board.alarm(alarm("a", rule="DiskErrors", metric="disk_errors", value=1.0))
    board.alarm(alarm("b", rule="HostSilent", metric=None))
    told = {each["rule"]: each["measure"] for each in board.snapshot()["alarms"]}
    assert told == {"DiskErrors": "disk errors", "HostSilent": None}
