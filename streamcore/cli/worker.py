"""`streamcore worker`: runs an app until it is told to stop. The engine does the work; this owns the signals."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamcore.cli.commands import Command
from streamcore.cli.discovery import find_app
from streamcore.cli.output import plural
from streamcore.cli.problems import ExitCode
from streamcore.cli.settings import Settings
from streamcore.cli.supervisor import Supervisor, command_line, stop_with_supervisor

if TYPE_CHECKING:
    from rich.progress import Progress

    from streamcore.app import App
    from streamcore.engine.worker import Worker

logger = logging.getLogger(__name__)

OnRecovery = Callable[[str, int, int, int], None]  # table, partition, rows done, rows in all

WORKERS_MAX = 256  # a typing error of one digit more would take the machine down
RECOVERY_LOG_S = 5.0
SAME_SIGNAL_S = 0.5  # timeout(1), make and a terminal may each pass on one and the same Ctrl-C
ANNOUNCE_POLL_S = 0.05
LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command("worker", cls=Command)
@click.option(
    "-A", "--app", "spec", metavar="MODULE[:APP]", help="The app: a module, module:app, or a path like health.py."
)
@click.option("--web-port", "-p", type=click.IntRange(0, 65535), metavar="PORT", help="Port of the status pages.")
@click.option(
    "-n",
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the partitions; pages at --web-port and the ports after it.",
)
@click.option("--without-web", is_flag=True, help="No status pages.")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="How much to log.",
)
@click.option("-f", "--logfile", type=click.Path(path_type=Path), metavar="FILE", help="Log there and not to stderr.")
@click.pass_obj
def worker(
    settings: Settings,
    spec: str | None,
    web_port: int | None,
    workers: int,
    without_web: bool,
    loglevel: str,
    logfile: Path | None,
) -> None:
    """Run an app: its agents, tables, timers and pages.

    \b
    Examples:
      streamcore worker -A health
      streamcore worker -A shop.orders:app --web-port 7000 -l warning
      streamcore worker -A health.py --data /var/lib/health
      streamcore worker -A health --broker kafka://broker:9092 --workers 4

    Workers of one app share its partitions, on one machine or on many: start another one and it takes its share.
    On one data directory the first one keeps the log and the others join it.

    Ctrl-C (or SIGTERM) stops in order: events in flight are finished, offsets committed, the log flushed. A second
    one ends at once; the next start then recovers from the log.
    """
    app = _app(settings, spec)
    start_logging(loglevel, logfile)
    if workers > 1:
        code = _supervise(settings, app, spec, web_port, workers, without_web, loglevel, logfile)
        if code:
            raise click.exceptions.Exit(code)
        return
    options: dict[str, Any] = {}
    if (broker := settings.broker_given()) is not None:
        options["broker"] = broker
    if client := Settings(app=app, command_config=settings.command_config).client():
        options["broker_config"] = client
    if web_port is not None:
        options["web_port"] = web_port
    if without_web:
        options["web_enabled"] = False
    code = run_worker(app, options)
    if code:
        raise click.exceptions.Exit(code)


def _supervise(
    settings: Settings,
    app: "App",
    spec: str | None,
    web_port: int | None,
    workers: int,
    without_web: bool,
    loglevel: str,
    logfile: Path | None,
) -> int:
    """Run several workers, each with its own port and log file."""
    if app.conf.broker.startswith("memory:") and settings.broker_given() is None:
        raise click.UsageError("A memory: log lives in one process: several workers need a directory or a broker.")
    common = [*command_line(None if spec is not None else sys.argv[0]), "worker"]
    if spec is not None:
        common += ["-A", spec]
    if (broker := settings.broker_given()) is not None:
        common += ["--broker", broker]
    common += ["-l", loglevel]
    first_port = app.conf.web_port if web_port is None else web_port
    commands: list[list[str]] = []
    for slot in range(workers):
        command = [*common]
        if without_web or not app.conf.web_enabled:
            command.append("--without-web")
        else:
            command += ["--web-port", str(first_port + slot if first_port else 0)]
        if logfile is not None:
            command += ["--logfile", str(logfile.with_name(f"{logfile.stem}-{slot + 1}{logfile.suffix}"))]
        commands.append(command)
    return asyncio.run(Supervisor(commands).run())


def _app(settings: Settings, spec: str | None) -> "App":
    if spec is not None:
        return find_app(spec)
    if settings.app is None:
        raise click.UsageError("Which app? Name its module: streamcore worker -A health  (or -A health.py).")
    return settings.app


def start_logging(level: str, logfile: Path | None) -> None:
    """Log lines to stderr or a file; the worker's own errors reach people here."""
    handler: logging.Handler = _Stderr() if logfile is None else logging.FileHandler(logfile)
    handler.setFormatter(_Lines(colour=logfile is None and sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn says every request at info: of use only to who debugs the pages.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING if level != "debug" else logging.DEBUG)


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is at the moment, so that log lines and a progress bar keep out of each other's way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _Lines(logging.Formatter):
    """`2026-01-31 12:00:00,123 WARNING streamcore.engine: what happened`, the level coloured on a terminal."""

    COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}  # noqa: RUF012

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if self._colour and record.levelname in self.COLOURS:
            return line.replace(record.levelname, click.style(record.levelname, fg=self.COLOURS[record.levelname]), 1)
        return line


