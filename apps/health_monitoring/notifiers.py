"""Where alarms go: the terminal, a webhook, Prometheus's Alertmanager.

`notify` never waits for a receiver: it puts the alarm where `run` finds it. Each `run` is one task of whoever owns the
notifier, and ends when cancelled, after a last try to deliver what is due.
"""

import asyncio
import json
import logging
import re
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Protocol

import msgspec
from prometheus_client import Counter

from apps.health_monitoring import http_client
from processors.alerts import Alarm
from streamcore.clock import SYSTEM_CLOCK, Clock

logger = logging.getLogger(__name__)

SENT = Counter("notifications_sent", "Notifications delivered.", ["output"])
FAILED = Counter("notification_attempts_failed", "Attempts that did not get through.", ["output"])
DROPPED = Counter("notifications_dropped", "Notifications given up.", ["output", "reason"])

TIMEOUT_S = 5.0  # for one request, from connecting to the answer
STOP_TIMEOUT_S = 1.0  # for what is due when the app stops; the whole stop has five seconds


class Notifier(Protocol):
    async def notify(self, alarm: Alarm) -> None:
        """Take one change of an alarm; the same one may come again."""

    async def run(self) -> None:
        """Deliver until cancelled."""


def backoff_s(attempt: int, first_s: float = 0.5, max_s: float = 30.0) -> float:
    """How long to wait after the `attempt`-th failure in a row (1, 2, …)."""
    return min(first_s * 2.0 ** min(attempt - 1, 16), max_s)


class _Changes:
    """Tells a change of an alarm from its repetition (a restart sends the last ones again)."""

    def __init__(self, alarms_max: int = 10_000) -> None:
        self._seen: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._alarms_max = alarms_max

    def is_new(self, alarm: Alarm) -> bool:
        change = (alarm.sequence, alarm.state)
        if self._seen.get(alarm.id, (-1, ""))[0] > alarm.sequence or self._seen.get(alarm.id) == change:
            return False
        self._seen[alarm.id] = change
        self._seen.move_to_end(alarm.id)
        if len(self._seen) > self._alarms_max:
            self._seen.popitem(last=False)
        return True


# --- the terminal -----------------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_STYLES = {
    "pending": "yellow", "firing": "bold red", "recovering": "magenta", "resolved": "green", "no_data": "bold red"
}  # fmt: skip


def printable(text: str) -> str:
    """On one line and without control characters: a log line must not be able to drive the reader's terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Terminal:
    """One line per change of state; in colour on a terminal, plain into a file or pipe."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._changes = _Changes()
        self._broken = False
        self._print: Callable[[str, str], None] = self._print_plain
        if self._out.isatty():
            from rich.console import Console
            from rich.markup import escape

            console = Console(file=self._out, highlight=False, soft_wrap=True)

            def print_rich(state: str, rest: str) -> None:
                console.print(f"[{_STYLES.get(state, 'bold')}]{state:<10}[/] {escape(rest)}")

            self._print = print_rich

    async def notify(self, alarm: Alarm) -> None:
        if self._broken or not self._changes.is_new(alarm):
            return
        state, rest = sentence(alarm)
        try:
            self._print(state, rest)
        except (OSError, ValueError):
            self._broken = True  # nobody reads any more; the other outputs go on
            DROPPED.labels("terminal", "closed").inc()
        else:
            SENT.labels("terminal").inc()

    async def run(self) -> None:
        """Nothing to do: printing is done by `notify`."""

    def _print_plain(self, state: str, rest: str) -> None:
        print(f"{state:<10} {rest}", file=self._out, flush=True)


def sentence(alarm: Alarm) -> tuple[str, str]:
    """The state, and the rest of the line: when, which rule, where, what."""
    at = datetime.fromtimestamp(alarm.at_ms / 1000).astimezone()
    host = alarm.labels.get("host", "")
    others = ", ".join(
        f"{name}={value}"
        for name, value in sorted(alarm.labels.items())
        if name not in ("host", "severity", "alertname")
    )
    summary = alarm.annotations.get("summary") or _comparison(alarm)
    rest = f"{at:%H:%M:%S}  {alarm.rule:<20} {host:<12} {summary}" + (f"  ({others})" if others else "")
    return alarm.state, printable(rest)


def _comparison(alarm: Alarm) -> str:
    if alarm.value is None:
        return ""
    return (
        f"{alarm.value:.4g} {alarm.comparison} {alarm.threshold:.4g}"
        if alarm.threshold is not None
        else f"{alarm.value:.4g}"
    )


# --- a webhook --------------------------------------------------------------------------------------------------------


