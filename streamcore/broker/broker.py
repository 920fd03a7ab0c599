"""One node of the cluster: its log, its coordinator, what it tells clients about itself. No socket."""

import asyncio
import logging
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from uuid import UUID

from streamcore.broker.config import BrokerConfig
from streamcore.broker.coordinator.consumer_groups.topics import Topic, Topics
from streamcore.broker.coordinator.coordinator import GroupCoordinator
from streamcore.broker.coordinator.group_config import GroupConfig, MigrationPolicy
from streamcore.broker.coordinator.transaction_log import TransactionLog
from streamcore.broker.coordinator.transactions import TransactionCoordinator
from streamcore.broker.counters import DoorCounters
from streamcore.broker.fetch_sessions import FetchSessions
from streamcore.broker.metadata_store import MetadataStore
from streamcore.broker.node import Node
from streamcore.broker.settings import BrokerSettings
from streamcore.broker.users import Users
from streamcore.clock import Clock
from streamcore.errors import CorruptRecordError, StreamcoreError
from streamcore.log.topics import TopicMeta

if TYPE_CHECKING:
    from streamcore.broker.connection import Connection

logger = logging.getLogger(__name__)

_CLUSTER_ID = "cluster-id"
_NEXT_PRODUCER_ID = "next-producer-id"
# Ids are handed out from blocks, so that a new producer does not cost a durable write.
PRODUCER_ID_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where clients reach a node."""

    host: str
    port: int


def package_version() -> str:
    """Of this program."""
    try:
        return version("streamcore")
    except PackageNotFoundError:  # a copy of the sources
        return "unknown"


class Broker:
    """What handlers work on."""

    def __init__(self, node: Node, store: MetadataStore, config: BrokerConfig, clock: Clock) -> None:
        self.node = node
        self.store = store
        self.settings = BrokerSettings(config, store)
        self.clock = clock
        self.users = Users(config.sasl_users, store)
        self.endpoint = Endpoint("127.0.0.1", 0)  # set when the listener is bound
        self.counters = DoorCounters()
        self.connections: set[Connection] = set()  # of the server in front of it
        self._topics = Topics(-1, {})  # as the groups have last seen them
        self.coordinator = GroupCoordinator(
            clock,
            GroupConfig(
                group_initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
                group_min_session_timeout_ms=config.group_min_session_timeout_ms,
                group_max_session_timeout_ms=config.group_max_session_timeout_ms,
                group_max_size=config.group_max_size,
                consumer_session_timeout_ms=config.group_consumer_session_timeout_ms,
                consumer_heartbeat_interval_ms=config.group_consumer_heartbeat_interval_ms,
                consumer_max_size=config.group_consumer_max_size,
                consumer_assignors=config.group_consumer_assignors,
                consumer_migration_policy=MigrationPolicy(config.group_consumer_migration_policy),
            ),
            persist=node.append_group_metadata,
            topics=self._group_topics,
            offset_groups=node.groups,
        )
        self.transactions = TransactionCoordinator(
            TransactionLog(node, clock),
            clock,
            self.new_producer_id,
            expiration_ms=lambda: self.config.transactional_id_expiration_ms,
        )
        self.fetch_sessions = FetchSessions(
            config.max_incremental_fetch_session_cache_slots, clock, on_forgotten=node.unwatch
        )
        self.cluster_id = self._read_cluster_id()
        self._names_by_id: dict[UUID, str] = {}
        self._producer_ids = range(0)
        self._expiries: list[asyncio.Task[None]] = []

    @property
    def config(self) -> BrokerConfig:
        """What the settings come to at the moment."""
        return self.settings.config

    def change_settings(self, resource: str, changes: Mapping[str, str | None], *, validate_only: bool) -> None:
        """As `BrokerSettings.change`; in force on return."""
        self.settings.change(resource, changes, validate_only=validate_only)
        if not validate_only:
            self._apply_settings()

    def _apply_settings(self) -> None:
        config = self.config
        node_config = replace(
            self.node.config,
            cleaner=config.log_cleaner_enable,
            cleaner_interval_ms=config.log_cleaner_backoff_ms,
            cleaner_buffer_bytes=config.log_cleaner_dedupe_buffer_size,
            housekeeping_interval_ms=config.log_retention_check_interval_ms,
        )
        defaults = config.topic_defaults()
        self.node.configure(node_config, defaults, producer_expiration_ms=config.producer_id_expiration_ms)

    async def start(self) -> None:
        """The node is open; bring back the groups that it knew.

        Raises:
            LogOfflineError: they cannot be read.
        """
        self._apply_settings()
        for records in self.node.group_metadata():
            try:
                self.coordinator.reload(records)
            except CorruptRecordError as error:
                logger.error("a group's metadata is passed over, its members join again: %s", error)
        await self.transactions.start()
        await self.coordinator.start()
        self._expiries = [
            asyncio.create_task(self._expire_offsets(), name="streamcore-offsets-expiry"),
            asyncio.create_task(self._expire_transactional_ids(), name="streamcore-transactional-ids-expiry"),
        ]

    async def stop(self) -> None:
        """Let go of whoever waits, and store what is decided."""
        expiries, self._expiries = self._expiries, []
        for expiry in expiries:
            expiry.cancel()
        await asyncio.gather(*expiries, return_exceptions=True)
        await self.coordinator.stop()
        await self.transactions.stop()

    async def _expire_offsets(self) -> None:
        while True:
            await asyncio.sleep(self.config.offsets_retention_check_interval_ms / 1000)
            try:
                await self.node.expire_offsets(self.config.offsets_retention_minutes * 60_000, self.coordinator.unused)
            except StreamcoreError as error:
                logger.error("expired offsets were not removed, which is tried again: %s", error)

    async def _expire_transactional_ids(self) -> None:
        while True:
            await asyncio.sleep(self.config.transaction_remove_expired_transaction_cleanup_interval_ms / 1000)
            try:
                await self.transactions.expire()
            except StreamcoreError as error:
                logger.error("expired transactional ids were not removed, which is tried again: %s", error)

    def _read_cluster_id(self) -> str:
        known, revision = self.store.get(_CLUSTER_ID)
        if isinstance(known, str):
            return known
        made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.store.put(_CLUSTER_ID, made, revision)
        return made

    def _group_topics(self) -> Topics:
        if self._topics.revision != self.node.topics_revision:
            found = {name: Topic(meta.topic_id, meta.partitions) for name, meta in self.node.topics.items()}
            self._topics = Topics(self.node.topics_revision, found)
        return self._topics

    def topic_by_id(self, topic_id: UUID) -> TopicMeta | None:
        """The topic that has this id now; an older one of the same name is none (LOG_INVARIANTS 41)."""
        topics = self.node.topics
        name = self._names_by_id.get(topic_id)
        meta = topics.get(name) if name is not None else None
        if meta is None or meta.topic_id != topic_id:
            self._names_by_id = {meta.topic_id: meta.name for meta in topics.values()}
            name = self._names_by_id.get(topic_id)
            meta = topics.get(name) if name is not None else None
        return meta

    def new_producer_id(self) -> int:
        """An id that no producer has had.

        Raises:
            OSError: the metadata store cannot be written.
        """
        if not self._producer_ids:
            first, revision = self.store.get(_NEXT_PRODUCER_ID)
            if not isinstance(first, int):
                # By the clock, so that a store that was lost does not make the ids of the one before again.
                first = self.clock.now_ms()
            self.store.put(_NEXT_PRODUCER_ID, first + PRODUCER_ID_BLOCK, revision)
            self._producer_ids = range(first, first + PRODUCER_ID_BLOCK)
        made, self._producer_ids = self._producer_ids[0], self._producer_ids[1:]
        return made
