"""Alarms for servers: metrics joined with the log lines around them, rules over windows.

Run it as `streamcore demo`, or as any app: `streamcore worker -A apps.health_monitoring.app`.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import streamcore as sc
from apps.health_monitoring.collectd import Collected, ValueList, machine
from apps.health_monitoring.fleet import run_fleet
from apps.health_monitoring.forwarded_lines import read_line
from apps.health_monitoring.metrics_agent import read_metrics
from apps.health_monitoring.models import Health, LogLine, Metrics, Stats, Usual
from apps.health_monitoring.notifiers import Alertmanager, Notifier, Terminal, Webhook
from apps.health_monitoring.page.board import Board
from apps.health_monitoring.page.page import register
from apps.health_monitoring.replay import NAB_SERIES, labelled_windows, replay, score
from apps.health_monitoring.syslog_receiver import SyslogReceiver
from processors.alerts import Alarm, alerts, load_rules

HERE = Path(__file__).parent
BOARD_HISTORY_S = 600  # the page shows ten minutes, also after a restart
ALARM_HISTORY_S = 86_400  # and the alarms of a day
LINES_BEFORE_S = 30  # of a reading: the log lines that belong to it


@dataclass
class Options:
    """Where readings come from and where alarms go, besides the topics."""

    live: bool = True  # this machine's own metrics, and a syslog port
    port: int = 5514  # of syslog, UDP and TCP
    fleet: int = 0  # simulated hosts
    replay: str | None = None  # "nab": the recordings that come with the app
    replay_syslog: Path | None = None
    speed: float = 0.0  # of a replay: 1 is real time, 0 as fast as it goes
    rules: Path = HERE / "rules.yaml"
    webhook: str | None = None
    alertmanager: str | None = None
    duration: float | None = None  # seconds; None runs until it is stopped


options = Options()
app = sc.App("health-monitoring")

metrics = app.topic("server-metrics", key_type=str, value_type=Metrics, key=Metrics.host, partitions=8)
syslog = app.topic("syslog", key_type=str, value_type=LogLine, key=LogLine.host, partitions=8)
health = app.topic("health", key_type=str, value_type=Health, key=Health.host, partitions=8)
alarms = app.topic("alarms", key_type=str, value_type=Alarm, key=Alarm.key, partitions=8, compacting=True)

# Filled by others, from any machine that reaches the log: collectd's write_kafka (`Format JSON`) and rsyslog's omkafka.
# Their records have the log's own time, for a sender's clock may be off, and lie in any partition, so they go on from
# there by host.
_ARRIVAL = {"message.timestamp.type": "LogAppendTime"}
collectd = app.topic("collectd", value_type=list[ValueList], partitions=8, config=_ARRIVAL)
collectd_hosts = app.topic("collectd-hosts", key_type=str, value_type=ValueList, key=machine, partitions=8)
rsyslog = app.topic("rsyslog", value_type=bytes, partitions=8, config=_ARRIVAL)

collected = app.Table("collected", default=Collected, help="what collectd has told of a host")
minutes = app.Table("minutes", default=Stats, help="each host's current minute").tumbling(60, grace=10)
usual = app.Table("usual", default=Usual, help="what is usual for a host")


# -- from readings to alarms -------------------------------------------------------------------------------------------


@app.agent(metrics, sink=[health])
async def describe(stream: sc.Stream) -> AsyncIterator[Health]:
    """Every reading with its host's current minute and the log lines of the 30 s before it."""
    async for reading, lines in stream.join(syslog, before=LINES_BEFORE_S, how="left", collect=True, grace=1):
        before = usual[reading.host]
        usual[reading.host] = before + reading
        minutes[reading.host] += reading
        yield Health.of(reading, minutes[reading.host].current(), lines, before)


@app.agent(health, sink=[alarms])
async def watch(stream: sc.Stream) -> AsyncIterator[Alarm]:
    """The rules, over every host's health."""
    rules = load_rules(options.rules, model=Health)
    async for alarm in alerts(stream, rules, labels="host", context=lambda event: event.value.story()):
        yield alarm


@app.agent(alarms)
async def tell(stream: sc.Stream) -> None:
    """Every change of an alarm, to whom it concerns."""
    async for alarm in stream:
        for notifier in notifiers():
            await notifier.notify(alarm)


# -- readings and lines of other programs ------------------------------------------------------------------------------


@app.agent(collectd, sink=[collectd_hosts])
async def sort_by_host(stream: sc.Stream) -> AsyncIterator[ValueList]:
    """collectd's values, each to its host's partition."""
    async for values in stream:
        for one in values:
            yield one


@app.agent(collectd_hosts, sink=[metrics])
async def put_together(stream: sc.Stream) -> AsyncIterator[Metrics]:
    """A reading for each round of a host's values."""
    async for values in stream:
        host = machine(values)
        before = collected[host]
        due = before.is_due(values)
        if due and (reading := before.reading(host, values.time)) is not None:
            yield reading
        collected[host] = before.with_values(values, told=values.time if due else None)


@app.agent(rsyslog, sink=[syslog])
async def read_lines(stream: sc.Stream) -> AsyncIterator[LogLine]:
    """rsyslog's lines, in whatever form they are."""
    async for event in stream.events():
        yield read_line(event.value, datetime.fromtimestamp(event.timestamp / 1000, UTC), socket.gethostname())