class Webhook:
    """POSTs what people should hear of (firing, resolved, no_data) as JSON, in order, one at a time.

    A receiver that fails is tried `attempts` times with growing pauses; then that change is dropped, counted and
    logged. What waits is bounded: a receiver that stays away costs the oldest changes.

    Args:
        every_change: pending, recovering and inactive as well.
    Raises:
        UsageError: `url` is no http address.
    """

    def __init__(
        self,
        url: str,
        *,
        every_change: bool = False,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = 5,
        backoff_first_s: float = 0.5,
        waiting_max: int = 1000,
    ) -> None:
        http_client.checked_url(url)
        self._url = url
        self._every_change = every_change
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff_first_s = backoff_first_s
        self._waiting_max = waiting_max
        self._waiting: deque[Alarm] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._changes = _Changes()

    async def settled(self) -> None:
        """Return when nothing waits to be delivered."""
        await self._idle.wait()

    async def notify(self, alarm: Alarm) -> None:
        if not (alarm.notify or self._every_change) or not self._changes.is_new(alarm):
            return
        if len(self._waiting) >= self._waiting_max:
            self._drop(self._waiting.popleft(), "too many waiting")
        self._waiting.append(alarm)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._deliver(self._waiting[0], self._attempts, self._timeout_s)
                self._idle.set()
        finally:
            # A quick receiver still hears of everything; a slow one must not hold up the stop.
            deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
            while self._waiting and (left := deadline - asyncio.get_running_loop().time()) > 0:
                await self._deliver(self._waiting[0], 1, left)
            while self._waiting:
                self._drop(self._waiting.popleft(), "stopping")

    async def _deliver(self, alarm: Alarm, attempts: int, timeout_s: float) -> None:
        """Send the first waiting change, or drop it; it is off the queue afterwards, and still on it when cancelled."""
        body = msgspec.json.encode(alarm)
        # The receiver can tell a repeated delivery from a new one.
        headers = {
            "Idempotency-Key": f"{alarm.id}-{alarm.sequence}".encode("ascii", "replace").decode(),
            **self._headers,
        }
        reason = ""
        for attempt in range(1, attempts + 1):
            try:
                response = await http_client.post(self._url, body, headers=headers, timeout_s=timeout_s)
            except (OSError, TimeoutError, ValueError) as error:
                reason = str(error) or type(error).__name__
            else:
                if 200 <= response.status < 300:
                    SENT.labels("webhook").inc()
                    self._remove(alarm)
                    return
                reason = f"HTTP {response.status}"
                if 400 <= response.status < 500 and response.status not in (408, 425, 429):
                    break  # it will not like it better next time
            FAILED.labels("webhook").inc()
            if attempt < attempts:
                await asyncio.sleep(backoff_s(attempt, self._backoff_first_s))
        if self._remove(alarm):
            self._drop(alarm, reason)

    def _remove(self, alarm: Alarm) -> bool:
        """Whether it was still there: the queue may have dropped it for want of room meanwhile."""
        if self._waiting and self._waiting[0] is alarm:
            self._waiting.popleft()
            return True
        return False

    def _drop(self, alarm: Alarm, reason: str) -> None:
        short = reason if reason in ("too many waiting", "stopping") else "not delivered"
        DROPPED.labels("webhook", short).inc()
        logger.error("webhook: %s of %s (%s) is dropped: %s", alarm.state, alarm.rule, alarm.id, reason)


# --- Alertmanager -----------------------------------------------------------------------------------------------------

RESEND_S = 60.0  # as Prometheus's --rules.alert.resend-delay
RESOLVED_RETENTION_MS = 15 * 60_000  # as Prometheus's resolvedRetention: how long a resolution is still news
ALARMS_MAX = 10_000
BATCH_MAX = 500  # alerts in one request
_LABEL_BAD = re.compile(r"[^a-zA-Z0-9_]")
_FIRING = frozenset(("firing", "recovering", "no_data"))  # recovering: the condition is over, the alarm is not yet


