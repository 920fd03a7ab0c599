"""The newest offset of each key, for one pass of the cleaner, in memory that is decided beforehand."""

from array import array
from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 16  # keys are told apart by it alone; shorter ones would meet by chance among millions
SLOT_BYTES: Final = _DIGEST_BYTES + 8
_LOAD_MAX: Final = 0.75  # above it, a key that is not there takes too many looks to be sure of
_FREE: Final = -1


class OffsetMap:
    """A hash table of (digest, offset) in two flat buffers, as Kafka's SkimpyOffsetMap: 24 bytes a slot.

    A dict of the same keys takes eight times as much. 128 MB hold four million keys.
    """

    def __init__(self, keys_max: int) -> None:
        """Room for `keys_max` keys, which is taken at once."""
        self._slots = int(max(1, keys_max) / _LOAD_MAX) + 1
        self._keys_max = max(1, keys_max)
        self._digests = bytearray(self._slots * _DIGEST_BYTES)
        self._offsets = array("q", [_FREE]) * self._slots
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def free(self) -> int:
        """How many more keys there is certainly room for."""
        return self._keys_max - self._count

    def put(self, key: bytes, offset: int) -> None:
        """`offset` is the newest of `key` so far; the caller has seen to `free`."""
        digest, slot = self._find(key)
        if self._offsets[slot] == _FREE:
            self._count += 1
            self._digests[slot * _DIGEST_BYTES : (slot + 1) * _DIGEST_BYTES] = digest
        self._offsets[slot] = offset

    def get(self, key: bytes) -> int:
        """The newest offset of `key`, or -1."""
        return self._offsets[self._find(key)[1]]

    def _find(self, key: bytes) -> tuple[bytes, int]:
        """The slot that has the key, or the free one that it would get."""
        digest = blake2b(key, digest_size=_DIGEST_BYTES).digest()
        slots, offsets, digests = self._slots, self._offsets, self._digests
        slot = int.from_bytes(digest[:8], "little") % slots
        while offsets[slot] != _FREE:
            at = slot * _DIGEST_BYTES
            if digests[at : at + _DIGEST_BYTES] == digest:
                break
            slot += 1
            if slot == slots:
                slot = 0
        return digest, slot


def keys_within(buffer_bytes: int) -> int:
    """How many keys a map of this size holds."""
    return int(buffer_bytes // SLOT_BYTES * _LOAD_MAX)
