"""Apache Kafka as plain jars, got with Maven once and kept outside the repository.

`kafka_classpath()` is what `java -cp` takes, for its tools as for the broker itself.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NoReturn

import pytest

KAFKA_VERSION: Final = "4.1.0"
LOG4J_VERSION: Final = "2.24.3"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamcore-tests"
_DOWNLOAD_SECONDS_MAX: Final = 900

_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamcore.tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>{LOG4J_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J_VERSION}</version></dependency>
  </dependencies>
</project>
"""


def missing(what: str) -> NoReturn:
    """A tool is not here: in CI that is a failure, on somebody's own machine a reason to skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def kafka_classpath() -> str:
    """Kafka's jars and what they need, downloaded if they are not in the cache yet."""
    if shutil.which("java") is None:
        missing("java is not installed (Debian: apt install default-jre-headless)")
    home = CACHE / f"kafka-{KAFKA_VERSION}"
    complete = home / "complete"
    if not complete.exists():
        if shutil.which("mvn") is None:
            missing("mvn is not installed (Debian: apt install maven)")
        home.mkdir(parents=True, exist_ok=True)
        (home / "pom.xml").write_text(_POM)
        command = [
            "mvn",
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DoutputDirectory=jars",
            "-DincludeScope=runtime",
        ]
        download = subprocess.run(
            command, cwd=home, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS_MAX, check=False
        )
        if download.returncode:
            missing(f"Kafka's jars could not be downloaded:\n{(download.stdout + download.stderr)[-2000:]}")
        complete.touch()
    return f"{home}/jars/*"


def run_kafka(main_class: str, *arguments: str, seconds_max: int = 120) -> str:
    """Run one of Kafka's command-line tools to its end; what it printed, errors included."""
    command = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", kafka_classpath(), main_class, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output