class Alertmanager:
    """Prometheus Alertmanager's v2 API, in the way Prometheus itself uses it.

    It sees an alarm from firing to resolved; pending is not its business. A firing alarm is sent again every
    `resend_s` with an end a few resends ahead, so an app that dies does not leave it firing for ever, and one that
    comes back goes on with the same alert. Only the newest change of each alarm is kept, so nothing grows
    while the Alertmanager is away.

    Args:
        url: of the Alertmanager, as http://127.0.0.1:9093.
        page_url: of the app's own page; the alert's generatorURL links there.
    Raises:
        UsageError: `url` is no http address.
    """

    def __init__(
        self,
        url: str,
        *,
        page_url: str = "http://127.0.0.1:6066/",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        resend_s: float = RESEND_S,
        backoff_first_s: float = 0.5,
        alarms_max: int = ALARMS_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        http_client.checked_url(url)
        self._url = url.rstrip("/") + "/api/v2/alerts"
        self._page_url = page_url
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._resend_s = resend_s
        self._backoff_first_s = backoff_first_s
        self._alarms_max = alarms_max
        self._clock = clock
        # By the alarm's key: a new episode of it is the same alert to an Alertmanager, which knows it by its labels.
        self._firing: dict[str, Alarm] = {}
        self._due: dict[str, Alarm] = {}  # not yet told, newest change of each
        self._changes = _Changes()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def notify(self, alarm: Alarm) -> None:
        if not self._changes.is_new(alarm):
            return
        state = alarm.state
        if state in _FIRING:
            if alarm.key not in self._firing and len(self._firing) >= self._alarms_max:
                DROPPED.labels("alertmanager", "too many alarms").inc()
                logger.error(
                    "alertmanager: %s (%s) is dropped: %d alarms fire already", alarm.rule, alarm.id, self._alarms_max
                )
                return
            self._firing[alarm.key] = alarm
        else:
            was_firing = self._firing.pop(alarm.key, None)
            ended_ms = alarm.resolved_ms or alarm.at_ms
            # One that fired before we started is told of too; one that never fired, or long ago, is nobody's business.
            is_late_news = alarm.fired_ms is not None and ended_ms > self._clock.now_ms() - RESOLVED_RETENTION_MS
            if was_firing is None and (state == "pending" or not is_late_news):
                return
        self._due[alarm.key] = alarm
        self._idle.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Return when nothing waits to be delivered."""
        await self._idle.wait()

    async def run(self) -> None:
        failures = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(self._resend_s):
                        await self._wake.wait()
                except TimeoutError:
                    self._due = {**self._firing, **self._due}
                self._wake.clear()
                while self._due:
                    if await self._send_batch(self._timeout_s):
                        failures = 0
                        continue
                    failures += 1
                    await asyncio.sleep(backoff_s(failures, self._backoff_first_s, max_s=self._resend_s))
                    self._due = {**self._firing, **self._due}  # their ends have come nearer
                self._idle.set()
        finally:
            if self._due:
                await self._send_batch(STOP_TIMEOUT_S)

    async def _send_batch(self, timeout_s: float) -> bool:
        """Tell the first BATCH_MAX of what is due; whether that is settled."""
        batch = dict(list(self._due.items())[:BATCH_MAX])
        now_ms = self._clock.now_ms()
        body = json.dumps([self.alert(alarm, now_ms) for alarm in batch.values()]).encode()
        try:
            response = await http_client.post(self._url, body, headers=self._headers, timeout_s=timeout_s)
        except (OSError, TimeoutError, ValueError) as error:
            return self._failed(str(error) or type(error).__name__)
        if response.status == 400:
            # One alert that it cannot read fails the whole batch, and would do so for ever.
            self._settle(batch)
            DROPPED.labels("alertmanager", "refused").inc(len(batch))
            logger.error(
                "alertmanager: %d alerts were refused: %s", len(batch), response.body[:300].decode(errors="replace")
            )
            return True
        if not 200 <= response.status < 300:
            return self._failed(f"HTTP {response.status}")
        self._settle(batch)
        SENT.labels("alertmanager").inc(len(batch))
        return True

    def _failed(self, reason: str) -> bool:
        FAILED.labels("alertmanager").inc()
        logger.warning("alertmanager: %d alerts wait, %s does not take them: %s", len(self._due), self._url, reason)
        return False

    def _settle(self, batch: dict[str, Alarm]) -> None:
        for key, alarm in batch.items():
            if self._due.get(key) is alarm:  # else it has changed meanwhile
                del self._due[key]

    def alert(self, alarm: Alarm, now_ms: int) -> dict[str, Any]:
        """The alarm in Alertmanager's form."""
        labels = {_label(name): str(value) for name, value in alarm.labels.items() if str(value)}
        labels["alertname"] = alarm.rule
        annotations = {_label(name): str(value) for name, value in alarm.annotations.items()}
        if alarm.value is not None:
            annotations.setdefault("value", _comparison(alarm))
        start_ms = alarm.fired_ms or alarm.started_ms or alarm.at_ms
        if alarm.state in _FIRING:
            end_ms = now_ms + round(self._resend_s * 4000)  # as Prometheus: four resends may fail
        else:
            end_ms = max(alarm.resolved_ms or alarm.at_ms, start_ms)
        return {
            "labels": labels,
            "annotations": annotations,
            "startsAt": _rfc3339(start_ms),
            "endsAt": _rfc3339(end_ms),
            "generatorURL": self._page_url,
        }


def _label(name: str) -> str:
    clean = _LABEL_BAD.sub("_", name)
    return f"_{clean}" if not clean or clean[0].isdigit() else clean


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
