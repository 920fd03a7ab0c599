"""A topic's settings, under Kafka's names and with Kafka's defaults."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from streamcore.errors import InvalidConfigError
from streamcore.records.compression import COMPRESSIONS

INT32_MAX: Final = (1 << 31) - 1
INT64_MAX: Final = (1 << 63) - 1
_SEGMENT_BYTES_LEAST: Final = 14  # Kafka's bound before KIP-1030; small ones are for tests
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """One topic's settings. A field is Kafka's name with `_` for `.`; None is Kafka's -1, no limit."""

    cleanup_policy: frozenset[str] = frozenset({"delete"})  # delete, compact, or both
    compression_type: str = "producer"  # "producer" keeps what came; others recompress
    delete_retention_ms: int = _DAY_MS  # how long a tombstone outlives its compaction
    file_delete_delay_ms: int = 60_000  # how long a removed topic's files stay, for whoever reads them still
    flush_messages: int = INT64_MAX  # sync after so many records; the default leaves it to the system
    flush_ms: int = INT64_MAX  # sync at the latest after this long
    index_interval_bytes: int = 4_096  # one index entry per so many bytes of log
    max_compaction_lag_ms: int = INT64_MAX
    max_message_bytes: int = 1_048_588  # the largest batch: 1 MiB and a header of the older format
    message_timestamp_after_max_ms: int = 3_600_000  # a record may be at most an hour in the future
    message_timestamp_before_max_ms: int = INT64_MAX
    message_timestamp_type: str = "CreateTime"  # or LogAppendTime
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    min_insync_replicas: int = 1
    retention_bytes: int | None = None
    retention_ms: int | None = 7 * _DAY_MS
    segment_bytes: int = 1 << 30  # roll above this size
    segment_index_bytes: int = 10 << 20  # roll when an index would grow above this size
    segment_ms: int = 7 * _DAY_MS  # roll when the first record is older than this

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy

    @property
    def is_deleted(self) -> bool:
        """Whether retention by time and bytes applies."""
        return "delete" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How old a segment's first record may become: what must be compacted by then has to be closed by then."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.is_compacted else self.segment_ms

    @classmethod
    def parse(cls, settings: Mapping[str, str], *, base: "LogConfig | None" = None) -> "LogConfig":
        """From Kafka's names and texts; what is not named keeps its default (or `base`'s value).

        Raises:
            InvalidConfigError: an unknown name (the message has the nearest known one), or a value out of bounds.
        """
        changes = {}
        for name, text in settings.items():
            setting = TOPIC_SETTINGS.get(name)
            if setting is None:
                raise unknown_setting("topic", name, TOPIC_SETTINGS)
            changes[name.replace(".", "_")] = setting(name, str(text))
        return replace(base or cls(), **changes)

    def format(self) -> dict[str, str]:
        """Every setting as Kafka's tools show it."""
        return {_kafka_name(field.name): format_value(getattr(self, field.name)) for field in fields(self)}


def unknown_setting(whose: str, name: str, known: Iterable[str]) -> InvalidConfigError:
    """An error that names the nearest setting there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return InvalidConfigError(f"there is no {whose} setting {name!r}; {hint}")


def _kafka_name(field_name: str) -> str:
    return field_name.replace("_", ".")


def format_value(value: object) -> str:
    """A setting's value as Kafka's tools show it."""
    if value is None:
        return "-1"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


_Parser = Callable[[str, str], Any]


def whole_number(least: int, most: int = INT64_MAX) -> Callable[[str, str], int]:
    """What parses (name, text) of a setting within these bounds, both included."""

    def parse(name: str, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise InvalidConfigError(f"{name} must be a whole number, not {text!r}") from None
        if not least <= value <= most:
            raise InvalidConfigError(f"{name} must be within {least}..{most}, not {value}")
        return value

    return parse


def _limit(most: int = INT64_MAX) -> _Parser:
    parse_integer = whole_number(-1, most)

    def parse(name: str, text: str) -> int | None:
        value = parse_integer(name, text)
        return None if value == -1 else value

    return parse


def _ratio(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InvalidConfigError(f"{name} must be a number, not {text!r}") from None
    if not 0.0 <= value <= 1.0:
        raise InvalidConfigError(f"{name} must be within 0..1, not {value}")
    return value


def choice(*choices: str) -> _Parser:
    def parse(name: str, text: str) -> str:
        if text not in choices:
            raise InvalidConfigError(f"{name} must be one of {', '.join(choices)}, not {text!r}")
        return text

    return parse


def _policy(name: str, text: str) -> frozenset[str]:
    policies = frozenset(part.strip() for part in text.split(","))
    if not policies <= {"delete", "compact"}:
        raise InvalidConfigError(f"{name} must be delete, compact or both with a comma, not {text!r}")
    return policies


TOPIC_SETTINGS: Final[dict[str, _Parser]] = {
    "cleanup.policy": _policy,
    "compression.type": choice("producer", "uncompressed", *COMPRESSIONS[1:]),
    "delete.retention.ms": whole_number(0),
    "file.delete.delay.ms": whole_number(0),
    "flush.messages": whole_number(1),
    "flush.ms": whole_number(0),
    "index.interval.bytes": whole_number(0, INT32_MAX),
    "max.compaction.lag.ms": whole_number(1),
    "max.message.bytes": whole_number(0, INT32_MAX),
    "message.timestamp.after.max.ms": whole_number(0),
    "message.timestamp.before.max.ms": whole_number(0),
    "message.timestamp.type": choice("CreateTime", "LogAppendTime"),
    "min.cleanable.dirty.ratio": _ratio,
    "min.compaction.lag.ms": whole_number(0),
    "min.insync.replicas": whole_number(1, INT32_MAX),
    "retention.bytes": _limit(),
    "retention.ms": _limit(),
    "segment.bytes": whole_number(_SEGMENT_BYTES_LEAST, INT32_MAX),
    "segment.index.bytes": whole_number(4, INT32_MAX),
    "segment.ms": whole_number(1),
}
