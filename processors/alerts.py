"""Alarms from a stream of readings: `async for alarm in alerts(stream, load_rules("rules.yaml"))`.

One alarm for each rule and set of labels, each with a durable life (see `alarm_machine`) kept in the agent's state:
a restart neither loses nor repeats it, and a replay gives the same alarms as live.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import prometheus_client

from processors.agenda import Agenda
from processors.alarm_machine import Origin
from processors.alarms import Alarm
from processors.evaluation import Evaluation, Outcome, Rejected, SourceState, source_key, source_labels
from processors.paths import MISSING, Path
from processors.rule_files import load_rules
from processors.rules import Rule, RulesError, expect
from streamcore.events import Event, Watermark

__all__ = ["Alarm", "Origin", "Rejected", "Rule", "RulesError", "alerts", "expect", "load_rules"]

logger = logging.getLogger(__name__)

# A reading that claims to be made long after its record was written comes from a wrong clock; to believe it would make
# every later reading of its source a late one. An hour is what Kafka allows (message.timestamp.after.max.ms).
AHEAD_MAX_MS: Final = 3_600_000

Labels = Callable[[Event], Mapping[str, Any]] | str | Sequence[str]

_changes_total = prometheus_client.Counter("streamcore_alarm_changes", "Changes of state of alarms.", ["rule", "state"])
_rejected_total = prometheus_client.Counter(
    "streamcore_alarm_readings_rejected",
    "Readings, or single values of them, that no rule could look at.",
    ["reason", "rule"],
)


class TimedStream(Protocol):
    """What is asked of a stream."""

    @property
    def watermark_ms(self) -> int: ...
    def with_time(self) -> AsyncIterator[Event | Watermark]: ...
    def wake_at(self, time_ms: int) -> None: ...
    def state(self, name: str, *, value_type: Any = None) -> MutableMapping[str, Any]: ...


async def alerts(
    stream: TimedStream,
    rules: Iterable[Rule],
    *,
    labels: Labels | None = None,
    key: Callable[[Event], Any] | str | None = None,
    context: Callable[[Event], Any] | None = None,
    name: str = "alerts",
    on_rejected: Callable[[Event, Rejected], None] | None = None,
) -> AsyncIterator[Alarm]:
    """Watch the readings of every source.

    Args:
        labels: what tells sources apart: a function of the event, or names (paths) of fields of the value. Without it
            there is one label, `key`.
        key: in place of `labels`, where the event's own key is not it: a function of the event, or a field's name.
        context: of an event, anything JSON can hold; travels in the alarms that this event brings about.
        name: of the state, where one agent watches the stream with several sets of rules.
        on_rejected: told of every reading, or value of one, that no rule could look at: late, duplicate, ahead of its
            time, missing, not a number. They are counted and logged in any case, and never end an alarm.
    Yields:
        One Alarm for each change of state, in event time order for each source.
    Raises:
        RulesError: two rules of one name, or labels that cannot be meant.
    """
    evaluation = Evaluation(rules)
    label = _labelling(labels, key)
    sources: MutableMapping[str, SourceState] = stream.state(name, value_type=SourceState)
    rejections = _Rejections(evaluation.rules, on_rejected)
    agenda = Agenda()
    stream_ms: int | None = None
    for source_id, source in sources.items():
        agenda.put(source_id, evaluation.deadline_ms(source))
        stream_ms = source.stream_ms if stream_ms is None else max(stream_ms, source.stream_ms)
    asked_ms = _ask(stream, agenda, None)

    def keep(source_id: str, outcome: Outcome) -> list[Alarm]:
        if outcome.source is None:
            del sources[source_id]
            agenda.remove(source_id)
        else:
            sources[source_id] = outcome.source
            agenda.put(source_id, evaluation.deadline_ms(outcome.source))
        for alarm in outcome.alarms:
            _changes_total.labels(alarm.rule, alarm.state).inc()
        return outcome.alarms

    async for item in stream.with_time():
        if isinstance(item, Watermark):
            while (entry := agenda.pop(item.timestamp_ms)) is not None:
                entry_ms, due_id = entry
                source = sources[due_id]
                deadline_ms = evaluation.deadline_ms(source)
                if deadline_ms > entry_ms:  # readings have moved it on since
                    agenda.put(due_id, deadline_ms)
                    continue
                outcome = evaluation.pass_time(source_labels(due_id), source, item.timestamp_ms)
                for alarm in keep(due_id, outcome):
                    yield alarm
            asked_ms = _ask(stream, agenda, None)
            continue
        message = item.message
        if item.timestamp > message.timestamp + AHEAD_MAX_MS and message.timestamp >= 0:
            rejections.add(item, Rejected("ahead", "", f"{item.timestamp} is later than its record allows"))
            continue
        source_name = label(item)
        if source_name is None:
            rejections.add(item, Rejected("no_labels", "", "nothing says which source the reading is of"))
            continue
        source_id = source_key(source_name)
        # The stream's own event time counts too: the clock may have moved it on while nothing came.
        stream_ms = max(item.timestamp, stream.watermark_ms, item.timestamp if stream_ms is None else stream_ms)
        before = sources.get(source_id)
        outcome = evaluation.take(
            source_name,
            before,
            item.value,
            item.timestamp,
            stream_ms,
            Origin(message.topic, message.partition, message.offset),
            None if context is None else partial(context, item),
        )
        for rejected in outcome.rejected:
            rejections.add(item, rejected)
        if outcome.source is not before:
            for alarm in keep(source_id, outcome):
                yield alarm
            asked_ms = _ask(stream, agenda, asked_ms)


def _ask(stream: TimedStream, agenda: Agenda, asked_ms: int | None) -> int | None:
    """Ask for the moment just past the next deadline, unless an earlier one is asked for already."""
    next_ms = agenda.next_ms()
    if next_ms is None or (asked_ms is not None and asked_ms <= next_ms + 1):
        return asked_ms
    stream.wake_at(next_ms + 1)
    return next_ms + 1


def _labelling(
    labels: Labels | None, key: Callable[[Event], Any] | str | None
) -> Callable[[Event], dict[str, str] | None]:
    """A function that gives an event's labels; None where it has none."""
    if labels is not None and key is not None:
        raise RulesError(["labels and key both say which source a reading is of: keep one of them"])
    if callable(labels):
        given = labels
        return lambda event: {label: str(value) for label, value in given(event).items()} or None
    if labels is not None:
        return _fields([labels] if isinstance(labels, str) else labels)
    if isinstance(key, str):
        field = _fields([key])
        return lambda event: None if (found := field(event)) is None else {"key": next(iter(found.values()))}
    of_event = key or (lambda event: event.key)

    def by_key(event: Event) -> dict[str, str] | None:
        value = of_event(event)
        if value is None:
            return None
        return {"key": value.decode(errors="replace") if isinstance(value, bytes) else str(value)}

    return by_key


