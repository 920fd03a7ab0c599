"""Rules: what is wrong with a value, for how long, and what to say about it.

A rule in Python:

    Rule("HighCpu", "cpu > 90", clear=80, for_="1m", labels={"severity": "critical"})
    Rule("HostSilent", expect=expect(every="30s", grace="10s"))

The same in a file, read by `load_rules`:

    rules:
      - name: HighCpu
        expr: cpu > 90
        clear_below: 80
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: "CPU of {{ labels.host }} at {{ value:.1f }} %"
      - name: HostSilent
        expect: {every: 30s, grace: 10s}

What the words do in an alarm's life is told in `alarm_machine`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from processors.durations import Duration, format_duration, parse_duration_ms
from processors.levels import Levels
from processors.matchers import Matcher, parse_matchers
from processors.paths import Path
from processors.templates import Template
from streamcore.errors import UsageError

FORGET_AFTER_MS: Final = 86_400_000  # a day without a reading

_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RulesError(UsageError):
    """Rules that cannot be meant as they are written; every problem found, each with its rule and key."""

    def __init__(self, problems: Sequence[str], source: str = "") -> None:
        lead = f"{source}: " if source else ""
        if len(problems) == 1:
            super().__init__(lead + problems[0])
        else:
            super().__init__(f"{lead}{len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = tuple(problems)
        self.source = source


@dataclass(frozen=True, slots=True)
class Expect:
    """How often readings come, and how late one may be before its source counts as silent."""

    every_ms: int
    grace_ms: int = 0


def expect(every: Duration, grace: Duration = 0) -> Expect:
    """An absence rule's measure: silent once `every + grace` have passed without a reading.

    Raises:
        RulesError: no duration, or no time at all.
    """
    try:
        every_ms, grace_ms = parse_duration_ms(every), parse_duration_ms(grace)
    except ValueError as error:
        raise RulesError([f"expect: {error}"]) from None
    if every_ms == 0:
        raise RulesError(["expect: every must be longer than 0"])
    return Expect(every_ms, grace_ms)


@dataclass(frozen=True)
class Rule:
    """One rule; checked when it is made.

    Args:
        name: unique among the rules used together.
        expr: `metric operator number`, short for metric with above or below; also takes >= and <=.
        metric: a dotted path into the value (see `paths`): `stats.cpu.mean`; `disks.{mount}.percent` makes an alarm for
            every element. An absence rule may name one too: then that value is expected, not any record.
        above, below: the threshold.
        clear: the level below (for `above`) or above (for `below`) which a firing alarm is over; the threshold
            where it is not given.
        for_: how long the condition must hold before the alarm fires.
        keep_firing_for: how long the alarm goes on firing after it is over.
        expect: silence becomes no_data; with no threshold it is all that the rule looks for.
        forget_after: an alarm without a reading for this long ends; a day, or longer where `expect` is.
        labels: added to those of the source; `severity` is one that others understand.
        annotations: texts for people, see `templates`.
        where: matchers on the labels; the rule is for sources that match all of them.
    Raises:
        RulesError: a value that cannot be meant.
    """

    name: str
    expr: str | None = None
    metric: str | None = field(default=None, kw_only=True)
    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    clear: float | None = field(default=None, kw_only=True)
    for_: Duration = field(default=0, kw_only=True)
    keep_firing_for: Duration = field(default=0, kw_only=True)
    expect: Expect | Duration | None = field(default=None, kw_only=True)
    forget_after: Duration | None = field(default=None, kw_only=True)
    labels: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    annotations: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    where: str | Sequence[str] | Mapping[str, str] = field(default=(), kw_only=True)

    # What the above comes to.
    levels: Levels | None = field(init=False, repr=False, compare=False)  # None: absence is all it looks for
    path: Path | None = field(init=False, repr=False, compare=False)
    for_ms: int = field(init=False, repr=False, compare=False)
    keep_firing_for_ms: int = field(init=False, repr=False, compare=False)
    forget_after_ms: int = field(init=False, repr=False, compare=False)
    matchers: tuple[Matcher, ...] = field(init=False, repr=False, compare=False)
    templates: Mapping[str, Template] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise RulesError([f"a rule is named {self.name!r}: give it a name of printable characters"])
        problems: list[str] = []

        def checked(key: str, function: Any, *arguments: Any) -> Any:
            try:
                return function(*arguments)
            except RulesError as error:
                problems.extend(error.problems)
            except ValueError as error:
                problems.append(f"{key}: {error}")
            return None

        derived: dict[str, Any] = {
            "for_ms": checked("for", parse_duration_ms, self.for_),
            "keep_firing_for_ms": checked("keep_firing_for", parse_duration_ms, self.keep_firing_for),
            "matchers": checked("where", parse_matchers, self.where),
            "templates": {
                key: checked(f"annotations: {key}", Template, text) for key, text in self.annotations.items()
            },
        }
        if self.expect is not None and not isinstance(self.expect, Expect):
            derived["expect"] = checked("expect", expect, self.expect)
        metric, derived["levels"] = checked("expr" if self.expr is not None else "threshold", self._condition) or (
            self.metric,
            None,
        )
        derived["metric"] = metric
        derived["path"] = checked("metric", Path, metric) if metric is not None else None
        problems += [f"labels: {label!r} is not a label name" for label in self.labels if not _LABEL.fullmatch(label)]
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        forget_ms = FORGET_AFTER_MS
        if self.forget_after is not None:
            forget_ms = checked("forget_after", parse_duration_ms, self.forget_after) or 0
        if not problems:
            forget_ms = self._checked_times(forget_ms, problems)
        object.__setattr__(self, "forget_after_ms", forget_ms)
        if problems:
            raise RulesError([f"rule {self.name!r}: {problem}" for problem in problems])

    def _condition(self) -> tuple[str | None, Levels | None]:
        """The metric and its levels, from `expr` or from `metric` with `above` or `below`."""
        given = [word for word in ("above", "below") if getattr(self, word) is not None]
        if self.expr is not None:
            if given or self.metric is not None:
                raise ValueError(f"already says what {' and '.join(given) or 'metric'} would: keep one of them")
            metric, levels = Levels.parse(self.expr)
            return metric, self._with_clear(levels)
        if len(given) == 2:
            raise RulesError(["above and below are both given: make it two rules"])
        if not given:
            if self.expect is None:
                raise RulesError(
                    ['there is no condition: write expr: "cpu > 90", or metric with above or below, or expect']
                )
            if self.clear is not None:
                raise RulesError(["clear: there is no threshold that it could belong to"])
            return self.metric, None
        if self.metric is None:
            raise RulesError([f"{given[0]} needs metric, the path of the value to compare"])
        if self.above is not None:
            return self.metric, self._with_clear(Levels(">", float(self.above)))
        assert self.below is not None
        return self.metric, self._with_clear(Levels("<", float(self.below)))

    def _with_clear(self, levels: Levels) -> Levels:
        try:
            return Levels(levels.comparison, levels.threshold, self.clear)
        except ValueError as error:
            raise RulesError([f"clear: {error}"]) from None

    def _checked_times(self, forget_ms: int, problems: list[str]) -> int:
        if self.levels is None and (self.for_ms or self.keep_firing_for_ms):
            problems.append("for and keep_firing_for need a threshold; how long silence may last is expect's grace")
        if isinstance(self.expect, Expect):
            silent_ms = self.expect.every_ms + self.expect.grace_ms
            if self.forget_after is None:
                return max(forget_ms, 2 * silent_ms)
            if forget_ms <= silent_ms:
                problems.append(
                    f"forget_after: {format_duration(forget_ms)} is over before expect calls its source silent, "
                    f"after {format_duration(silent_ms)}"
                )
        if forget_ms == 0:
            problems.append("forget_after: must be longer than 0")
        return forget_ms

    @property
    def silent_after_ms(self) -> int | None:
        """How long after a reading its source counts as silent; None where nothing is expected."""
        return self.expect.every_ms + self.expect.grace_ms if isinstance(self.expect, Expect) else None

    def problem_in(self, model: type) -> str | None:
        """Why the rule can find no number in values of this type; None where it may."""
        if self.path is None:
            return None
        problem = self.path.problem_in(model)
        return problem and f"rule {self.name!r}: metric {self.path.text}: {problem}"


def check_rules(rules: Iterable[Rule], model: type | None = None, source: str = "") -> tuple[Rule, ...]:
    """The rules, once it is certain that they can be used together.

    Args:
        model: the type of the values, where it is known: a misspelt field is found here instead of never.
    Raises:
        RulesError: two rules of one name, or a path that leads nowhere in `model`.
    """
    checked = tuple(rules)
    names = [rule.name for rule in checked]
    problems = [
        f"rule {name!r} is there {names.count(name)} times: every rule needs a name of its own"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if model is not None:
        problems += [problem for rule in checked if (problem := rule.problem_in(model))]
    if problems:
        raise RulesError(problems, source)
    return checked
