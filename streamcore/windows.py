"""Windows as a user writes them: integer milliseconds, half-open, aligned to the epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamcore.config import Seconds, milliseconds
from streamcore.errors import UsageError
from streamcore.models import field_name

TIME_MAX_S = 1e12  # far beyond datetime's year 9999, and in milliseconds far below 64 bits


@dataclass(frozen=True, slots=True)
class Window:
    """Hopping windows of `size_ms`, one beginning every `step_ms`; tumbling where both are equal."""

    size_ms: int
    step_ms: int
    grace_ms: int = 0  # how long after its end a window still takes late events
    expires_ms: int = 0  # how long after its close a window can still be read

    def __post_init__(self) -> None:
        if self.size_ms < 1 or self.step_ms < 1:
            raise UsageError(f"a window of {self.size_ms} ms every {self.step_ms} ms: both are at least 1 ms")
        if self.step_ms > self.size_ms:
            raise UsageError(
                f"a window of {self.size_ms} ms every {self.step_ms} ms would leave gaps: step is at most size"
            )

    def starts(self, time_ms: int) -> range:
        """The starts of all windows that contain `time_ms`, oldest first."""
        last = time_ms - time_ms % self.step_ms
        first = last - (self.size_ms - 1) // self.step_ms * self.step_ms
        if first + self.size_ms <= time_ms:
            first += self.step_ms
        return range(first, last + 1, self.step_ms)

    def current(self, time_ms: int) -> int:
        """The start of the newest window that contains `time_ms`."""
        return time_ms - time_ms % self.step_ms

    def closes_at(self, start_ms: int) -> int:
        """The watermark at which the window takes no more events."""
        return start_ms + self.size_ms + self.grace_ms

    def __str__(self) -> str:
        kind = f"tumbling {self.size_ms / 1000:g} s"
        if self.step_ms != self.size_ms:
            kind = f"hopping {self.size_ms / 1000:g} s every {self.step_ms / 1000:g} s"
        return kind + (f", grace {self.grace_ms / 1000:g} s" if self.grace_ms else "")


def tumbling_window(size: Seconds, *, grace: Seconds = 0, expires: Seconds = 0) -> Window:
    size_ms = milliseconds(size, "a window's size")
    return Window(size_ms, size_ms, milliseconds(grace, "grace"), milliseconds(expires, "expires"))


def hopping_window(size: Seconds, step: Seconds, *, grace: Seconds = 0, expires: Seconds = 0) -> Window:
    return Window(
        milliseconds(size, "a window's size"),
        milliseconds(step, "a window's step"),
        milliseconds(grace, "grace"),
        milliseconds(expires, "expires"),
    )


def to_ms(time: Any) -> int:
    """A moment in Unix milliseconds: a datetime (naive means UTC), ISO 8601 text, or seconds as a number.

    Raises:
        UsageError: anything else.
    """
    if isinstance(time, float | int) and not isinstance(time, bool):
        if not -TIME_MAX_S < time < TIME_MAX_S:  # NaN too
            raise UsageError(f"{time!r} is no moment: it is not within {TIME_MAX_S:.0e} seconds of 1970")
        return round(time * 1000)
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            raise UsageError(f"{time!r} is no moment: use a datetime, ISO 8601 text or Unix seconds") from None
    if isinstance(time, datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        milliseconds_: int = round(time.timestamp() * 1000)
        return milliseconds_
    raise UsageError(f"{time!r} is no moment: use a datetime, ISO 8601 text or Unix seconds")


def value_time(field: Any) -> Callable[[Any], int]:
    """How to read a moment (Unix ms) out of a value.

    Args:
        field: `Model.field`, the name of a field or key, or a function of the value.
    """
    if field_name(field) is not None:
        get = field.__get__
        return lambda value: to_ms(get(value))
    if isinstance(field, str):
        name = field
        return lambda value: to_ms(value[name] if isinstance(value, dict) else getattr(value, name))
    if callable(field):
        return lambda value: to_ms(field(value))
    raise UsageError(f"{field!r} names no time: use Model.field, a field's name, or a function of the value")
