"""What the framework asks of a log, wherever the log is.

Everything goes in batches: one `await` per call, never per record. A call that fails as a whole raises; what concerns
one partition comes back with that partition, so that one failing partition never affects another.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from streamcore.errors import CorruptRecordError, StreamcoreError
from streamcore.records.codec import UNREADABLE, unreadable
from streamcore.types import COMPACTION_LIMIT, TP, InRecord, OutRecord

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from streamcore.protocol.messages import Api
    from streamcore.transport.administration import Administration

EARLIEST = -2  # Kafka's ListOffsets: the log start offset
LATEST = -1  # Kafka's ListOffsets: the log end offset, which the next record will get

FETCH_MAX_BYTES = 8 << 20  # of stored batches in one fetch, over all its partitions: bounds memory and the pause
CLIENT_ID = "streamcore"  # how a broker's lists of connections and members call us
METADATA_MAX_BYTES = 4096  # Kafka's offset.metadata.max.bytes


class Acks(IntEnum):
    """When a produce returns."""

    NONE = 0  # at once; over the wire nobody tells what became of the records
    LEADER = 1  # when handed to the kernel: survives a killed process
    ALL = -1  # as safe as the log's flush policy promises: with flush=always it survives power loss


class TopicInfo(NamedTuple):
    """A topic as its readers and writers see it."""

    name: str
    partitions: int
    config: Mapping[str, str]  # what differs from the defaults, under Kafka's names
    internal: bool  # kept by the log for itself, as __consumer_offsets is


# Records are used up before the next ones are decoded: so many of them stay in the processor's caches, and most are
# gone before Python's collector looks. W1 with all records of a fetch at once, and then 256 at a time: half as fast.
RECORDS_AT_A_TIME: Final = 128


class Records:
    """What a fetch found in one partition, decoded as it is taken.

    Raises:
        CorruptRecordError: the first record cannot be read. Another one that cannot be ends the records before it, and
            the fetch that begins there meets it again.
    """

    __slots__ = ("_ahead", "_rest")

    def __init__(self, records: Iterable[InRecord] = ()) -> None:
        self._rest = iter(records)
        self._ahead: list[InRecord] = []
        self._ahead = self.take()

    def take(self) -> list[InRecord]:
        """The next ones; none at the end.

        Raises:
            CorruptRecordError: the next record cannot be read.
        """
        if self._ahead:
            taken, self._ahead = self._ahead, []
            return taken
        taken = []
        try:
            # An error in the middle leaves what came before it in the list.
            taken.extend(islice(self._rest, RECORDS_AT_A_TIME))
        except UNREADABLE as error:
            if not taken:
                raise unreadable(error) from error
        except CorruptRecordError:
            if not taken:
                raise
        return taken

    def all(self) -> list[InRecord]:
        """All that have not been taken; they still can be.

        Raises:
            CorruptRecordError: one of them cannot be read.
        """
        found, self._ahead = self._ahead, []
        try:
            while taken := self.take():
                found += taken
        finally:
            self._ahead = found
        return found


class Fetched(NamedTuple):
    """One partition's share of a fetch: records, or an error, never both."""

    tp: TP
    reader: Records  # in offset order, none before the asked offset
    next_offset: int  # ask for this one next; it may lie beyond the last record's offset + 1
    # Up to where there is something to read: what a transaction writes is, once that has been committed (KIP-98).
    high_watermark: int  # -1 where an error left it unknown
    log_start_offset: int  # -1 where an error left it unknown
    error: StreamcoreError | None

    @property
    def records(self) -> list[InRecord]:
        """All of them at once.

        Raises:
            CorruptRecordError: one of them cannot be read.
        """
        return self.reader.all()


class Committed(NamedTuple):
    """How far a group has come in a partition."""

    offset: int  # the next record to read, not the last one read
    metadata: str = ""  # at most METADATA_MAX_BYTES in UTF-8
    timestamp_ms: int = -1  # when it was committed; -1 lets the log fill it in


class Generation(NamedTuple):
    """As whom a member of a consumer group commits: what a group has moved on from, it does not take."""

    generation_id: int
    member_id: str
    group_instance_id: str | None


class GroupChannel(Protocol):
    """A way to a group's coordinator."""

    async def ask(self, api: "Api", request: Any, *, timeout_s: float, purpose: str = "membership") -> Any:
        """A request and its response; requests of one purpose are answered one after the other.

        Raises:
            BrokerUnreachableError, RetriableError: nobody answers as the coordinator at the moment.
        """

    def moved(self) -> None:
        """The one who answered is the coordinator no more."""


def consumed(committed: Mapping[TP, Committed]) -> dict[TP, Committed]:
    """How far a group has read: without what it has committed in topics that it writes, to limit their compaction."""
    return {tp: place for tp, place in committed.items() if place.metadata != COMPACTION_LIMIT}


