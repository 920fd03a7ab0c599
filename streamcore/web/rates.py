"""Throughput from successive snapshots of log end offsets and event counts."""

from collections import deque
from collections.abc import Mapping
from typing import Any

HISTORY = 300  # ticks: five minutes of one per second
WINDOW = 5  # snapshots a rate reaches back over: one alone would flicker between 0 and 1 for a quiet topic
GAP_MIN_MS = 400  # two snapshots closer than this say more about the clock than about the rate
GAP_MAX_MS = 15_000  # nobody looked for longer than this: a mean over it would pass for a rate


class Rates:
    """Records and events per second. Pure: snapshots in, rates out."""

    def __init__(self) -> None:
        self._before: deque[tuple[int, dict[str, int]]] = deque(maxlen=WINDOW)
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def update(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Rates over the last snapshots, as `{"at_ms", "topics": {name: per second}, "agents": {…}, "events"}`.

        The first snapshot, and the first after a gap, has none: `topics` and `agents` are empty and `events` is None.
        """
        now_ms = int(status["now_ms"])
        if self._before:
            gap_ms = now_ms - self._before[-1][0]
            if 0 <= gap_ms < GAP_MIN_MS:
                return self.history[-1] if self.history else _nothing(now_ms)
            if not 0 <= gap_ms <= GAP_MAX_MS:
                self._before.clear()
                self.history.clear()
        counts = _counts(status)
        earlier = self._before[0] if self._before else None
        self._before.append((now_ms, counts))
        if earlier is None:
            return _nothing(now_ms)
        seconds = (now_ms - earlier[0]) / 1000
        # A topic that is deleted and made again starts over at 0: that is no negative rate.
        per_second = {
            name: round(max(0, count - earlier[1].get(name, count)) / seconds, 2) for name, count in counts.items()
        }
        agents = {name[2:]: rate for name, rate in per_second.items() if name.startswith("a:")}
        rates = {
            "at_ms": now_ms,
            "topics": {name[2:]: rate for name, rate in per_second.items() if name.startswith("t:")},
            "agents": agents,
            "events": round(sum(agents.values()), 2),
        }
        self.history.append(rates)
        return rates


def _nothing(now_ms: int) -> dict[str, Any]:
    return {"at_ms": now_ms, "topics": {}, "agents": {}, "events": None}


def _counts(status: Mapping[str, Any]) -> dict[str, int]:
    counts = {
        "t:" + topic["name"]: sum(part["log_end_offset"] or 0 for part in topic["partitions"])
        for topic in status.get("topics", ())
    }
    for agent in status.get("agents", ()):
        counts["a:" + agent["name"]] = agent.get("events_total") or 0
    return counts
