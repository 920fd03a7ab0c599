"""Comparing a value with a threshold, with a second level at which the condition counts as over (hysteresis)."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

Comparison = Literal[">", ">=", "<", "<="]
COMPARISONS: Final[tuple[Comparison, ...]] = (">", ">=", "<", "<=")

_EXPRESSION: Final = re.compile(
    r"\s*(?P<metric>[^\s<>=!]+)\s*(?P<comparison>[<>=!]+)\s*(?P<threshold>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*"
)


class Verdict(StrEnum):
    """What one value says."""

    HOLDS = "holds"  # beyond the threshold
    BETWEEN = "between"  # neither beyond the threshold nor back at the clear level
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Levels:
    """A threshold and its clear level.

    Without a clear level a value is either beyond the threshold or clear. With one, it is clear below it (where the
    threshold looks upwards) or above it (where it looks downwards), and between the two it says nothing.

    Raises:
        ValueError: levels that contradict each other, or that are no numbers.
    """

    comparison: Comparison
    threshold: float
    clear: float | None = None

    def __post_init__(self) -> None:
        for name, level in (("threshold", self.threshold), ("clear level", self.clear)):
            if level is not None and not math.isfinite(level):
                raise ValueError(f"the {name} {level} is not a finite number")
        if self.clear is None:
            return
        if self.looks_up and self.clear > self.threshold:
            raise ValueError(
                f"it would clear below {self.clear:g} while still above {self.threshold:g}: "
                f"the clear level must be {self.threshold:g} or less"
            )
        if not self.looks_up and self.clear < self.threshold:
            raise ValueError(
                f"it would clear above {self.clear:g} while still below {self.threshold:g}: "
                f"the clear level must be {self.threshold:g} or more"
            )

    @classmethod
    def parse(cls, expression: str) -> tuple[str, Self]:
        """The metric and the levels of `cpu > 90`.

        Raises:
            ValueError: anything but `metric operator number`.
        """
        match = _EXPRESSION.fullmatch(expression)
        if match is None:
            raise ValueError(f"{expression!r} is not an expression: write metric, operator, number, as in cpu > 90")
        comparison = match["comparison"]
        if comparison not in COMPARISONS:
            raise ValueError(f"{comparison!r} in {expression!r} is not one of {' '.join(COMPARISONS)}")
        try:
            threshold = float(match["threshold"])
        except ValueError:
            raise ValueError(f"{match['threshold']!r} in {expression!r} is not a number") from None
        return match["metric"], cls(comparison, threshold)

    @property
    def looks_up(self) -> bool:
        """Whether large values are the bad ones."""
        return self.comparison in (">", ">=")

    def holds(self, value: float) -> bool:
        if self.comparison == ">":
            return value > self.threshold
        if self.comparison == "<":
            return value < self.threshold
        return value >= self.threshold if self.comparison == ">=" else value <= self.threshold

    def judge(self, value: float) -> Verdict:
        """What a finite value says."""
        if self.holds(value):
            return Verdict.HOLDS
        if self.clear is None:
            return Verdict.CLEAR
        back = value < self.clear if self.looks_up else value > self.clear
        return Verdict.CLEAR if back else Verdict.BETWEEN

    def worse(self, one: float, other: float) -> float:
        """The one further beyond the threshold."""
        return max(one, other) if self.looks_up else min(one, other)
