"""One process's broker: the log directory, who waits for it, when it is synced, and the committed offsets.

It moves whole batches and never looks into one. Everything runs in one event loop; `NodeConfig.off_loop` says whether
syncs may leave it for a thread.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from streamcore.broker.coordinator.coordinator_log import INTERNAL_CONFIG
from streamcore.broker.coordinator.offset_expiry import Unused
from streamcore.broker.coordinator.offset_records import OffsetKey, OffsetValue
from streamcore.broker.coordinator.offsets import OFFSETS_TOPIC
from streamcore.broker.coordinator.offsets_topic import OFFSETS_TP, OffsetsTopic
from streamcore.broker.coordinator.transaction_log import TRANSACTIONS_TOPIC
from streamcore.broker.counters import NodeCounters, TopicCounters
from streamcore.broker.delayed_fetch import DelayedFetches, Watch
from streamcore.broker.group_commit import GroupCommit
from streamcore.broker.log_cleaner import LogCleaner
from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.errors import InvalidTopicError, LogOfflineError, StreamcoreError, UnknownTopicError
from streamcore.log.aborted_transactions import AbortedTransaction
from streamcore.log.config import INT64_MAX, LogConfig
from streamcore.log.directory import LogDirectory
from streamcore.log.filenames import check_topic_name
from streamcore.log.partition_log import Appended, PartitionLog
from streamcore.log.topics import TopicMeta
from streamcore.records.batch import Buffer
from streamcore.types import TP, InRecord, OutRecord

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker
    from streamcore.broker.listener import Listener

logger = logging.getLogger(__name__)

Flush = Literal["interval", "always"]
COORDINATORS_TOPICS: Final = (OFFSETS_TOPIC, TRANSACTIONS_TOPIC)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """How a node keeps its log."""

    flush: Flush = "interval"  # "always": a durable append returns after a sync that covers it
    flush_interval_ms: int = 1000  # with "interval", what a power failure may take
    housekeeping_interval_ms: int = 60_000  # retention and checkpoints
    background: bool = True  # flush and keep house in tasks of its own; without it, whoever owns the node does
    off_loop: bool = True  # sync in a thread; a memory disk has nothing to wait for
    cleaner: bool = True  # whether compacted topics are compacted
    cleaner_interval_ms: int = 15_000  # Kafka's log.cleaner.backoff.ms: how often to look for what is to be compacted
    cleaner_buffer_bytes: int = 128 << 20  # Kafka's log.cleaner.dedupe.buffer.size: four million keys in one pass


class Read(NamedTuple):
    """One partition's share of a fetch."""

    tp: TP
    offset: int  # as asked
    batches: bytes | memoryview  # whole ones, the first contains `offset`; empty where the fetch was full before
    last_stable_offset: int  # up to where there is something to read; -1 where an error left it unknown
    log_start_offset: int
    error: StreamcoreError | None
    aborted: Sequence[AbortedTransaction] = ()  # those that have records in the batches


class PartitionState(NamedTuple):
    """A partition's extent on disk."""

    tp: TP
    log_start_offset: int
    log_end_offset: int
    size_bytes: int
    offline: str | None


