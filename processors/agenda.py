"""Who is due when: deadlines of many keys, of which only the earliest is ever looked at."""

import heapq


class Agenda:
    """Deadlines that mostly move later, as those of a source do with each of its readings.

    A deadline that moves later leaves its old entry where it is: when that comes up, `pop` gives the key out too
    early, and whoever asked puts it back at the later time. So a key has one entry, not one for each of its readings.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._entry: dict[str, int] = {}  # key -> its earliest entry in the heap; others of it are void

    def put(self, key: str, deadline_ms: int) -> None:
        known_ms = self._entry.get(key)
        if known_ms is None or deadline_ms < known_ms:
            self._entry[key] = deadline_ms
            heapq.heappush(self._heap, (deadline_ms, key))

    def remove(self, key: str) -> None:
        self._entry.pop(key, None)

    def next_ms(self) -> int | None:
        """No deadline is earlier than this."""
        while self._heap and self._entry.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, before_ms: int) -> tuple[int, str] | None:
        """The key whose entry is the earliest, if that is before `before_ms`; with its time."""
        next_ms = self.next_ms()
        if next_ms is None or next_ms >= before_ms:
            return None
        entry = heapq.heappop(self._heap)
        del self._entry[entry[1]]
        return entry

    def __len__(self) -> int:
        return len(self._entry)
