"""Rules as Python objects."""

from typing import Any

import pytest

from processors.levels import Levels
from processors.rules import Expect, Rule, RulesError, check_rules, expect
from streamcore.errors import UsageError
from streamcore.models import Record


def test_a_rule_says_the_same_by_expression_and_by_words() -> None:
    by_expression = Rule("HighCpu", "stats.cpu > 90", clear=80, for_="1m", keep_firing_for=30)
    by_words = Rule("HighCpu", metric="stats.cpu", above=90, clear=80, for_=60, keep_firing_for="30s")
    for rule in (by_expression, by_words):
        assert rule.metric == "stats.cpu"
        assert rule.levels == Levels(">", 90, 80)
        assert (rule.for_ms, rule.keep_firing_for_ms, rule.forget_after_ms) == (60_000, 30_000, 86_400_000)
    assert Rule("Low", metric="free", below=5, clear=10).levels == Levels("<", 5, 10)


def test_an_absence_rule_forgets_a_source_no_sooner_than_it_misses_it() -> None:
    rule = Rule("Nightly", expect=expect(every="1d", grace="2h"))
    assert rule.silent_after_ms == 26 * 3_600_000
    assert rule.forget_after_ms == 52 * 3_600_000
    assert Rule("Silent", expect="30s").expect == Expect(30_000)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "there is no condition"),
        ({"expr": "cpu >"}, "expr: 'cpu >' is not an expression"),
        ({"expr": "cpu > 90", "above": 3}, "expr: already says what above would"),
        ({"expr": "cpu > 90", "metric": "cpu"}, "expr: already says what metric would"),
        ({"metric": "cpu"}, "there is no condition"),
        ({"above": 3}, "above needs metric"),
        ({"metric": "cpu", "above": 3, "below": 1}, "above and below are both given"),
        ({"metric": "cpu", "above": float("nan")}, "threshold: the threshold nan is not a finite number"),
        ({"expr": "cpu > 90", "clear": 95}, "clear: it would clear below 95 while still above 90"),
        ({"expect": "30s", "clear": 3}, "clear: there is no threshold"),
        ({"expect": "30s", "for_": "1m"}, "for and keep_firing_for need a threshold"),
        ({"expect": "30x"}, "expect: '30x' is not a duration"),
        ({"expect": 0}, "expect: every must be longer than 0"),
        ({"expect": "2d", "forget_after": "1d"}, "forget_after: 1d is over before expect calls its source silent"),
        ({"expr": "cpu > 90", "forget_after": 0}, "forget_after: must be longer than 0"),
        ({"expr": "cpu > 90", "for_": "1x"}, "for: '1x' is not a duration"),
        ({"expr": "cpu..x > 90"}, "metric: 'cpu..x' is not a path"),
        ({"expr": "cpu > 90", "labels": {"a-b": "c"}}, "labels: 'a-b' is not a label name"),
        ({"expr": "cpu > 90", "where": "host"}, "where: 'host' is not a label matcher"),
        ({"expr": "cpu > 90", "annotations": {"text": "{{ valu }}"}}, "annotations: text: {{ valu }} names 'valu'"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_when_it_is_made(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(RulesError) as error:
        Rule("Broken", **arguments)
    assert str(error.value).startswith(f"rule 'Broken': {problem}")
    assert isinstance(error.value, UsageError)


@pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
def test_a_rule_needs_a_name_that_can_be_read(name: str) -> None:
    with pytest.raises(RulesError, match="give it a name"):
        Rule(name, "cpu > 90")


def test_all_problems_of_a_rule_are_told_at_once() -> None:
    with pytest.raises(RulesError) as error:
        Rule("Broken", "cpu > 90", clear=95, for_="x", where="host")
    assert len(error.value.problems) == 3


def test_two_rules_of_one_name_are_refused() -> None:
    rule = Rule("HighCpu", "cpu > 90")
    with pytest.raises(RulesError, match="rule 'HighCpu' is there 2 times"):
        check_rules([rule, rule])


def test_a_metric_that_the_values_do_not_have_is_refused() -> None:
    class Metrics(Record):
        cpu: float

    assert check_rules([Rule("HighCpu", "cpu > 90"), Rule("Silent", expect="30s")], Metrics)
    with pytest.raises(
        RulesError, match="rule 'HighCpu': metric cpus: Metrics has no field 'cpus': did you mean 'cpu'"
    ):
        check_rules([Rule("HighCpu", "cpus > 90")], Metrics)
