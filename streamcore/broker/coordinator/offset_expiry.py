"""When committed offsets may go (KIP-211): as long as somebody uses a group, its offsets stay."""

import struct
from typing import Final, NamedTuple

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
CONSUMERS: Final = "consumer"  # the protocol type whose members say in a known form what they subscribe to


class Unused(NamedTuple):
    """Which of a group's offsets nobody uses at the moment, and since when."""

    since_ms: int | None = None  # Unix; None counts from each offset's own commit
    subscribed: frozenset[str] = frozenset()  # topics whose offsets are in use

    def is_expired(self, topic: str, committed_ms: int, oldest_ms: int) -> bool:
        return topic not in self.subscribed and (committed_ms if self.since_ms is None else self.since_ms) <= oldest_ms


def subscribed_topics(metadata: bytes) -> list[str] | None:
    """The topics in a consumer's subscription (version int16, topics int32 × string, ...); None for other bytes."""
    try:
        (count,) = _INT32.unpack_from(metadata, 2)
        position = 6
        topics = []
        # Every topic takes two bytes at least, so a count that lies ends at the end.
        for _ in range(count):
            (length,) = _INT16.unpack_from(metadata, position)
            end = position + 2 + length
            if length < 0 or end > len(metadata):
                return None
            topics.append(metadata[position + 2 : end].decode())
            position = end
    except (struct.error, UnicodeDecodeError):
        return None
    return topics
