"""Throughput from snapshots."""

from typing import Any

from streamcore.web.rates import GAP_MAX_MS, HISTORY, Rates


def snapshot(now_ms: int, end: int, events: int = 0) -> dict[str, Any]:
    return {
        "now_ms": now_ms,
        "topics": [{"name": "orders", "partitions": [{"log_end_offset": end}, {"log_end_offset": 0}]}],
        "agents": [{"name": "sum", "events_total": events}],
    }


def test_the_first_snapshot_has_no_rate() -> None:
    rates = Rates()
    assert rates.update(snapshot(0, 100))["events"] is None
    assert not rates.history


def test_a_rate_is_what_came_per_second() -> None:
    rates = Rates()
    rates.update(snapshot(0, 100, 10))
    now = rates.update(snapshot(2_000, 300, 50))
    assert (now["topics"], now["agents"], now["events"]) == ({"orders": 100.0}, {"sum": 20.0}, 20.0)


def test_a_rate_reaches_back_over_several_snapshots() -> None:
    rates = Rates()
    for second in range(5):
        now = rates.update(snapshot(second * 1000, 4 if second == 4 else 0))
    assert now["topics"]["orders"] == 1.0


def test_a_topic_made_again_has_no_negative_rate() -> None:
    rates = Rates()
    rates.update(snapshot(0, 100))
    assert rates.update(snapshot(1_000, 3))["topics"]["orders"] == 0


def test_snapshots_of_the_same_moment_change_nothing() -> None:
    rates = Rates()
    rates.update(snapshot(0, 0))
    before = rates.update(snapshot(1_000, 10))
    assert rates.update(snapshot(1_001, 10_000)) == before
    assert len(rates.history) == 1


def test_a_gap_starts_over() -> None:
    rates = Rates()
    rates.update(snapshot(0, 0))
    rates.update(snapshot(1_000, 10))
    assert rates.update(snapshot(1_001 + GAP_MAX_MS, 9_000))["events"] is None
    assert not rates.history


def test_a_clock_that_jumps_back_starts_over() -> None:
    rates = Rates()
    rates.update(snapshot(50_000, 0))
    assert rates.update(snapshot(10_000, 10))["events"] is None


def test_the_history_is_bounded() -> None:
    rates = Rates()
    for second in range(HISTORY + 50):
        rates.update(snapshot(second * 1000, second))
    assert len(rates.history) == HISTORY