class PartitionInfo(NamedTuple):
    """A partition's extent on disk."""

    tp: TP
    log_start_offset: int
    log_end_offset: int
    size_bytes: int
    offline: str | None  # why nothing can be read or written, None when all is well


class Transport(Protocol):
    """A way to a log: in this process, or over the wire."""

    url: str

    async def start(self) -> None:
        """Open the log; nothing else may be called before.

        Raises:
            DirectoryHeldError: another process has the data directory open.
        """

    async def stop(self) -> None:
        """Leave in order: everything accepted is on disk, the next start needs no scan. Stopping twice is harmless."""

    async def topics(self) -> dict[str, TopicInfo]:
        """Every topic by name, internal ones included."""

    async def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Create a topic; it is durable when this returns.

        Raises:
            TopicExistsError, InvalidTopicError, InvalidPartitionsError, InvalidConfigError
        """

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and every group's committed offsets in it.

        Raises:
            UnknownTopicError
        """

    async def add_partitions(self, name: str, total: int) -> TopicInfo:
        """Grow a topic to `total` partitions; keys written from now on may go elsewhere than before.

        Raises:
            UnknownTopicError, InvalidPartitionsError
        """

    async def alter_config(self, name: str, changes: Mapping[str, str | None]) -> TopicInfo:
        """Change settings under Kafka's names; None returns one to its default.

        Raises:
            UnknownTopicError, InvalidConfigError
        """

    async def produce(
        self, batches: Mapping[TP, Sequence[OutRecord]], *, acks: Acks = Acks.ALL, compression: str = "none"
    ) -> dict[TP, int | StreamcoreError]:
        """Append records; all or none of a partition's records are appended.

        The records of one partition get consecutive offsets in the order given, also when max.message.bytes made
        several batches of them.

        Returns:
            The first record's offset per partition, or why that partition took nothing. Where somebody else's
            records came in between several batches, it is counted back from the last record's offset. With Acks.ALL
            and an error of the flush the records may still be in the log: they are not promised.
        """

    async def fetch(
        self, positions: Mapping[TP, int], *, max_bytes: int = 1 << 20, max_wait_ms: int = 500
    ) -> list[Fetched]:
        """Records from the given offsets on, waiting for some when there are none.

        Args:
            positions: the offset of the first record wanted, per partition.
            max_bytes: soft limit per partition on the stored bytes; the first batch always comes whole.
            max_wait_ms: how long to wait for a first record; 0 never waits.
        Returns:
            The partitions that have records or an error; nothing when the time is up. One fetch decodes no more than
            about FETCH_MAX_BYTES: a partition that has records and did not get its turn comes with an empty list,
            `next_offset` as asked and `high_watermark` above it. The order rotates from call to call, so that every
            partition gets its turn. A position outside the log is an OffsetOutOfRangeError there, a topic or partition
            that does not exist (any more) an UnknownTopicError.
        """

    async def list_offsets(self, tps: Iterable[TP], timestamp_ms: int) -> dict[TP, int]:
        """The offset of the first record with this timestamp or a later one; the log end where there is none.

        Args:
            timestamp_ms: Unix ms, EARLIEST or LATEST.
        Raises:
            UnknownTopicError, LogOfflineError, CorruptRecordError
        """

    async def committed(self, group: str, tps: Iterable[TP] | None = None) -> dict[TP, Committed]:
        """What the group has committed, in the given partitions or in all; partitions without a commit are absent."""

    async def commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None = None) -> None:
        """Commit offsets, all or none; they survive whatever an acks=all record survives.

        Args:
            member: as a member of the group; None is somebody outside of it, whom a group with members refuses.
        Raises:
            OffsetMetadataTooLargeError, UnknownTopicError, LogOfflineError
            GroupMembershipError: the group is not, or no longer, what `member` says.
        """

    def group_channel(self, group: str) -> GroupChannel | None:
        """A way to be a member of a consumer group; None where no other process can join it."""

    def metrics(self) -> "Collector | None":
        """What the log counts for Prometheus; None where it is another process's to count."""

    def administration(self) -> "Administration | None":
        """What the cluster tells of itself; None where the log is nobody's but this process's."""

    async def groups(self) -> list[str]:
        """The groups that have committed something, in alphabetical order."""

    async def delete_group(self, group: str) -> None:
        """Forget every offset the group has committed; unknown groups are ignored."""

    async def describe_partitions(self) -> list[PartitionInfo]:
        """Every partition, offline ones included, ordered by topic and partition."""

    async def delete_records(self, tp: TP, before_offset: int) -> int:
        """Delete the records before an offset.

        Returns:
            The new log start offset.
        Raises:
            OffsetOutOfRangeError: `before_offset` is beyond the high watermark.
            UnknownTopicError, LogOfflineError
        """
