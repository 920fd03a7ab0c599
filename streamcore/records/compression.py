"""The four compressions of record batches v2, in the framings that Kafka's clients read and write."""

import struct
import zlib
from collections.abc import Callable
from typing import Final

import cramjam

from streamcore.errors import CorruptRecordError, InvalidRecordError

COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")  # the index is the code in a batch's attributes
COMPRESSION_MASK: Final = 0x07

# Kafka's snappy is not Google's frame format but the one of the xerial library: this header, then
# length-prefixed raw blocks of at most 32 kB of input.
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES: Final = 32 << 10
_INT32: Final = struct.Struct(">i")

_GZIP_LEVEL: Final = 6
_LZ4_LEVEL: Final = 9  # KIP-390's default
_ZSTD_LEVEL: Final = 3  # KIP-390's default
_GZIP_WINDOW_BITS: Final = 31  # 15 bits of window, +16 for the gzip container


def compression_code(name: str) -> int:
    """The attribute bits of a compression.

    Raises:
        InvalidRecordError: no such compression.
    """
    try:
        return COMPRESSIONS.index(name)
    except ValueError:
        raise InvalidRecordError(f"unknown compression {name!r}; use one of {', '.join(COMPRESSIONS)}") from None


def compress(code: int, payload: bytes | bytearray | memoryview) -> bytes:
    """`payload` (the records section of a batch) under compression `code` 1..4."""
    return _COMPRESSORS[code](payload)


def decompress(code: int, payload: bytes | bytearray | memoryview) -> bytes:
    """The inverse of `compress`.

    Raises:
        CorruptRecordError: the bytes are not what `code` says.
        InvalidRecordError: no compression has this code.
    """
    if code not in _DECOMPRESSORS:
        raise InvalidRecordError(f"unknown compression code {code}; known are 1..4")
    try:
        return _DECOMPRESSORS[code](payload)
    except (cramjam.DecompressionError, zlib.error, struct.error, ValueError, OverflowError) as error:
        raise CorruptRecordError(f"cannot decompress {COMPRESSIONS[code]} records: {error}") from error


def _gzip(payload: bytes | bytearray | memoryview) -> bytes:
    return bytes(cramjam.gzip.compress(payload, level=_GZIP_LEVEL))


def _gunzip(payload: bytes | bytearray | memoryview) -> bytes:
    stream = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
    data = stream.decompress(payload) + stream.flush()
    if not stream.eof:
        raise CorruptRecordError("cannot decompress gzip records: the stream ends early")
    return data


def _snappy(payload: bytes | bytearray | memoryview) -> bytes:
    view = memoryview(payload)
    parts = [_XERIAL_HEADER]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (_INT32.pack(len(block)), block)
    return b"".join(parts)


def _unsnappy(payload: bytes | bytearray | memoryview) -> bytes:
    view = memoryview(payload)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return bytes(cramjam.snappy.decompress_raw(view))  # some clients (librdkafka of old) send one bare block
    parts = []
    position = len(_XERIAL_HEADER)
    while position < len(view):
        (size,) = _INT32.unpack_from(view, position)
        position += _INT32.size
        if size < 0 or position + size > len(view):
            raise CorruptRecordError(f"cannot decompress snappy records: a block of {size} bytes ends past the batch")
        parts.append(bytes(cramjam.snappy.decompress_raw(view[position : position + size])))
        position += size
    return b"".join(parts)


def _lz4(payload: bytes | bytearray | memoryview) -> bytes:
    # Kafka reads independent blocks only (KIP-57).
    stream = cramjam.lz4.Compressor(level=_LZ4_LEVEL, content_checksum=False, block_linked=False)
    stream.compress(bytes(payload))
    return bytes(stream.finish())


def _unlz4(payload: bytes | bytearray | memoryview) -> bytes:
    return bytes(cramjam.lz4.decompress(payload))


def _zstd(payload: bytes | bytearray | memoryview) -> bytes:
    return bytes(cramjam.zstd.compress(payload, level=_ZSTD_LEVEL))


def _unzstd(payload: bytes | bytearray | memoryview) -> bytes:
    return bytes(cramjam.zstd.decompress(payload))


_Codec = Callable[[bytes | bytearray | memoryview], bytes]
_COMPRESSORS: Final[dict[int, _Codec]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
_DECOMPRESSORS: Final[dict[int, _Codec]] = {1: _gunzip, 2: _unsnappy, 3: _unlz4, 4: _unzstd}
