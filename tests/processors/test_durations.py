"""Durations as Prometheus writes them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.durations import format_duration, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1d12h", 129_600_000),
        ("500ms", 500),
        ("1m500ms", 60_500),
        ("2w", 14 * 86_400_000),
        ("1y", 365 * 86_400_000),
        ("0", 0),
        (" 90 ", 90_000),
        ("1.5", 1_500),
        (90, 90_000),
        (0.25, 250),
        (timedelta(minutes=2), 120_000),
    ],
)
def test_notation_is_read(text: str | float | timedelta, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "s", "5x", "30m1h", "1m1m", "-5s", "1.5h", "5 m", "m5"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, None, [], "101y", timedelta(seconds=-1)])
def test_no_time_at_all_or_far_too_much_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_ms(value)  # type: ignore[arg-type]


@given(st.integers(0, 100 * 365 * 86_400_000))
def test_formatting_inverts_parsing(milliseconds: int) -> None:
    assert parse_duration_ms(format_duration(milliseconds)) == milliseconds


def test_durations_are_written_as_prometheus_writes_them() -> None:
    texts = [format_duration(ms) for ms in (0, 500, 5_400_000, 7 * 86_400_000, 8 * 86_400_000, -60_000)]
    assert texts == ["0s", "500ms", "1h30m", "1w", "8d", "-1m"]
