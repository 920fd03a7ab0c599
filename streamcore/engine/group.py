"""What commits together: runs that share tables, their rows and what they send.

A commit needs every run of the group to stand between two events, so that the offsets, the rows and the outputs
belong to the same prefix of the input. A group begins with one run and grows when a second agent touches a table.
"""

import asyncio
from typing import TYPE_CHECKING

from streamcore.engine.commit import Snapshot, commit
from streamcore.engine.services import Services, logger
from streamcore.errors import GroupMembershipError, StreamcoreError, ValueRefusedError
from streamcore.state.partitions import TablePartition, WindowPartition
from streamcore.topics import SentRecord
from streamcore.types import TP, OutRecord

if TYPE_CHECKING:
    from streamcore.engine.run import Run
    from streamcore.engine.stream_task import StreamTask

# Outputs wait in memory for their commit; beyond this many the commit comes early.
OUTBOX_MAX_RECORDS = 50_000
MEETING_RETRY_MAX_S = 0.2  # while a group meets, which takes a moment
RETRY_MAX_S = 5.0  # between tries of a commit that the log does not take


class Outputs:
    """What waits for one partition: records, and those among them whose place somebody may ask for, by index."""

    __slots__ = ("records", "sent")

    def __init__(self) -> None:
        self.records: list[OutRecord] = []
        self.sent: dict[int, Sent] = {}

    def extend(self, later: "Outputs") -> None:
        """Put what came later behind."""
        first = len(self.records)
        self.sent.update((first + index, sent) for index, sent in later.sent.items())
        self.records += later.records


Outbox = dict[TP, Outputs]


class Sent:
    """A record on its way; await it for its place on the log."""

    __slots__ = ("_future", "_group")

    def __init__(self, group: "CommitGroup") -> None:
        self._group = group
        self._future: asyncio.Future[SentRecord] | None = None

    def resolve(self, record: SentRecord) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(record)

    @property
    def is_awaited(self) -> bool:
        return self._future is not None

    def __await__(self):  # type: ignore[no-untyped-def]
        # The event that waits here cannot be committed meanwhile, so the outbox leaves now; should the event then
        # fail, its outputs are repeated, which is what at-least-once means.
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
        self._group.flush_soon()
        return (yield from self._future.__await__())


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


