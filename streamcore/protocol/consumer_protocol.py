"""What the members of a consumer group tell each other through the coordinator, which does not look into it.

```
subscription v2  version int16 | topics [string] | user_data bytes? | owned [topic string, partitions [int32]]
                 | generation_id int32
assignment v2    version int16 | assigned [topic string, partitions [int32]] | user_data bytes?
```
Kafka's ConsumerProtocol, so that its tools can tell who reads what. Later versions append to these; what comes after
the known fields is passed over.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from streamcore.protocol.errors import MalformedMessageError
from streamcore.protocol.primitives import read_nullable_bytes, read_string
from streamcore.types import TP

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_VERSION: Final = 2
_OWNED_FROM: Final = 1
_GENERATION_FROM: Final = 2
NO_GENERATION: Final = -1


class Subscription(NamedTuple):
    """What a member wants, and what it has."""

    topics: tuple[str, ...]
    owned: tuple[TP, ...] = ()
    generation_id: int = NO_GENERATION  # in which it was given what it owns
    user_data: bytes = b""


def encode_subscription(subscription: Subscription) -> bytes:
    out = bytearray(_INT16.pack(_VERSION) + _INT32.pack(len(subscription.topics)))
    for topic in subscription.topics:
        out += _string(topic)
    out += _INT32.pack(len(subscription.user_data)) + subscription.user_data
    out += _partitions(subscription.owned) + _INT32.pack(subscription.generation_id)
    return bytes(out)


def decode_subscription(data: bytes) -> Subscription:
    """
    Raises:
        MalformedMessageError
    """
    view, end = memoryview(data), len(data)
    version, position = _int16(view, 0, end)
    count, position = _int32(view, position, end)
    topics: list[str] = []
    for _ in range(count):
        topic, position = read_string(view, position, end)
        topics.append(topic)
    user_data, position = read_nullable_bytes(view, position, end)
    owned: list[TP] = []
    generation_id = NO_GENERATION
    if version >= _OWNED_FROM:
        owned, position = _read_partitions(view, position, end)
    if version >= _GENERATION_FROM:
        generation_id, position = _int32(view, position, end)
    return Subscription(tuple(topics), tuple(owned), generation_id, bytes(user_data or b""))


def encode_assignment(tps: Iterable[TP]) -> bytes:
    return _INT16.pack(_VERSION) + _partitions(tps) + _INT32.pack(0)


def decode_assignment(data: bytes) -> list[TP]:
    """The partitions; none for a member that was given nothing, which has no bytes.

    Raises:
        MalformedMessageError
    """
    if not data:
        return []
    view, end = memoryview(data), len(data)
    _, position = _int16(view, 0, end)
    return _read_partitions(view, position, end)[0]


def _partitions(tps: Iterable[TP]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for tp in tps:
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    out = bytearray(_INT32.pack(len(by_topic)))
    for topic, partitions in sorted(by_topic.items()):
        out += _string(topic) + _INT32.pack(len(partitions))
        out += struct.pack(f">{len(partitions)}i", *sorted(partitions))
    return bytes(out)


def _read_partitions(view: memoryview, position: int, end: int) -> tuple[list[TP], int]:
    count, position = _int32(view, position, end)
    found: list[TP] = []
    for _ in range(count):
        topic, position = read_string(view, position, end)
        partitions, position = _int32(view, position, end)
        for _ in range(partitions):
            partition, position = _int32(view, position, end)
            found.append(TP(topic, partition))
    return found, position


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _int16(view: memoryview, position: int, end: int) -> tuple[int, int]:
    if position + 2 > end:
        raise MalformedMessageError("it ends in the middle of a field")
    return int(_INT16.unpack_from(view, position)[0]), position + 2


def _int32(view: memoryview, position: int, end: int) -> tuple[int, int]:
    if position + 4 > end:
        raise MalformedMessageError("it ends in the middle of a field")
    return int(_INT32.unpack_from(view, position)[0]), position + 4
