"""Comparison and hysteresis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.levels import COMPARISONS, Comparison, Levels, Verdict


@pytest.mark.parametrize(
    ("levels", "verdicts"),
    [
        (Levels(">", 90), {91: "holds", 90: "clear", 10: "clear"}),
        (Levels(">=", 90), {91: "holds", 90: "holds", 89: "clear"}),
        (Levels(">", 90, 80), {91: "holds", 90: "between", 80: "between", 79: "clear"}),
        (Levels("<", 5), {4: "holds", 5: "clear"}),
        (Levels("<=", 5, 10), {5: "holds", 6: "between", 10: "between", 11: "clear"}),
        (Levels(">", 90, 90), {91: "holds", 90: "between", 89: "clear"}),
    ],
)
def test_a_value_holds_is_clear_or_lies_between(levels: Levels, verdicts: dict[float, str]) -> None:
    assert {value: levels.judge(value).value for value in verdicts} == verdicts


@given(st.sampled_from(COMPARISONS), st.floats(-1e9, 1e9), st.floats(0, 1e9), st.floats(-1e10, 1e10))
def test_without_a_clear_level_nothing_lies_between_and_with_one_the_same_values_hold(
    comparison: Comparison, threshold: float, distance: float, value: float
) -> None:
    plain = Levels(comparison, threshold)
    clear = threshold - distance if plain.looks_up else threshold + distance
    verdict = Levels(comparison, threshold, clear).judge(value)
    assert plain.judge(value) is not Verdict.BETWEEN
    assert (plain.judge(value) is Verdict.HOLDS) is (verdict is Verdict.HOLDS)


@pytest.mark.parametrize(
    ("text", "metric", "levels"),
    [
        ("cpu > 90", "cpu", Levels(">", 90)),
        ("disk.free<=5e9", "disk.free", Levels("<=", 5e9)),
        (" disks.{mount}.percent >= -1.5 ", "disks.{mount}.percent", Levels(">=", -1.5)),
    ],
)
def test_an_expression_is_metric_operator_number(text: str, metric: str, levels: Levels) -> None:
    assert Levels.parse(text) == (metric, levels)


@pytest.mark.parametrize("text", ["cpu", "cpu > ", "90 < cpu", "cpu > 90 %", "cpu == 3", "cpu >> 3", "cpu > 1.2.3", ""])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Levels.parse(text)


def test_levels_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="clear below 95 while still above 90"):
        Levels(">", 90, 95)
    with pytest.raises(ValueError, match="clear above 1 while still below 5"):
        Levels("<", 5, 1)
    with pytest.raises(ValueError, match="not a finite number"):
        Levels(">", float("nan"))
