"""Windows and moments."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamcore as sc
from streamcore.windows import Window, hopping_window, to_ms, tumbling_window, value_time


@given(st.integers(-(10**14), 10**14), st.integers(1, 100_000), st.data())
def test_the_windows_of_a_moment_are_exactly_those_that_contain_it(time_ms: int, size: int, data: Any) -> None:
    step = data.draw(st.integers(max(1, size // 50), size))
    window = Window(size, step)
    starts = list(window.starts(time_ms))
    low = (time_ms - size) // step - 1
    candidates = [n * step for n in range(low, time_ms // step + 2)]
    assert starts == [start for start in candidates if start <= time_ms < start + size]
    assert window.current(time_ms) == starts[-1]


def test_windows_begin_at_the_epoch_and_close_after_their_grace() -> None:
    window = tumbling_window(60, grace="5s", expires="1h")
    assert window == Window(60_000, 60_000, 5000, 3_600_000)
    assert list(window.starts(1_767_225_660_000)) == [1_767_225_660_000]
    assert list(window.starts(1_767_225_659_999)) == [1_767_225_600_000]
    assert window.closes_at(0) == 65_000
    assert list(window.starts(-1)) == [-60_000]
    assert str(window) == "tumbling 60 s, grace 5 s"
    assert str(hopping_window(60, 20)) == "hopping 60 s every 20 s"


@pytest.mark.parametrize(("size", "step"), [(0, 1), (10, 0), (10, 20), (0.0001, 0.0001)])
def test_windows_that_cannot_be_are_refused(size: float, step: float) -> None:
    with pytest.raises(sc.UsageError):
        hopping_window(size, step)


@pytest.mark.parametrize(
    ("moment", "ms"),
    [
        (1_767_225_600, 1_767_225_600_000),
        (1_767_225_600.0004, 1_767_225_600_000),
        (1_767_225_600.0006, 1_767_225_600_001),
        ("2026-01-01T00:00:00+00:00", 1_767_225_600_000),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01 01:00:00+01:00", 1_767_225_600_000),
        ("2026-01-01", 1_767_225_600_000),
        (datetime(2026, 1, 1, tzinfo=UTC), 1_767_225_600_000),
        (datetime(2026, 1, 1), 1_767_225_600_000),
        (datetime(2025, 12, 31, 19, tzinfo=timezone(timedelta(hours=-5))), 1_767_225_600_000),
        (0, 0),
        (-1.5, -1500),
        (-0.0004, 0),
    ],
)
def test_a_moment_is_seconds_text_or_a_datetime(moment: Any, ms: int) -> None:
    assert to_ms(moment) == ms


@pytest.mark.parametrize(
    "bad", ["soon", "", None, True, float("nan"), float("inf"), -float("inf"), 1e300, 10**30, [], b"2026-01-01"]
)
def test_anything_else_is_no_moment(bad: Any) -> None:
    with pytest.raises(sc.UsageError, match="no moment"):
        to_ms(bad)


def test_a_field_a_name_and_a_function_tell_a_values_time() -> None:
    class Reading(sc.Record):
        at: float

    assert value_time(Reading.at)(Reading(2.5)) == 2500
    assert value_time("at")(Reading(2.5)) == value_time("at")({"at": 2.5}) == 2500
    assert value_time(lambda value: value.at + 1)(Reading(2.5)) == 3500
    for bad in (3, None):
        with pytest.raises(sc.UsageError, match="names no time"):
            value_time(bad)
