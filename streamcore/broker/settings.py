"""Where a broker's settings come from (KIP-226): of one node, of all nodes, what it was started with, the defaults.

The first two change while the broker runs, are effective at once, and are kept in the metadata store.
"""

import logging
from collections.abc import Mapping
from itertools import dropwhile
from typing import ClassVar, Final, NamedTuple

from streamcore.broker.config import BROKER_SETTINGS, COARSER, TOPIC_DEFAULTS, BrokerConfig
from streamcore.broker.metadata_store import MetadataStore
from streamcore.errors import InvalidConfigError, StreamcoreError
from streamcore.log.config import unknown_setting

logger = logging.getLogger(__name__)

# ConfigSource of DescribeConfigs
SOURCE_TOPIC, SOURCE_BROKER, SOURCE_ALL_BROKERS, SOURCE_STATIC, SOURCE_DEFAULT = 1, 2, 3, 4, 5
ALL_BROKERS: Final = ""  # the resource name of the settings of all nodes

_KEY: Final = "broker-settings"
# What Kafka lets change while it runs: the defaults of topics in their finest unit, and what is said of the cleaner and
# of producers. The last ones are the same on all nodes.
_OF_ALL_BROKERS_ONLY: Final = frozenset(
    {"log.cleaner.backoff.ms", "log.cleaner.dedupe.buffer.size", "producer.id.expiration.ms"}
)
DYNAMIC: Final = frozenset(TOPIC_DEFAULTS.values()) | _OF_ALL_BROKERS_ONLY


class Origin(NamedTuple):
    """One place that says something of a setting."""

    name: str
    value: str | None
    source: int


class BrokerSettings:
    """The layers of one node's settings; `config` is what they come to."""

    def __init__(self, static: BrokerConfig, store: MetadataStore) -> None:
        self._static = static
        self._store = store
        self._node_name = str(static.node_id)
        self._dynamic = self._read()
        self.config = self._combined(self._dynamic)

    def _read(self) -> dict[str, dict[str, str]]:
        stored, _ = self._store.get(_KEY)
        dynamic: dict[str, dict[str, str]] = {ALL_BROKERS: {}, self._node_name: {}}
        if isinstance(stored, Mapping):
            for resource, settings in stored.items():
                dynamic[resource] = {}
                for name, text in settings.items():
                    try:
                        BrokerConfig.parse({name: text})
                        dynamic[resource][name] = text
                    except InvalidConfigError as error:
                        logger.error("a stored setting is passed over: %s", error)
        return dynamic

    def _combined(self, dynamic: Mapping[str, Mapping[str, str]]) -> BrokerConfig:
        return BrokerConfig.parse({**dynamic[ALL_BROKERS], **dynamic[self._node_name]}, base=self._static)

    def of(self, resource: str) -> Mapping[str, str]:
        """What has been set while running, of one node or of all.

        Raises:
            UnknownNodeError: it is another node.
        """
        if resource not in (ALL_BROKERS, self._node_name):
            raise UnknownNodeError(f"this is node {self._node_name}; it cannot speak for {resource!r}")
        return self._dynamic[resource]

    def change(self, resource: str, changes: Mapping[str, str | None], *, validate_only: bool) -> None:
        """Set settings, or with None take them back; durable on return. `config` is another one then.

        Raises:
            UnknownNodeError, ReadOnlySettingError
            InvalidConfigError: an unknown name, or a value out of bounds; nothing was changed.
            OSError: the store cannot be written; nothing was changed.
        """
        present = self.of(resource)
        for name in changes:
            if name not in BROKER_SETTINGS:
                raise unknown_setting("broker", name, BROKER_SETTINGS)
        if fixed := sorted(set(changes) - DYNAMIC):
            raise ReadOnlySettingError(
                f"{', '.join(fixed)} cannot be changed while the broker runs: start it with another value"
            )
        if resource != ALL_BROKERS and (common := sorted(set(changes) & _OF_ALL_BROKERS_ONLY)):
            raise ReadOnlySettingError(f"{', '.join(common)} cannot differ by node: set it for all, under the name ''")
        changed = {name: text for name, text in {**present, **changes}.items() if text is not None}
        dynamic = {**self._dynamic, resource: changed}
        config = self._combined(dynamic)
        config.topic_defaults()
        if validate_only:
            return
        _, revision = self._store.get(_KEY)
        self._store.put(_KEY, {name: settings for name, settings in dynamic.items() if settings}, revision)
        self._dynamic, self.config = dynamic, config

    def origins(self, name: str) -> list[Origin]:
        """Every place that says something of a setting, the one that counts first."""
        static = {
            other: text
            for other, text in self._static.format().items()
            if text != _DEFAULTS.format_one(other) or other == "node.id"
        }
        layers: list[tuple[Mapping[str, str | None], int]] = [
            (self._dynamic[self._node_name], SOURCE_BROKER),
            (self._dynamic[ALL_BROKERS], SOURCE_ALL_BROKERS),
            (static, SOURCE_STATIC),
            (_DEFAULTS.format(), SOURCE_DEFAULT),
        ]
        names = next((names for names in _UNITS if name in names), (name,))
        found = [
            Origin(other, values[other], source)
            for values, source in layers
            for other in names
            if values.get(other) is not None
        ]
        # As Kafka lists them: what counts before the setting itself is said is not shown.
        return list(dropwhile(lambda origin: origin.name != name, found))


class ReadOnlySettingError(StreamcoreError):
    """A setting that does not change while the broker runs."""

    code: ClassVar[int] = 42  # Kafka's INVALID_REQUEST


class UnknownNodeError(StreamcoreError):
    """Another node's settings."""

    code: ClassVar[int] = 42


_DEFAULTS: Final = BrokerConfig()
_UNITS: Final = [(name, *(coarser for coarser, _ in others)) for name, others in COARSER.items()]
