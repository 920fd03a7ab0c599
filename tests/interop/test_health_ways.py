"""The health app as it is, run in every way: with its own log, over the wire, with several workers, on Apache Kafka."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from streamcore.transport import connect
from streamcore.transport.base import EARLIEST, LATEST
from streamcore.types import TP
from tests.interop.cluster import Cluster, until

pytestmark = pytest.mark.interop

REPOSITORY = Path(__file__).parents[2]
SECONDS = 90.0  # until the first simulated host, whose incident comes early, has set off its alarm
SCRIPT = """
from apps.health_monitoring.app import app, options

options.live, options.fleet = False, 3
app.main()
"""


@contextlib.contextmanager
def health(directory: Path, *options: str) -> Iterator[None]:
    """The app's workers, which have to stop in order."""
    directory.mkdir()
    (directory / "health.py").write_text(SCRIPT)
    log = directory / "worker.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "health.py", "worker", "--without-web", *options],
            cwd=directory, stdout=sink, stderr=sink, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(40)
    assert code == 0, log.read_text()


async def _alarms(url: str) -> list[tuple[str, str, str]]:
    log = connect(url)
    await log.start()
    found: list[tuple[str, str, str]] = []
    try:
        topics = await log.topics()
        tps = [TP("alarms", partition) for partition in range(topics["alarms"].partitions if "alarms" in topics else 0)]
        positions, ends = dict(await log.list_offsets(tps, EARLIEST)), await log.list_offsets(tps, LATEST)
        for tp in tps:
            while positions[tp] < ends[tp]:
                (part,) = await log.fetch({tp: positions[tp]}, max_wait_ms=0)
                values = [orjson.loads(record.value) for record in part.records if record.value]
                found += [(value["rule"], value["labels"]["host"], value["state"]) for value in values]
                positions[tp] = part.next_offset
    finally:
        await log.stop()
    return found


def firing(url: str) -> bool:
    return ("CpuSaturated", "web-01", "firing") in asyncio.run(_alarms(url))


def test_the_alarm_fires_in_every_way(cluster: Cluster, tmp_path: Path) -> None:
    ways = {"over the wire": ([f"--broker=kafka://{cluster.bootstrap}"], f"kafka://{cluster.bootstrap}")}
    if cluster.name == "streamcore":
        for name, options in (("its own log", []), ("three workers", ["--workers=3"])):
            data = tmp_path / f"{name} data"
            ways[name] = ([*options, f"--data={data}"], f"embedded:{data}")
    with contextlib.ExitStack() as running:
        for name, (options, _) in ways.items():
            running.enter_context(health(tmp_path / name, *options))
        for name, (_, url) in ways.items():
            until(lambda url=url: firing(url), what=f"{name}: the alarm of web-01", seconds=SECONDS)  # type: ignore[misc]
