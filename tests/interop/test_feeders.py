"""rsyslog (omkafka) and collectd (write_kafka) feed the health app over a broker, and alarms come of what they say."""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.cluster import PATIENCE_S, Cluster, stop, tail, until
from tests.interop.conftest import CLUSTERS
from tests.interop.debian import library_environment, unpacked
from tests.interop.kafka_jars import missing

pytestmark = pytest.mark.interop

_REPOSITORY: Final = Path(__file__).parents[2]
_WORKER: Final = Path(__file__).with_name("health_worker.py")
# Each test has a host of its own: an alarm that fires already does not fire again.
HOST: Final = "feeder"

RULES: Final = """\
rules:
  - {name: MemoryInUse, expr: memory_percent > 0.1, labels: {severity: info}}
  - {name: DiskInUse, expr: "metrics.disks.{mount}.percent > 0", labels: {severity: info}}
  - {name: DiskErrors, expr: disk_errors > 0, labels: {severity: critical}}
"""
COLLECTD: Final = """\
Hostname "{host}"
Interval 1
BaseDir "{directory}"
PIDFile "{directory}/collectd.pid"
PluginDir "{root}/usr/lib/collectd"
TypesDB "{root}/usr/share/collectd/types.db"
LoadPlugin logfile
<Plugin logfile>
  LogLevel info
  File STDERR
</Plugin>
LoadPlugin cpu
LoadPlugin load
LoadPlugin memory
LoadPlugin df
LoadPlugin interface
LoadPlugin write_kafka
<Plugin write_kafka>
  Property "metadata.broker.list" "{bootstrap}"
  <Topic "collectd">
    Format JSON
    StoreRates {store_rates}
  </Topic>
</Plugin>
"""
# The message as JSON with all its properties, and lines as syslog has them.
TEMPLATES: Final = {
    "json": 'template(name="out" type="string" string="%jsonmesg%")',
    "syslog": 'template(name="out" type="string" string="<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% %APP-NAME% '
    '%PROCID% %MSGID% %STRUCTURED-DATA% %msg%")',
    "file": 'template(name="out" type="string" string="%TIMESTAMP:::date-rfc3339% %HOSTNAME% %syslogtag%%msg%\\n")',
}
RSYSLOG: Final = """\
global(workDirectory="{directory}" localHostname="{host}")
module(load="imuxsock" SysSock.Use="off")
module(load="omkafka")
input(type="imuxsock" Socket="{inlet}")
{template}
*.* action(type="omkafka" broker=["{bootstrap}"] topic="rsyslog" template="out" confParam=["linger.ms=5"])
"""


@pytest.fixture(scope="module", params=list(CLUSTERS))
def own_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker of their own: the app's topics have the names they have."""
    only = os.environ.get("INTEROP_ONLY", "")
    if only and only != request.param:
        pytest.skip(f"INTEROP_ONLY={only}")
    with CLUSTERS[request.param](tmp_path_factory.mktemp(f"feeders-{request.param}")) as running:
        yield running


@pytest.fixture(scope="module")
def collectd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that collectd lies under."""
    return unpacked(tmp_path_factory.mktemp("collectd"), "collectd-core", "librdkafka1", "libyajl2")


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packages = ["rsyslog", "rsyslog-kafka", "librdkafka1", "libestr0", "libfastjson4", "liblognorm5"]
    return unpacked(tmp_path_factory.mktemp("rsyslog"), *packages)


class Alarms:
    """The health app on a broker, and the alarms it prints."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        rules = directory / "rules.yaml"
        rules.write_text(RULES)
        self._errors = directory / "worker.err"
        with self._errors.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, _WORKER, f"kafka://{cluster.bootstrap}", directory / "data", rules],
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "PYTHONUNBUFFERED": "1"},
            )
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._fired: dict[tuple[str, str], dict[str, Any]] = {}  # by rule and host
        self._reader = threading.Thread(target=self._read, name="worker's output")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))

    def first(self, name: str, host: str) -> dict[str, Any]:
        """The first alarm of that name that fired for the host."""
        while (name, host) not in self._fired:
            try:
                alarm = self._queue.get(timeout=2 * PATIENCE_S)
            except queue.Empty:
                pytest.fail(f"no alarm {name} of {host}: {tail(self._errors)}")
            if alarm["state"] == "firing":
                self._fired.setdefault((alarm["rule"], alarm["labels"]["host"]), alarm)
        return self._fired[name, host]

    def close(self) -> None:
        stop(self.process)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def alarms(own_cluster: Cluster, tmp_path: Path) -> Iterator[Alarms]:
    running = Alarms(own_cluster, tmp_path)
    yield running
    running.close()


