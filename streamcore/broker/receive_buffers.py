"""Memory that requests are received into, shared by a server's connections.

A megabyte of new memory costs more than receiving a megabyte into it: it is cleared, page by page. So the memory of
large frames is used again, and what connections read small frames into is one buffer for all of them.
"""

from typing import Final

SHARED_BYTES: Final = 64 << 10  # read at once at most, also of small frames that have to wait
# A frame's memory grows with what has come of it, so that a size alone costs nothing.
FIRST_BYTES: Final = 256 << 10
# The largest batch that librdkafka and the Java client send by default, and the names around it.
SPARE_BYTES: Final = (1 << 20) + (4 << 10)
SPARES_MAX: Final = 8  # a producer has 5 requests on the way by default


class ReceiveBuffers:
    """One event loop's."""

    def __init__(self) -> None:
        self.shared = memoryview(bytearray(SHARED_BYTES))
        self._spares: list[bytearray] = []  # each of SPARE_BYTES

    def take(self, size: int, have: int) -> bytearray:
        """Memory for a frame of `size` bytes of which `have` have come; it may be shorter or longer than the frame."""
        if size <= SPARE_BYTES and self._spares:
            return self._spares.pop()
        return bytearray(min(size, max(FIRST_BYTES, have)))

    def grown(self, memory: bytearray, size: int) -> bytearray:
        """Longer memory for a frame of `size` bytes, with what `memory` has, which is full."""
        if size <= SPARE_BYTES:
            longer = self._spares.pop() if self._spares else bytearray(SPARE_BYTES)
        else:
            longer = bytearray(min(size, 2 * len(memory)))
        longer[: len(memory)] = memory
        return longer

    def give_back(self, frame: memoryview) -> None:
        """Nobody looks at the frame any more."""
        memory = frame.obj
        if type(memory) is bytearray and len(memory) == SPARE_BYTES and len(self._spares) < SPARES_MAX:
            self._spares.append(memory)
