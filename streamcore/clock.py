"""Where the time comes from, so that a test can hold it in its hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time; everything that reads it takes one of these as an argument."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands until somebody moves it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, milliseconds: int) -> None:
        self._now_ms += milliseconds


SYSTEM_CLOCK = SystemClock()
