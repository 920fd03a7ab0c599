"""Durations in Prometheus's notation: `30s`, `5m`, `1h30m`, `1d12h`, `500ms`; a bare number is seconds."""

import math
import re
from datetime import timedelta
from typing import Final

Duration = str | int | float | timedelta

_UNITS_MS: Final = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
# As in Prometheus: whole numbers, every unit at most once, larger units first.
_NOTATION: Final = re.compile("".join(rf"(?:(\d+){unit}(?![a-z]))?" for unit in _UNITS_MS))
_LIMIT_MS: Final = 100 * _UNITS_MS["y"]  # keeps sums of times within 64 bits


def parse_duration_ms(value: Duration) -> int:
    """Milliseconds.

    Raises:
        ValueError: not a duration, negative, or longer than a hundred years.
    """
    if isinstance(value, timedelta):
        return _checked(value / timedelta(milliseconds=1), value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _checked(value * 1000, value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return _checked(float(text) * 1000, value)
        match = _NOTATION.fullmatch(text)
        if match and text:
            parts = zip(match.groups(), _UNITS_MS.values(), strict=True)
            return _checked(sum(int(count) * unit for count, unit in parts if count), value)
    raise ValueError(f"{value!r} is not a duration: write 30s, 5m, 1h30m, 500ms, or a number of seconds")


def _checked(duration_ms: float, given: object) -> int:
    if not math.isfinite(duration_ms) or not 0 <= duration_ms <= _LIMIT_MS:
        raise ValueError(f"{given!r} is not a duration between 0 and 100y")
    return round(duration_ms)


def format_duration(duration_ms: int) -> str:
    """The shortest notation that `parse_duration_ms` reads back as the same duration."""
    if duration_ms == 0:
        return "0s"
    text = "-" if duration_ms < 0 else ""
    rest = abs(duration_ms)
    for unit, unit_ms in _UNITS_MS.items():
        if unit in "yw" and rest % unit_ms:  # as Prometheus prints: years and weeks only where they come out even
            continue
        count, rest = divmod(rest, unit_ms)
        if count:
            text += f"{count}{unit}"
    return text