class CommitGroup:
    """The unit of commit in one stream task."""

    def __init__(self, services: Services, task: "StreamTask", run: "Run") -> None:
        self.services = services
        self.task = task
        self.runs: list[Run] = [run]
        self.tables: dict[str, TablePartition | WindowPartition] = {}
        self.outbox: Outbox = {}
        self.outbox_records = 0
        self.commits = 0
        self.failing: str | None = None  # why commits do not go through at the moment
        self.wanted = False  # a commit waits for the runs to stand still
        self.merged_into: CommitGroup | None = None
        self.lock = asyncio.Lock()  # held by a commit
        self.flush_lock = asyncio.Lock()  # outputs reach the log in the order in which they were sent
        self._committing: Outbox = {}  # what the commit under way has not sent yet; before anything newer
        self._predecessors: list[CommitGroup] = []
        self._open = asyncio.Event()  # runs may go on
        self._open.set()
        self._parked = asyncio.Event()
        self._rolled_back = asyncio.Event()
        self._rolled_back.set()
        self._progress = asyncio.Event()  # there is something to commit
        self._hurry = asyncio.Event()  # and no reason to wait
        self._waiters: list[asyncio.Future[None]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._last_commit_s = 0.0
        self._ending = False

    # -- called by runs ------------------------------------------------------------------------------------------------

    def send(self, tp: TP, record: OutRecord) -> Sent:
        """Put a record into the outbox."""
        sent = Sent(self)
        self.put(tp, record, sent)
        return sent

    def put(self, tp: TP, record: OutRecord, sent: Sent | None = None) -> None:
        """As `send`, where nobody asks for the record's place."""
        outputs = self.outbox.get(tp)
        if outputs is None:
            outputs = self.outbox[tp] = Outputs()
        if sent is not None:
            outputs.sent[len(outputs.records)] = sent
        outputs.records.append(record)
        self.outbox_records += 1
        if not self._progress.is_set():
            self._progress.set()
        if self.outbox_records >= OUTBOX_MAX_RECORDS and not self._hurry.is_set():
            self.hurry()
            if self.lock.locked():  # the commit under way takes its time, and memory is bounded
                self._hold()

    def progressed(self) -> None:
        """Something happened since the last commit."""
        self._progress.set()

    def hurry(self) -> None:
        """Commit now rather than at the end of the interval."""
        self._progress.set()
        self._hurry.set()

    def on_parked(self) -> None:
        """A run stands between two events."""
        self._parked.set()

    def drained(self) -> None:
        """A run has nothing more to read: what is done may as well be committed."""
        if self._progress.is_set():
            self._hurry.set()

    async def next_commit(self) -> None:
        """Wait for the end of the next commit, or for the group to be merged into another."""
        if self.merged_into is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        _wake(waiters)

    async def wait_open(self) -> None:
        """Stand still while a commit is under way."""
        while self.wanted and self.merged_into is None:
            await self._open.wait()

    def flush_soon(self) -> None:
        """Send the outbox before its commit, because somebody waits for an acknowledgement."""
        task = asyncio.get_running_loop().create_task(self._flush_until_taken(), name="outbox flush")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush_until_taken(self) -> None:
        delay = 0.05
        while self.outbox:
            try:
                await self.flush()
            except (StreamcoreError, OSError) as error:
                self._fails(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)
            else:
                self.failing = None

    @property
    def has_progress(self) -> bool:
        """Something has been done that is not committed yet."""
        return self._progress.is_set() or self.wanted or self.lock.locked()

    # -- the commit ----------------------------------------------------------------------------------------------------

    async def keep_committing(self) -> None:
        """Commit when the input is drained, or at the end of the interval; ends when the group has been merged."""
        loop = asyncio.get_running_loop()
        while self.merged_into is None and not self._ending:
            await self._progress.wait()
            if self.merged_into is not None or self._ending:
                return
            try:
                async with asyncio.timeout(self.services.commit_interval_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            else:
                pause = self._last_commit_s + self.services.commit_linger_s - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
            self._hurry.clear()
            await self.commit_when_still()

    def end_committing(self) -> None:
        """Let `keep_committing` return after the commit that it is at."""
        self._ending = True
        self._progress.set()
        self._hurry.set()

    async def close(self) -> None:
        """Give up what waits to be flushed; its events are not committed."""
        flushes = list(self._flushes)
        for task in flushes:
            task.cancel()
        await asyncio.gather(*flushes, return_exceptions=True)

    @property
    def _is_still(self) -> bool:
        return all(run.can_commit for run in self.runs)

    def _hold(self) -> None:
        """Have every run stand still at its next boundary."""
        self.wanted = True
        self._open.clear()
        for run in self.runs:
            run.interrupt()

    def _let_go(self) -> None:
        self.wanted = False
        self._open.set()
        for run in self.runs:
            run.refresh_interrupt()

    async def _wait_for_predecessors(self) -> None:
        """A commit or a flush that began before its group was merged into this one comes first."""
        while self._predecessors:
            predecessor = self._predecessors[-1]
            async with predecessor.lock, predecessor.flush_lock:
                self._predecessors.remove(predecessor)

    async def commit_when_still(self) -> None:
        """Wait until every run stands between two events, see what is to be committed, let them go on, commit it."""
        is_committed = False
        try:
            while self.merged_into is None:
                self._hold()
                if not self._is_still:
                    self._parked.clear()
                    await self._parked.wait()
                    continue
                await self._wait_for_predecessors()
                async with self.lock:
                    # Waiting for a lock gives a run that has just been absorbed the time to begin an event.
                    if self._is_still and self.merged_into is None:
                        self._progress.clear()
                        await self._commit()
                        is_committed = True
                        return
        finally:
            if not is_committed:
                self._progress.set()
            self.commits += 1
            self._wake_waiters()
            self._let_go()

    async def _commit(self) -> None:
        self._last_commit_s = asyncio.get_running_loop().time()
        try:
            snapshot = Snapshot(self)
        except ValueRefusedError as error:
            await self._refuse(error)
            return
        # What the runs do from here on belongs to the next commit, and so does whoever begins to wait for one.
        waiters, self._waiters = self._waiters, []
        self._committing = snapshot.outbox
        self._let_go()
        delay = 0.05
        try:
            while True:
                try:
                    await commit(snapshot)
                    self.failing = None
                    return
                except ValueRefusedError as error:
                    await self._refuse(error)
                    return
                except GroupMembershipError as error:
                    # The group meets, and the next generation may have this task too. If not, the task is ended here.
                    logger.debug("commit of partition %d waits for the group: %s", self.task.partition, error)
                    self._hold()
                    self.services.on_refused_commit()
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, MEETING_RETRY_MAX_S)
                except (StreamcoreError, OSError) as error:
                    # Nothing is lost: rows, offsets and outputs stay where they are, and the input waits in the log.
                    self.services.metrics.commit_errors[()] += 1
                    self._hold()
                    self._fails(error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_MAX_S)
        finally:
            self._committing = {}
            self._put_back(snapshot.outbox)
            _wake(waiters)

    def _fails(self, error: Exception) -> None:
        if self.failing is None:
            logger.error("commit of partition %d does not go through, trying on: %s", self.task.partition, error)
        self.failing = str(error)

    async def _refuse(self, error: ValueRefusedError) -> None:
        """A table holds what it cannot: begin again, and check every value where an agent sets it.

        The event that set the value is found that way, and has the fate of an event whose agent raises.
        """
        logger.error("partition %d: %s; looking for the event that did it", self.task.partition, error)
        is_known = [table.check_values(error.max_bytes) for table in self.tables.values()]
        if all(is_known):
            # It has been changed in place after it was set; there is no event to blame.
            for run in self.runs:
                run.failures.give_up(error)
        group = self
        while group.merged_into is not None:
            group = group.merged_into
        if group is self:
            await self._roll_back(None)
            return
        # Another agent has come to use the tables while this commit was under way.
        async with group.lock:
            await group._roll_back(None)

    async def flush(self) -> None:
        """Send what is in the outbox.

        Raises:
            StreamcoreError: a partition did not take its records; they are in the outbox again.
        """
        async with self.flush_lock:
            await self.produce(self._committing)
            taken, self.outbox, self.outbox_records = self.outbox, {}, 0
            try:
                await self.produce(taken)
            finally:
                self._put_back(taken)

    async def produce(self, entries: Outbox) -> None:
        """Send entries; those that the log has taken are removed.

        Raises:
            StreamcoreError: a partition did not take its records.
        """
        if not entries:
            return
        results = await self.services.transport.produce({tp: outputs.records for tp, outputs in entries.items()})
        failed: StreamcoreError | None = None
        for tp, result in results.items():
            if isinstance(result, StreamcoreError):
                failed = result
                self.services.metrics.produce_errors[(tp.topic,)] += len(entries[tp].records)
                continue
            outputs = entries.pop(tp)
            for index, sent in outputs.sent.items():
                if sent.is_awaited:
                    sent.resolve(SentRecord(tp.topic, tp.partition, result + index, outputs.records[index][2]))
        if failed is not None:
            raise failed

    def _put_back(self, entries: Outbox) -> None:
        group = self
        while group.merged_into is not None:
            group = group.merged_into
        for tp, outputs in entries.items():
            group.outbox_records += len(outputs.records)
            if (later := group.outbox.get(tp)) is not None:
                outputs.extend(later)
            group.outbox[tp] = outputs

    # -- errors and growth ---------------------------------------------------------------------------------------------

    async def roll_back(self, failed: "Run") -> None:
        """Back to the last commit: rows, outputs and places; every run of the group begins again from there."""
        await self._wait_for_predecessors()
        async with self.lock:  # a commit under way belongs to what came before the error
            await self._roll_back(failed)

    async def _roll_back(self, failed: "Run | None") -> None:
        self._rolled_back.clear()
        try:
            others: list[Run] = []
            while waiting := [run for run in self.runs if run is not failed and run not in others]:
                for run in waiting:
                    run.restart()
                # What an agent still does on its way out must not outlive the roll-back; it may even bring new runs in.
                for run in waiting:
                    await run.left()
                others += waiting
            self.outbox.clear()
            self.outbox_records = 0
            for table in self.tables.values():
                table.rollback()
            for run in others:
                run.back_to_commit()
        finally:
            self._rolled_back.set()

    async def wait_rolled_back(self) -> None:
        """Wait for the end of a roll-back that is under way."""
        await self._rolled_back.wait()

    def absorb(self, other: "CommitGroup") -> None:
        """Two agents use the same table: from now on they commit together."""
        if other is self:
            return
        self.runs += other.runs
        self.tables.update(other.tables)
        for tp, entries in other.outbox.items():
            self.outbox.setdefault(tp, Outputs()).extend(entries)
        self.outbox_records += other.outbox_records
        for run in other.runs:
            run.group = self
            if self.wanted:
                run.interrupt()
        self._predecessors += [other, *other._predecessors]
        other.merged_into = self
        other._open.set()
        other._wake_waiters()
        other._parked.set()
        other._progress.set()
        other._hurry.set()
        self._progress.set()
