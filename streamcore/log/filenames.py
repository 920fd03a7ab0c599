"""Every file and directory name of the log, as Kafka lays them out.

```
DATA/.lock                                 who has the directory open
DATA/.kafka_cleanshutdown                  the last stop was orderly; removed while open
DATA/topics.json                           the topics: id, partitions, settings
DATA/recovery-point-offset-checkpoint      per partition: everything below is synced
DATA/log-start-offset-checkpoint           per partition: everything below is deleted
DATA/cleaner-offset-checkpoint             per partition: the cleaner has been over everything below
DATA/TOPIC-0/partition.metadata            the topic's id
DATA/TOPIC-0/leader-epoch-checkpoint       which leader epoch began at which offset
DATA/TOPIC-0/00000000000000000000.log      a segment, named after its first offset
DATA/TOPIC-0/00000000000000000000.index    offset -> position
DATA/TOPIC-0/00000000000000000000.timeindex  timestamp -> offset
DATA/TOPIC-0/00000000000000000000.txnindex   the segment's aborted transactions, if it has any
DATA/TOPIC-0/00000000000000000000.snapshot   the producers of the batches before that offset
DATA/TOPIC-0.<32 hex digits>-delete        a partition on its way out
DATA/TOPIC-0.<32 hex digits>-stray         a partition that no topic owns up to
```
While segments are replaced: BASE`.cleaned`, BASE`.index.cleaned` and BASE`.timeindex.cleaned` are being written and
worth nothing yet, BASE-END`.swap` is complete and takes the place of the `.log` files from BASE up to END. `.deleted`
is Kafka's name for garbage.
"""

import re
from typing import Final

from streamcore.errors import InvalidTopicError

LOG: Final = ".log"
OFFSET_INDEX: Final = ".index"
TIME_INDEX: Final = ".timeindex"
TRANSACTION_INDEX: Final = ".txnindex"
INDEXES: Final = (OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX)  # beside a `.log` file, and worth nothing without it
SNAPSHOT: Final = ".snapshot"
CLEANED: Final = ".cleaned"
SWAP: Final = ".swap"
DELETED: Final = ".deleted"

LOCK: Final = ".lock"
CLEAN_SHUTDOWN: Final = ".kafka_cleanshutdown"
TOPICS: Final = "topics.json"
RECOVERY_POINTS: Final = "recovery-point-offset-checkpoint"
LOG_STARTS: Final = "log-start-offset-checkpoint"
CLEANED_OFFSETS: Final = "cleaner-offset-checkpoint"
PARTITION_METADATA: Final = "partition.metadata"
LEADER_EPOCHS: Final = "leader-epoch-checkpoint"

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_PARTITION_DIRECTORY = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249})-(?P<partition>0|[1-9][0-9]*)")
_DELETED_DIRECTORY = re.compile(r".+\.[0-9a-f]{32}-delete")
_SWAP = re.compile(r"(?P<base>[0-9]{20})-(?P<end>[0-9]{20})\.swap")
_SEGMENT = re.compile(r"(?P<base>[0-9]{20})\.log")
_TRANSACTION_INDEX = re.compile(r"(?P<base>[0-9]{20})\.txnindex")
_SNAPSHOT = re.compile(r"(?P<offset>[0-9]{20})\.snapshot")


def segment_path(directory: str, base_offset: int) -> str:
    """The path of a segment's files without their suffix."""
    return f"{directory}/{base_offset:020d}"


def segment_base_offset(name: str) -> int | None:
    """The offset in a `.log` file's name, or None for any other name."""
    match = _SEGMENT.fullmatch(name)
    return int(match["base"]) if match else None


def transaction_index_offset(name: str) -> int | None:
    """The base offset in a `.txnindex` file's name, or None for any other name."""
    match = _TRANSACTION_INDEX.fullmatch(name)
    return int(match["base"]) if match else None


def snapshot_offset(name: str) -> int | None:
    """The offset in a `.snapshot` file's name, or None for any other name."""
    match = _SNAPSHOT.fullmatch(name)
    return int(match["offset"]) if match else None


def swap_path(directory: str, base_offset: int, end_offset: int) -> str:
    """A complete replacement for the segments from `base_offset` up to `end_offset`."""
    return f"{directory}/{base_offset:020d}-{end_offset:020d}{SWAP}"


def parse_swap(name: str) -> tuple[int, int] | None:
    """(base offset, end offset) of a replacement's name, or None."""
    match = _SWAP.fullmatch(name)
    return (int(match["base"]), int(match["end"])) if match else None


def partition_directory(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def parse_partition_directory(name: str) -> tuple[str, int] | None:
    """(topic, partition) of a directory's name, or None."""
    match = _PARTITION_DIRECTORY.fullmatch(name)
    return (match["topic"], int(match["partition"])) if match else None


def is_deleted_directory(name: str) -> bool:
    return _DELETED_DIRECTORY.fullmatch(name) is not None


def check_topic_name(name: str) -> None:
    """Kafka's rules for names.

    Raises:
        InvalidTopicError: with the rule that is broken.
    """
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidTopicError(
            f"{name!r} cannot be a topic's name: take 1 to 249 of the letters a-z A-Z 0-9 . _ - and not . or .. alone"
        )
