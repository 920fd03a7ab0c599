"""What an app does beside its agents: tasks and timers, in every worker, in one of them, or in one on every machine."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamcore.engine.services import logger
from streamcore.engine.task_runner import end
from streamcore.errors import StreamcoreError, UsageError

# In every worker of the app, in one of them all, or in one of them on every machine.
Where = Literal["worker", "leader", "host"]

RETRY_MAX_S = 30.0  # between starts of a task that keeps failing


@dataclass
class TimerSpec:
    """A function called every `interval_s` seconds."""

    name: str
    interval_s: float
    function: Callable[[], Awaitable[Any]]
    where: Where = "worker"


@dataclass
class TaskSpec:
    """A coroutine that runs beside the agents."""

    name: str
    function: Callable[[], Awaitable[Any]]
    where: Where = "worker"


class AppTasks:
    """Starts and stops them, by where they run.

    Args:
        fail: told of what stops the worker.
    """

    def __init__(
        self, tasks: Sequence[TaskSpec], timers: Sequence[TimerSpec], fail: Callable[[StreamcoreError], None]
    ) -> None:
        self._tasks = tasks
        self._timers = timers
        self._fail = fail
        self._running: dict[Where, list[asyncio.Task[Any]]] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self.failing: dict[str, str] = {}  # by name, what went wrong the last time

    def has(self, where: Where) -> bool:
        return where in {task.where for task in self._tasks} | {timer.where for timer in self._timers}

    def start(self, where: Where) -> None:
        """Start what runs there, if it does not run already."""
        if where in self._running:
            return
        loop = asyncio.get_running_loop()
        self._running[where] = [
            loop.create_task(self._supervise(task.name, task.function), name=f"task {task.name}")
            for task in self._tasks
            if task.where == where
        ] + [
            loop.create_task(self._call_every(timer), name=f"timer {timer.name}")
            for timer in self._timers
            if timer.where == where
        ]

    def stop_soon(self, where: Where) -> None:
        """Another worker does it now."""
        for task in self._running.pop(where, ()):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        for where in list(self._running):
            self.stop_soon(where)
        await end(self._ending)

    async def _supervise(self, name: str, function: Callable[[], Awaitable[Any]]) -> None:
        """Run a task; when it fails, say so and start it again. A usage error is not worth another try."""
        delay_s = 1.0
        while True:
            try:
                await function()
                self.failing.pop(name, None)
                return
            except UsageError as error:
                self._fail(error)
                return
            except Exception as error:
                self.failing[name] = f"task {name} failed: {type(error).__name__}: {error}"
                logger.exception("task %s failed and starts again in %.0f s", name, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    async def _call_every(self, timer: TimerSpec) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + timer.interval_s
        while True:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            # A call that took longer than the interval does not make the next ones come in a burst.
            due_s = max(due_s + timer.interval_s, loop.time())
            try:
                await timer.function()
                self.failing.pop(timer.name, None)
            except Exception as error:
                self.failing[timer.name] = f"timer {timer.name} failed: {type(error).__name__}: {error}"
                logger.exception("timer %s failed; it is called again in %g s", timer.name, timer.interval_s)
