"""The stream tasks that a worker has at the moment: they come and go as the app's workers share them out."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from streamcore.engine.run import Run
from streamcore.engine.services import logger
from streamcore.engine.stream_task import StreamTask
from streamcore.engine.task_runner import TaskRunner, end
from streamcore.errors import BrokerUnreachableError, StoreHeldError, StreamcoreError
from streamcore.transport.broker_errors import RetriableError

RETRY_FIRST_S = 0.2  # between tries to open a task whose log or store cannot be had at the moment
RETRY_MAX_S = 5.0


class TaskSet:
    """Opens what is assigned, one task at a time, and closes what is not ours any more.

    Args:
        make: makes a runner for a task by its number.
        drain_s: how long a task that is given up may take to finish its events.
        on_failure: told why a task cannot be opened.
        on_change: called when a task has been opened or closed.
    """

    def __init__(
        self,
        make: Callable[[int], TaskRunner],
        drain_s: float,
        on_failure: Callable[[StreamcoreError], None],
        on_change: Callable[[], None],
    ) -> None:
        self._make = make
        self._drain_s = drain_s
        self._on_failure = on_failure
        self._on_change = on_change
        self._runners: dict[int, TaskRunner] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._changing = asyncio.Lock()  # held while tasks are given up: a stop comes before or after that
        # In place: pages, the watchdog and the test kit look at these.
        self.tasks: dict[int, StreamTask] = {}  # open ones, by number
        self.runs: list[Run] = []  # theirs, by number of the task
        self.failing: dict[int, str] = {}  # why a task is not open yet
        self.closed_events: Counter[str] = Counter()  # what agents did in tasks that have gone

    @property
    def assigned(self) -> frozenset[int]:
        """The tasks that are ours, open or about to be."""
        return frozenset(self._runners)

    async def assign(self, wanted: Iterable[int]) -> bool:
        """Close what is not wanted any more and begin to open what is new.

        Returns:
            Whether something was closed; it is committed and closed by then.
        """
        wanted = set(wanted)
        async with self._changing:
            given_up = [number for number in self._runners if number not in wanted]
            await asyncio.gather(*(self._give_up(number) for number in given_up))
        for number in sorted(wanted - set(self._runners)):
            runner = self._runners[number] = self._make(number)
            task = asyncio.get_running_loop().create_task(self._open(runner), name=f"open partition {number}")
            self._opening[number] = task
        return bool(given_up)

    async def opened(self) -> None:
        """Wait until every task that is ours is open."""
        while self._opening:
            await asyncio.wait(list(self._opening.values()))

    async def _open(self, runner: TaskRunner) -> None:
        number, delay_s = runner.partition, RETRY_FIRST_S
        try:
            # One at a time: a rebuild has the log and the disk to itself, and the first ones work meanwhile.
            async with self._turn:
                while True:
                    try:
                        await runner.open()
                        break
                    except (BrokerUnreachableError, RetriableError, StoreHeldError) as error:
                        if number not in self.failing:
                            logger.error("partition %d cannot be opened at the moment, trying on: %s", number, error)
                        self.failing[number] = f"partition {number} cannot be opened: {error}"
                    await runner.abandon()
                    await asyncio.sleep(delay_s)
                    delay_s = min(RETRY_MAX_S, delay_s * 2)
            self.failing.pop(number, None)
            assert runner.task is not None, "it is open"
            self.tasks[number] = runner.task
            self._sort()
            runner.start()
        except StreamcoreError as error:
            self._on_failure(error)
        finally:
            self._opening.pop(number, None)
        self._on_change()

    async def _give_up(self, number: int) -> None:
        runner = self._runners[number]
        if await self._stop_opening(number):
            await runner.stop(self._drain_s)
        self._forget(number)

    async def _stop_opening(self, number: int) -> bool:
        """Whether the task was open."""
        if (opening := self._opening.get(number)) is None:
            return True
        await end([opening])
        await self._runners[number].abandon()
        return False

    def _forget(self, number: int) -> None:
        runner = self._runners.pop(number)
        for run in runner.runs:
            self.closed_events[run.agent.name] += run.events_total
        self.failing.pop(number, None)
        self.tasks.pop(number, None)
        self._sort()
        self._on_change()

    def _sort(self) -> None:
        self.runs[:] = [run for number in sorted(self.tasks) for run in self.tasks[number].runs]

    async def lose(self) -> None:
        """All of them belong to others: nothing more can be committed."""
        async with self._changing:
            for number in list(self._runners):
                if await self._stop_opening(number):
                    await self._runners[number].abandon()
                self._forget(number)

    async def stop(self) -> None:
        """Close all of them in order. They can still be looked at."""
        async with self._changing:
            for number in list(self._opening):
                await self._stop_opening(number)
            await asyncio.gather(*(self._runners[number].stop(self._drain_s) for number in self.tasks))
