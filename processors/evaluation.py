"""All rules over one source: a record's value or a moment in, alarms out. A source is what sends readings: a host.

Each source lives by its own clock, the times of its readings. `stream_ms` is how far the stream has come; how far a
source lags behind it is known from its last reading, and a moment of event time is translated by that. So a host
whose clock is ten minutes behind is not silent all the time, and its pending alarms are not cut short.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from processors.alarm_machine import (
    AlarmState,
    Change,
    Moment,
    Origin,
    Reading,
    alarm_key,
    end,
    next_moment,
    pass_time,
    take_reading,
)
from processors.alarms import Alarm, alarm_of
from processors.levels import Verdict
from processors.paths import MISSING
from processors.rules import FORGET_AFTER_MS, Rule, check_rules

INTERVAL_UNKNOWN_MS: Final = 30_000  # taken for the interval of a source with a single reading
ELEMENTS_MAX: Final = 1000  # alarms of one source: names that come from outside must not fill the store


_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_decode_labels: Final = msgspec.json.Decoder(dict[str, str]).decode


class SourceState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is remembered of a source. Unix ms; JSON-able."""

    last_ms: int  # its newest reading
    stream_ms: int  # how far the stream had come then, by any source or by the clock
    interval_ms: int = 0  # about how far its readings lie apart; 0 after the first one
    unread: tuple[str, ...] = ()  # rules whose metric the newest reading did not have
    alarms: dict[str, AlarmState] = {}  # by `alarm_key`; only those that have to be remembered

    @property
    def lag_ms(self) -> int:
        """How far its clock is behind the stream's."""
        return self.stream_ms - self.last_ms

    @property
    def patience_ms(self) -> int:
        """How long after its last reading it has missed its turn."""
        return 2 * (self.interval_ms or INTERVAL_UNKNOWN_MS)


class Rejected(NamedTuple):
    """A reading, or one value of it, that no rule looked at."""

    reason: str  # late, duplicate, missing, not_finite, wrong_type, too_many
    rule: str  # empty where it is the whole reading
    detail: str


class Outcome(NamedTuple):
    """What came of a reading or a moment."""

    source: SourceState | None  # None: nothing needs to be remembered
    alarms: list[Alarm]  # in the order of their times
    rejected: list[Rejected]


def source_key(labels: Mapping[str, str]) -> str:
    """The labels as text, the same for the same labels; `source_labels` reads it back."""
    return _encode_sorted(labels).decode()


def source_labels(key: str) -> dict[str, str]:
    return _decode_labels(key)


class Evaluation:
    """The rules, ready to be used. Holds nothing that changes: what changes is in the SourceState."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = check_rules(rules)
        self._by_name = {rule.name: rule for rule in self.rules}
        self._order = {rule.name: number for number, rule in enumerate(self.rules)}
        self._forget_ms = max((rule.forget_after_ms for rule in self.rules), default=FORGET_AFTER_MS)

    def deadline_ms(self, source: SourceState) -> int:
        """The event time beyond which `pass_time` has something to do for the source."""
        deadline_ms = source.last_ms + self._forget_ms
        for alarm in source.alarms.values():
            rule = self._by_name.get(alarm.rule)
            at_ms = next_moment(rule, alarm, source.patience_ms)[0] if rule else source.last_ms
            deadline_ms = min(deadline_ms, at_ms)
        return deadline_ms + source.lag_ms

    def pass_time(self, labels: Mapping[str, str], source: SourceState, watermark_ms: int) -> Outcome:
        """Event time has reached `watermark_ms`: let what is due before it happen."""
        before_ms = watermark_ms - source.lag_ms
        alarms, changes = self._pass_time(source, before_ms)
        if not alarms and source.last_ms + self._forget_ms < before_ms:
            return Outcome(None, self._records(labels, changes), [])
        if alarms is not source.alarms:
            source = msgspec.structs.replace(source, alarms=alarms)
        return Outcome(source, self._records(labels, changes), [])

    def take(
        self,
        labels: Mapping[str, str],
        source: SourceState | None,
        value: Any,
        at_ms: int,
        stream_ms: int,
        origin: Origin,
        context: Callable[[], Any] | None = None,
    ) -> Outcome:
        """A record of the source.

        Args:
            source: None for one that nothing is remembered of.
            at_ms: the record's event time.
            stream_ms: how far the stream has come, this record included: the newest time of any source, the watermark.
            context: called at most once, when an alarm changes or may be about to.
        """
        unread: tuple[str, ...] = ()
        alarms: dict[str, AlarmState] = {}
        changes: list[Change] = []
        interval_ms = 0
        if source is not None:
            gap_ms = at_ms - source.last_ms
            if gap_ms < 0 or (gap_ms == 0 and not source.unread):
                return Outcome(source, [], [_late(at_ms, gap_ms)])
            if gap_ms == 0:  # the rest of the newest reading, in a record of its own
                unread, interval_ms = source.unread, source.interval_ms
                alarms = source.alarms
            else:
                # Follows a new rhythm within a few readings; neither an outage nor two readings at once make one.
                rhythm_ms = source.interval_ms
                interval_ms = max(rhythm_ms * 3 // 4, min(gap_ms, rhythm_ms * 2)) if rhythm_ms else gap_ms
                alarms, changes = self._pass_time(source, at_ms)
                if gap_ms > self._forget_ms:
                    interval_ms = 0  # forgotten, whether or not event time has come by to do it
        look = _Look(labels, value, at_ms, origin, context, dict(alarms), changes, [])
        still_unread: list[str] = []
        for rule in self.rules:
            if unread and rule.name not in unread:
                continue
            if not look.read(rule):
                still_unread.append(rule.name)
        if unread and len(still_unread) == len(unread):
            return Outcome(source, [], [_late(at_ms, 0)])
        after = SourceState(
            last_ms=at_ms,
            stream_ms=stream_ms,
            interval_ms=interval_ms,
            unread=tuple(still_unread),
            alarms=look.alarms,
        )
        return Outcome(after, self._records(labels, changes), look.rejected)

    def _pass_time(self, source: SourceState, before_ms: int) -> tuple[dict[str, AlarmState], list[Change]]:
        """The alarms after every deadline before a moment of the source's own clock; the same dict if none was due."""
        alarms, changes = source.alarms, []
        for key, alarm in source.alarms.items():
            rule = self._by_name.get(alarm.rule)
            if rule is None:
                after = None
                change = end(alarm, Moment.RULE_REMOVED)
                happened = [change] if change is not None else []
            else:
                after, happened = pass_time(rule, alarm, before_ms, source.patience_ms)
            if after is alarm:
                continue
            if alarms is source.alarms:
                alarms = dict(alarms)
            if after is None:
                del alarms[key]
            else:
                alarms[key] = after
            changes += happened
        return alarms, changes

    def _records(self, labels: Mapping[str, str], changes: list[Change]) -> list[Alarm]:
        if len(changes) > 1:  # stable, so what one alarm does at one moment stays in its order
            changes.sort(
                key=lambda change: (
                    change.alarm.changed_ms,
                    self._order.get(change.alarm.rule, -1),
                    tuple(change.alarm.element.values()),
                )
            )
        return [alarm_of(self._by_name.get(change.alarm.rule), change.alarm.rule, labels, change) for change in changes]


