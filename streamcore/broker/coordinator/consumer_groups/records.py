"""Consumer groups as records of `__consumer_offsets`, byte for byte as Kafka 4.1 writes them.

```
key    version int16 | group string, and for some a name:           value, version int16 = 0, then
  3    ConsumerGroupMetadata                                         epoch int32, tag 0: topics hash int64
  5    ConsumerGroupMemberMetadata               member string       instance? rack? client_id client_host topics[]
                                                                     regex? rebalance_timeout int32 assignor?,
                                                                     tag 0: session_timeout int32, protocols[]
  6    ConsumerGroupTargetAssignmentMetadata                         epoch int32
  7    ConsumerGroupTargetAssignmentMember       member string       partitions
  8    ConsumerGroupCurrentMemberAssignment      member string       epoch int32, previous epoch int32, state int8,
                                                                     assigned partitions, partitions to let go of
 16    ConsumerGroupRegularExpression            regex string        topics[] revision int64 timestamp int64
```
Values are flexible (KIP-482): compact strings and arrays, tagged fields at the end of every struct. Keys are not. A
null value is a tombstone. What the hash of topics is made of is each program's own; another one costs a rebalance.
"""

import struct
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment, assignment_of
from streamcore.broker.coordinator.consumer_groups.changes import Change, Kind, Value
from streamcore.broker.coordinator.consumer_groups.messages import (
    ClassicMember,
    GroupEpoch,
    MemberMetadata,
    ResolvedRegex,
)
from streamcore.broker.coordinator.consumer_groups.reconciliation import CurrentAssignment, MemberState
from streamcore.errors import CorruptRecordError
from streamcore.protocol.errors import MalformedMessageError
from streamcore.protocol.primitives import (
    read_string,
    read_uvarint,
    write_nullable_compact_string,
    write_string,
    write_uvarint,
)
from streamcore.types import OutRecord

T = TypeVar("T")
_INT8 = struct.Struct(">b")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_VALUE_VERSION: Final = 0
_UUID_BYTES: Final = 16
_NAMED: Final = frozenset({Kind.MEMBER, Kind.TARGET, Kind.CURRENT, Kind.REGEX})
_VERSIONS: Final = frozenset(Kind)


def encode_change(change: Change, now_ms: int) -> OutRecord:
    key_out = bytearray(_INT16.pack(change.kind))
    write_string(change.group_id, key_out)
    if change.kind in _NAMED:
        write_string(change.name, key_out)
    key = bytes(key_out)
    if change.value is None:
        return key, None, now_ms, ()
    out = bytearray(_INT16.pack(_VALUE_VERSION))
    match change.value:
        case GroupEpoch(epoch, topics_hash):
            out += _INT32.pack(epoch)
            _write_tags(out, {0: _INT64.pack(topics_hash)} if topics_hash else {})
        case MemberMetadata():
            _write_member(out, change.value)
        case int():
            out += _INT32.pack(change.value) + b"\0"
        case CurrentAssignment(epoch, previous_epoch, state, assigned, revoking):
            out += struct.pack(">iib", epoch, previous_epoch, state)
            _write_assignment(out, assigned)
            _write_assignment(out, revoking)
            out += b"\0"
        case ResolvedRegex(topics, revision):
            _write_strings(out, topics)
            out += _INT64.pack(revision) + _INT64.pack(now_ms) + b"\0"
        case _:
            _write_assignment(out, change.value)
            out += b"\0"
    return key, bytes(out), now_ms, ()


def decode_change(key: bytes, value: bytes | None) -> Change | None:
    """The change, or None where the key is of another kind.

    Raises:
        CorruptRecordError
    """
    try:
        (version,) = _INT16.unpack_from(key)
        if version not in _VERSIONS:
            return None
        kind, view = Kind(version), memoryview(key)
        group_id, position = read_string(view, _INT16.size, len(key))
        name = read_string(view, position, len(key))[0] if kind in _NAMED else ""
        return Change(kind, group_id, name, None if value is None else _read_value(kind, value))
    except (struct.error, MalformedMessageError, UnicodeDecodeError, ValueError) as error:
        raise CorruptRecordError(f"a consumer group's record cannot be read: {error}") from error


def _read_value(kind: Kind, value: bytes) -> Value:
    reader = _Reader(value)
    version = reader.number(_INT16)
    if version != _VALUE_VERSION:
        raise ValueError(f"{kind.name} has version {version}; {_VALUE_VERSION} is known")
    match kind:
        case Kind.EPOCH:
            epoch = reader.number(_INT32)
            topics_hash = reader.tags().get(0)
            return GroupEpoch(epoch, _INT64.unpack(topics_hash)[0] if topics_hash is not None else 0)
        case Kind.MEMBER:
            return _read_member(reader)
        case Kind.TARGET_EPOCH:
            return reader.number(_INT32)
        case Kind.TARGET:
            return reader.assignment()
        case Kind.CURRENT:
            epoch, previous_epoch = reader.number(_INT32), reader.number(_INT32)
            state = MemberState(reader.number(_INT8))
            return CurrentAssignment(epoch, previous_epoch, state, reader.assignment(), reader.assignment())
        case Kind.REGEX:
            return ResolvedRegex(tuple(reader.array(reader.string)), reader.number(_INT64))


