"""`streamcore worker`: runs an app until it is told to stop. The engine does the work; this owns the signals."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from streamcore.cli.commands import Command
from streamcore.cli.discovery import find_app
from streamcore.cli.problems import ExitCode
from streamcore.cli.settings import Settings

if TYPE_CHECKING:
    from streamcore.app import App

LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command("worker", cls=Command)
@click.option(
    "-A", "--app", "spec", metavar="MODULE[:APP]", help="The app: a module, module:app, or a path like health.py."
)
@click.option("--web-port", "-p", type=click.IntRange(0, 65535), metavar="PORT", help="Port of the status pages.")
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
    settings: Settings, spec: str | None, web_port: int | None, without_web: bool, loglevel: str, logfile: Path | None
) -> None:
    """Run an app: its agents, tables, timers and pages.

    \b
    Examples:
      streamcore worker -A health
      streamcore worker -A shop.orders:app --web-port 7000 -l warning
      streamcore worker -A health.py --data /var/lib/health

    Ctrl-C (or SIGTERM) stops in order: events in flight are finished, offsets committed, the log flushed. A second
    one ends at once; the next start then recovers from the log.
    """
    app = _app(settings, spec)
    start_logging(loglevel, logfile)
    options: dict[str, Any] = {}
    if (broker := settings.broker_given()) is not None:
        options["broker"] = broker
    if web_port is not None:
        options["web_port"] = web_port
    if without_web:
        options["web_enabled"] = False
    code = run_worker(app, options)
    if code:
        raise click.exceptions.Exit(code)


def _app(settings: Settings, spec: str | None) -> "App":
    if spec is not None:
        return find_app(spec)
    if settings.app is None:
        raise click.UsageError("Which app? Name its module: streamcore worker -A health  (or -A health.py).")
    return cast("App", settings.app)


def start_logging(level: str, logfile: Path | None) -> None:
    """Log lines to stderr or a file; the worker's own errors reach people here."""
    handler: logging.Handler
    handler = logging.StreamHandler(sys.stderr) if logfile is None else logging.FileHandler(logfile)
    handler.setFormatter(_Lines(colour=logfile is None and sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn says every request at info: of use only to who debugs the pages.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING if level != "debug" else logging.DEBUG)


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
    """Run an app in this process until it stops or a signal stops it; returns the exit code."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(app, options))


async def _serve(app: "App", options: dict[str, Any]) -> int:
    loop = asyncio.get_running_loop()
    worker = app.worker(**options)
    stopping = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopping
        if stopping:
            # Whatever the orderly stop waits for, the log is made for being killed.
            click.echo("Stopped at once; the next start recovers from the log.", err=True)
            os._exit(128 + number)
        stopping = True
        worker.request_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        code = await worker.run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return int(code or ExitCode.DONE)


def _loop_factory() -> Any:
    """uvloop where it is installed: about twice as quick at waking up."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
