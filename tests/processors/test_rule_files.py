"""Rules from YAML."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from processors.rule_files import KEYS, load_rules, parse_rules
from processors.rules import Rule, RulesError, expect
from streamcore.models import Record

TEXT = """
rules:
  - name: HighCpu
    expr: cpu > 90
    clear_below: 80
    for: 1m
    keep_firing_for: 30
    labels: {severity: critical, tier: 1}
    annotations:
      summary: "CPU of {{ labels.host }} at {{ value:.1f }} %"
  - alert: FewFree
    metric: disks.{mount}.free
    below: 5
    clear_above: 10
    where: {env: prod}
  - name: HostSilent
    expect: {every: 30s, grace: 10s}
    forget_after: 2d
    where: ['host=~"web-.*"']
  - name: Quiet
    expect: 5m
"""

RULES = (
    Rule(
        "HighCpu",
        "cpu > 90",
        clear=80,
        for_="1m",
        keep_firing_for=30,
        labels={"severity": "critical", "tier": "1"},
        annotations={"summary": "CPU of {{ labels.host }} at {{ value:.1f }} %"},
    ),
    Rule("FewFree", metric="disks.{mount}.free", below=5, clear=10, where={"env": "prod"}),
    Rule("HostSilent", expect=expect("30s", "10s"), forget_after="2d", where=['host=~"web-.*"']),
    Rule("Quiet", expect="5m"),
)


def test_a_file_says_what_python_says(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(TEXT)
    assert load_rules(path) == load_rules(str(path)) == load_rules(TEXT) == RULES


def test_a_list_without_a_head_and_an_empty_file_are_rules_too() -> None:
    assert parse_rules("- name: HighCpu\n  expr: cpu > 90\n") == (Rule("HighCpu", "cpu > 90"),)
    assert parse_rules("") == parse_rules("rules:\n") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- name: A\n  exprr: cpu > 90", "rule 'A': unknown key 'exprr': did you mean 'expr'?"),
        ("- nam: A\n  expr: cpu > 90", "unknown key 'nam': did you mean 'name'?"),
        ("- expr: cpu > 90", "rule 1 has no name"),
        ("- name: A\n  alert: B\n  expr: cpu > 90", "rule 'A': name and alert say the same"),
        ("- name: A\n  expr: 90", "rule 'A': expr: expected str | null, got int"),
        ("- name: A\n  metric: cpu\n  above: high", "rule 'A': above: expected float | null, got str"),
        ("- name: A\n  expr: cpu > 90\n  for: [1]", "rule 'A': for: expected int | float | str, got array"),
        ("- name: A\n  expr: cpu > 90\n  for: 1 minute", "rule 'A': for: '1 minute' is not a duration"),
        ("- name: A\n  expr: cpu > 90\n  labels: {team: no}", "put the text in quotes"),
        ("- name: A\n  expr: cpu > 90\n  clear_above: 80", "rule 'A': clear_above is where this alarm begins"),
        ("- name: A\n  expr: cpu < 5\n  clear_below: 2", "rule 'A': clear_below is where this alarm begins"),
        ("- name: A\n  expr: cpu > 90\n  clear: 1\n  clear_below: 2", "clear and clear_below are both given"),
        ("- name: A\n  expr: cpu > 90\n  clear_below: 95", "rule 'A': clear: it would clear below 95"),
        ("- name: A\n  expect: {evry: 30s}", "rule 'A': expect: unknown key 'evry': did you mean 'every'?"),
        ("- name: A\n  expect: {grace: 30s}", "rule 'A': expect: object missing required field every"),
        ("- name: A\n  expect: {every: soon}", "rule 'A': expect: 'soon' is not a duration"),
        ("- name: A\n  name: B\n  expr: cpu > 90", "the key 'name' is given twice"),
        ("- name: A\n  expr: cpu > 90\n- name: A\n  expr: cpu > 95", "rule 'A' is there 2 times"),
        ("- HighCpu", "rule 1 is a text, not a mapping"),
        ("rules: {a: b}", "rules is a mapping, not a list"),
        ("rules: 5", "rules is 5, not a list"),
        ("groups: []", "unknown key 'groups'"),
        ("[", "is not YAML"),
        ("- !!python/object:os.system {}", "is not YAML"),
        ("? [a]\n: b\n", "is not YAML"),
    ],
)
def test_every_problem_is_named_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(RulesError) as error:
        parse_rules(text, "team.yaml")
    assert str(error.value).startswith("team.yaml: ")
    assert problem in str(error.value)


def test_the_problems_of_all_rules_are_told_at_once() -> None:
    with pytest.raises(RulesError) as error:
        parse_rules("- name: A\n  expr: cpu\n- name: B\n  expr: cpu > 90\n- name: C\n  expectt: 1\n")
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["rule 'A'", "rule 'C'"]


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_rules(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("- name: Größe\n".encode("latin-1"))
    with pytest.raises(RulesError, match="is not UTF-8 text"):
        load_rules(str(tmp_path / "latin.yaml"))


def test_a_misspelt_metric_is_found_where_the_type_is_known() -> None:
    class Metrics(Record):
        cpu: float

    with pytest.raises(RulesError, match="rules: rule 'A': metric cpus: Metrics has no field 'cpus'"):
        load_rules("- name: A\n  expr: cpus > 90\n", model=Metrics)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
nested = st.lists(st.text(), max_size=2) | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), scalars | nested), max_size=3))
def test_any_document_is_rules_or_a_clear_error(document: list[dict[str, object]]) -> None:
    text = yaml.safe_dump(document)
    try:
        parse_rules(text)
    except RulesError as error:
        assert error.problems  # noqa: PT017