def _write_member(out: bytearray, member: MemberMetadata) -> None:
    for text in (member.instance_id, member.rack_id, member.client_id, member.client_host):
        write_nullable_compact_string(text, out)
    _write_strings(out, member.topic_names)
    write_nullable_compact_string(member.topic_regex, out)
    out += _INT32.pack(member.rebalance_timeout_ms)
    write_nullable_compact_string(member.assignor, out)
    tags: dict[int, bytes] = {}
    if member.classic is not None:
        classic = bytearray(b"\1")  # of a struct that may be null: it is there
        classic += _INT32.pack(member.classic.session_timeout_ms)
        write_uvarint(len(member.classic.protocols) + 1, classic)
        for name, metadata in member.classic.protocols:
            write_nullable_compact_string(name, classic)
            write_uvarint(len(metadata) + 1, classic)
            classic += metadata + b"\0"
        tags[0] = bytes(classic + b"\0")
    _write_tags(out, tags)


def _read_member(reader: "_Reader") -> MemberMetadata:
    instance_id, rack_id = reader.nullable(), reader.nullable()
    client_id, client_host = reader.string(), reader.string()
    topic_names = tuple(reader.array(reader.string))
    topic_regex = reader.nullable()
    rebalance_timeout_ms = reader.number(_INT32)
    assignor = reader.nullable()
    classic: ClassicMember | None = None
    tagged = reader.tags().get(0)
    if tagged is not None:
        inner = _Reader(tagged)
        if inner.uvarint():
            session_timeout_ms = inner.number(_INT32)
            classic = ClassicMember(session_timeout_ms, tuple(inner.array(inner.protocol)))
    return MemberMetadata(
        instance_id,
        rack_id,
        client_id,
        client_host,
        topic_names,
        topic_regex,
        rebalance_timeout_ms,
        assignor,
        classic,
    )


def _write_assignment(out: bytearray, assignment: Assignment) -> None:
    write_uvarint(len(assignment) + 1, out)
    for topic_id in sorted(assignment):
        partitions = sorted(assignment[topic_id])
        out += topic_id.bytes
        write_uvarint(len(partitions) + 1, out)
        out += struct.pack(f">{len(partitions)}i", *partitions) + b"\0"


def _write_strings(out: bytearray, texts: tuple[str, ...]) -> None:
    write_uvarint(len(texts) + 1, out)
    for text in texts:
        write_nullable_compact_string(text, out)


def _write_tags(out: bytearray, tags: dict[int, bytes]) -> None:
    write_uvarint(len(tags), out)
    for tag, value in tags.items():
        write_uvarint(tag, out)
        write_uvarint(len(value), out)
        out += value


class _Reader:
    """Reads forward and never beyond the end."""

    def __init__(self, buffer: bytes) -> None:
        self._view = memoryview(buffer)
        self._position = 0

    def take(self, length: int) -> bytes:
        start, end = self._position, self._position + length
        if length < 0 or end > len(self._view):
            raise MalformedMessageError(f"{length} bytes at {start} of {len(self._view)}")
        self._position = end
        return bytes(self._view[start:end])

    def number(self, kind: struct.Struct) -> int:
        return int(kind.unpack(self.take(kind.size))[0])

    def uvarint(self) -> int:
        number, self._position = read_uvarint(self._view, self._position, len(self._view))
        return number

    def nullable(self) -> str | None:
        length = self.uvarint()
        return self.take(length - 1).decode() if length else None

    def string(self) -> str:
        text = self.nullable()
        if text is None:
            raise MalformedMessageError(f"a null at {self._position} where a string has to be")
        return text

    def array(self, read: Callable[[], T]) -> list[T]:
        # Everything in an array takes a byte at least, so a count that lies ends at the end.
        return [read() for _ in range(self.uvarint() - 1)]

    def protocol(self) -> tuple[str, bytes]:
        name, metadata = self.string(), self.take(self.uvarint() - 1)
        self.tags()
        return name, metadata

    def assignment(self) -> Assignment:
        return assignment_of(self.array(self._partitions))

    def _partitions(self) -> tuple[UUID, list[int]]:
        topic_id = UUID(bytes=self.take(_UUID_BYTES))
        partitions = self.array(lambda: self.number(_INT32))
        self.tags()
        return topic_id, partitions

    def tags(self) -> dict[int, bytes]:
        return {self.uvarint(): self.take(self.uvarint()) for _ in range(self.uvarint())}