class _Look:
    """One record under the eyes of all rules."""

    __slots__ = ("_context", "alarms", "at_ms", "attached", "changes", "labels", "origin", "rejected", "value")

    def __init__(
        self,
        labels: Mapping[str, str],
        value: Any,
        at_ms: int,
        origin: Origin,
        context: Callable[[], Any] | None,
        alarms: dict[str, AlarmState],
        changes: list[Change],
        rejected: list[Rejected],
    ) -> None:
        self.labels = labels
        self.value = value
        self.at_ms = at_ms
        self.origin = origin
        self._context = context
        self.attached: Any = MISSING
        self.alarms = alarms
        self.changes = changes
        self.rejected = rejected

    def read(self, rule: Rule) -> bool:
        """Judge what the rule looks at; False where the record does not have it."""
        if rule.path is None:
            if self._concerns(rule, ()):
                self._judge(rule, (), None)
            return True
        found = rule.path.read(self.value)
        had_any = False
        for element, raw in found:
            if raw is MISSING:
                continue
            had_any = True
            if rule.matchers and not self._concerns(rule, element):
                continue
            number = self._number(rule, raw)
            if number is not None:
                self._judge(rule, element, number)
        if not had_any and (not rule.matchers or rule.path.labels or self._concerns(rule, ())):
            self.rejected.append(Rejected("missing", rule.name, rule.path.text))
        return had_any

    def _concerns(self, rule: Rule, element: tuple[str, ...]) -> bool:
        if not rule.matchers:
            return True
        labels = {**self.labels, **rule.labels}
        if rule.path is not None:
            labels.update(zip(rule.path.labels, element, strict=False))
        return all(matcher.matches(labels) for matcher in rule.matchers)

    def _number(self, rule: Rule, raw: Any) -> float | None:
        assert rule.path is not None
        if type(raw) is not float:
            if not isinstance(raw, (int, float)):
                self.rejected.append(Rejected("wrong_type", rule.name, f"{rule.path.text} is {type(raw).__name__}"))
                return None
            try:
                raw = float(raw)
            except OverflowError:
                raw = math.inf
        if not math.isfinite(raw):
            self.rejected.append(Rejected("not_finite", rule.name, f"{rule.path.text} is {raw}"))
            return None
        return float(raw)

    def _judge(self, rule: Rule, element: tuple[str, ...], number: float | None) -> None:
        key = alarm_key(rule.name, element)
        alarm = self.alarms.get(key)
        if alarm is None:
            if rule.expect is None:
                assert rule.levels is not None, "a rule has a threshold or an expectation"
                assert number is not None, "a threshold comes with a metric"
                if rule.levels.judge(number) is not Verdict.HOLDS:
                    return
            if len(self.alarms) >= ELEMENTS_MAX:
                self.rejected.append(Rejected("too_many", rule.name, f"{len(self.alarms)} alarms of one source"))
                return
        if alarm is None:
            named = dict(zip(rule.path.labels, element, strict=True)) if rule.path is not None else {}
            alarm = AlarmState(rule=rule.name, element=named, last_ms=self.at_ms)
        after, change = take_reading(rule, alarm, Reading(self.at_ms, number, self.origin))
        if self._context is not None and (change is not None or (after is not None and after.state == "pending")):
            if self.attached is MISSING:
                self.attached = self._context()
            if change is not None:
                change = change._replace(alarm=msgspec.structs.replace(change.alarm, context=self.attached))
            if after is not None and after.state != "inactive":
                after = msgspec.structs.replace(after, context=self.attached)
        if change is not None:
            self.changes.append(change)
        if after is not None:
            self.alarms[key] = after
        else:
            self.alarms.pop(key, None)


def _late(at_ms: int, gap_ms: int) -> Rejected:
    if gap_ms == 0:
        return Rejected("duplicate", "", f"a second reading at {at_ms}")
    return Rejected("late", "", f"the reading at {at_ms} is {-gap_ms} ms older than the newest one")
