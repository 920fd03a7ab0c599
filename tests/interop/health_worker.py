"""The health app as a worker of its own on a broker; its alarms are lines of JSON on standard output.

python health_worker.py BROKER DATADIR RULES
"""

import sys
from pathlib import Path

import orjson

from apps.health_monitoring import app as health
from processors.alerts import Alarm
from streamcore.cli.worker import run_worker, start_logging


class Printer:
    """A notifier like the app's own."""

    async def notify(self, alarm: Alarm) -> None:
        sys.stdout.buffer.write(orjson.dumps(alarm.to_representation()) + b"\n")
        sys.stdout.buffer.flush()

    async def run(self) -> None: ...


def main(broker: str, datadir: str, rules: str) -> int:
    start_logging("warning", None)
    health.options.live = False
    health.options.rules = Path(rules)
    health._notifiers.append(Printer())
    return run_worker(health.app, {"broker": broker, "datadir": datadir, "web_enabled": False})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
