"""Which events of a partition are done, where several are in flight at once."""

from collections import deque


class Progress:
    """The contiguous done prefix of the offsets handed out.

    Offsets come in growing order, with gaps where compaction or control records left them; `position` is the first
    one not done, so that a commit never passes an event in flight (faust-streaming#606 is what happens otherwise).
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self._out: deque[int] = deque()
        self._done: set[int] = set()

    @property
    def position(self) -> int:
        """Everything before this offset is done."""
        return self._position

    @property
    def in_flight(self) -> int:
        return len(self._out) - len(self._done)

    def hand_out(self, offset: int) -> None:
        assert not self._out or offset > self._out[-1], "offsets are handed out in order"
        if not self._out:
            self._position = offset
        self._out.append(offset)

    def done(self, offset: int) -> None:
        self._done.add(offset)
        while self._out and self._out[0] in self._done:
            self._done.discard(self._out[0])
            self._position = self._out.popleft() + 1
        if self._out:
            self._position = self._out[0]
