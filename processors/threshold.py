"""The simplest watch: when does a value cross a level, and when is it back?

    async for crossing in threshold(stream, "temperature", above=8, clear=6):
        ...

An alarm without a life: no durations, no silence. See `alerts` for those.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

from processors.alarm_machine import Origin
from processors.alerts import Labels, Rejected, TimedStream, alerts
from processors.durations import Duration
from processors.rules import Rule
from streamcore.events import Event
from streamcore.models import Record


class Crossing(Record, omit_defaults=True, kw_only=True):
    """A value went beyond the threshold, or came back. Unix ms of event time."""

    beyond: bool  # False: back at the clear level, or not heard of for `forget_after`
    labels: dict[str, str]
    metric: str
    comparison: str  # > or <, or as the expression has it
    threshold: float
    value: float
    peak: float  # the worst since it went beyond
    at_ms: int
    since_ms: int  # when it went beyond
    record: Origin


async def threshold(
    stream: TimedStream,
    metric: str,
    *,
    above: float | None = None,
    below: float | None = None,
    clear: float | None = None,
    labels: Labels | None = None,
    key: Callable[[Event], Any] | str | None = None,
    forget_after: Duration = "1d",
    name: str = "threshold",
    on_rejected: Callable[[Event, Rejected], None] | None = None,
) -> AsyncIterator[Crossing]:
    """Watch one value of every source.

    Args:
        metric: a dotted path into the value, or a whole condition such as `temperature > 8`.
        above, below: the threshold, where `metric` is a path.
        clear: the level at which a crossing is over; the threshold where it is not given.
        forget_after: a source without readings for this long is back, so that state does not grow for ever.
        labels, key, name, on_rejected: as for `alerts`.
    Yields:
        Each crossing, there and back, once.
    Raises:
        RulesError: levels that cannot be meant.
    """
    expression = above is None and below is None
    rule = Rule(
        metric,
        metric if expression else None,
        metric=None if expression else metric,
        above=above,
        below=below,
        clear=clear,
        forget_after=forget_after,
    )
    async for alarm in alerts(stream, [rule], labels=labels, key=key, name=name, on_rejected=on_rejected):
        assert alarm.value is not None, "a threshold looks at values"
        assert alarm.peak is not None, "and knows the worst of them"
        assert alarm.threshold is not None, "and what it compares them with"
        yield Crossing(
            beyond=alarm.state == "firing",
            labels=alarm.labels,
            metric=str(alarm.metric),
            comparison=alarm.comparison,
            threshold=alarm.threshold,
            value=alarm.value,
            peak=alarm.peak,
            at_ms=alarm.at_ms,
            since_ms=alarm.started_ms,
            record=alarm.records[-1],
        )
