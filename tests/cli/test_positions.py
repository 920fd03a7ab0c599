"""Places in a topic as people write them."""

from datetime import datetime

import pytest

from streamcore.cli.positions import Position, parse_duration_ms, parse_position, parse_time_ms

NOW_MS = int(datetime(2026, 1, 31, 12, 30).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("beginning", Position("beginning")),
        ("earliest", Position("beginning")),
        ("END", Position("end")),
        ("offset:42", Position("offset", 42)),
        ("42", Position("offset", 42)),
        ("-10", Position("last", 10)),
        ("10m", Position("time", NOW_MS - 600_000)),
        ("10m ago", Position("time", NOW_MS - 600_000)),
        ("2 hours ago", Position("time", NOW_MS - 7_200_000)),
        ("1h30m", Position("time", NOW_MS - 5_400_000)),
        ("now", Position("time", NOW_MS)),
        ("@1700000000000", Position("time", 1_700_000_000_000)),
        ("@1700000000", Position("time", 1_700_000_000_000)),
        ("2023-11-14T22:13:20Z", Position("time", 1_700_000_000_000)),
        ("2023-11-14 23:13:20+01:00", Position("time", 1_700_000_000_000)),
    ],
)
def test_a_position_is_read_as_people_write_it(text, position):
    assert parse_position(text, NOW_MS) == position


@pytest.mark.parametrize("text", ["", "begining", "offset:", "offset:-1", "--", "10x", "2026-13-01", "25:00", "m"])
def test_anything_else_is_no_position(text):
    assert parse_position(text, NOW_MS) is None


def test_times_without_a_zone_are_local():
    midnight = int(datetime(2026, 1, 31).timestamp() * 1000)
    assert parse_time_ms("2026-01-31", NOW_MS) == midnight
    assert parse_time_ms("today", NOW_MS) == midnight
    assert parse_time_ms("12:15", NOW_MS) == NOW_MS - 15 * 60_000
    assert parse_time_ms("yesterday", NOW_MS) == int(datetime(2026, 1, 30).timestamp() * 1000)


def test_durations_add_up_their_parts():
    assert parse_duration_ms("1d 2h") == 26 * 3_600_000
    assert parse_duration_ms("250ms") == 250
    assert parse_duration_ms("1.5h") == 5_400_000
    assert parse_duration_ms("ten minutes") is None
