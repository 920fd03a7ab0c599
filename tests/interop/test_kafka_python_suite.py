"""kafka-python's own integration tests score on our broker what they score on Apache Kafka.

They are in its source distribution, which is fetched and copied; nothing of it is in this repository. Left out are its
tests of transactions, and those that start brokers of their own to test SASL and TLS.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.interop import apache_kafka, our_broker
from tests.interop.cluster import Cluster
from tests.interop.environments import python_with, source_of
from tests.interop.kafka_jars import KAFKA_VERSION

pytestmark = pytest.mark.interop

VERSION: Final = "3.0.12"
REQUIREMENTS: Final = [
    "crc32c==2.8",
    "lz4==4.4.5",
    "py==1.11.0",
    "pytest==8.4.2",
    "pytest-mock==3.15.1",
    "pytest-timeout==2.4.0",
    "python-snappy==0.7.3",
    "zstandard==0.25.0",
]
# As its tests expect the broker: they name node 0, and ask for sessions of three seconds.
SETTINGS: Final = {"node.id": "0", "group.min.session.timeout.ms": "1000", "num.partitions": "4"}
# It fails on Apache Kafka too, whose authorizer is off.
EXPECTED_FAILURES: Final = {"test/integration/test_admin_integration.py::test_create_describe_delete_acls"}
# A module of its tests that the distribution lacks, as far as a broker that is there already needs it.
SERVICE: Final = """\
class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    def close(self):
        pass


SpawnedService = None
"""
_SUITE_SECONDS_MAX: Final = 240
_RESULT: Final = re.compile(r"^(PASSED|FAILED|ERROR) (\S+)", re.MULTILINE)


def ours(directory: Path) -> AbstractContextManager[Cluster]:
    options = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    return our_broker.our_broker(directory, *options)


def apaches(directory: Path) -> AbstractContextManager[Cluster]:
    settings = "".join(f"{name}={value}\n" for name, value in SETTINGS.items())
    return apache_kafka.apache_kafka(directory, settings=settings, node_id=int(SETTINGS["node.id"]))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A copy of the distribution, whose tests can be run."""
    copy = tmp_path / "kafka-python"
    shutil.copytree(source_of(f"kafka-python=={VERSION}"), copy)
    (copy / "test" / "__init__.py").touch()  # or Python's own package of that name is found first
    (copy / "test" / "service.py").write_text(SERVICE)
    return copy


def score(suite: Path, cluster: Cluster) -> tuple[set[str], set[str], str]:
    """The tests that passed, those that did not, and what they printed."""
    environment = {
        **os.environ,
        "KAFKA_VERSION": KAFKA_VERSION,
        "KAFKA_URI": f"kafka://{cluster.bootstrap}",
        "KAFKA_ROOT": str(suite),  # anything that is there: no broker is started from it
        "PYTHONPATH": str(suite),
    }
    options = ["-q", "-rA", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider"]
    options += ["--timeout=60", "--timeout-method=signal", "-k", "not transact"]
    options += [f"--ignore=test/integration/test_{kind}_integration.py" for kind in ("sasl", "ssl")]
    done = subprocess.run(
        [python_with("kafka-python-suite", REQUIREMENTS), "-m", "pytest", *options, "test/integration"],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SUITE_SECONDS_MAX,
        check=False,
    )
    results = _RESULT.findall(done.stdout)
    passed = {name for result, name in results if result == "PASSED"}
    return passed, {name for result, name in results if result != "PASSED"}, done.stdout + done.stderr


def test_kafka_pythons_own_tests_pass_as_they_pass_on_apache_kafka(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brokers: dict[str, Callable[[Path], AbstractContextManager[Cluster]]] = {"apache": apaches, "streamcore": ours}
    scores: dict[str, tuple[set[str], set[str], str]] = {}
    for name, start in brokers.items():
        directory = tmp_path / name
        directory.mkdir()
        with start(directory) as cluster:
            scores[name] = score(suite, cluster)
    there, failed_there, said_there = scores["apache"]
    here, _, said_here = scores["streamcore"]
    assert len(there) > 40, said_there[-4000:]
    differences = sorted(there ^ here)
    with capsys.disabled():
        print(
            f"\nkafka-python {VERSION}: {len(there)} passed on Apache Kafka, {len(here)} on streamcore; "
            f"differences: {', '.join(differences) or 'none'}"
        )
    assert differences == [], said_here[-6000:]
    assert failed_there <= EXPECTED_FAILURES
