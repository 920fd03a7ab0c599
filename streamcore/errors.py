"""Every error of streamcore, in one tree.

A message says what happened, where, and what to do. `code` is Kafka's error code where Kafka has one, so that
a client over the wire sees the same thing.

StreamcoreError
├── LogError                     the log refused or failed
│   ├── CorruptRecordError         a batch whose bytes are not what they claim to be
│   ├── InvalidRecordError         a well-formed batch that this topic must not take
│   ├── RecordTooLargeError        larger than max.message.bytes
│   ├── BatchTooLargeError         larger than segment.bytes
│   ├── InvalidTimestampError      outside message.timestamp.before/after.max.ms
│   ├── OutOfOrderSequenceError    an idempotent producer's batch that does not follow its last one
│   ├── InvalidProducerEpochError  from an instance of a producer that a newer one has replaced
│   ├── InvalidTransactionStateError  a batch outside of the transaction that its producer has open
│   ├── TransactionCoordinatorFencedError  a marker from a coordinator that a newer one has replaced
│   ├── OffsetOutOfRangeError      outside [log start, log end]
│   ├── UnknownTopicError          no such topic or partition
│   ├── TopicExistsError
│   ├── InvalidTopicError          a name Kafka would refuse
│   ├── InvalidPartitionsError
│   ├── InvalidConfigError         an unknown topic setting, or a value out of bounds
│   ├── OffsetMetadataTooLargeError  a commit's metadata string beyond 4096 bytes
│   ├── LogOfflineError            a partition whose disk failed; nothing is accepted until it is repaired
│   └── DirectoryHeldError         another process has the data directory open
├── BrokerUnreachableError       no broker answers at its address, or one has stopped answering
├── GroupMembershipError         a consumer group does not take what a member of it says now
│   ├── RebalanceInProgressError   it is meeting; once it has met, a member may try again
│   ├── IllegalGenerationError     it has met since
│   ├── UnknownMemberError         it has given the member up
│   ├── GroupNotEmptyError         somebody outside of it wants to move or delete a group that has members
│   └── FencedInstanceError        another process has joined under the same group_instance_id
├── AuthenticationError          one end does not trust the other: a password, a certificate, a login that is none
├── UsageError                   the program asks for something that cannot be: a setting, a declaration, an argument
│   └── PartitionsMismatchError    co-partitioned topics with different partition counts
├── DecodeError                  a record's bytes are not what the topic's types say
├── StateError                   a table store that cannot be opened or written
│   └── StoreHeldError             one that another process has open
├── ValueRefusedError            a table's value that its codec or its changelog cannot hold
└── ProgressError                the watchdog's finding: input waits and nothing moves
"""

from typing import ClassVar


class StreamcoreError(Exception):
    """Anything streamcore raises on purpose."""

    code: ClassVar[int] = -1  # UNKNOWN_SERVER_ERROR


class LogError(StreamcoreError):
    """The log refused or failed."""


class CorruptRecordError(LogError):
    """A batch whose length, magic, checksum or counts contradict its bytes."""

    code: ClassVar[int] = 2


class InvalidRecordError(LogError):
    """A well-formed batch that this topic must not take."""

    code: ClassVar[int] = 87


class RecordTooLargeError(LogError):
    """A batch larger than max.message.bytes."""

    code: ClassVar[int] = 10


class BatchTooLargeError(LogError):
    """A batch larger than segment.bytes."""

    code: ClassVar[int] = 18


class InvalidTimestampError(LogError):
    """A record's time outside message.timestamp.before.max.ms or message.timestamp.after.max.ms."""

    code: ClassVar[int] = 32


class OutOfOrderSequenceError(LogError):
    """A batch of an idempotent producer that does not follow its last one, and repeats none that is remembered."""

    code: ClassVar[int] = 45

    def __init__(self, producer_id: int, producer_epoch: int, base_sequence: int, expected: int) -> None:
        super().__init__(
            f"producer {producer_id} (epoch {producer_epoch}) sends sequence {base_sequence} where {expected} is next: "
            "batches before it are missing, or it was sent too long ago to be recognised"
        )
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.base_sequence = base_sequence
        self.expected = expected


class InvalidProducerEpochError(LogError):
    """A batch of a producer's earlier epoch: a newer instance has taken its place."""

    code: ClassVar[int] = 47

    def __init__(self, producer_id: int, producer_epoch: int, current_epoch: int) -> None:
        super().__init__(
            f"producer {producer_id} sends with epoch {producer_epoch}, and epoch {current_epoch} has written already: "
            "let this instance get a new producer id or stop"
        )
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.current_epoch = current_epoch


