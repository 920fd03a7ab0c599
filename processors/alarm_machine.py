"""The life of one alarm: one rule, one set of labels. No clock, no stream: a reading or a moment in, a change out.

    inactive ──holds──► pending ──held for `for`──► firing ──clear──► recovering ──kept──► resolved
                           │                           ▲                  │
                           └──► inactive               └──────holds───────┘
    any of them ──silent──► no_data ──data returns──► what the reading says

What the words mean, as in Prometheus where it has them (`rules/alerting.go`); its evaluations are our readings:

- `for`: pending until a reading holds that long after the first one. Any reading in between that does not hold ends
  it, also one between the threshold and the clear level; that is reported as `inactive`. `for: 0` fires at once.
- Clear level: a firing alarm stays firing until a reading is back at it.
- `keep_firing_for`: after that it recovers, and resolves when no reading held for so long. One that holds takes it
  back to firing, without telling anybody again.
- Silence. A source that falls silent sends neither the reading that would make an alarm fire nor the one that would
  end it. Its last word then stands: event time makes a pending alarm fire, or a recovering one resolve, as soon as the
  deadline has passed and the source has missed its turn (`patience_ms` after its last reading). With
  `expect(every, grace)` silence is a state of its own, no_data, which takes over when it comes first.
- A reading at exactly a deadline counts before the deadline does.
- An alarm without any reading for `forget_after` ends, so nothing stays for ever because a machine was sold.

Time never goes backwards: a reading that is not newer than the last one is ignored, and within an episode (from
inactive to its end) a change never carries an earlier time than the one before it. So the same readings give the same
changes, whenever and in whatever portions they are read.
"""

from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import msgspec

from processors.levels import Verdict
from processors.rules import Rule

State = Literal["inactive", "pending", "firing", "recovering", "resolved", "no_data"]

RECORDS_FIRST = 4  # the records that opened an alarm
RECORDS_LATEST = 4  # and those that it saw last


class Origin(NamedTuple):
    """Where a record lies in the log."""

    topic: str
    partition: int
    offset: int


class Reading(NamedTuple):
    """One value of the rule's metric."""

    at_ms: int
    value: float | None  # None where the rule only expects something to come
    origin: Origin


class Moment(StrEnum):
    """What the passing of time says."""

    HELD = "held"
    KEPT = "kept"
    SILENT = "silent"
    FORGOTTEN = "forgotten"
    RULE_REMOVED = "rule removed"


