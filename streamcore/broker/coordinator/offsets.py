"""The committed offsets of every group, as a plain map that is written to and reloaded from records.

No I/O: a commit comes out as records to append, a reload goes in as records read. The node appends them to
`__consumer_offsets` before it applies them here, so that what `committed` answers is never ahead of the log.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from streamcore.broker.coordinator.offset_expiry import Unused
from streamcore.broker.coordinator.offset_records import (
    STRING_MAX_BYTES,
    OffsetKey,
    OffsetValue,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
)
from streamcore.errors import InvalidRecordError, OffsetMetadataTooLargeError
from streamcore.log.config import INT64_MAX
from streamcore.types import COMPACTION_LIMIT, TP, InRecord, OutRecord

METADATA_MAX_BYTES = 4096  # Kafka's offset.metadata.max.bytes
OFFSETS_TOPIC = "__consumer_offsets"


class Offsets:
    """What every group has committed."""

    def __init__(self) -> None:
        self._by_group: dict[str, dict[TP, OffsetValue]] = {}
        # By producer id, what its open transaction will commit; None where something newer has overruled it.
        self._pending: dict[int, dict[OffsetKey, OffsetValue | None]] = {}
        self._unstable: Counter[OffsetKey] = Counter()  # in how many open transactions

    def __len__(self) -> int:
        return sum(map(len, self._by_group.values()))

    def groups(self) -> list[str]:
        return sorted(self._by_group)

    def committed(self, group: str, tps: Iterable[TP] | None = None) -> dict[TP, OffsetValue]:
        """The group's offsets in `tps`, or in every partition; those never committed are absent."""
        known = self._by_group.get(group, {})
        chosen = known if tps is None else [tp for tp in tps if tp in known]
        return {tp: known[tp] for tp in chosen}

    def commit_records(self, group: str, offsets: Mapping[TP, OffsetValue], now_ms: int) -> list[OutRecord]:
        """The records that make a commit; `apply_commit` follows once they are appended.

        Raises:
            OffsetMetadataTooLargeError: a metadata string of more than METADATA_MAX_BYTES.
            InvalidRecordError: a group's name that no record can hold, or a negative offset.
        """
        if len(group.encode()) > STRING_MAX_BYTES:
            raise InvalidRecordError(f"a group's name has at most {STRING_MAX_BYTES} bytes; this one has {len(group)}")
        records: list[OutRecord] = []
        for tp, committed in offsets.items():
            metadata_bytes = len(committed.metadata.encode())
            if metadata_bytes > METADATA_MAX_BYTES:
                raise OffsetMetadataTooLargeError(
                    f"the metadata that {group!r} commits with {tp} has {metadata_bytes} bytes; "
                    f"at most {METADATA_MAX_BYTES} are kept"
                )
            if committed.offset < 0:
                raise InvalidRecordError(f"{group!r} commits offset {committed.offset} of {tp}; offsets start at 0")
            records.append((encode_key(group, tp), encode_value(_stamped(committed, now_ms)), now_ms, ()))
        return records

    def apply_commit(self, group: str, offsets: Mapping[TP, OffsetValue], now_ms: int) -> None:
        known = self._by_group.setdefault(group, {})
        for tp, committed in offsets.items():
            known[tp] = _stamped(committed, now_ms)
            self._overrule_pending(OffsetKey(group, tp))

    def is_unstable(self, group: str, tp: TP) -> bool:
        """Whether an open transaction is about to commit another offset there."""
        return OffsetKey(group, tp) in self._unstable

    def apply_pending(self, producer_id: int, group: str, offsets: Mapping[TP, OffsetValue], now_ms: int) -> None:
        """Offsets that count once the producer's transaction commits."""
        for tp, committed in offsets.items():
            self._put_pending(producer_id, OffsetKey(group, tp), _stamped(committed, now_ms))

    def apply_marker(self, producer_id: int, *, is_commit: bool) -> None:
        """The producer's transaction has ended."""
        for key, committed in self._pending.pop(producer_id, {}).items():
            self._unstable[key] -= 1
            if not self._unstable[key]:
                del self._unstable[key]
            if is_commit and committed is not None:
                self._by_group.setdefault(key.group, {})[key.tp] = committed
                self._overrule_pending(key)

    def _put_pending(self, producer_id: int, key: OffsetKey, committed: OffsetValue) -> None:
        pending = self._pending.setdefault(producer_id, {})
        if key not in pending:
            self._unstable[key] += 1
        pending[key] = committed

    def _overrule_pending(self, key: OffsetKey) -> None:
        """What has come first on the log must not come back with a marker that comes last."""
        if key in self._unstable:
            for pending in self._pending.values():
                if key in pending:
                    pending[key] = None

    def compaction_limit(self, tp: TP) -> int:
        """The least offset that a group has committed in `tp` under COMPACTION_LIMIT; what is above has to stay."""
        limit = INT64_MAX
        for known in self._by_group.values():
            committed = known.get(tp)
            if committed is not None and committed.metadata == COMPACTION_LIMIT:
                limit = min(limit, committed.offset)
        return limit

    def keys_of_topic(self, topic: str) -> list[OffsetKey]:
        return [OffsetKey(group, tp) for group, known in self._by_group.items() for tp in known if tp.topic == topic]

    def keys_of_group(self, group: str) -> list[OffsetKey]:
        return [OffsetKey(group, tp) for tp in self._by_group.get(group, {})]

    def expired(self, oldest_ms: int, unused: Callable[[str], Unused | None]) -> list[OffsetKey]:
        """The offsets that have been without a user since `oldest_ms`."""
        keys = []
        for group, known in self._by_group.items():
            state = unused(group)
            if state is not None:
                for tp, committed in known.items():
                    if state.is_expired(tp.topic, committed.timestamp_ms, oldest_ms):
                        keys.append(OffsetKey(group, tp))
        return keys

    def apply_tombstones(self, keys: Iterable[OffsetKey]) -> None:
        for group, tp in keys:
            self._overrule_pending(OffsetKey(group, tp))
            known = self._by_group.get(group)
            if known is None:
                continue
            known.pop(tp, None)
            if not known:
                del self._by_group[group]

    def reload(self, records: Iterable[InRecord], producer_id: int | None = None) -> None:
        """Apply records in the order of the log.

        Args:
            producer_id: in whose transaction they were written; None where in none.
        Raises:
            CorruptRecordError: a record that is no offset commit.
        """
        for record in records:
            key = decode_key(record.key or b"")
            if key is None:
                continue
            if record.value is None:
                self.apply_tombstones([key])
            elif producer_id is not None:
                self._put_pending(producer_id, key, decode_value(record.value))
            else:
                self._by_group.setdefault(key.group, {})[key.tp] = decode_value(record.value)
                self._overrule_pending(key)


def tombstone_records(keys: Iterable[OffsetKey], now_ms: int) -> list[OutRecord]:
    """The records that forget offsets; `apply_tombstones` follows once they are appended."""
    return [(encode_key(group, tp), None, now_ms, ()) for group, tp in keys]


def _stamped(value: OffsetValue, now_ms: int) -> OffsetValue:
    return value if value.timestamp_ms >= 0 else value._replace(timestamp_ms=now_ms)
