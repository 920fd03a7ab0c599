"""`streamcore worker --workers N`: N processes that share the app's partitions, started again when one of them dies."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import click

from streamcore.cli.problems import ExitCode

logger = logging.getLogger(__name__)

# Set in a worker whose standard input is a pipe from its supervisor: the end of the pipe is the supervisor's end.
SUPERVISED: Final = "STREAMCORE_SUPERVISED"
RESTART_FIRST_S: Final = 1.0
RESTART_MOST_S: Final = 30.0
# One that has worked for so long is started again at once when it dies; before, it dies of the same thing again.
SETTLED_S: Final = 60.0
# One that ends with an error so soon, at its first try, has a mistake in it that no other try mends.
FIRST_TRY_S: Final = 10.0
KILL_AFTER_S: Final = 30.0  # of a stop that does not end: longer than any drain that a user would sit through
_LINE_MAX_BYTES = 1 << 20  # a traceback's line may hold a record


def command_line(script: str | None) -> list[str]:
    """How this program was started: as `streamcore`, or as the script of an app."""
    if script is None:
        return [sys.executable, "-c", "from streamcore.cli import main; main()"]
    return [sys.executable, script]


class Supervisor:
    """Run it once.

    Args:
        commands: one per worker.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code: int = ExitCode.DONE

    async def run(self) -> int:
        """Until a signal, the orderly end of a worker or one that cannot start; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with asyncio.TaskGroup() as tasks:
                for slot, command in enumerate(self._commands, 1):
                    tasks.create_task(self._keep(slot, command), name=f"worker {slot}")
                tasks.create_task(self._stop_all(), name="stop")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return self._code

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            logger.info("stopping %d workers in order; a second signal ends them at once", len(self._processes))
            self._stopping.set()
        else:
            self._signal_all(signal.SIGKILL)

    async def _stop_all(self) -> None:
        await self._stopping.wait()
        self._signal_all(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + KILL_AFTER_S
        while self._processes and loop.time() < deadline_s:  # noqa: ASYNC110 - processes, watched by tasks of their own
            await asyncio.sleep(0.05)
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    def _end(self, code: int) -> None:
        self._code = self._code or code
        self._stopping.set()

    async def _keep(self, slot: int, command: Sequence[str]) -> None:
        """Have a worker run, until all of them stop."""
        loop = asyncio.get_running_loop()
        delay_s, is_first = RESTART_FIRST_S, True
        while not self._stopping.is_set():
            started_s = loop.time()
            code = await self._run_once(slot, command)
            if self._stopping.is_set():
                return
            lived_s = loop.time() - started_s
            if code == ExitCode.DONE:
                logger.info("worker %d has ended in order, and with it the app", slot)
                self._end(code)
                return
            if code > 0 and is_first and lived_s < FIRST_TRY_S:
                self._end(code)  # it has said why
                return
            is_first = False
            if lived_s > SETTLED_S:
                delay_s = RESTART_FIRST_S
            reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            logger.error("worker %d %s; it starts again in %g s", slot, reason, delay_s)
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                delay_s = min(RESTART_MOST_S, delay_s * 2)

    async def _run_once(self, slot: int, command: Sequence[str]) -> int:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1"},
            limit=_LINE_MAX_BYTES,
            # A terminal's Ctrl-C is for the supervisor, which passes it on once.
            start_new_session=True,
        )
        self._processes[slot] = process
        try:
            assert process.stderr is not None, "it is a pipe"
            await _pass_on(slot, process.stderr)
            return await process.wait()
        finally:
            del self._processes[slot]


async def _pass_on(slot: int, lines: asyncio.StreamReader) -> None:
    """A worker's log lines, with the number of the worker before them."""
    while True:
        try:
            line = await lines.readline()
        except ValueError:  # longer than the limit; what has come of it is dropped
            continue
        if not line:
            return
        click.echo(f"[{slot}] {line.decode(errors='replace').rstrip()}", err=True)


def stop_with_supervisor(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """In a supervised worker: stop when the supervisor is gone, however that ended."""
    if os.environ.get(SUPERVISED) != "1":
        return

    def on_readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop()

    loop.add_reader(0, on_readable)
