"""`streamcore demo`: the health-monitoring app with live sources, a simulated fleet and an early incident."""

import importlib
from typing import Any

import click

from streamcore.cli.commands import Command
from streamcore.cli.positions import DurationType
from streamcore.cli.problems import CommandError
from streamcore.cli.settings import Settings


@click.command("demo", cls=Command, short_help="See this machine's health live: metrics, syslog, alarms.")
@click.option("--fleet", type=click.IntRange(min=0), metavar="N", help="Simulate this many other hosts.")
@click.option("--port", type=click.IntRange(0, 65535), help="Take syslog here, by UDP and TCP.")
@click.option("--web-port", type=click.IntRange(0, 65535), help="The dashboard's port.")
@click.option("--duration", type=DurationType(), help="Stop after this long, e.g. 2m.  [default: at Ctrl-C]")
@click.pass_obj
def demo(settings: Settings, fleet: int | None, port: int | None, web_port: int | None, duration: int | None) -> None:
    """Watch this machine's health: metrics and syslog through the log, joined, until an alarm fires and resolves.

    \b
    Reads this machine's CPU, memory, disk and network, takes syslog lines, simulates a few more hosts, and opens a
    dashboard. Within half a minute an alarm fires for a simulated incident, and resolves a minute later. Try also:
      logger -n 127.0.0.1 -P PORT "kernel: nvme0n1: I/O error, dev nvme0n1, sector 1953"
    """
    try:
        # By name, because apps stand above streamcore: nothing here depends on them.
        run = importlib.import_module("apps.health_monitoring.app").demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "streamcore":
            raise
        remedy = "run 'make demo' in a clone of the repository, or install streamcore[apps]"
        raise CommandError(f"The demo needs '{error.name}', which is not installed: {remedy}.") from error
    given: dict[str, Any] = {"fleet": fleet, "port": port, "web_port": web_port, "data": settings.data}
    options = {name: value for name, value in given.items() if value is not None}
    if duration is not None:
        options["duration"] = duration / 1000  # s
    run(**options)