class InvalidTransactionStateError(LogError):
    """A batch that is not part of the transaction that its producer has open."""

    code: ClassVar[int] = 48


class TransactionCoordinatorFencedError(LogError):
    """A transaction's end from a coordinator that a newer one has replaced."""

    code: ClassVar[int] = 52


class OffsetOutOfRangeError(LogError):
    """An offset outside the log."""

    code: ClassVar[int] = 1

    def __init__(self, offset: int, log_start_offset: int, log_end_offset: int) -> None:
        super().__init__(f"offset {offset} is outside [{log_start_offset}, {log_end_offset}]")
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class UnknownTopicError(LogError):
    """No such topic, or no such partition of it."""

    code: ClassVar[int] = 3


class TopicExistsError(LogError):
    code: ClassVar[int] = 36


class InvalidTopicError(LogError):
    """A topic name that Kafka would refuse too."""

    code: ClassVar[int] = 17


class InvalidPartitionsError(LogError):
    code: ClassVar[int] = 37


class InvalidConfigError(LogError):
    """An unknown topic setting, or a value out of its bounds."""

    code: ClassVar[int] = 40


class LogOfflineError(LogError):
    """A partition whose disk failed: nothing is accepted until it is repaired and opened again."""

    code: ClassVar[int] = 56


class DirectoryHeldError(LogError):
    """Another process has the data directory open."""


class BrokerUnreachableError(StreamcoreError):
    """No broker answers at its address, or one has stopped answering."""

    code: ClassVar[int] = 13


class GroupMembershipError(StreamcoreError):
    """A consumer group does not take what a member of it says now."""


class RebalanceInProgressError(GroupMembershipError):
    """The group is meeting; once it has met, a member may try again."""

    code: ClassVar[int] = 27


class IllegalGenerationError(GroupMembershipError):
    """The group has met since; a member of the new generation may try again."""

    code: ClassVar[int] = 22


class GroupNotEmptyError(GroupMembershipError):
    """Only its members say where a group reads on, as long as it has any."""

    code: ClassVar[int] = 68

    def __init__(self, group: str) -> None:
        super().__init__(f"group {group} has members at the moment: stop its workers and consumers first")


class UnknownMemberError(GroupMembershipError):
    """The group has given the member up: its partitions may be with others."""

    code: ClassVar[int] = 25


class FencedInstanceError(GroupMembershipError):
    """Another process has joined under the same group_instance_id (KIP-345)."""

    code: ClassVar[int] = 82


class AuthenticationError(StreamcoreError):
    """One end of a connection has not shown the other who it is; trying again changes nothing."""

    code: ClassVar[int] = 58


class UsageError(StreamcoreError):
    """The program asks for something that cannot be."""


class PartitionsMismatchError(UsageError):
    """Topics that are read together have different partition counts."""


class DecodeError(StreamcoreError):
    """A record's bytes are not what the topic's types say."""


class StateError(StreamcoreError):
    """A table store that cannot be opened, read or written."""


class StoreHeldError(StateError):
    """Another process, or another part of this one, has the table store open."""


class ProgressError(StreamcoreError):
    """Input waits and nothing moves."""


class OffsetMetadataTooLargeError(LogError):
    """A committed offset's metadata string that is larger than offset.metadata.max.bytes."""

    code: ClassVar[int] = 12


class KeylessRecordError(InvalidRecordError):
    """Records without a key in a compacted topic; `record_errors` maps their index in the batch to the reason."""

    def __init__(self, record_errors: dict[int, str]) -> None:
        super().__init__(
            f"records {sorted(record_errors)} of the batch have no key, and the topic is compacted: give each one a key"
        )
        self.record_errors = record_errors


class DiskError(LogError):
    """The disk refused a write and the log is as it was before: free some space and try again."""

    code: ClassVar[int] = 56


class DirectoryUnusableError(LogError):
    """A data directory that cannot be written, read or created."""


class ValueRefusedError(StreamcoreError):
    """A table's value that its codec cannot write, or its changelog cannot hold."""

    def __init__(self, message: str, max_bytes: int | None = None) -> None:
        super().__init__(message)
        self.max_bytes = max_bytes  # of a record in the changelog, where the value is too large for it
