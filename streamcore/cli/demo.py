"""`streamcore demo`: the health-monitoring app with live sources, a simulated fleet and an early incident."""

import importlib
from pathlib import Path
from typing import Any

import click

from streamcore.cli.commands import Command
from streamcore.cli.positions import DurationType
from streamcore.cli.problems import CommandError
from streamcore.cli.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("demo", cls=Command, short_help="See this machine's health live: metrics, syslog, alarms.")
@click.option("--fleet", type=click.IntRange(min=0), metavar="N", help="Simulate N other hosts.  [default: 5]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Take syslog here.  [default: 5514]")
@click.option("--web-port", type=click.IntRange(0, 65535), metavar="PORT", help="Of the dashboard.  [default: 6066]")
@click.option("--duration", type=DurationType(), help="Stop after this long, e.g. 2m.  [default: at Ctrl-C]")
@click.option("--rules", type=FILE, metavar="FILE", help="Rules of your own, in YAML.")
@click.option("--webhook", metavar="URL", help="Also post every alarm there.")
@click.option("--alertmanager", metavar="URL", help="Also tell a Prometheus Alertmanager, e.g. http://localhost:9093.")
@click.option("--replay", type=click.Choice(["nab"]), help="No live sources: recorded metrics with labelled incidents.")
@click.option("--replay-syslog", type=FILE, metavar="FILE", help="Log lines to replay beside them.")
@click.option("--speed", type=click.FloatRange(min=0), metavar="X", help="Of the replay: 1 is real time, 0 full speed.")
@click.pass_obj
def demo(settings: Settings, /, **given: Any) -> None:
    """Watch this machine's health: metrics and syslog through the log, joined, until an alarm fires and resolves.

    Reads this machine's CPU, memory, disk and network, takes syslog lines, simulates a few more hosts, and serves a
    dashboard. Within half a minute an alarm fires for a simulated incident, and resolves a minute later.

    \b
    Examples:
      streamcore demo
      logger -n 127.0.0.1 -P 5514 -p kern.err "nvme0n1: I/O error, dev nvme0n1, sector 1953"
      streamcore demo --fleet 20 --web-port 7000
      streamcore demo --replay nab --data /tmp/replay
    """
    try:
        # By name, because apps stand above streamcore: nothing here depends on them.
        run = importlib.import_module("apps.health_monitoring.app").demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "streamcore":
            raise
        remedy = "run 'make demo' in a clone of the repository, or install streamcore[apps]"
        raise CommandError(f"The demo needs '{error.name}', which is not installed: {remedy}.") from error
    options = {name: value for name, value in given.items() if value is not None}
    if "duration" in options:
        options["duration"] /= 1000  # s
    if (url := settings.broker_given()) is not None:
        scheme, _, directory = url.partition(":")
        if scheme != "embedded":
            raise click.UsageError("The demo keeps its log in a directory: name one with --data DIR.")
        options["data"] = directory.removeprefix("//")
    code = run(**options)
    if code:
        raise click.exceptions.Exit(code)