@contextmanager
def running(command: Sequence[str | Path], environment: dict[str, str], output: Path) -> Iterator[None]:
    with output.open("wb") as sink:
        process = subprocess.Popen([str(part) for part in command], stdout=sink, stderr=sink, env=environment)
    try:
        yield
        assert process.poll() is None, f"{command[0]} ended by itself:\n{tail(output)}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("store_rates", ["true", "false"])
def test_an_alarm_fires_from_what_collectd_measures(
    own_cluster: Cluster, collectd: Path, alarms: Alarms, tmp_path: Path, store_rates: str
) -> None:
    host = f"{HOST}-{store_rates}"
    config = tmp_path / "collectd.conf"
    config.write_text(
        COLLECTD.format(
            host=host, directory=tmp_path, root=collectd, bootstrap=own_cluster.bootstrap, store_rates=store_rates
        )
    )
    command = [collectd / "usr/sbin/collectd", "-f", "-C", config]
    with running(command, library_environment(collectd), tmp_path / "collectd.out"):
        alarm = alarms.first("MemoryInUse", host)
        assert 0.1 < alarm["value"] <= 100
        alarms.first("DiskInUse", host)
        # What the app makes of it is what the machine says of itself.
        context = alarm["context"]["stats"]
        assert context["load"]["count"] > 0


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_alarm_fires_from_a_line_that_came_through_rsyslog(
    own_cluster: Cluster, rsyslog: Path, collectd: Path, alarms: Alarms, tmp_path: Path, template: str
) -> None:
    logger = shutil.which("logger")
    if logger is None:
        missing("logger is not installed (Debian: bsdutils)")
    # Readings come by collectd: a line is told in the story of the readings around it.
    host = f"{HOST}-{template}"
    config, inlet = tmp_path / "collectd.conf", tmp_path / "log.sock"
    config.write_text(
        COLLECTD.format(
            host=host, directory=tmp_path, root=collectd, bootstrap=own_cluster.bootstrap, store_rates="true"
        )
    )
    settings = tmp_path / "rsyslog.conf"
    settings.write_text(
        RSYSLOG.format(
            host=host, directory=tmp_path, inlet=inlet, template=TEMPLATES[template], bootstrap=own_cluster.bootstrap
        )
    )
    (modules,) = rsyslog.glob("usr/lib/*/rsyslog")
    rsyslogd = [rsyslog / "usr/sbin/rsyslogd", "-n", "-M", modules, "-f", settings, "-i", tmp_path / "rsyslog.pid"]
    text = f"EXT4-fs error (device sdb1): reading directory, as {template}"
    with (
        running(
            [collectd / "usr/sbin/collectd", "-f", "-C", config], library_environment(collectd), tmp_path / "c.out"
        ),
        running(rsyslogd, library_environment(rsyslog), tmp_path / "r.out"),
    ):
        alarms.first("MemoryInUse", host)
        until(inlet.exists, what="rsyslog's socket")
        subprocess.run([logger, "-u", inlet, "-p", "daemon.err", "-t", "disks", "--id=812", text], check=True)
        alarm = alarms.first("DiskErrors", host)
    lines = [line for line in alarm["context"]["lines"] if line["message"].strip() == text]
    assert [(line["host"], line["app"], line["pid"]) for line in lines] == [(host, "disks", "812")]
    if template != "file":  # which does not say how bad it is
        assert [(line["facility"], line["severity"]) for line in lines] == [("daemon", "err")]
