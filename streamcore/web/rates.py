"""Throughput from successive snapshots of log end offsets and event counts."""

from collections import deque
from collections.abc import Mapping
from typing import Any

HISTORY = 300  # ticks: five minutes of one per second
GAP_MAX_MS = 15_000  # nobody looked for longer than this: a mean over it would pass for a rate


class Rates:
    """Records and events per second. Pure: snapshots in, rates out."""

    def __init__(self) -> None:
        self._before: tuple[int, dict[str, int]] | None = None
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def update(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Rates since the snapshot before, as `{"at_ms", "topics": {name: per second}, "agents": {…}, "events"}`.

        The first snapshot, and the first after a gap, has none: `topics` and `agents` are empty and `events` is None.
        """
        now_ms = int(status["now_ms"])
        counts = _counts(status)
        before, self._before = self._before, (now_ms, counts)
        if before is None or not 0 < now_ms - before[0] <= GAP_MAX_MS:
            if before is not None and now_ms == before[0] and self.history:
                self._before = before
                return self.history[-1]
            self.history.clear()
            return {"at_ms": now_ms, "topics": {}, "agents": {}, "events": None}
        seconds = (now_ms - before[0]) / 1000
        per_second: dict[str, float] = {}
        for name, count in counts.items():
            # A topic deleted and made again starts over at 0: that is no negative rate.
            per_second[name] = round(max(0, count - before[1].get(name, count)) / seconds, 2)
        agents = {name[2:]: rate for name, rate in per_second.items() if name.startswith("a:")}
        rates = {
            "at_ms": now_ms,
            "topics": {name[2:]: rate for name, rate in per_second.items() if name.startswith("t:")},
            "agents": agents,
            "events": round(sum(agents.values()), 2),
        }
        self.history.append(rates)
        return rates


def _counts(status: Mapping[str, Any]) -> dict[str, int]:
    counts = {
        "t:" + topic["name"]: sum(part["log_end_offset"] or 0 for part in topic["partitions"])
        for topic in status.get("topics", ())
    }
    for agent in status.get("agents", ()):
        counts["a:" + agent["name"]] = agent.get("events_total") or 0
    return counts