def _fields(names: Sequence[str]) -> Callable[[Event], dict[str, str] | None]:
    try:
        paths = {name.rpartition(".")[2].replace("-", "_"): Path(name) for name in names}
    except ValueError as error:
        raise RulesError([f"labels: {error}"]) from None
    if not paths or len(paths) < len(names) or any(path.labels for path in paths.values()):
        raise RulesError([f"labels: {', '.join(names) or 'nothing'} does not name different single fields"])

    def by_fields(event: Event) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for name, path in paths.items():
            value = path.read(event.value)[0][1]
            if value is MISSING:
                return None
            found[name] = str(value)
        return found

    return by_fields


class _Rejections:
    """Counts what no rule could look at, and logs each kind at its 1st, 10th, 100th … time."""

    def __init__(self, rules: Sequence[Rule], on_rejected: Callable[[Event, Rejected], None] | None) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._on_rejected = on_rejected
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(self, event: Event, rejected: Rejected) -> None:
        _rejected_total.labels(rejected.reason, rejected.rule).inc()
        kind = (rejected.reason, rejected.rule)
        self._seen[kind] += 1
        seen = self._seen[kind]
        if str(seen).strip("0") == "1":
            rule = self._rules.get(rejected.rule)
            # A metric that the type does not even have is a misspelt rule; one that is empty is everyday life.
            misspelt = rule.problem_in(type(event.value)) if rule is not None else None
            level = logging.INFO if rejected.reason == "missing" and misspelt is None else logging.WARNING
            message = event.message
            logger.log(
                level,
                "alarms: %s reading of %s at %s-%d@%d (%d so far)%s: %s",
                rejected.reason,
                event.key,
                message.topic,
                message.partition,
                message.offset,
                seen,
                f", rule {rejected.rule!r}" if rejected.rule else "",
                misspelt or rejected.detail,
            )
        if self._on_rejected is not None:
            self._on_rejected(event, rejected)
