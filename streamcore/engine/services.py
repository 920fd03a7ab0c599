"""What every part of a running worker shares, so that none of them needs the app."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamcore.clock import Clock
from streamcore.config import AppConfig, milliseconds
from streamcore.engine.dead_letters import dead_letter
from streamcore.engine.metrics import EngineMetrics
from streamcore.errors import InvalidTimestampError, RecordTooLargeError, UsageError
from streamcore.records.partitioner import partition_for
from streamcore.topics import Topic
from streamcore.transport.base import Committed, Generation, TopicInfo, Transport
from streamcore.types import TP, Headers, OutRecord

logger = logging.getLogger("streamcore")

# Kafka's default of max.message.bytes, which a topic without the setting has.
MAX_MESSAGE_BYTES = 1_048_588
TIMESTAMP_AFTER_MAX_MS = 3_600_000  # Kafka's default of message.timestamp.after.max.ms
# A record's own lengths, a batch header and the deltas around a record's bytes; generous, so that what passes here
# is taken by the log too.
RECORD_OVERHEAD_BYTES = 128


@dataclass(frozen=True, slots=True)
class Target:
    """A topic as the loop over outputs needs it."""

    info: TopicInfo | None
    places: list[TP]  # by partition
    safe_bytes: int  # a key and a value of so many bytes together need no closer look


@dataclass
class Services:
    """The worker's transport, clock, settings and counters."""

    config: AppConfig
    transport: Transport
    clock: Clock
    metrics: EngineMetrics
    topics: dict[str, TopicInfo] = field(default_factory=dict)  # as last seen on the log
    table_partitions: dict[str, int] = field(default_factory=dict)
    task_count: int = 0  # stream tasks of the app, whoever runs them: as many as its largest input has partitions
    generation_of: Callable[[], Generation | None] = lambda: None  # as whom the worker commits
    on_refused_commit: Callable[[], None] = lambda: None  # the group has moved on from that generation
    sent_keyless: Counter[str] = field(default_factory=Counter)
    _targets: dict[str, Target] = field(default_factory=dict)

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

    async def commit(self, offsets: Mapping[TP, Committed]) -> None:
        """Commit offsets of the app's group.

        Raises:
            StreamcoreError: the log did not take them.
            GroupMembershipError: the group has other ideas about who this worker is.
        """
        await self.transport.commit(self.group, offsets, self.generation_of())

    def partition_for(self, topic: str, key: bytes) -> int:
        return partition_for(key, self.partitions(topic))

    def check_known(self, topic: Topic) -> None:
        """Refuse a topic that is not on the log, before its records wait for it for ever.

        Raises:
            UsageError
        """
        if topic.name not in self.topics:
            raise UsageError(f"topic {topic.name} is not on the log: declare it with app.topic({topic.name!r})")

    def check_time(self, topic: Topic, time_ms: int) -> None:
        """Refuse at the sender a time that the log would refuse at the commit.

        Raises:
            InvalidTimestampError
        """
        info, now_ms = self.topics.get(topic.name), self.clock.now_ms()
        config = info.config if info is not None else {}
        allowed_ms = int(config.get("message.timestamp.after.max.ms", TIMESTAMP_AFTER_MAX_MS))
        if time_ms - now_ms > allowed_ms and config.get("message.timestamp.type") != "LogAppendTime":
            raise InvalidTimestampError(
                f"a record for topic {topic.name} is {(time_ms - now_ms) / 1000:.0f} s in the future, more than its "
                f"message.timestamp.after.max.ms of {allowed_ms}: is the clock of its source wrong?"
            )

    def dead_letter(
        self,
        agent: str,
        origin: TP,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers,
        error: BaseException,
        attempts: int,
        *,
        detail: str = "",
    ) -> OutRecord:
        """A dead letter that its topic takes, whatever is wrong with the record."""
        letter = dead_letter(agent, origin, offset, key, value, timestamp_ms, headers, error, attempts, detail=detail)
        # Not after now: a time in the future may be what is wrong with it.
        time_ms = min(timestamp_ms, self.clock.now_ms())
        limit = self.max_message_bytes(self.dead_letter_topic)
        if _size(letter[0], letter[1], letter[3]) > limit:
            # It is too large for a copy. Its place says where to find it, for as long as its topic keeps it.
            kept = [header for header in letter[3] if header[0].startswith("streamcore.")]
            kept.append(("streamcore.left-out", f"key, value and headers: {_size(key, value, headers)} bytes".encode()))
            return None, None, time_ms, kept
        return letter[0], letter[1], time_ms, letter[3]

    def max_message_bytes(self, topic: str) -> int:
        info = self.topics.get(topic)
        return int(info.config.get("max.message.bytes", MAX_MESSAGE_BYTES)) if info is not None else MAX_MESSAGE_BYTES

    def target(self, topic: Topic) -> Target:
        """Where the topic's records go; worked out once for as long as the topic stays as it was last seen.

        Raises:
            UsageError: the topic is not on the log.
        """
        info = self.topics.get(topic.name)
        target = self._targets.get(topic.name)
        if target is None or target.info is not info:
            self.check_known(topic)
            places = [TP(topic.name, partition) for partition in range(self.partitions(topic.name))]
            safe_bytes = self.max_message_bytes(topic.name) - RECORD_OVERHEAD_BYTES
            target = self._targets[topic.name] = Target(info, places, safe_bytes)
        return target

    def check_size(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Refuse at the sender what the log would refuse at the commit, when nobody knows any more whose it was.

        Raises:
            RecordTooLargeError
        """
        size = _size(key, value, headers)
        limit = self.max_message_bytes(topic.name)
        if size > limit:
            raise RecordTooLargeError(
                f"a record of {size} bytes for topic {topic.name} is larger than its max.message.bytes of {limit}: "
                f"send less, or raise the topic's max.message.bytes"
            )


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    size = len(key or b"") + len(value or b"") + RECORD_OVERHEAD_BYTES
    if headers:
        size += sum(len(name) + len(data or b"") + 10 for name, data in headers)
    return size
