"""The types that messages are made of, read from a buffer and appended to one.

Every reader takes (buffer, position, end) and gives (value, position); nothing is read at or beyond `end`.
"""

import struct
from typing import Any, Final
from uuid import UUID

from streamcore.protocol.errors import MalformedMessageError
from streamcore.protocol.pieces import append_records

# A request with more entries than this in one list is no request of a client that we know: one entry takes up to
# a few hundred bytes of memory here, whatever it took on the wire.
ARRAY_MAX_COUNT: Final = 1_000_000
STRING_MAX_BYTES: Final = 32_767  # what the older versions' int16 length can say
_UVARINT_MAX_SHIFT = 28  # five bytes

_SHORT = struct.Struct(">h")
_INT = struct.Struct(">i")
Read = tuple[Any, int]


def short() -> MalformedMessageError:
    return MalformedMessageError("it ends in the middle of a field")


def null() -> MalformedMessageError:
    return MalformedMessageError("a field is null that must not be")


def read_uvarint(b: memoryview, p: int, e: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if p >= e:
            raise short()
        byte = b[p]
        p += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                raise MalformedMessageError("a length has more than 32 bits")
            return value, p
        shift += 7
        if shift > _UVARINT_MAX_SHIFT:
            raise MalformedMessageError("a length has more than five bytes")


def write_uvarint(value: int, out: bytearray) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _text(b: memoryview, p: int, q: int, e: int) -> tuple[str, int]:
    if q > e:
        raise short()
    try:
        return str(b[p:q], "utf-8"), q
    except UnicodeDecodeError:
        raise MalformedMessageError("a string is not UTF-8") from None


def _length16(b: memoryview, p: int, e: int) -> tuple[int, int]:
    if p + 2 > e:
        raise short()
    return _SHORT.unpack_from(b, p)[0], p + 2


def _length32(b: memoryview, p: int, e: int) -> tuple[int, int]:
    if p + 4 > e:
        raise short()
    return _INT.unpack_from(b, p)[0], p + 4


def read_nullable_string(b: memoryview, p: int, e: int) -> Read:
    n, p = _length16(b, p, e)
    return _text(b, p, p + n, e) if n >= 0 else (None, p)


def read_string(b: memoryview, p: int, e: int) -> Read:
    n, p = _length16(b, p, e)
    if n < 0:
        raise null()
    return _text(b, p, p + n, e)


def read_nullable_compact_string(b: memoryview, p: int, e: int) -> Read:
    n, p = read_uvarint(b, p, e)
    return _text(b, p, p + n - 1, e) if n else (None, p)


def read_compact_string(b: memoryview, p: int, e: int) -> Read:
    n, p = read_uvarint(b, p, e)
    if not n:
        raise null()
    return _text(b, p, p + n - 1, e)


def read_nullable_bytes(b: memoryview, p: int, e: int) -> Read:
    n, p = _length32(b, p, e)
    if n < 0:
        return None, p
    if p + n > e:
        raise short()
    return b[p : p + n], p + n


def read_bytes(b: memoryview, p: int, e: int) -> Read:
    value, p = read_nullable_bytes(b, p, e)
    if value is None:
        raise null()
    return value, p


def read_nullable_compact_bytes(b: memoryview, p: int, e: int) -> Read:
    n, p = read_uvarint(b, p, e)
    if not n:
        return None, p
    q = p + n - 1
    if q > e:
        raise short()
    return b[p:q], q


def read_compact_bytes(b: memoryview, p: int, e: int) -> Read:
    value, p = read_nullable_compact_bytes(b, p, e)
    if value is None:
        raise null()
    return value, p


def read_uuid(b: memoryview, p: int, e: int) -> Read:
    q = p + 16
    if q > e:
        raise short()
    return UUID(bytes=bytes(b[p:q])), q


def read_count(b: memoryview, p: int, e: int, least_bytes: int) -> tuple[int, int]:
    """How many entries follow, each of at least so many bytes; -1 for null."""
    n, p = _length32(b, p, e)
    _check_count(n, p, e, least_bytes)
    return n, p


def read_compact_count(b: memoryview, p: int, e: int, least_bytes: int) -> tuple[int, int]:
    n, p = read_uvarint(b, p, e)
    _check_count(n - 1, p, e, least_bytes)
    return n - 1, p


def _check_count(n: int, p: int, e: int, least_bytes: int) -> None:
    if n * least_bytes > e - p:
        raise MalformedMessageError(f"a list claims {n} entries; {e - p} bytes are left")
    if n > ARRAY_MAX_COUNT:
        raise MalformedMessageError(f"a list has {n} entries; at most {ARRAY_MAX_COUNT} are taken")


def write_string(value: str, out: bytearray) -> None:
    data = value.encode()
    if len(data) > STRING_MAX_BYTES:
        raise MalformedMessageError(f"a string of {len(data)} bytes; at most {STRING_MAX_BYTES} can be sent")
    out += _SHORT.pack(len(data))
    out += data


def write_nullable_string(value: str | None, out: bytearray) -> None:
    if value is None:
        out += b"\xff\xff"
    else:
        write_string(value, out)


def write_compact_string(value: str, out: bytearray) -> None:
    data = value.encode()
    write_uvarint(len(data) + 1, out)
    out += data


def write_nullable_compact_string(value: str | None, out: bytearray) -> None:
    if value is None:
        out.append(0)
    else:
        write_compact_string(value, out)


def write_bytes(value: bytes | memoryview, out: bytearray) -> None:
    out += _INT.pack(len(value))
    out += value


def write_nullable_bytes(value: bytes | memoryview | None, out: bytearray) -> None:
    if value is None:
        out += b"\xff\xff\xff\xff"
    else:
        write_bytes(value, out)


def write_compact_bytes(value: bytes | memoryview, out: bytearray) -> None:
    write_uvarint(len(value) + 1, out)
    out += value


def write_nullable_compact_bytes(value: bytes | memoryview | None, out: bytearray) -> None:
    if value is None:
        out.append(0)
    else:
        write_compact_bytes(value, out)


def write_records(value: bytes | memoryview, out: bytearray) -> None:
    out += _INT.pack(len(value))
    append_records(out, value)


def write_nullable_records(value: bytes | memoryview | None, out: bytearray) -> None:
    if value:
        write_records(value, out)
    else:
        # Most partitions of a fetch have none.
        out += b"\xff\xff\xff\xff" if value is None else b"\0\0\0\0"


def write_compact_records(value: bytes | memoryview, out: bytearray) -> None:
    write_uvarint(len(value) + 1, out)
    append_records(out, value)


def write_nullable_compact_records(value: bytes | memoryview | None, out: bytearray) -> None:
    if value:
        write_compact_records(value, out)
    else:
        out.append(0 if value is None else 1)


def write_count(count: int, out: bytearray) -> None:
    out += _INT.pack(count)


def write_null_count(out: bytearray) -> None:
    out += b"\xff\xff\xff\xff"


def write_compact_count(count: int, out: bytearray) -> None:
    write_uvarint(count + 1, out)


def write_compact_null_count(out: bytearray) -> None:
    out.append(0)


# What generated code may call.
FUNCTIONS: Final[dict[str, Any]] = {
    name: value for name, value in globals().items() if name.startswith(("read_", "write_"))
} | {"short": short, "null": null, "unpack_from": struct.unpack_from, "pack_into": struct.pack}
