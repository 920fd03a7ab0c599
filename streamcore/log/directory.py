"""A data directory: every partition of every topic of one node."""

import errno
import logging
import os
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.errors import (
    DirectoryHeldError,
    DirectoryUnusableError,
    DiskError,
    InvalidConfigError,
    InvalidPartitionsError,
    LogError,
    LogOfflineError,
    TopicExistsError,
    UnknownTopicError,
)
from streamcore.log import filenames
from streamcore.log.checkpoints import read_topic_id, write_topic_id
from streamcore.log.config import LogConfig
from streamcore.log.disk import Disk, HeldError, Lock, RealDisk, replace_file
from streamcore.log.holder import describe_this_process, held_message
from streamcore.log.offset_checkpoints import OffsetCheckpoints
from streamcore.log.open_files import OpenFiles
from streamcore.log.partition_log import PartitionLog
from streamcore.log.producer_state import PRODUCER_ID_EXPIRATION_MS
from streamcore.log.topics import TopicMeta, read_topics, write_topics
from streamcore.types import TP

logger = logging.getLogger(__name__)

PARTITIONS_MAX: Final = 10_000  # of one topic; more is a slip of the keyboard


class LogDirectory:
    """Topics and their logs under one path, locked against every other process. Made by `open`."""

    def __init__(self, path: str, disk: Disk, clock: Clock, lock: Lock) -> None:
        self.path = path
        self._disk = disk
        self._clock = clock
        self._lock = lock
        self._files = OpenFiles(disk)
        self._topics: dict[str, TopicMeta] = {}
        self._deleting: list[TopicMeta] = []
        self._doomed: list[tuple[int, str]] = []  # (due at, directory) of deleted partitions
        self._logs: dict[tuple[str, int], PartitionLog] = {}
        self._offline: dict[TP, str] = {}
        self._checkpoints = OffsetCheckpoints(disk, path)
        self._closed = False
        self._defaults = LogConfig()  # of what a topic does not say
        self._producer_expiration_ms = PRODUCER_ID_EXPIRATION_MS

    @classmethod
    def open(
        cls, path: str, *, disk: Disk | None = None, clock: Clock = SYSTEM_CLOCK, holder: str = ""
    ) -> "LogDirectory":
        """Take the directory's lock and open every log in it; a new directory is made.

        After an orderly stop this costs a few reads per partition; after any other, each log is read from its
        recovery point on. A partition that cannot be opened is in `offline_partitions`, and the others work.

        Args:
            holder: who this is, for the error another process gets; the command line by default.
        Raises:
            DirectoryHeldError: another process has it open.
            DirectoryUnusableError: it cannot be written or read.
        """
        disk = disk or RealDisk()
        path = os.path.abspath(path)
        try:
            disk.make_directory(path)
            lock = disk.lock(f"{path}/{filenames.LOCK}", describe_this_process(holder))
        except HeldError as error:
            raise DirectoryHeldError(held_message(path, error.holder)) from None
        except OSError as error:
            raise _unusable(path, error) from error
        directory = cls(path, disk, clock, lock)
        try:
            directory._load()
        except OSError as error:
            directory._files.close()
            lock.release()
            raise _unusable(path, error) from error
        except BaseException:
            directory._files.close()
            lock.release()
            raise
        return directory

    def _load(self) -> None:
        disk, path = self._disk, self.path
        started = time.monotonic()
        marker = f"{path}/{filenames.CLEAN_SHUTDOWN}"
        clean = disk.exists(marker)
        self._topics, self._deleting = read_topics(disk, path)
        points_known = self._checkpoints.load()
        if clean:
            # Gone before the first write: from here on a stop is orderly only if `close` says so again.
            disk.remove(marker)
            disk.sync_directory(path)
        self._finish_deletions()
        self._set_strays_aside()
        for topic in self._topics.values():
            config = self._config_of(topic)
            for partition in range(topic.partitions):
                self._open_log(topic, partition, config, clean=clean and points_known)
        self.checkpoint()
        logger.info(
            "%s: %d partitions of %d topics open after %s, %.0f ms",
            path,
            len(self._logs),
            len(self._topics),
            "an orderly stop" if clean else "no orderly stop",
            (time.monotonic() - started) * 1000,
        )

    def _config_of(self, topic: TopicMeta) -> LogConfig:
        try:
            return LogConfig.parse(topic.config, base=self._defaults)
        except InvalidConfigError as error:
            # Written by another version: the records matter more than the setting.
            logger.error("topic %s: %s; defaults are used until it is altered", topic.name, error)
            return self._defaults

    def _open_log(self, topic: TopicMeta, partition: int, config: LogConfig, *, clean: bool) -> None:
        key = topic.name, partition
        name = filenames.partition_directory(*key)
        path = f"{self.path}/{name}"
        try:
            if not self._disk.exists(f"{path}/{filenames.PARTITION_METADATA}"):
                self._disk.make_directory(path)
                write_topic_id(self._disk, f"{path}/{filenames.PARTITION_METADATA}", topic.topic_id)
            self._logs[key] = PartitionLog.open(
                self._disk,
                path,
                config,
                self._clock,
                clean=clean,
                recovery_point=self._checkpoints.recovery_point(key),
                log_start_offset=self._checkpoints.log_start_offset(key),
                cleaned_offset=self._checkpoints.cleaned_offset(key),
                files=self._files,
                checkpoint=self.checkpoint,
            )
        except (LogError, OSError) as error:
            logger.error("%s is offline: %s", name, error)
            self._offline[TP(*key)] = str(error)

    def _finish_deletions(self) -> None:
        """Partitions of deleted topics that a stop has left."""
        deleted = {(topic.name, partition) for topic in self._deleting for partition in range(topic.partitions)}
        for name in self._disk.list_directory(self.path):
            if filenames.is_deleted_directory(name):
                self._remove_tree(name)
                continue
            key = filenames.parse_partition_directory(name)
            if key in deleted and not self._belongs(name, key[0]):
                self._remove_tree(self._rename_for_deletion(name))
        if self._deleting:
            self._deleting = []
            self._write_topics()

    def _belongs(self, name: str, topic: str) -> bool:
        """Whether a partition's directory is the present topic's, not that of an earlier one of the same name."""
        meta = self._topics.get(topic)
        if meta is None:
            return False
        topic_id = read_topic_id(self._disk, f"{self.path}/{name}/{filenames.PARTITION_METADATA}")
        return topic_id is None or topic_id == meta.topic_id

    def _set_strays_aside(self) -> None:
        """A partition's directory that no topic owns (a creation that did not finish, a damaged file) is renamed."""
        for name in self._disk.list_directory(self.path):
            key = filenames.parse_partition_directory(name)
            if key is None:
                continue
            meta = self._topics.get(key[0])
            if meta is None or key[1] >= meta.partitions or not self._belongs(name, key[0]):
                stray = f"{name}.{uuid.uuid4().hex}-stray"
                logger.warning("%s/%s belongs to no topic; it is kept as %s", self.path, name, stray)
                self._disk.rename(f"{self.path}/{name}", f"{self.path}/{stray}")

    # ---- what is there

    @property
    def disk(self) -> Disk:
        return self._disk

    @property
    def topics(self) -> Mapping[str, TopicMeta]:
        return MappingProxyType(self._topics)

    @property
    def offline_partitions(self) -> dict[TP, str]:
        """Partitions that accept nothing, each with the reason."""
        offline = dict(self._offline)
        for key, log in self._logs.items():
            if log.offline_reason is not None:
                offline[TP(*key)] = log.offline_reason
        return offline

    @property
    def logs(self) -> Mapping[tuple[str, int], PartitionLog]:
        """By (topic, partition); those that could not be opened are missing."""
        return MappingProxyType(self._logs)

    def log(self, topic: str, partition: int) -> PartitionLog:
        """
        Raises:
            UnknownTopicError: no such topic or partition.
            LogOfflineError: it could not be opened.
        """
        log = self._logs.get((topic, partition))
        if log is not None:
            return log
        meta = self._topics.get(topic)
        if meta is None:
            raise UnknownTopicError(f"there is no topic {topic!r}; create it first")
        if not 0 <= partition < meta.partitions:
            raise UnknownTopicError(f"topic {topic!r} has partitions 0..{meta.partitions - 1}, not {partition}")
        raise LogOfflineError(self._offline[TP(topic, partition)])

    # ---- topics

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] = MappingProxyType({})) -> TopicMeta:
        """Make a topic with a new id; it is durable on return.

        Raises:
            InvalidTopicError, TopicExistsError, InvalidPartitionsError, InvalidConfigError: nothing was made.
            DiskError: there is no room for it.
        """
        filenames.check_topic_name(name)
        if name in self._topics:
            raise TopicExistsError(f"topic {name!r} is there already")
        # Kafka's rule: metric names make "." and "_" the same.
        for other in self._topics:
            if other.replace(".", "_") == name.replace(".", "_"):
                raise TopicExistsError(
                    f"topic {name!r} would be confused with {other!r}: `.` and `_` count as the same"
                )
        _check_partitions(partitions)
        settings = {key: str(value) for key, value in config.items()}
        parsed = LogConfig.parse(settings, base=self._defaults)
        topic = TopicMeta(name=name, topic_id=uuid.uuid4(), partitions=partitions, config=settings)
        self._make_partitions(topic, parsed, range(partitions))
        return topic

    def add_partitions(self, name: str, total: int) -> TopicMeta:
        """Grow a topic to `total` partitions; keyed records will go elsewhere from now on.

        Raises:
            UnknownTopicError, InvalidPartitionsError: nothing was changed.
        """
        topic = self._topic(name)
        _check_partitions(total)
        if total <= topic.partitions:
            raise InvalidPartitionsError(
                f"topic {name!r} has {topic.partitions} partitions; only a larger number can be set, not {total}"
            )
        grown = TopicMeta(name=name, topic_id=topic.topic_id, partitions=total, config=topic.config)
        self._make_partitions(grown, self._config_of(grown), range(topic.partitions, total))
        return grown

    def _make_partitions(self, topic: TopicMeta, config: LogConfig, partitions: range) -> None:
        """The directories first, then the topic: what a crash leaves in between is a stray, not half a topic."""
        before = self._topics.get(topic.name)
        made: list[tuple[str, int]] = []
        try:
            for partition in partitions:
                key = topic.name, partition
                path = f"{self.path}/{filenames.partition_directory(*key)}"
                made.append(key)
                self._disk.make_directory(path)
                write_topic_id(self._disk, f"{path}/{filenames.PARTITION_METADATA}", topic.topic_id)
                self._checkpoints.forget(self._logs, key)
                self._logs[key] = PartitionLog.open(
                    self._disk, path, config, self._clock, clean=False, files=self._files, checkpoint=self.checkpoint
                )
                self._logs[key].producers.expiration_ms = self._producer_expiration_ms
            self._disk.sync_directory(self.path)
            # Nothing that the files say of an earlier topic may be taken for this one's.
            self.checkpoint()
            self._topics[topic.name] = topic
            self._write_topics()
        except (OSError, LogError) as error:
            if before is None:
                self._topics.pop(topic.name, None)
            else:
                self._topics[topic.name] = before
            for key in made:
                self._unmake(key)
            raise DiskError(f"topic {topic.name!r} could not be made: {error}") from error

    def _unmake(self, key: tuple[str, int]) -> None:
        log = self._checkpoints.forget(self._logs, key)
        if log is not None:
            log.abandon()
        try:
            self._remove_tree(filenames.partition_directory(*key))
        except OSError:
            pass  # a stray that the next start sets aside

    def delete_topic(self, name: str) -> None:
        """Forget a topic. Its directories are renamed now and removed after file.delete.delay.ms.

        Raises:
            UnknownTopicError: nothing was changed.
            DiskError: there is no room to note it; nothing was changed.
        """
        topic = self._topic(name)
        config = self._config_of(topic)
        del self._topics[name]
        self._deleting.append(topic)
        try:
            # Noted first: a crash from here on ends in a deletion that the next start completes.
            self._write_topics()
        except OSError as error:
            self._deleting.pop()
            self._topics[name] = topic
            raise DiskError(f"topic {name!r} could not be deleted: {error}") from error
        due_ms = self._clock.now_ms() + config.file_delete_delay_ms
        try:
            for partition in range(topic.partitions):
                key = name, partition
                log = self._checkpoints.forget(self._logs, key)
                if log is not None:
                    log.abandon(UnknownTopicError(f"topic {name!r} has been deleted"))
                self._offline.pop(TP(*key), None)
                directory = filenames.partition_directory(*key)
                if self._disk.exists(f"{self.path}/{directory}"):
                    self._doomed.append((due_ms, self._rename_for_deletion(directory)))
            self._disk.sync_directory(self.path)
            self.checkpoint()
            self._deleting.remove(topic)
            self._write_topics()
        except OSError as error:
            logger.error("topic %s is deleted, but its files are not all gone; the next start goes on: %s", name, error)

    def alter_config(self, name: str, changes: Mapping[str, str | None]) -> TopicMeta:
        """Set settings, or with None bring them back to their defaults; in force for the next operation.

        Raises:
            UnknownTopicError, InvalidConfigError: nothing was changed.
            DiskError: there is no room to note it; nothing was changed.
        """
        topic = self._topic(name)
        settings = dict(topic.config)
        LogConfig.parse({key: value for key, value in changes.items() if value is not None})
        for key, value in changes.items():
            if value is None:
                settings.pop(key, None)
            else:
                settings[key] = str(value)
        config = LogConfig.parse(settings, base=self._defaults)
        altered = TopicMeta(name=name, topic_id=topic.topic_id, partitions=topic.partitions, config=settings)
        self._topics[name] = altered
        try:
            self._write_topics()
        except OSError as error:
            self._topics[name] = topic
            raise DiskError(f"the settings of topic {name!r} could not be written: {error}") from error
        for partition in range(topic.partitions):
            log = self._logs.get((name, partition))
            if log is not None:
                log.config = config
        return altered

    @property
    def defaults(self) -> LogConfig:
        """What counts for a topic that does not say."""
        return self._defaults

    def set_defaults(self, defaults: LogConfig, *, producer_expiration_ms: int) -> None:
        """From now on, for every topic that there is and that will be; kept by the caller."""
        self._defaults, self._producer_expiration_ms = defaults, producer_expiration_ms
        for name, topic in self._topics.items():
            config = self._config_of(topic)
            for partition in range(topic.partitions):
                log = self._logs.get((name, partition))
                if log is not None:
                    log.config = config
                    log.producers.expiration_ms = producer_expiration_ms

    def _topic(self, name: str) -> TopicMeta:
        topic = self._topics.get(name)
        if topic is None:
            raise UnknownTopicError(f"there is no topic {name!r}")
        return topic

    def _write_topics(self) -> None:
        write_topics(self._disk, self.path, self._topics.values(), self._deleting)

    def _rename_for_deletion(self, name: str) -> str:
        self._files.forget_directory(f"{self.path}/{name}")
        doomed = f"{name}.{uuid.uuid4().hex}-delete"
        self._disk.rename(f"{self.path}/{name}", f"{self.path}/{doomed}")
        return doomed

    def _remove_tree(self, name: str) -> None:
        path = f"{self.path}/{name}"
        self._files.forget_directory(path)
        for file in self._disk.list_directory(path):
            self._disk.remove(f"{path}/{file}")
        self._disk.remove_directory(path)

    # ---- housekeeping

    def flush(self) -> None:
        """Sync the logs whose flush.messages or flush.ms are due, and every closed segment that is not synced yet.

        A log that fails is offline from then on; the others are synced all the same.
        """
        for log in list(self._logs.values()):
            if log.offline_reason is None and (log.is_flush_due or log.has_unsynced_segments):
                try:
                    log.flush()
                except LogError:
                    pass  # it has said so, and is in offline_partitions

    def flush_all(self) -> None:
        """Sync every log, whatever its settings; as `flush`, failures put a log offline."""
        for log in list(self._logs.values()):
            if log.offline_reason is None:
                try:
                    log.flush()
                except LogError:
                    pass  # it has said so, and is in offline_partitions

    def apply_retention(self, now_ms: int) -> int:
        """Retention in every log, and the files of deleted topics whose delay is over.

        Returns:
            Bytes freed by retention.
        """
        freed = 0
        for log in list(self._logs.values()):
            if log.offline_reason is None:
                try:
                    freed += log.apply_retention(now_ms)
                except LogError as error:
                    logger.error("%s", error)
        due = [name for due_ms, name in self._doomed if due_ms <= now_ms]
        self._doomed = [(due_ms, name) for due_ms, name in self._doomed if due_ms > now_ms]
        for name in due:
            try:
                self._remove_tree(name)
            except OSError as error:
                logger.error("%s/%s could not be removed; the next start does it: %s", self.path, name, error)
        return freed

    def checkpoint(self) -> None:
        """Make recovery points and log start offsets durable, so that the next start verifies no more than it must.

        May run in another thread, as `flush` may.

        Raises:
            OSError: the files are as they were.
        """
        self._checkpoints.save(self._logs)

    def close(self) -> None:
        """Flush every log, write the checkpoints and the marker of an orderly stop, and give up the lock.

        A log that cannot be closed orderly makes the whole stop one that is not: the next start verifies.
        """
        if self._closed:
            return
        self._closed = True
        orderly = not self._offline  # what could not be opened must not be believed the next time
        try:
            for log in self._logs.values():
                if log.offline_reason is None:
                    try:
                        log.close()
                        continue
                    except LogError:
                        pass
                log.abandon()
                orderly = False
            self.checkpoint()
            if orderly:
                marker = f"{self.path}/{filenames.CLEAN_SHUTDOWN}"
                replace_file(self._disk, marker, b'{"version":0,"brokerEpoch":-1}')
        except OSError as error:
            logger.error("%s: the stop is not orderly, the next start verifies the logs: %s", self.path, error)
        finally:
            self._files.close()
            self._lock.release()


def _check_partitions(count: int) -> None:
    if not 1 <= count <= PARTITIONS_MAX:
        raise InvalidPartitionsError(f"a topic has 1 to {PARTITIONS_MAX} partitions, not {count}")


def _unusable(path: str, error: OSError) -> DirectoryUnusableError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DirectoryUnusableError(
            f"{path} cannot be written ({error.strerror}); let this user write there, or use another directory"
        )
    return DirectoryUnusableError(f"{path} cannot be used: {error}; use another directory, or mend this one")
