"""What the health page knows: a pure object, fed with readings and alarms, asked for snapshots and changes.

Everything is bounded: hosts, minutes of readings, lines, alarms. Nothing that is fed can raise; what cannot be read is
counted in `ignored_total`.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Literal

import msgspec

from apps.health_monitoring.page.series import COLUMN, NAME_MAX, WINDOW_MS, Host, finite, milliseconds, thinned
from apps.health_monitoring.page.shapes import alarm_shape, builtins, disks, processes, series_of, statistics
from streamcore.clock import SYSTEM_CLOCK, Clock

HOSTS_MAX = 256
ALARMS_MAX = 500  # that are not over
RESOLVED_MAX = 50
AHEAD_MAX_MS = 300_000  # a clock further ahead than this is wrong, not early
LIVE_MS = 3_600_000  # readings older than this are a replay
FORGET_MS = 3_600_000  # a silent host without an alarm leaves the page
NEAR = 0.95  # of a threshold: worth a look
NEAR_STAYS_MS = 60_000  # cards that change places with every reading cannot be read

Tone = Literal["bad", "gone", "warn", "ok"]
ACTIVE = ("firing", "recovering", "no_data")
SEVERITY_RANK = {"critical": 0, "page": 0, "error": 1, "warning": 2, "info": 3}


@dataclass(frozen=True, slots=True)
class Level:
    """What a rule compares: drawn into charts, and what "near its threshold" means."""

    rule: str
    metric: str  # one of series.METRICS
    threshold: float
    comparison: str = ">"
    clear: float | None = None

    def is_near(self, value: float | None) -> bool:
        return value is not None and self.comparison.startswith(">") and value >= self.threshold * NEAR


def levels_of(rules: Iterable[Any]) -> list[Level]:
    """The levels of rules that compare one of a host's own metrics; others have nothing to draw."""
    found = []
    for rule in rules:
        levels, metric = getattr(rule, "levels", None), series_of(getattr(rule, "metric", None))
        if levels is not None and metric is not None:
            found.append(Level(str(rule.name), metric, levels.threshold, str(levels.comparison), levels.clear))
    return found


