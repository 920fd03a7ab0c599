"""Compaction in the background: one pass at a time, in slices, so that produce and fetch go on beside it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from streamcore.broker.counters import NodeCounters
from streamcore.errors import LogError, StreamcoreError
from streamcore.log.cleaning import Cleanable, Cleaning, cleanable
from streamcore.log.directory import LogDirectory
from streamcore.log.offset_map import keys_within
from streamcore.log.partition_log import PartitionLog
from streamcore.log.replacement import Replacement
from streamcore.types import TP

logger = logging.getLogger(__name__)

# The event loop waits for Python's lock while a slice holds it; then the cleaner rests for as long as it worked, so
# that it never takes more than half of a core. Counted is the time of its own, not what it waited for the lock: beside
# a busy loop it would get nowhere.
_SLICE_S: Final = 0.005

Call = Callable[..., Awaitable[Any]]


class LogCleaner:
    """Passes over the logs of one node, the dirtiest first."""

    def __init__(self, call: Call, limit_of: Callable[[TP], int], counters: NodeCounters) -> None:
        """
        Args:
            call: runs a function, in a thread where the node has one.
            limit_of: a partition's offset from which on nothing may be compacted yet.
        """
        self._call = call
        self._limit_of = limit_of
        self._uncleanable: set[PartitionLog] = set()
        self._counters = counters

    async def clean(
        self, directory: LogDirectory, now_ms: Callable[[], int], buffer_bytes: int, stopping: asyncio.Event
    ) -> None:
        """Every pass that is due."""
        self._uncleanable &= set(directory.logs.values())
        done = set(self._uncleanable)
        while not stopping.is_set() and (found := self._dirtiest(directory, now_ms(), done)) is not None:
            log, scope = found
            before, end_offset = log.size_bytes, log.cleaned_offset
            cleaning = Cleaning(directory.disk, log, scope, now_ms(), keys_max=keys_within(buffer_bytes))
            try:
                await self._run(cleaning, stopping)
            except LogError as error:
                if log.offline_reason is None and set(cleaning.segments) <= set(log.segments):
                    logger.error("%s is not compacted any more until the next start: %s", log.directory, error)
                    self._uncleanable.add(log)
            except OSError as error:
                logger.warning("%s was not compacted, it is tried again later: %s", log.directory, error)
            await self._abandon(cleaning)
            self._counters.compaction_bytes += max(0, before - log.size_bytes)
            if log.cleaned_offset == end_offset:
                done.add(log)  # it did not get anywhere, and would not the next moment

    def _dirtiest(
        self, directory: LogDirectory, now_ms: int, without: set[PartitionLog]
    ) -> tuple[PartitionLog, Cleanable] | None:
        due: list[tuple[bool, float, PartitionLog, Cleanable]] = []
        for key, log in directory.logs.items():
            if log in without or not log.config.is_compacted:
                continue
            try:
                scope = cleanable(log, now_ms, self._limit_of(TP(*key)))
            except (StreamcoreError, OSError) as error:
                logger.warning("%s cannot be looked at for compaction: %s", log.directory, error)
                continue
            if scope is not None and scope.is_due(log.config):
                due.append((scope.is_overdue, scope.ratio, log, scope))
        if not due:
            return None
        _, _, log, scope = max(due, key=lambda found: found[:2])
        return log, scope

    async def _run(self, cleaning: Cleaning, stopping: asyncio.Event) -> None:
        steps = cleaning.steps()
        while not stopping.is_set():
            is_over, replacement, took_s = await self._call(_slice, steps)
            if is_over:
                assert cleaning.cleaned_offset is not None
                cleaning.log.cleaned(cleaning.cleaned_offset)
                self._counters.compactions += 1
                logger.info(
                    "%s: compacted up to offset %d, %d bytes now",
                    cleaning.log.directory,
                    cleaning.cleaned_offset,
                    cleaning.log.size_bytes,
                )
                return
            if replacement is not None and not cleaning.log.replace(replacement):
                return  # a truncation or retention was faster; the next pass sees what is there now
            await asyncio.sleep(took_s)

    async def _abandon(self, cleaning: Cleaning) -> None:
        try:
            await self._call(cleaning.abandon)
        except OSError as error:
            logger.warning("%s: files of an unfinished compaction are left: %s", cleaning.log.directory, error)


def _slice(steps: Iterator[Replacement | None]) -> tuple[bool, Replacement | None, float]:
    """(whether the pass is over, what has to be put in its place, seconds of work)"""
    start = time.thread_time()
    for replacement in steps:
        took_s = time.thread_time() - start
        if replacement is not None or took_s >= _SLICE_S:
            return False, replacement, took_s
    return True, None, time.thread_time() - start
