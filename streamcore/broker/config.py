"""A broker's settings, under Kafka's names where Kafka has the setting, checked once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from streamcore.errors import InvalidConfigError
from streamcore.log.config import INT32_MAX, unknown_setting, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """One node's settings. A field is Kafka's name with `_` for `.`."""

    node_id: int = 1
    num_partitions: int = 1  # of a topic whose creator does not say
    auto_create_topics_enable: bool = True  # where a client's Metadata request asks for it as well
    default_replication_factor: int = 1
    fetch_max_bytes: int = 55 << 20  # of one answer, whatever the client allows
    socket_request_max_bytes: int = 100 << 20  # a larger frame ends its connection before it is read
    delete_topic_enable: bool = True
    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 0  # Kafka waits 3 s for more members; here a rebalance costs nothing
    group_max_size: int = 10_000  # Kafka has no limit; a leader is sent every member, so there has to be one
    offsets_retention_minutes: int = 10_080  # how long offsets outlive their last user
    offsets_retention_check_interval_ms: int = 600_000
    transaction_max_timeout_ms: int = 900_000

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> "BrokerConfig":
        """From Kafka's names; what is not named keeps its default.

        Raises:
            InvalidConfigError: an unknown name (the message has the nearest known one), or a value out of bounds.
        """
        changes: dict[str, Any] = {}
        for name, value in settings.items():
            parse = _SETTINGS.get(name)
            if parse is None:
                raise unknown_setting("broker", name, _SETTINGS)
            changes[name.replace(".", "_")] = parse(name, str(value))
        return replace(cls(), **changes)

    def format(self) -> dict[str, str]:
        """Every setting as Kafka's tools show it."""
        return {field.name.replace("_", "."): _format(getattr(self, field.name)) for field in fields(self)}


def _format(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidConfigError(f"{name} must be true or false, not {text!r}")
    return text.lower() == "true"


_SETTINGS: Final[dict[str, Callable[[str, str], Any]]] = {
    "node.id": whole_number(0, INT32_MAX),
    "num.partitions": whole_number(1, INT32_MAX),
    "auto.create.topics.enable": _boolean,
    "default.replication.factor": whole_number(1, 1),
    "fetch.max.bytes": whole_number(1024, INT32_MAX),
    "socket.request.max.bytes": whole_number(1024, INT32_MAX),
    "delete.topic.enable": _boolean,
    "group.min.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.max.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.initial.rebalance.delay.ms": whole_number(0, INT32_MAX),
    "group.max.size": whole_number(1, INT32_MAX),
    "offsets.retention.minutes": whole_number(1, INT32_MAX),
    "offsets.retention.check.interval.ms": whole_number(1),
    "transaction.max.timeout.ms": whole_number(1, INT32_MAX),
}
