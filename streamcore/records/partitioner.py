"""Which partition a record goes to: Kafka's murmur2 for keys, sticky for the rest."""

import random
import struct
from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_KEYS_CACHED: Final = 65_536  # keys repeat; 64 Ki of them are some 10 MB at worst
_STICKY_BYTES: Final = 16_384  # Kafka's default batch.size, after which KIP-794 moves on


def murmur2(key: bytes) -> int:
    """The hash of Kafka's Java client (`Utils.murmur2`), as a signed 32-bit integer."""
    length = len(key)
    hashed = (_SEED ^ length) & _MASK
    words = length >> 2
    for word in struct.unpack_from(f"<{words}I", key):
        word = word * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        hashed = hashed * _MULTIPLIER & _MASK ^ word
    if length & 3:
        hashed ^= int.from_bytes(key[words << 2 :], "little")
        hashed = hashed * _MULTIPLIER & _MASK
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _MASK
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed >> 31 else hashed


@lru_cache(maxsize=_KEYS_CACHED)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a keyed record: the same as every Java client, librdkafka (murmur2) and aiokafka choose."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class StickyPartitioner:
    """Partitions for records without a key: one at a time, changed every 16 kB (KIP-480, KIP-794).

    Whole batches go to one partition, so there are few and full ones; over time every partition gets its share.
    """

    def __init__(self, partitions: int, *, sticky_bytes: int = _STICKY_BYTES, seed: int | None = None) -> None:
        self._partitions = partitions
        self._sticky_bytes = sticky_bytes
        self._random = random.Random(seed)
        self._current = self._random.randrange(partitions)
        self._produced_bytes = 0

    def partition(self, size_bytes: int) -> int:
        """Where the next record of `size_bytes` goes."""
        if self._produced_bytes >= self._sticky_bytes:
            self._produced_bytes = 0
            if self._partitions > 1:
                # Any other than the current one, each with the same chance.
                self._current = (self._current + self._random.randrange(1, self._partitions)) % self._partitions
        self._produced_bytes += size_bytes
        return self._current
