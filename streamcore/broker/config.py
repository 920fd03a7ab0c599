"""A broker's settings, under Kafka's names where Kafka has the setting, checked once.

Where a setting comes from, and which may change while the broker runs, is `settings`' business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from streamcore.broker.coordinator.consumer_groups.assignors import ASSIGNORS
from streamcore.broker.coordinator.group_config import MigrationPolicy
from streamcore.errors import InvalidConfigError
from streamcore.log.config import (
    INT32_MAX,
    INT64_MAX,
    TOPIC_SETTINGS,
    LogConfig,
    choice,
    format_value,
    unknown_setting,
    whole_number,
)
from streamcore.log.producer_state import PRODUCER_ID_EXPIRATION_MS
from streamcore.sasl import PLAIN
from streamcore.sasl.scram import SCRAM_MECHANISMS

MECHANISMS: Final = (PLAIN, *SCRAM_MECHANISMS)
PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
USERS_PREFIX: Final = "sasl.users."
SECRETS: Final = ("ssl.key.password",)  # told to nobody; nor are users

_DEFAULTS: Final = LogConfig()
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
# A topic's setting and what it is called where it is the default of all topics.
TOPIC_DEFAULTS: Final[Mapping[str, str]] = {
    "cleanup.policy": "log.cleanup.policy",
    "compression.type": "compression.type",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "flush.ms": "log.flush.interval.ms",
    "index.interval.bytes": "log.index.interval.bytes",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "max.message.bytes": "message.max.bytes",
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
    "message.timestamp.type": "log.message.timestamp.type",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "min.insync.replicas": "min.insync.replicas",
    "retention.bytes": "log.retention.bytes",
    "retention.ms": "log.retention.ms",
    "segment.bytes": "log.segment.bytes",
    "segment.index.bytes": "log.index.size.max.bytes",
    "segment.ms": "log.roll.ms",
}
# The same in coarser units, which count where the finer one is not set.
COARSER: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "log.retention.ms": (("log.retention.minutes", _MINUTE_MS), ("log.retention.hours", _HOUR_MS)),
    "log.roll.ms": (("log.roll.hours", _HOUR_MS),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """One node's settings. A field is Kafka's name with `_` for `.`."""

    node_id: int = 1
    num_partitions: int = 1  # of a topic whose creator does not say
    auto_create_topics_enable: bool = True  # where a client's Metadata request asks for it as well
    default_replication_factor: int = 1
    fetch_max_bytes: int = 55 << 20  # of one answer, whatever the client allows
    max_incremental_fetch_session_cache_slots: int = 1000  # consumers beyond it get full answers
    socket_request_max_bytes: int = 100 << 20  # a larger frame ends its connection before it is read
    delete_topic_enable: bool = True
    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 0  # Kafka waits 3 s for more members; here a rebalance costs nothing
    group_max_size: int = 10_000  # Kafka has no limit; a leader is sent every member, so there has to be one
    # Of groups whose partitions the broker assigns (KIP-848)
    group_consumer_session_timeout_ms: int = 45_000
    group_consumer_min_session_timeout_ms: int = 45_000
    group_consumer_max_session_timeout_ms: int = 60_000
    group_consumer_heartbeat_interval_ms: int = 5_000
    group_consumer_min_heartbeat_interval_ms: int = 5_000
    group_consumer_max_heartbeat_interval_ms: int = 15_000
    group_consumer_max_size: int = (
        10_000  # Kafka has no limit; a description lists every member, so there has to be one
    )
    group_consumer_assignors: tuple[str, ...] = tuple(ASSIGNORS)  # the first is the default
    group_consumer_migration_policy: str = MigrationPolicy.BIDIRECTIONAL.value
    offsets_retention_minutes: int = 10_080  # how long offsets outlive their last user
    offsets_retention_check_interval_ms: int = 600_000
    transaction_max_timeout_ms: int = 900_000
    transactional_id_expiration_ms: int = 604_800_000  # how long a transactional id that is not used is remembered
    transaction_remove_expired_transaction_cleanup_interval_ms: int = 3_600_000
    producer_id_expiration_ms: int = PRODUCER_ID_EXPIRATION_MS  # how long a silent producer is remembered
    # The log of this node
    log_cleaner_enable: bool = True
    log_cleaner_backoff_ms: int = 15_000  # how often to look for what is to be compacted
    log_cleaner_dedupe_buffer_size: int = 128 << 20  # four million keys in one pass
    log_retention_check_interval_ms: int = 60_000  # Kafka looks every five minutes
    # What counts for a topic that does not say
    compression_type: str = _DEFAULTS.compression_type
    log_cleaner_delete_retention_ms: int = _DEFAULTS.delete_retention_ms
    log_cleaner_max_compaction_lag_ms: int = _DEFAULTS.max_compaction_lag_ms
    log_cleaner_min_cleanable_ratio: float = _DEFAULTS.min_cleanable_dirty_ratio
    log_cleaner_min_compaction_lag_ms: int = _DEFAULTS.min_compaction_lag_ms
    log_cleanup_policy: frozenset[str] = _DEFAULTS.cleanup_policy
    log_flush_interval_messages: int = _DEFAULTS.flush_messages
    log_flush_interval_ms: int = _DEFAULTS.flush_ms
    log_index_interval_bytes: int = _DEFAULTS.index_interval_bytes
    log_index_size_max_bytes: int = _DEFAULTS.segment_index_bytes
    log_message_timestamp_after_max_ms: int = _DEFAULTS.message_timestamp_after_max_ms
    log_message_timestamp_before_max_ms: int = _DEFAULTS.message_timestamp_before_max_ms
    log_message_timestamp_type: str = _DEFAULTS.message_timestamp_type
    log_retention_bytes: int | None = _DEFAULTS.retention_bytes
    log_retention_hours: int = 168
    log_retention_minutes: int | None = None  # None: the hours count
    log_retention_ms: int | None = None  # None: the minutes count; -1 keeps records for ever
    log_roll_hours: int = 168
    log_roll_ms: int | None = None  # None: the hours count
    log_segment_bytes: int = _DEFAULTS.segment_bytes
    log_segment_delete_delay_ms: int = _DEFAULTS.file_delete_delay_ms
    message_max_bytes: int = _DEFAULTS.max_message_bytes
    min_insync_replicas: int = _DEFAULTS.min_insync_replicas
    connections_max_idle_ms: int = 600_000
    max_connections: int = INT32_MAX
    max_connections_per_ip: int = INT32_MAX
    # Of the one listener. Kafka has it in `listeners`, in front of the address.
    security_protocol: str = "PLAINTEXT"
    ssl_keystore_type: str = "PEM"
    ssl_keystore_location: str = ""  # one file: the private key, the certificate, those between it and its CA
    ssl_key_password: str = field(default="", repr=False)
    ssl_truststore_type: str = "PEM"
    ssl_truststore_location: str = ""  # CAs of the clients' certificates
    ssl_client_auth: str = "none"  # none, requested or required
    sasl_enabled_mechanisms: tuple[str, ...] = tuple(SCRAM_MECHANISMS)
    # Name -> password, for every enabled mechanism: the first user has to come from somewhere. Kafka has these in a
    # `sasl.jaas.config`, and only for PLAIN.
    sasl_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    connections_max_reauth_ms: int = 0  # log in again so often; 0 is never (KIP-368)
    connection_failed_authentication_delay_ms: int = 100  # what a guess costs at least

    @property
    def has_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @classmethod
    def parse(cls, settings: Mapping[str, object], *, base: "BrokerConfig | None" = None) -> "BrokerConfig":
        """From Kafka's names; what is not named keeps its default (or `base`'s value).

        Raises:
            InvalidConfigError: an unknown name (the message has the nearest known one), or a value out of bounds.
        """
        changes: dict[str, Any] = {}
        users: dict[str, str] = {}
        for name, value in settings.items():
            if name.startswith(USERS_PREFIX):
                users[name.removeprefix(USERS_PREFIX)] = _password(name, value)
                continue
            parse = _SETTINGS.get(name)
            if parse is None:
                raise unknown_setting("broker", name, _SETTINGS)
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            changes[name.replace(".", "_")] = parse(name, text)
        base = base or cls()
        config = replace(base, **changes, sasl_users={**base.sasl_users, **users})
        for what in ("session_timeout_ms", "heartbeat_interval_ms"):
            value, least, most = (getattr(config, f"group_consumer_{bound}{what}") for bound in ("", "min_", "max_"))
            if not least <= value <= most:
                setting = f"group.consumer.{what.replace('_', '.')}"
                raise InvalidConfigError(f"{setting}={value} is outside of its own bounds, {least} to {most}")
        if config.group_consumer_heartbeat_interval_ms >= config.group_consumer_session_timeout_ms:
            raise InvalidConfigError(
                "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms: "
                f"{config.group_consumer_heartbeat_interval_ms} is not less than "
                f"{config.group_consumer_session_timeout_ms}"
            )
        if config.has_tls and not config.ssl_keystore_location:
            raise InvalidConfigError(
                f"security.protocol={config.security_protocol} needs ssl.keystore.location: a PEM file with the "
                "private key and the certificates"
            )
        if config.has_sasl and not config.sasl_enabled_mechanisms:
            raise InvalidConfigError(
                f"security.protocol={config.security_protocol} needs sasl.enabled.mechanisms: some of "
                f"{', '.join(MECHANISMS)}"
            )
        return config

    def format(self) -> dict[str, str | None]:
        """Every setting but users as Kafka's tools show it; None for a secret, and for one left to a coarser one."""
        return {name: self.format_one(name) for name in _SETTINGS}

    def format_one(self, name: str) -> str | None:
        value = getattr(self, name.replace(".", "_"))
        if name in SECRETS:
            return None
        return None if value is None and name in _MAY_BE_UNSET else format_value(value)

    def topic_defaults(self) -> LogConfig:
        """What counts for a topic that does not say."""
        settings = {name: self.format_one(default) for name, default in TOPIC_DEFAULTS.items()}
        for name, default in TOPIC_DEFAULTS.items():
            for coarser, unit_ms in COARSER.get(default, ()):
                value = getattr(self, coarser.replace(".", "_"))
                if settings[name] is None and value is not None:
                    settings[name] = str(value * unit_ms) if value >= 0 else "-1"
        return LogConfig.parse({name: text for name, text in settings.items() if text is not None})


