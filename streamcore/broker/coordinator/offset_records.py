"""A committed offset as a record of `__consumer_offsets`, byte for byte as Kafka writes it.

```
key    OffsetCommitKey v1     version int16 = 1 | group string | topic string | partition int32
value  OffsetCommitValue v3   version int16 = 3 | offset int64 | leader_epoch int32 | metadata string | timestamp int64
```
A string is an int16 length and UTF-8. A null value is a tombstone: the group has no offset there any more.
"""

import struct
from typing import Final, NamedTuple

from streamcore.errors import CorruptRecordError
from streamcore.types import TP

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_VALUE_HEAD = struct.Struct(">hqi")  # version, offset, leader epoch
_INT64 = struct.Struct(">q")
_KEY_VERSION: Final = 1
_KEY_VERSIONS_READ: Final = (0, 1)  # they differ in name only
_VALUE_VERSION: Final = 3
STRING_MAX_BYTES: Final = 32_767


class OffsetKey(NamedTuple):
    """Whose offset, and where."""

    group: str
    tp: TP


class OffsetValue(NamedTuple):
    """How far a group has come."""

    offset: int  # the next record to read
    metadata: str = ""  # the consumer's own words
    timestamp_ms: int = -1  # of the commit; -1 is filled in when it is committed
    leader_epoch: int = -1  # of the last record read, as the consumer saw it; -1 for unknown


def encode_key(group: str, tp: TP) -> bytes:
    return _INT16.pack(_KEY_VERSION) + _string(group) + _string(tp.topic) + _INT32.pack(tp.partition)


def encode_value(value: OffsetValue) -> bytes:
    head = _VALUE_HEAD.pack(_VALUE_VERSION, value.offset, value.leader_epoch)
    return head + _string(value.metadata) + _INT64.pack(value.timestamp_ms)


def decode_key(key: bytes) -> OffsetKey | None:
    """The key, or None where it is of another kind (Kafka keeps group metadata in the same topic, key version 2).

    Raises:
        CorruptRecordError: the bytes are no key at all.
    """
    try:
        (version,) = _INT16.unpack_from(key)
        if version not in _KEY_VERSIONS_READ:
            return None
        group, position = _read_string(key, 2)
        topic, position = _read_string(key, position)
        (partition,) = _INT32.unpack_from(key, position)
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecordError(f"an offset commit's key cannot be read: {error}") from error
    return OffsetKey(group, TP(topic, partition))


def decode_value(value: bytes) -> OffsetValue:
    """The value in version 3, or in one of the older ones that hold the same (0 and 2 lack the leader epoch).

    Raises:
        CorruptRecordError
    """
    try:
        (version,) = _INT16.unpack_from(value)
        (offset,) = _INT64.unpack_from(value, 2)
        leader_epoch = -1
        if version == _VALUE_VERSION:
            (leader_epoch,) = _INT32.unpack_from(value, 10)
            metadata, position = _read_string(value, 14)
        elif version in (0, 1, 2):
            metadata, position = _read_string(value, 10)
        else:
            raise CorruptRecordError(f"an offset commit's value has version {version}; 0 to 3 are known")
        (timestamp_ms,) = _INT64.unpack_from(value, position)
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecordError(f"an offset commit's value cannot be read: {error}") from error
    return OffsetValue(offset, metadata, timestamp_ms, leader_epoch)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def _read_string(buffer: bytes, position: int) -> tuple[str, int]:
    (length,) = _INT16.unpack_from(buffer, position)
    start, end = position + 2, position + 2 + length
    if length < 0 or end > len(buffer):
        raise struct.error(f"a string of {length} bytes at {position} of {len(buffer)}")
    return buffer[start:end].decode(), end