class Board:
    """Hosts and alarms as of now."""

    def __init__(self, rules: Iterable[Any] = (), *, clock: Clock = SYSTEM_CLOCK, hosts_max: int = HOSTS_MAX) -> None:
        self._clock = clock
        self._hosts_max = hosts_max
        self._levels = {level.rule: level for level in levels_of(rules)}
        self._hosts: dict[str, Host] = {}
        self._alarms: dict[str, dict[str, Any]] = {}  # not over, by id
        self._resolved: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._delays_ms: deque[float] = deque(maxlen=500)  # from a reading to the page
        self._newest_ms = 0  # event time, and the clock when it came
        self._newest_arrived_ms = 0
        self._delta: tuple[tuple[int, int], dict[str, Any]] | None = None
        self.version = 0
        self.alarms_version = 0
        self.ignored_total = 0

    # Feeding

    def health(self, value: Any) -> None:
        """Take one Health, as a model or as a dict."""
        value = builtins(value)
        host = str(value.get("host") or "")[:NAME_MAX] if value is not None else ""
        at_ms = milliseconds(value.get("time")) if value is not None else None
        now_ms = self._clock.now_ms()
        if value is None or not host or at_ms is None or at_ms < 0:
            self.ignored_total += 1
            return
        at_ms = min(at_ms, now_ms) if at_ms <= now_ms + AHEAD_MAX_MS else now_ms
        if at_ms >= self._newest_ms:
            self._newest_ms, self._newest_arrived_ms = at_ms, now_ms
        self.version += 1
        known = self._hosts.get(host)
        if known is None:
            self._make_room()
            known = self._hosts[host] = Host(host)
        known.read(value, at_ms, now_ms, self.version)
        if now_ms - at_ms < 60_000:
            self._delays_ms.append(now_ms - at_ms)

    def alarm(self, value: Any) -> None:
        """Take one change of an alarm, as a model or as a dict; a repeat or an older change is ignored."""
        value = builtins(value)
        if value is None or not value.get("id") or not value.get("state"):
            self.ignored_total += 1
            return
        level = self._levels.get(str(value.get("rule")))
        alarm = alarm_shape(
            value,
            level.metric if level else None,
            level.clear if level else None,
            level.comparison if level else "",
        )
        key = alarm["id"]
        before = self._alarms.get(key) or self._resolved.get(key)
        if before is not None and before["sequence"] >= alarm["sequence"]:
            return
        self._alarms.pop(key, None)
        self._resolved.pop(key, None)
        self.version += 1
        self.alarms_version = self.version
        if alarm["state"] == "resolved":
            # What led here must stay to be seen when the host's own ten minutes have gone on.
            alarm["points"] = self._around(alarm)
            self._resolved[key] = alarm
            while len(self._resolved) > RESOLVED_MAX:
                self._resolved.popitem(last=False)
        elif alarm["state"] != "inactive":
            self._alarms[key] = alarm
            if len(self._alarms) > ALARMS_MAX:
                del self._alarms[min(self._alarms, key=lambda each: self._alarms[each]["at_ms"])]

    def _make_room(self) -> None:
        if len(self._hosts) < self._hosts_max:
            return
        alarming = {alarm["host"] for alarm in self._alarms.values()}
        # The longest silent goes first, one with an alarm last.
        leaving = min(self._hosts.values(), key=lambda host: (host.name in alarming, host.arrived_ms))
        del self._hosts[leaving.name]

    # Asking

    @property
    def now_ms(self) -> int:
        """The time on the page: the clock's, or in a replay that of the newest reading, going on from there."""
        now_ms = self._clock.now_ms()
        if not self._newest_ms or now_ms - self._newest_ms < LIVE_MS:
            return now_ms
        return self._newest_ms + now_ms - self._newest_arrived_ms

    def snapshot(self) -> dict[str, Any]:
        """Everything the page shows: what a new listener gets."""
        return self.delta(-1)

    def delta(self, since: int) -> dict[str, Any]:
        """What changed after version `since`.

        Returns:
            `version`, `now_ms`, `full`, `kpis`; `hosts`: a card per host, most urgent first; `points`: by host, those
            after `since`; `reset`: hosts whose points replace the ones before; `alarms`: all of them, or None where
            none changed; `alarm_points`: by alarm that is not over, those after `since`, where none changed.
        """
        now_ms = self.now_ms
        asked = (since, now_ms // 1000)
        if self._delta is not None and self._delta[0] == asked and self._delta[1]["version"] == self.version:
            return self._delta[1]
        cards = self._cards(now_ms)
        points: dict[str, list[list[float | None]]] = {}
        reset = []
        for card in cards:
            host = self._hosts[card["host"]]
            if host.shown_version > since or since < 0:
                reset.append(host.name)
                points[host.name] = thinned(host.series(card["metric"]))
            elif host.version > since:
                points[host.name] = host.series(card["metric"], since_version=since)
        changed = since < 0 or self.alarms_version > since
        answer = {
            "version": self.version,
            "now_ms": now_ms,
            "full": since < 0,
            "window_ms": WINDOW_MS,
            "kpis": self._kpis(cards),
            "hosts": cards,
            "points": points,
            "reset": reset,
            "alarms": self.alarms() if changed else None,
            "alarm_points": {} if changed else self._alarm_points(since),
        }
        self._delta = asked, answer
        return answer

    def alarms(self) -> list[dict[str, Any]]:
        """Alarms with the chart around them: those that are not over by urgency, then the last that were resolved."""
        active = sorted(self._alarms.values(), key=_alarm_urgency)
        over = sorted(self._resolved.values(), key=lambda alarm: -(alarm["resolved_ms"] or alarm["at_ms"]))
        return [alarm | {"points": self._around(alarm)} for alarm in active] + over

    def _alarm_points(self, since: int) -> dict[str, list[list[float | None]]]:
        found = {}
        for alarm in self._alarms.values():
            host = self._hosts.get(alarm["host"])
            if host is not None and host.version > since and alarm["metric"] is not None:
                found[alarm["id"]] = host.series(alarm["metric"], since_version=since)
        return found

    def host(self, name: str) -> dict[str, Any] | None:
        """All there is about one host; None where it is not known."""
        host = self._hosts.get(name)
        if host is None:
            return None
        metrics = host.newest.get("metrics")
        metrics = metrics if isinstance(metrics, Mapping) else {}
        return {
            "host": name,
            "version": max(host.version, self.alarms_version),
            "seen_ms": host.seen_ms,
            "columns": host.columns(),
            "lines": list(host.lines),
            "top": processes(metrics.get("top")),
            "disks": disks(metrics.get("disks")),
            "metrics": {
                key: finite(metrics.get(key))
                for key in (
                    "cores", "load1", "load5", "load15", "memory_used", "memory_total",
                    "swap_percent", "disk_read", "disk_write", "network_rx", "network_tx",
                )
            },
            "stats": statistics(host.newest.get("stats")),
            "levels": [msgspec.to_builtins(level) for level in self._levels.values()],
            "alarms": [alarm for alarm in self.alarms() if alarm["host"] == name],
        }  # fmt: skip

    def _cards(self, now_ms: int) -> list[dict[str, Any]]:
        by_host: dict[str, list[dict[str, Any]]] = {}
        for alarm in self._alarms.values():
            by_host.setdefault(alarm["host"], []).append(alarm)
        ranked = []
        for host in list(self._hosts.values()):
            alarms = sorted(by_host.get(host.name, ()), key=_alarm_urgency)
            silent_ms = now_ms - host.seen_ms
            if not alarms and silent_ms > FORGET_MS:
                del self._hosts[host.name]
                continue
            rank, card = self._card(host, alarms, silent_ms)
            ranked.append((rank, card))
        return [card for _, card in sorted(ranked, key=lambda entry: entry[0])]

    def _card(self, host: Host, alarms: list[dict[str, Any]], silent_ms: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        newest = {name: finite(host.newest.get(name)) for name in COLUMN}
        is_silent = silent_ms > max(15_000, 3.5 * host.interval_ms)
        worst = alarms[0] if alarms else None
        near = next((level for level in self._levels.values() if level.is_near(newest.get(level.metric))), None)
        if near is not None:
            host.near = host.seen_ms, near
        elif host.near is not None and host.seen_ms - host.near[0] < NEAR_STAYS_MS:
            near = host.near[1]
        tone: Tone = "ok"
        label, note, rank = "ok", "", 6
        metric = worst["metric"] if worst and worst["metric"] else "cpu"
        if worst is not None and worst["state"] in ("firing", "recovering"):
            tone, label = "bad", worst["rule"]
            rank = min(1, SEVERITY_RANK.get(worst["severity"], 1))
        elif is_silent or (worst is not None and worst["state"] == "no_data"):
            tone, label, rank = "gone", worst["rule"] if worst and worst["state"] == "no_data" else "silent", 2
        elif worst is not None:
            tone, label, note, rank = "warn", worst["rule"], "pending", 3
        elif near is not None:
            tone, label, note, rank, metric = "warn", f"near {near.rule}", "", 4, near.metric
        if metric != host.shown:
            host.shown, host.shown_version = metric, self.version
        level = next((each for each in self._levels.values() if each.metric == metric), None)
        threshold = worst["threshold"] if worst and worst["metric"] == metric else level.threshold if level else None
        started = worst["fired_ms"] or worst["started_ms"] or 0 if worst else 0
        card = {
            "host": host.name,
            "tone": tone,
            "label": label,
            "note": note,
            "more": max(0, len(alarms) - 1),
            "silent_ms": silent_ms if is_silent else None,
            "seen_ms": host.seen_ms,
            "metric": metric,
            "threshold": threshold,
            "shade_ms": started or None,
            "errors": finite(host.newest.get("errors")) or 0,
            "worst_disk": str(host.newest.get("worst_disk") or "")[:NAME_MAX],
            "near": [level.metric for level in self._levels.values() if level.is_near(newest.get(level.metric))],
            **{name: newest[name] for name in ("cpu", "memory_percent", "disk_percent", "load_per_core", "network")},
        }
        return (rank, -started, _natural(host.name)), card

    def _kpis(self, cards: list[dict[str, Any]]) -> dict[str, Any]:
        delays = sorted(self._delays_ms)
        cuts = quantiles(delays, n=100) if len(delays) > 1 else delays * 99
        silent = [card["silent_ms"] for card in cards if card["silent_ms"] is not None]
        states = [alarm["state"] for alarm in self._alarms.values()]
        return {
            "hosts": len(cards),
            "reporting": len(cards) - len(silent),
            "silent_ms": max(silent, default=None),
            "firing": sum(state in ACTIVE for state in states),
            "pending": states.count("pending"),
            "delay_p50_ms": cuts[49] if cuts else None,
            "delay_p99_ms": cuts[98] if cuts else None,
        }

    def _around(self, alarm: Mapping[str, Any]) -> list[list[float | None]]:
        host = self._hosts.get(alarm["host"])
        if host is None or alarm["metric"] is None:
            return []
        until = alarm["resolved_ms"] or host.seen_ms
        # Half a minute more after its end shows that it stayed over.
        return thinned([point for point in host.series(alarm["metric"]) if (point[0] or 0) <= until + 30_000])


def _alarm_urgency(alarm: Mapping[str, Any]) -> tuple[Any, ...]:
    state = {"firing": 0, "recovering": 1, "no_data": 1, "pending": 2}.get(alarm["state"], 3)
    # The newest first: what somebody was woken for.
    return state, SEVERITY_RANK.get(alarm["severity"], 2), -(alarm["fired_ms"] or alarm["started_ms"] or 0), alarm["id"]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """web-2 before web-10."""
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits[:18]), ""))
            digits = ""
        parts.append((1, 0, character))
    return parts