_MAY_BE_UNSET: Final = frozenset({"log.retention.ms", "log.retention.minutes", "log.roll.ms"})


def _password(name: str, value: object) -> str:
    # Told apart from a nested table or a number, which would be a password that nobody has chosen.
    if not isinstance(value, str) or not value or not name.removeprefix(USERS_PREFIX):
        raise InvalidConfigError(f'{name} must be a password, as in {USERS_PREFIX}alice = "secret"')
    return value


def _text(name: str, text: str) -> str:
    return text


def _mechanisms(name: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part not in MECHANISMS:
            raise InvalidConfigError(f"{name} must be a list of {', '.join(MECHANISMS)}; {part!r} is none of them")
    return found


def _assignors(name: str, text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found or not set(found) <= set(ASSIGNORS):
        raise InvalidConfigError(f"{name} must be a list of {', '.join(ASSIGNORS)}, not {text!r}")
    return found


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
    "max.incremental.fetch.session.cache.slots": whole_number(0, INT32_MAX),
    "socket.request.max.bytes": whole_number(1024, INT32_MAX),
    "delete.topic.enable": _boolean,
    "group.min.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.max.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.initial.rebalance.delay.ms": whole_number(0, INT32_MAX),
    "group.max.size": whole_number(1, INT32_MAX),
    "group.consumer.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.consumer.min.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.consumer.max.session.timeout.ms": whole_number(1, INT32_MAX),
    "group.consumer.heartbeat.interval.ms": whole_number(1, INT32_MAX),
    "group.consumer.min.heartbeat.interval.ms": whole_number(1, INT32_MAX),
    "group.consumer.max.heartbeat.interval.ms": whole_number(1, INT32_MAX),
    "group.consumer.max.size": whole_number(1, INT32_MAX),
    "group.consumer.assignors": _assignors,
    "group.consumer.migration.policy": choice(*MigrationPolicy),
    "offsets.retention.minutes": whole_number(1, INT32_MAX),
    "offsets.retention.check.interval.ms": whole_number(1),
    "transaction.max.timeout.ms": whole_number(1, INT32_MAX),
    "transactional.id.expiration.ms": whole_number(1, INT32_MAX),
    "transaction.remove.expired.transaction.cleanup.interval.ms": whole_number(1, INT32_MAX),
    "producer.id.expiration.ms": whole_number(1, INT32_MAX),
    "log.cleaner.enable": _boolean,
    "log.cleaner.backoff.ms": whole_number(0),
    "log.cleaner.dedupe.buffer.size": whole_number(1 << 20),
    "log.retention.check.interval.ms": whole_number(1),
    "log.retention.hours": whole_number(-1, INT32_MAX),
    "log.retention.minutes": whole_number(-1, INT32_MAX),
    "log.roll.hours": whole_number(1, INT32_MAX),
    **{default: TOPIC_SETTINGS[name] for name, default in TOPIC_DEFAULTS.items()},
    "log.retention.ms": whole_number(-1),  # -1 is a value here, and not the same as none
    "connections.max.idle.ms": whole_number(1, INT64_MAX),
    "max.connections": whole_number(0, INT32_MAX),
    "max.connections.per.ip": whole_number(0, INT32_MAX),
    "security.protocol": choice(*PROTOCOLS),
    "ssl.keystore.type": choice("PEM"),
    "ssl.keystore.location": _text,
    "ssl.key.password": _text,
    "ssl.truststore.type": choice("PEM"),
    "ssl.truststore.location": _text,
    "ssl.client.auth": choice("none", "requested", "required"),
    "sasl.enabled.mechanisms": _mechanisms,
    "connections.max.reauth.ms": whole_number(0, INT64_MAX),
    "connection.failed.authentication.delay.ms": whole_number(0, INT32_MAX),
}
BROKER_SETTINGS: Final = frozenset(_SETTINGS)
