"""When to look at which group."""

import heapq
from collections.abc import Iterator
from typing import Final

NEVER: Final = 1 << 62  # a deadline that does not come
_HEAP_SLACK: Final = 64  # stale entries of the heap that are not worth a clean-up


class Deadlines:
    """The earliest deadline of every group, by name. An entry may come too early, so a heartbeat costs nothing here."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._scheduled: dict[str, int] = {}

    @property
    def next_ms(self) -> int | None:
        """When something may be due, at the earliest."""
        return self._heap[0][0] if self._heap else None

    def schedule(self, name: str, deadline_ms: int) -> None:
        """Look at the group then, or earlier if that was said before."""
        if deadline_ms < self._scheduled.get(name, NEVER):
            self._scheduled[name] = deadline_ms
            heapq.heappush(self._heap, (deadline_ms, name))
            if len(self._heap) > 2 * len(self._scheduled) + _HEAP_SLACK:
                self._heap = [(deadline_ms, name) for name, deadline_ms in self._scheduled.items()]
                heapq.heapify(self._heap)

    def forget(self, name: str) -> None:
        self._scheduled.pop(name, None)

    def due(self, now_ms: int) -> Iterator[str]:
        """The groups to look at by now; each is forgotten, and scheduled again if need be."""
        while self._heap and self._heap[0][0] <= now_ms:
            deadline_ms, name = heapq.heappop(self._heap)
            if self._scheduled.get(name) == deadline_ms:
                del self._scheduled[name]
                yield name