def run_worker(app: "App", options: dict[str, Any]) -> int:
    """Run an app in this process until it stops or a signal stops it; returns the exit code.

    Args:
        options: settings that win over the app's own.
    """
    if options.get("web_port", app.conf.web_port) == 0:
        # Chosen here, so that the log line and the app's own links can name it.
        options = {**options, "web_port": _free_port(options.get("web_host", app.conf.web_host))}
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(app, options, recovery_progress()))


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


async def _serve(app: "App", options: dict[str, Any], on_recovery: OnRecovery) -> int:
    loop = asyncio.get_running_loop()
    worker = app.worker(on_recovery=on_recovery, **options)
    running = loop.create_task(worker.run(), name="worker")
    stopping_since_s: float | None = None

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopping_since_s
        if stopping_since_s is not None:
            if loop.time() - stopping_since_s < SAME_SIGNAL_S:
                return
            # Whatever the orderly stop waits for, the log is made for being killed.
            click.echo("Stopped at once; the next start recovers from the log.", err=True)
            os._exit(128 + number)
        stopping_since_s = loop.time()
        logger.info("stopping in order; a second signal ends at once")
        if worker.phase == "running":
            worker.request_stop()
        else:
            running.cancel()  # what it would recover now, the next start recovers as well

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    stop_with_supervisor(loop, lambda: on_signal(signal.SIGTERM))
    announcing = loop.create_task(_announce(app, worker), name="announce")
    try:
        return await running
    except asyncio.CancelledError:
        if stopping_since_s is None:
            raise
        return ExitCode.DONE
    finally:
        announcing.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _announce(app: "App", worker: "Worker") -> None:
    """One line that says that it works now, and where to look."""
    while worker.phase in ("starting", "recovering"):  # noqa: ASYNC110 - the engine tells nobody when it changes
        await asyncio.sleep(ANNOUNCE_POLL_S)
    if worker.phase != "running":
        return
    agents = plural(len(app.agents), "agent")
    conf = app.conf
    pages = f", pages at http://{conf.web_host}:{conf.web_port}" if conf.web_enabled else ""
    logger.info("app %s is running on %s: %s%s; Ctrl-C stops it", app.id, conf.broker, agents, pages)


def recovery_progress() -> OnRecovery:
    """Shows how table recovery goes: as a bar on a terminal, as a log line now and then elsewhere."""
    return _RecoveryBar() if sys.stderr.isatty() else _RecoveryLines()


class _RecoveryLines:
    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def __call__(self, table: str, partition: int, done: int, total: int) -> None:
        if time.monotonic() - self._told_s < RECOVERY_LOG_S:
            return
        self._told_s = time.monotonic()
        logger.info("recovering table %s, partition %d: %d of %d rows", table, partition, done, total)


class _RecoveryBar:
    """One bar, on the screen only while a partition is being recovered: a worker's log has the terminal otherwise."""

    def __init__(self) -> None:
        self._bars: Progress | None = None

    def __call__(self, table: str, partition: int, done: int, total: int) -> None:
        if done >= total:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
            return
        if self._bars is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bars = Progress(console=Console(stderr=True), transient=True)
            self._bars.add_task(f"recovering {table}, partition {partition}", total=total)
            self._bars.start()
        self._bars.update(self._bars.task_ids[0], completed=done)


def loop_factory() -> Any:
    """uvloop where it is installed: about twice as quick at waking up."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