class Node:
    """A broker without its socket."""

    def __init__(
        self, open_directory: Callable[[], LogDirectory], config: NodeConfig, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`open_directory` is called by `start`, in a thread where the config allows."""
        self.config = config
        self.counters = NodeCounters()
        self.topics_revision = 0  # another one after every change of a topic or its partitions
        self._open_directory = open_directory
        self._clock = clock
        self._delayed = DelayedFetches()
        self._group_commit = GroupCommit(self._sync)
        self._directory: LogDirectory | None = None
        self._offsets: OffsetsTopic | None = None
        self._offsets_offline: LogOfflineError | None = None
        self.door: Broker | None = None  # through which others reach it over the wire
        self.listener: Listener | None = None  # who opens and closes that door
        self._local_groups: set[str] = set()
        self._cleaner = LogCleaner(self._call, self._compaction_limit, self.counters)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._settings_changed = asyncio.Event()  # another one after each change; also set when the node stops

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the directory and reload the committed offsets.

        Raises:
            DirectoryHeldError, DirectoryUnusableError
        """
        self._directory = await self._call(self._open_directory)
        self._stopping.clear()
        self._settings_changed = asyncio.Event()
        if OFFSETS_TOPIC in self._directory.topics:
            try:
                self._load_offsets()
            except LogOfflineError as error:
                # Records can still be read and written; whoever asks for a group's offsets is told.
                logger.error("%s", error)
        if self.config.background:
            jobs: list[tuple[str, Callable[[], int], Callable[[], Awaitable[None]]]] = [
                ("streamcore-flush", lambda: self.config.flush_interval_ms, self.flush),
                ("streamcore-housekeeping", lambda: self.config.housekeeping_interval_ms, self.keep_house),
                ("streamcore-cleaner", lambda: self.config.cleaner_interval_ms, self.compact),
            ]
            self._tasks = [
                asyncio.create_task(self._regularly(after_ms, job), name=name) for name, after_ms, job in jobs
            ]

    async def stop(self) -> None:
        """Finish what waits, and close in order: flushed, checkpointed, marked clean."""
        self._stopping.set()
        self._settings_changed.set()
        self._delayed.wake_all()
        try:
            await asyncio.gather(*self._tasks)
            await self._group_commit.close()
        finally:
            self._tasks = []
            directory, self._directory, self._offsets = self._directory, None, None
            if directory is not None:
                await self._call(directory.close)

    def close_at_once(self) -> None:
        """For a node whose event loop is gone: close the directory without one."""
        directory, self._directory, self._offsets = self._directory, None, None
        if directory is not None:
            directory.close()

    def abandon(self) -> None:
        """Stop as a killed process does, nothing flushed and nothing closed; for tests of crashes."""
        self._stopping.set()
        self._settings_changed.set()
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._directory, self._offsets = None, None

    @property
    def directory(self) -> LogDirectory:
        if self._directory is None:
            raise LogOfflineError("the log is not open: start the transport first")
        return self._directory

    # --- topics -----------------------------------------------------------------------------------------------------

    @property
    def topics(self) -> Mapping[str, TopicMeta]:
        return self.directory.topics

    def topic(self, name: str) -> TopicMeta:
        meta = self.directory.topics.get(name)
        if meta is None:
            raise UnknownTopicError(f"there is no topic {name!r}")
        return meta

    def check_topic_name(self, name: str) -> None:
        """
        Raises:
            InvalidTopicError: no topic can have this name.
        """
        check_topic_name(name)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> TopicMeta:
        if name not in self.directory.topics and self._offsets is not None:
            # What groups committed to an older topic of this name would point into the new one.
            self._offsets.forget(self._offsets.offsets.keys_of_topic(name))
        meta = self.directory.create_topic(name, partitions, config)
        self.topics_revision += 1
        self._delayed.wake_topic(name)
        return meta

    def delete_topic(self, name: str) -> None:
        if name in COORDINATORS_TOPICS:
            raise InvalidTopicError(f"topic {name!r} is what the coordinators know and stays")
        self.directory.delete_topic(name)
        self.topics_revision += 1
        if self._offsets is not None:
            self._offsets.forget(self._offsets.offsets.keys_of_topic(name))
        self.counters.topics.pop(name, None)
        self._delayed.wake_topic(name)

    def counters_of(self, name: str) -> TopicCounters:
        """A topic's counters; all names that are no topics share one, so that they cannot fill the memory."""
        return self.counters.of(name) if name in self.directory.topics else self.counters.unknown

    def add_partitions(self, name: str, total: int) -> TopicMeta:
        meta = self.directory.add_partitions(name, total)
        self.topics_revision += 1
        self._delayed.wake_topic(name)
        return meta

    def alter_config(self, name: str, changes: Mapping[str, str | None]) -> TopicMeta:
        return self.directory.alter_config(name, changes)

    def configure(self, config: NodeConfig, defaults: LogConfig, *, producer_expiration_ms: int) -> None:
        """Other settings from now on, of the node and of every topic that does not say."""
        self.config = config
        changed, self._settings_changed = self._settings_changed, asyncio.Event()
        changed.set()
        self.directory.set_defaults(defaults, producer_expiration_ms=producer_expiration_ms)

    @property
    def topic_defaults(self) -> LogConfig:
        return self.directory.defaults

    def log_config(self, tp: TP) -> LogConfig:
        """A partition's settings, defaults filled in."""
        return self.directory.log(tp.topic, tp.partition).config

    # --- records ----------------------------------------------------------------------------------------------------

    async def append(
        self, batches: Mapping[TP, Sequence[Buffer]], *, records: Mapping[TP, int], durable: bool
    ) -> dict[TP, Appended | StreamcoreError]:
        """Append whole batches to partitions, all or none of a partition's, each partition on its own.

        Args:
            batches: one or several batches per partition.
            records: how many records they hold, for the counters.
            durable: with flush=always, wait for a sync.
        """
        results: dict[TP, Appended | StreamcoreError] = {}
        for tp, parts in batches.items():
            results[tp] = self._append(tp, parts, records[tp])
        if durable and self.config.flush == "always":
            appended = [tp for tp, result in results.items() if isinstance(result, Appended)]
            for tp, failed in (await self._group_commit.durable(appended)).items():
                self.counters_of(tp.topic).failed_produces += 1
                self._delayed.wake(tp)
                results[tp] = failed
        return results

    def _append(self, tp: TP, batches: Sequence[Buffer], records: int) -> Appended | StreamcoreError:
        counters = self.counters_of(tp.topic)
        try:
            appended = _append_all(self.directory.log(tp.topic, tp.partition), batches)
        except StreamcoreError as error:
            counters.failed_produces += 1
            if isinstance(error, LogOfflineError):
                self._delayed.wake(tp)  # who waits for records of it waits in vain
            return error
        if appended.is_duplicate:
            return appended  # counted, and read by whoever waited, when it came first
        counters.records_in += records
        counters.bytes_in += sum(map(len, batches))
        self._delayed.wake(tp)
        return appended

    async def fetch(
        self, positions: Mapping[TP, int], *, max_bytes: int, total_max_bytes: int, max_wait_ms: int
    ) -> list[Read]:
        """Stored batches from the given offsets on, in the order of `positions`, waiting for some if there are none.

        Nothing of a transaction that is open, or of what follows it, is there yet.

        Args:
            max_bytes: soft limit per partition; the first batch comes whole.
            total_max_bytes: soft limit over all of them; a partition beyond it comes with no bytes.
        """
        reads = self._read(positions, max_bytes, total_max_bytes)
        if reads or max_wait_ms <= 0:
            # A reader that always finds something must not keep everybody else from running.
            await asyncio.sleep(0)
            return reads
        deadline = asyncio.get_running_loop().time() + max_wait_ms / 1000
        while not reads and not self._stopping.is_set():
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0 or not await self._delayed.wait(positions, remaining * 1000):
                break
            if self._directory is not None:
                reads = self._read(positions, max_bytes, total_max_bytes)
        return reads

    async def wait_for_records(self, tps: Collection[TP], max_wait_ms: float) -> bool:
        """Wait until one of the partitions has more records; False when the time is up or the node stops."""
        return not self._stopping.is_set() and await self._delayed.wait(tps, max_wait_ms)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def watch(self, tp: TP, watch: Watch, key: Hashable) -> None:
        """Tell the watch of every change of the partition, by `key`, until `unwatch`."""
        self._delayed.watch(tp, watch, key)

    def unwatch(self, watch: Watch, tp: TP) -> None:
        self._delayed.unwatch(watch, tp)

    def _read(self, positions: Mapping[TP, int], max_bytes: int, total_max_bytes: int) -> list[Read]:
        directory = self.directory
        reads: list[Read] = []
        for tp, offset in positions.items():
            try:
                log = directory.log(tp.topic, tp.partition)
                end_offset = log.last_stable_offset
                if end_offset <= offset <= log.high_watermark and log.offline_reason is None:
                    continue
                batches: bytes | memoryview = b""
                if total_max_bytes > 0:
                    batches = log.read(offset, min(max_bytes, total_max_bytes), is_committed_only=True)
                aborted = log.aborted_transactions(offset, log.read_end_offset) if batches else ()
            except StreamcoreError as error:
                self.counters_of(tp.topic).failed_fetches += 1
                reads.append(Read(tp, offset, b"", -1, -1, error))
                continue
            total_max_bytes -= len(batches)
            reads.append(Read(tp, offset, batches, end_offset, log.log_start_offset, None, aborted))
        return reads

    def list_offset(self, tp: TP, timestamp_ms: int | None) -> int:
        """The offset of the first record at `timestamp_ms` or later; where there is none, or for None, of the next."""
        log = self.directory.log(tp.topic, tp.partition)
        found = log.offset_for_timestamp(timestamp_ms) if timestamp_ms is not None else None
        return min(found[0], log.last_stable_offset) if found is not None else log.last_stable_offset

    def log_start_offset(self, tp: TP) -> int:
        return self.directory.log(tp.topic, tp.partition).log_start_offset

    def delete_records(self, tp: TP, before_offset: int) -> int:
        log = self.directory.log(tp.topic, tp.partition)
        try:
            return log.delete_records(before_offset)
        finally:
            self._delayed.wake(tp)  # the log start is told to whoever fetches in a session

    def partitions(self) -> list[PartitionState]:
        """Every partition, offline ones included."""
        states: list[PartitionState] = []
        offline = self.directory.offline_partitions
        for name, meta in sorted(self.directory.topics.items()):
            for partition in range(meta.partitions):
                tp = TP(name, partition)
                try:
                    log = self.directory.log(name, partition)
                    extent = (log.log_start_offset, log.log_end_offset, log.size_bytes)
                    states.append(PartitionState(tp, *extent, offline.get(tp)))
                except StreamcoreError as error:
                    states.append(PartitionState(tp, -1, -1, 0, str(error)))
        return states

    # --- committed offsets ------------------------------------------------------------------------------------------

    def committed(self, group: str, tps: Iterable[TP] | None) -> dict[TP, OffsetValue]:
        """What a group has committed.

        Raises:
            LogOfflineError: the offsets cannot be read; that is never the same as "nothing committed".
        """
        offsets = self._readable_offsets()
        return offsets.offsets.committed(group, tps) if offsets is not None else {}

    def groups(self) -> list[str]:
        offsets = self._readable_offsets()
        return offsets.offsets.groups() if offsets is not None else []

    async def commit(self, group: str, offsets: Mapping[TP, OffsetValue]) -> None:
        """Commit offsets, all or none.

        Raises:
            UnknownTopicError, OffsetMetadataTooLargeError, InvalidRecordError, LogOfflineError
        """
        self._check_committed(offsets)
        self._writable_offsets().commit(group, offsets)
        self.counters.commits += 1
        await self.make_durable([OFFSETS_TP])

    def _check_committed(self, offsets: Iterable[TP]) -> None:
        for tp in offsets:
            if tp.partition >= self.topic(tp.topic).partitions or tp.partition < 0:
                raise UnknownTopicError(f"topic {tp.topic!r} has no partition {tp.partition} to commit an offset for")

    async def delete_group(self, group: str) -> None:
        store = self._readable_offsets()
        if store is not None and store.forget(store.offsets.keys_of_group(group)):
            await self.make_durable([OFFSETS_TP])

    async def delete_offsets(self, group: str, tps: Iterable[TP]) -> None:
        """Forget what a group has committed in these partitions."""
        store = self._readable_offsets()
        if store is not None and store.forget([OffsetKey(group, tp) for tp in tps]):
            await self.make_durable([OFFSETS_TP])

    async def expire_offsets(self, retention_ms: int, unused: Callable[[str], Unused | None]) -> int:
        """Forget offsets that nobody has used for so long; how many.

        Args:
            unused: which of a group's offsets nobody uses. What somebody in this process has asked for is in use.
        """
        store = self._readable_offsets()
        if store is None:
            return 0
        oldest_ms = self._clock.now_ms() - retention_ms
        keys = store.offsets.expired(oldest_ms, lambda group: None if group in self._local_groups else unused(group))
        if store.forget(keys):
            logger.info(
                "%d committed offsets have expired, of the groups %s", len(keys), sorted({k.group for k in keys})
            )
            await self.make_durable([OFFSETS_TP])
        return len(keys)

    def use_group(self, group: str) -> None:
        """Somebody in this process reads under the group's name: its offsets do not expire while the node is open."""
        self._local_groups.add(group)

    # --- group metadata ---------------------------------------------------------------------------------------------

    def group_metadata(self) -> Iterator[list[InRecord]]:
        """Everything beside the offsets that the groups have stored, batch by batch, with the offsets' own records.

        Raises:
            LogOfflineError
        """
        store = self._readable_offsets()
        return iter(()) if store is None else store.batches()

    async def append_group_metadata(self, records: Sequence[OutRecord]) -> None:
        """
        Raises:
            LogOfflineError, RecordTooLargeError
        """
        store = self._writable_offsets()
        store.append_others(records)
        await self.make_durable([OFFSETS_TP])

    # --- transactions -----------------------------------------------------------------------------------------------

    def internal_log(self, tp: TP) -> PartitionLog:
        """The log of a coordinator's topic, which is made where there is none.

        Raises:
            LogOfflineError
        """
        if tp.topic not in self.directory.topics:
            self.directory.create_topic(tp.topic, 1, INTERNAL_CONFIG)
            self.topics_revision += 1
        return self.directory.log(*tp)

    def append_marker(
        self, tp: TP, producer_id: int, producer_epoch: int, *, is_commit: bool, coordinator_epoch: int
    ) -> None:
        """End a producer's transaction in one partition.

        Raises:
            UnknownTopicError, InvalidProducerEpochError, TransactionCoordinatorFencedError, DiskError, LogOfflineError
        """
        ends = self._writable_offsets().end_transaction if tp == OFFSETS_TP else self.directory.log(*tp).append_marker
        ends(producer_id, producer_epoch, is_commit=is_commit, coordinator_epoch=coordinator_epoch)
        self._delayed.wake(tp)

    async def make_durable(self, tps: Collection[TP]) -> None:
        """With flush=always, wait for a sync of what has been appended to the partitions.

        Raises:
            LogOfflineError
        """
        if self.config.flush == "always":
            for failed in (await self._group_commit.durable(tps)).values():
                raise failed

    async def commit_in_transaction(
        self, group: str, offsets: Mapping[TP, OffsetValue], producer_id: int, producer_epoch: int
    ) -> None:
        """As `commit`, for the case that the producer's transaction commits."""
        self._check_committed(offsets)
        store = self._writable_offsets()
        store.commit_in_transaction(group, offsets, producer_id, producer_epoch)
        await self.make_durable([OFFSETS_TP])

    def is_unstable(self, group: str, tp: TP) -> bool:
        """Whether an open transaction is about to commit another offset there."""
        store = self._readable_offsets()
        return store is not None and store.offsets.is_unstable(group, tp)

    # --- the coordinators' logs -------------------------------------------------------------------------------------

    def _writable_offsets(self) -> OffsetsTopic:
        store = self._readable_offsets()
        if store is None:
            self.internal_log(OFFSETS_TP)
            store = self._load_offsets()
        return store

    def _readable_offsets(self) -> OffsetsTopic | None:
        if self._offsets_offline is not None:
            raise self._offsets_offline
        return self._offsets

    def _load_offsets(self) -> OffsetsTopic:
        try:
            log = self.directory.log(*OFFSETS_TP)
            self._offsets = OffsetsTopic(log, self._clock)
        except StreamcoreError as error:
            self._offsets_offline = LogOfflineError(f"the committed offsets cannot be read: {error}")
            raise self._offsets_offline from error
        return self._offsets

    # --- the disk ---------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Sync everything: once per interval that bounds what a power failure takes, under either policy."""
        started_s = time.perf_counter()
        await self._call(self.directory.flush_all)
        self.counters.interval_syncs.observe(time.perf_counter() - started_s)

    async def keep_house(self) -> None:
        """Retention and checkpoints."""
        freed = self.directory.apply_retention(self._clock.now_ms())
        if freed:
            self._delayed.wake_all()  # log starts have moved
        self.counters.retention_bytes += freed
        await self._call(self.directory.checkpoint)

    async def compact(self) -> None:
        """Every pass of the cleaner that is due; it touches what is synced and nothing else."""
        if not self.config.cleaner:
            return
        buffer_bytes = self.config.cleaner_buffer_bytes
        await self._cleaner.clean(self.directory, self._clock.now_ms, buffer_bytes, self._stopping)

    def _compaction_limit(self, tp: TP) -> int:
        return INT64_MAX if self._offsets is None else self._offsets.offsets.compaction_limit(tp)

    async def _sync(self, tps: Iterable[TP]) -> Mapping[TP, LogOfflineError]:
        failed: dict[TP, LogOfflineError] = {}
        logs: dict[TP, PartitionLog] = {}
        for tp in tps:
            try:
                logs[tp] = self.directory.log(tp.topic, tp.partition)
            except StreamcoreError as error:
                failed[tp] = LogOfflineError(f"{tp} went away before its records were synced: {error}")
        started_s = time.perf_counter()
        failed.update(await self._call(_flush_all, logs))
        self.counters.request_syncs.observe(time.perf_counter() - started_s)
        self.counters.flushes += len(logs)
        self.counters.failed_flushes += len(failed)
        return failed

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        if self.config.off_loop:
            return await asyncio.to_thread(function, *arguments)
        return function(*arguments)

    async def _regularly(self, after_ms: Callable[[], int], job: Callable[[], Awaitable[None]]) -> None:
        # Ended by `_stopping`, never cancelled: a job in its thread must have finished before the directory closes.
        while not self._stopping.is_set():
            interval_ms = after_ms()
            try:
                async with asyncio.timeout(interval_ms / 1000):
                    await self._settings_changed.wait()  # and then wait anew
            except TimeoutError:
                try:
                    await job()
                except (StreamcoreError, OSError):
                    logger.exception("the log's background work failed; it is tried again in %d ms", interval_ms)


def _flush_all(logs: Mapping[TP, PartitionLog]) -> dict[TP, LogOfflineError]:
    failed: dict[TP, LogOfflineError] = {}
    for tp, log in logs.items():
        try:
            log.flush()
        except LogOfflineError as error:
            failed[tp] = error
    return failed


def _append_all(log: PartitionLog, batches: Sequence[Buffer]) -> Appended:
    """Append all of the batches or none, also where they are more than a segment takes."""
    if len(batches) == 1:
        return log.append_as_leader(batches[0])
    first: Appended | None = None
    end_offset = log.log_end_offset
    group = bytearray()
    try:
        for batch in batches:
            if group and len(group) + len(batch) > log.config.segment_bytes:
                last = log.append_as_leader(group)
                first = first or last
                group = bytearray()
            group += batch
        last = log.append_as_leader(group)
    except StreamcoreError:
        # Nobody has seen the first ones yet: nothing runs between the appends.
        log.truncate_to(end_offset)
        raise
    if first is None:
        return last
    return last._replace(base_offset=first.base_offset, is_duplicate=first.is_duplicate and last.is_duplicate)