# -- where alarms go ---------------------------------------------------------------------------------------------------

_notifiers: list[Notifier] = []


def notifiers() -> list[Notifier]:
    """The terminal, and what the options name."""
    if not _notifiers:
        _notifiers.append(Terminal())
        if options.webhook:
            _notifiers.append(Webhook(options.webhook))
        if options.alertmanager:
            page = f"http://{app.conf.web_host}:{app.conf.web_port}/"
            _notifiers.append(Alertmanager(options.alertmanager, page_url=page))
    return _notifiers


@app.task
async def deliver() -> None:
    """Runs the notifiers' queues."""
    async with asyncio.TaskGroup() as tasks:
        for notifier in notifiers():
            tasks.create_task(notifier.run(), name=type(notifier).__name__)


# -- where readings come from ------------------------------------------------------------------------------------------


async def send_metrics(reading: Metrics) -> None:
    await metrics.send(value=reading, timestamp=reading.time)


async def send_line(line: LogLine) -> None:
    await syslog.send(value=line, timestamp=line.time)


@app.task(per_host=True)
async def read_this_machine() -> None:
    if options.live:
        await read_metrics(send_metrics)


@app.task(per_host=True)
async def receive_syslog() -> None:
    if options.live:
        receiver = SyslogReceiver(send_line, port=options.port, loopback_host=socket.gethostname())
        await receiver.run()


@app.task(on_leader=True)
async def simulate_fleet() -> None:
    if options.fleet:
        await run_fleet(send_metrics, send_line, options.fleet)


@app.task(on_leader=True)
async def replay_recordings() -> None:
    """Plays the recordings, waits until everything has come of them, says how the rules did, and ends the app."""
    if options.replay is None:
        return
    report = await replay(send_metrics, send_line, NAB_SERIES, syslog=options.replay_syslog, speed=options.speed)
    await app.drained()
    fired: dict[str, tuple[str, datetime]] = {}  # by episode: one that almost recovered fires again, untold
    async for event in alarms.history():
        if event.value.state == "firing":
            began = datetime.fromtimestamp(event.value.fired_ms / 1000, UTC)
            fired[event.value.id] = (event.value.labels["host"], began)
    print(f"replayed {report.metrics} readings and {report.lines} log lines; {len(fired)} alarms fired")
    print(score(fired.values(), labelled_windows()))
    app.stop()


# -- the page ----------------------------------------------------------------------------------------------------------

board = Board(load_rules(options.rules, model=Health))
register(app, board)


@app.task
async def show_hosts() -> None:
    async for event in health.tail(since=BOARD_HISTORY_S):
        board.health(event.value)


@app.task
async def show_alarms() -> None:
    """The page's alarms; and what still fires from before a restart is told to the Alertmanager again."""
    async for event in alarms.tail(since=ALARM_HISTORY_S):
        board.alarm(event.value)
        for notifier in notifiers():
            if isinstance(notifier, Alertmanager):
                await notifier.notify(event.value)


@app.task
async def end_in_time() -> None:
    if options.duration is not None:
        await asyncio.sleep(options.duration)
        app.stop()


# -- the demo ----------------------------------------------------------------------------------------------------------


def demo(
    *,
    data: str | Path = "./streamcore-data",
    web_port: int = 6066,
    port: int = 5514,
    fleet: int = 5,
    **more: Any,
) -> int:
    """Run the app with live sources, a small simulated fleet and an early incident.

    Args:
        data: the log's directory.
        fleet: simulated hosts; one of them has an incident after a few seconds.
        more: other fields of `Options`.
    Returns:
        The exit code.
    """
    from streamcore.cli.worker import run_worker, start_logging

    settings = {"port": port, "fleet": fleet, **more}
    if settings.get("replay"):
        settings |= {"live": False, "fleet": 0, "rules": settings.get("rules", HERE / "nab.yaml")}
        for topic in app.topics.values():
            topic.config["retention.ms"] = "-1"  # the recordings are years old, the log's usual week would delete them
    for name, value in settings.items():
        if not hasattr(options, name):
            raise sc.UsageError(f"the demo has no option {name!r}")
        setattr(options, name, value)
    start_logging("warning", None)
    logging.getLogger("streamcore").setLevel(logging.WARNING)
    print(f"dashboard   http://127.0.0.1:{web_port}", file=sys.stderr)
    if options.live:
        print(
            f"syslog      127.0.0.1:{port} (UDP and TCP); try this, and look for it in an alarm's story:",
            file=sys.stderr,
        )
        print(
            f'            logger -n 127.0.0.1 -P {port} "nvme0n1: I/O error, dev nvme0n1, sector 1953"',
            file=sys.stderr,
        )
    print(f"log         in another terminal: streamcore topics list --data {data}", file=sys.stderr)
    print(
        "alarms      one line for each change; the first fires within 30 s. Ctrl-C stops.", file=sys.stderr, flush=True
    )
    return run_worker(app, {"broker": f"embedded:{data}", "web_port": web_port})


if __name__ == "__main__":
    app.main()
