"""A group's metadata as a record of `__consumer_offsets`, byte for byte as Kafka writes it.

```
key    GroupMetadataKey       version int16 = 2 | group string
value  GroupMetadataValue v3  version int16 = 3 | protocol_type string | generation int32 | protocol string?
                              | leader string? | state_timestamp int64 | members int32 × member
member                        member_id string | group_instance_id string? | client_id string | client_host string
                              | rebalance_timeout int32 | session_timeout int32 | subscription bytes | assignment bytes
```
A string is an int16 length and UTF-8, bytes are an int32 length and themselves; with a `?` a length of -1 is null.
A null value is a tombstone: there is no such group any more.
"""

import struct
from typing import Final

from streamcore.broker.coordinator.group_messages import GroupMetadata, StoredMember
from streamcore.errors import CorruptRecordError
from streamcore.types import OutRecord

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_TIMEOUTS = struct.Struct(">ii")
_KEY_VERSION: Final = 2
_VALUE_VERSION: Final = 3
_NULL: Final = b"\xff\xff"
_MEMBER_MIN_BYTES: Final = 18  # of a version 0 with everything empty; a count of members that claims more is a lie


def encode_group(metadata: GroupMetadata, now_ms: int) -> OutRecord:
    """The record that says this of the group."""
    parts = [
        _INT16.pack(_VALUE_VERSION),
        _string(metadata.protocol_type),
        _INT32.pack(metadata.generation_id),
        _nullable(metadata.protocol_name),
        _nullable(metadata.leader),
        _INT64.pack(metadata.state_timestamp_ms),
        _INT32.pack(len(metadata.members)),
    ]
    for member in metadata.members:
        parts += (
            _string(member.member_id),
            _nullable(member.group_instance_id),
            _string(member.client_id),
            _string(member.client_host),
            _TIMEOUTS.pack(member.rebalance_timeout_ms, member.session_timeout_ms),
            _bytes(member.metadata),
            _bytes(member.assignment),
        )
    return encode_group_key(metadata.group_id), b"".join(parts), now_ms, ()


def encode_tombstone(group_id: str, now_ms: int) -> OutRecord:
    return encode_group_key(group_id), None, now_ms, ()


def encode_group_key(group_id: str) -> bytes:
    return _INT16.pack(_KEY_VERSION) + _string(group_id)


def decode_group_key(key: bytes) -> str | None:
    """The group, or None where the key is of another kind (committed offsets lie in the same topic).

    Raises:
        CorruptRecordError: the bytes are no key at all.
    """
    try:
        (version,) = _INT16.unpack_from(key)
        if version != _KEY_VERSION:
            return None
        return _Reader(key, 2).string()
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecordError(f"a group's key cannot be read: {error}") from error


def decode_group(group_id: str, value: bytes) -> GroupMetadata:
    """The value in version 3, or in one of the older ones that say less.

    Raises:
        CorruptRecordError
    """
    try:
        (version,) = _INT16.unpack_from(value)
        if not 0 <= version <= _VALUE_VERSION:
            raise CorruptRecordError(f"the metadata of group {group_id!r} has version {version}; 0 to 3 are known")
        reader = _Reader(value, 2)
        protocol_type, generation_id = reader.string(), reader.int32()
        protocol_name, leader = reader.nullable(), reader.nullable()
        state_timestamp_ms = reader.int64() if version >= 2 else -1
        members = tuple(_read_member(reader, version) for _ in range(reader.count()))
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecordError(f"the metadata of group {group_id!r} cannot be read: {error}") from error
    return GroupMetadata(group_id, generation_id, protocol_type, protocol_name, leader, members, state_timestamp_ms)


def _read_member(reader: "_Reader", version: int) -> StoredMember:
    member_id = reader.string()
    group_instance_id = reader.nullable() if version >= 3 else None
    client_id, client_host = reader.string(), reader.string()
    rebalance_timeout_ms = reader.int32() if version >= 1 else None
    session_timeout_ms = reader.int32()
    if rebalance_timeout_ms is None:
        rebalance_timeout_ms = session_timeout_ms
    metadata, assignment = reader.bytes(), reader.bytes()
    return StoredMember(
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        metadata,
        assignment,
    )


class _Reader:
    """Reads forward and never beyond the end; what does not fit is a `struct.error`."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self._buffer = buffer
        self._position = position

    def skip(self, length: int) -> int:
        start = self._position
        if length < 0 or start + length > len(self._buffer):
            raise struct.error(f"{length} bytes at {start} of {len(self._buffer)}")
        self._position += length
        return start

    def int16(self) -> int:
        (number,) = _INT16.unpack_from(self._buffer, self.skip(_INT16.size))
        return int(number)

    def int32(self) -> int:
        (number,) = _INT32.unpack_from(self._buffer, self.skip(_INT32.size))
        return int(number)

    def int64(self) -> int:
        (number,) = _INT64.unpack_from(self._buffer, self.skip(_INT64.size))
        return int(number)

    def count(self) -> int:
        count = self.int32()
        if count < 0 or count * _MEMBER_MIN_BYTES > len(self._buffer) - self._position:
            raise struct.error(f"{count} members in {len(self._buffer) - self._position} bytes")
        return count

    def nullable(self) -> str | None:
        length = self.int16()
        if length == -1:
            return None
        start = self.skip(length)
        return self._buffer[start : self._position].decode()

    def string(self) -> str:
        text = self.nullable()
        if text is None:
            raise struct.error(f"a null at {self._position} where a string has to be")
        return text

    def bytes(self) -> bytes:
        length = self.int32()
        start = self.skip(length)
        return self._buffer[start : self._position]


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def _nullable(text: str | None) -> bytes:
    return _NULL if text is None else _string(text)


def _bytes(value: bytes) -> bytes:
    return _INT32.pack(len(value)) + value
