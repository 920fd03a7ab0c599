"""Joins as a user writes them: two streams of the same key, matched on event time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from streamcore.config import Seconds, milliseconds
from streamcore.errors import UsageError

if TYPE_CHECKING:
    from streamcore.topics import Topic

How = Literal["inner", "left", "outer"]


@dataclass(frozen=True, slots=True)
class IntervalJoinSpec:
    """A right row at time r belongs to a left row at time l where l - before <= r <= l + after, both ends included."""

    right: "Topic"
    before_ms: int
    after_ms: int
    grace_ms: int
    how: How
    collect: bool
    late: Any = "drop"  # "drop" or a topic

    @property
    def retention_ms(self) -> int:
        """How long past its time a row can still matter to one of the other side."""
        return self.before_ms + self.after_ms + self.grace_ms

    @property
    def waits(self) -> bool:
        """Left rows alone are given out, each at its close with all its matches."""
        return self.collect and self.how != "outer"


def interval_join(
    right: "Topic", *, before: Seconds, after: Seconds, grace: Seconds, how: str, collect: bool, late: Any
) -> IntervalJoinSpec:
    """Check what a user asked for.

    Raises:
        UsageError: it cannot be.
    """
    if not hasattr(right, "encode_value"):
        raise UsageError(f"a stream joins a topic, not {right!r}")
    if how not in ("inner", "left", "outer"):
        raise UsageError(f"join how={how!r}: it is 'inner', 'left' or 'outer'")
    if late != "drop" and not hasattr(late, "encode_value"):
        raise UsageError(f"join late={late!r}: it is 'drop' or a topic")
    return IntervalJoinSpec(
        right,
        milliseconds(before, "join before"),
        milliseconds(after, "join after"),
        milliseconds(grace, "join grace"),
        how,  # type: ignore[arg-type]
        collect,
        late,
    )
