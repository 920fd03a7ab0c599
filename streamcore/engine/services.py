"""What every part of a running worker shares, so that none of them needs the app."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from streamcore.clock import Clock
from streamcore.config import AppConfig, milliseconds
from streamcore.engine.metrics import EngineMetrics
from streamcore.errors import RecordTooLargeError
from streamcore.records.partitioner import partition_for
from streamcore.topics import Topic
from streamcore.transport.base import TopicInfo, Transport
from streamcore.types import Headers

logger = logging.getLogger("streamcore")

# Kafka's default of max.message.bytes, which a topic without the setting has.
MAX_MESSAGE_BYTES = 1_048_588
# A record's own lengths, a batch header and the deltas around a record's bytes; generous, so that what passes here
# is taken by the log too.
RECORD_OVERHEAD_BYTES = 128


@dataclass
class Services:
    """The worker's transport, clock, settings and counters."""

    config: AppConfig
    transport: Transport
    clock: Clock
    metrics: EngineMetrics
    topics: dict[str, TopicInfo] = field(default_factory=dict)  # as last seen on the log
    table_partitions: dict[str, int] = field(default_factory=dict)
    sent_keyless: Counter[str] = field(default_factory=Counter)

    @property
    def group(self) -> str:
        """The consumer group: the app's id, as Faust has it."""
        return self.config.id

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.config.id}-dead-letters"

    def changelog_topic(self, table: str) -> str:
        return f"{self.config.id}-{table}-changelog"

    @property
    def commit_interval_s(self) -> float:
        return milliseconds(self.config.commit_interval) / 1000

    @property
    def commit_linger_s(self) -> float:
        return milliseconds(self.config.commit_linger) / 1000

    @property
    def idle_after_ms(self) -> int:
        return milliseconds(self.config.idle_after)

    def partitions(self, topic: str) -> int:
        info = self.topics.get(topic)
        return info.partitions if info is not None else 1

    def partition_for(self, topic: str, key: bytes) -> int:
        return partition_for(key, self.partitions(topic))

    def max_message_bytes(self, topic: str) -> int:
        info = self.topics.get(topic)
        return int(info.config.get("max.message.bytes", MAX_MESSAGE_BYTES)) if info is not None else MAX_MESSAGE_BYTES

    def check_size(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Refuse at the sender what the log would refuse at the commit, when nobody knows any more whose it was.

        Raises:
            RecordTooLargeError
        """
        size = len(key or b"") + len(value or b"") + RECORD_OVERHEAD_BYTES
        if headers:
            size += sum(len(name) + len(data) + 10 for name, data in headers)
        limit = self.max_message_bytes(topic.name)
        if size > limit:
            raise RecordTooLargeError(
                f"a record of {size} bytes for topic {topic.name} is larger than its max.message.bytes of {limit}: "
                f"send less, or raise the topic's max.message.bytes"
            )
