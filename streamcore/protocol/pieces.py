"""A message on its way out in several buffers, so that megabytes of records are not copied into one."""

from typing import Final

Buffer = bytes | bytearray | memoryview
APART_MIN_BYTES: Final = 16 << 10  # copying less costs no more than another buffer in the system call


class Pieces(bytearray):
    """A message is appended to it as to any bytearray; large records stay where they are (`add_apart`)."""

    def __init__(self, start: bytes = b"") -> None:
        super().__init__(start)
        self._pieces: list[Buffer] = []

    def add_apart(self, records: bytes | memoryview) -> None:
        """Append `records` without a copy; they must not change."""
        self._pieces += (bytearray(self), records)
        self.clear()

    def finish(self) -> list[Buffer]:
        """The whole message, in order; the first piece is a bytearray, for who wants to put its length there."""
        return [*self._pieces, self] if self._pieces else [self]


def append_records(out: bytearray, records: bytes | memoryview) -> None:
    if type(out) is Pieces and len(records) >= APART_MIN_BYTES:
        out.add_apart(records)
    else:
        out += records
