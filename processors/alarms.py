"""The alarm as the world sees it: one record for each change of its state."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from processors.alarm_machine import Change, Origin, State
from processors.durations import format_duration
from processors.rules import Rule
from streamcore.models import Record


class Alarm(Record, omit_defaults=True, kw_only=True):
    """An alarm's change of state, with its whole story. Times are Unix ms of event time.

    `pending`, `recovering` and `inactive` (a pending alarm that did not last) are for those who watch; people are told
    where `notify` is true: of firing, resolved and no_data, once each.
    """

    id: str  # of this episode, from its start to resolved or inactive; the same in every replay
    key: str  # rule and labels of what it is about: `DiskFull{host="web-1",mount="/var"}`
    rule: str
    state: State
    previous: State
    sequence: int  # of changes within the episode, from 1
    at_ms: int  # of this change
    notify: bool = False
    reason: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012  (msgspec copies it)
    severity: str = ""  # the label of that name
    annotations: dict[str, str] = {}  # noqa: RUF012
    metric: str | None = None
    comparison: str = ""  # > >= < <=
    threshold: float | None = None  # of an absence rule: the seconds that silence may last
    clear: float | None = None
    value: float | None = None  # of the newest reading; of an absence rule: seconds of silence
    first_value: float | None = None
    peak: float | None = None  # the worst of the episode
    started_ms: int = 0  # of the episode
    since_ms: int = 0  # since when what the state says is so: the condition; for no_data, the last reading
    last_ms: int = 0  # the newest reading
    fired_ms: int | None = None
    resolved_ms: int | None = None
    records: list[Origin] = []  # (topic, partition, offset): the first that opened it, and the latest  # noqa: RUF012
    context: Any = None  # what the app attached


def alarm_of(rule: Rule | None, name: str, source_labels: Mapping[str, str], change: Change) -> Alarm:
    """The record of a change.

    Args:
        rule: None where the rule is no more.
        name: of the rule.
        source_labels: of the source; the rule's wildcards and its own labels come on top.
    """
    state = change.alarm
    about = {**source_labels, **state.element}
    key = name + "{" + ",".join(f'{label}="{value}"' for label, value in about.items()) + "}"
    labels = {**about, **rule.labels} if rule is not None else about
    alarm = Alarm(
        id=hashlib.blake2b(f"{key}@{state.started_ms}".encode(), digest_size=8).hexdigest(),
        key=key,
        rule=name,
        state=state.state,
        previous=change.previous,
        sequence=state.sequence,
        at_ms=state.changed_ms,
        notify=change.notify,
        reason=change.reason,
        labels=labels,
        severity=labels.get("severity", ""),
        value=state.value,
        first_value=state.first_value,
        peak=state.peak,
        started_ms=state.started_ms,
        since_ms=state.since_ms,
        last_ms=state.last_ms,
        fired_ms=state.fired_ms,
        resolved_ms=state.resolved_ms if state.state == "resolved" else None,
        records=list(dict.fromkeys((*state.first, *state.latest))),
        context=state.context,
    )
    if rule is None:
        return alarm
    alarm.metric = rule.metric
    if rule.levels is not None:
        alarm.comparison, alarm.threshold, alarm.clear = (
            rule.levels.comparison,
            rule.levels.threshold,
            rule.levels.clear,
        )
    elif rule.silent_after_ms is not None:
        alarm.comparison, alarm.threshold = ">", rule.silent_after_ms / 1000
    if rule.templates:
        values = _values(rule, alarm)
        alarm.annotations = {key: template.render(values) for key, template in rule.templates.items()}
    return alarm


def _values(rule: Rule, alarm: Alarm) -> dict[str, Any]:
    """What annotations may name."""
    names = "value threshold clear peak first_value metric comparison rule state severity labels context"
    return {
        **{name: getattr(alarm, name) for name in names.split()},
        "since": _utc(alarm.since_ms),
        "started": _utc(alarm.started_ms),
        "duration": format_duration((alarm.at_ms - alarm.started_ms) // 1000 * 1000),
        "for": format_duration(rule.for_ms),
    }


def _utc(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (OverflowError, ValueError, OSError):  # a clock off by thousands of years
        return f"{time_ms} ms"