class AlarmState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is remembered of one alarm. Unix ms; JSON-able."""

    rule: str
    element: dict[str, str] = {}  # label -> what the wildcard of the metric's path stands for
    state: State = "inactive"
    last_ms: int  # the newest reading
    changed_ms: int = 0  # the newest change of state
    started_ms: int = 0  # this episode: from here to resolved or inactive it has one id
    since_ms: int = 0  # what the state says is so since then: the condition, or the silence
    fired_ms: int | None = None
    clear_ms: int | None = None  # recovering: the first reading that was clear
    resolved_ms: int | None = None
    first_value: float | None = None
    value: float | None = None  # of the newest reading
    peak: float | None = None  # the worst of this episode
    told: State | None = None  # the state that people were told of last
    sequence: int = 0  # of changes in this episode, from 1
    first: tuple[Origin, ...] = ()  # bounded by RECORDS_FIRST
    latest: tuple[Origin, ...] = ()  # bounded by RECORDS_LATEST, oldest first
    context: Any = None  # what the caller attached to the reading behind the last change


class Change(NamedTuple):
    """An alarm entered another state."""

    alarm: AlarmState  # as of then; state resolved or inactive is its end
    previous: State
    reason: str
    notify: bool  # people should hear of it: firing, resolved and no_data, once each


_ENDS: Final[dict[tuple[str, str], str]] = {
    (state, moment): "ended"
    for state in ("pending", "firing", "recovering", "no_data", "no_data_after_firing")
    for moment in (Moment.FORGOTTEN, Moment.RULE_REMOVED)
}

# What each row does in each state. `no_data_after_firing` is no_data of an alarm that had fired. `ended` is resolved
# where people were told of anything, else inactive. A pair that is not here changes nothing.
TABLE: Final[dict[tuple[str, str], str]] = {
    ("inactive", Verdict.HOLDS): "pending",
    ("inactive", Moment.SILENT): "no_data",
    ("pending", Moment.HELD): "firing",
    ("pending", Verdict.BETWEEN): "ended",
    ("pending", Verdict.CLEAR): "ended",
    ("pending", Moment.SILENT): "no_data",
    ("firing", Verdict.CLEAR): "recovering",
    ("firing", Moment.SILENT): "no_data",
    ("recovering", Verdict.HOLDS): "firing",
    ("recovering", Moment.KEPT): "ended",
    ("recovering", Moment.SILENT): "no_data",
    ("no_data", Verdict.HOLDS): "pending",
    ("no_data", Verdict.BETWEEN): "ended",
    ("no_data", Verdict.CLEAR): "ended",
    ("no_data_after_firing", Verdict.HOLDS): "firing",
    ("no_data_after_firing", Verdict.BETWEEN): "firing",
    ("no_data_after_firing", Verdict.CLEAR): "recovering",
    **_ENDS,
}


def alarm_key(rule: str, element: tuple[str, ...]) -> str:
    """What tells the alarms of one source apart."""
    return msgspec.json.encode((rule, *element)).decode() if element else rule


def next_moment(rule: Rule, alarm: AlarmState, patience_ms: int) -> tuple[int, Moment]:
    """The deadline that comes first, and what it says once event time is past it (not at it).

    Args:
        patience_ms: how long after its last reading the source has missed its turn.
    """
    at_ms, moment = alarm.last_ms + rule.forget_after_ms, Moment.FORGOTTEN
    if rule.silent_after_ms is not None and alarm.state != "no_data":
        silent_ms = alarm.last_ms + rule.silent_after_ms
        if silent_ms <= at_ms:
            at_ms, moment = silent_ms, Moment.SILENT
    if alarm.state == "pending":
        due_ms, due = alarm.since_ms + rule.for_ms, Moment.HELD
    elif alarm.state == "recovering" and alarm.clear_ms is not None:
        due_ms, due = alarm.clear_ms + rule.keep_firing_for_ms, Moment.KEPT
    else:
        return at_ms, moment
    due_ms = max(due_ms, alarm.last_ms + patience_ms)
    return (due_ms, due) if due_ms <= at_ms else (at_ms, moment)


def pass_time(
    rule: Rule, alarm: AlarmState, before_ms: int, patience_ms: int
) -> tuple[AlarmState | None, list[Change]]:
    """Let every deadline before `before_ms` happen, in order.

    Returns:
        What has to be remembered of the alarm from then on, None for nothing; and its changes.
    """
    changes: list[Change] = []
    remembered: AlarmState | None = alarm
    while remembered is not None:
        at_ms, moment = next_moment(rule, remembered, patience_ms)
        if at_ms >= before_ms:
            break
        remembered, change = _step(rule, remembered, moment, max(at_ms, remembered.changed_ms))
        if change is not None:
            changes.append(change)
        if moment is Moment.FORGOTTEN:
            return None, changes
    return remembered, changes


def take_reading(rule: Rule, alarm: AlarmState, reading: Reading) -> tuple[AlarmState | None, Change | None]:
    """Judge a reading that is newer than the last one; time has passed up to it.

    Args:
        alarm: a new AlarmState where nothing is remembered.
    Returns:
        What has to be remembered of the alarm from then on, None for nothing; and its change, if any.
    """
    value, verdict = reading.value, Verdict.CLEAR
    if rule.levels is None:
        value = (reading.at_ms - alarm.last_ms) / 1000  # for how long nothing came
    elif value is not None:
        verdict = rule.levels.judge(value)
    if alarm.state == "inactive":
        alarm = msgspec.structs.replace(alarm, last_ms=reading.at_ms, value=value, latest=(reading.origin,))
    else:
        alarm = msgspec.structs.replace(
            alarm,
            last_ms=reading.at_ms,
            value=value,
            peak=_worse(rule, alarm.peak, value),
            first=alarm.first if len(alarm.first) >= RECORDS_FIRST else (*alarm.first, reading.origin),
            latest=(*alarm.latest, reading.origin)[-RECORDS_LATEST:],
        )
    return _step(rule, alarm, verdict, max(reading.at_ms, alarm.changed_ms))


def end(alarm: AlarmState, moment: Moment) -> Change | None:
    """End an alarm from outside; None where there is nothing to end."""
    if alarm.state == "inactive":
        return None
    at_ms = max(alarm.last_ms, alarm.changed_ms)
    return _change(alarm, _enter(None, alarm, "ended", at_ms), at_ms, moment.value)


def _step(
    rule: Rule, alarm: AlarmState, signal: Verdict | Moment, at_ms: int
) -> tuple[AlarmState | None, Change | None]:
    """Look the signal up, then what it makes due at the same moment: with `for: 0` nobody sees pending."""
    before = alarm
    said: Verdict | Moment | None = signal
    while said is not None:
        row = "no_data_after_firing" if alarm.state == "no_data" and alarm.fired_ms is not None else alarm.state
        target = TABLE.get((row, said))
        if target is not None:
            alarm = _enter(rule, alarm, target, at_ms)
        said = None
        if alarm.state == "pending" and signal is Verdict.HOLDS and at_ms - alarm.since_ms >= rule.for_ms:
            said = Moment.HELD
        elif alarm.state == "recovering" and signal in (Verdict.CLEAR, Verdict.BETWEEN):
            assert alarm.clear_ms is not None, "a recovering alarm knows since when"
            if at_ms - alarm.clear_ms >= rule.keep_firing_for_ms:
                said = Moment.KEPT
    change = None
    if alarm.state != before.state:
        change = _change(before, alarm, at_ms, signal.value)
        alarm = change.alarm
        if alarm.state in ("resolved", "inactive"):  # the episode is over; the next one starts afresh
            alarm = AlarmState(
                rule=alarm.rule,
                element=alarm.element,
                last_ms=alarm.last_ms,
                value=alarm.value,
                latest=alarm.latest[-1:],
            )
    # Without an expectation, an inactive alarm is as good as a new one.
    return (None if alarm.state == "inactive" and rule.expect is None else alarm), change


def _enter(rule: Rule | None, alarm: AlarmState, target: str, at_ms: int) -> AlarmState:
    """The alarm in its next state; `ended` is decided by what people know."""
    replace = msgspec.structs.replace
    opened: dict[str, Any] = {}
    if alarm.state == "inactive":
        opened = {"started_ms": at_ms, "first_value": alarm.value, "peak": alarm.value, "first": alarm.latest}
    if target == "pending":
        return replace(alarm, state="pending", since_ms=at_ms, **opened)
    if target == "firing":
        since_ms = at_ms if alarm.state == "no_data" else alarm.since_ms
        return replace(alarm, state="firing", since_ms=since_ms, fired_ms=alarm.fired_ms or at_ms, clear_ms=None)
    if target == "recovering":
        return replace(alarm, state="recovering", clear_ms=at_ms)
    if target == "no_data":
        if rule is not None and rule.levels is None:
            silence = (at_ms - alarm.last_ms) / 1000
            alarm = replace(alarm, value=silence)
            opened |= {"first_value": silence, "peak": silence}
        return replace(alarm, state="no_data", since_ms=alarm.last_ms, clear_ms=None, **opened)
    ended: State = "resolved" if alarm.told is not None else "inactive"
    return replace(alarm, state=ended, resolved_ms=at_ms)


def _change(before: AlarmState, after: AlarmState, at_ms: int, reason: str) -> Change:
    notify = after.state in ("firing", "no_data", "resolved") and after.told != after.state
    after = msgspec.structs.replace(
        after, changed_ms=at_ms, sequence=before.sequence + 1, told=after.state if notify else after.told
    )
    return Change(after, before.state, reason, notify)


def _worse(rule: Rule, one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other) if rule.levels is None else rule.levels.worse(one, other)
