"""Apache Kafka as plain jars, got with Maven once and kept outside the repository.

`kafka_classpath()` is what `java -cp` takes, for its tools as for the broker itself.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

KAFKA_VERSION: Final = "4.1.0"
LOG4J_VERSION: Final = "2.24.3"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamcore-tests"
_DOWNLOAD_SECONDS_MAX: Final = 900
_TOOL_JVM: Final = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

# What Maven is asked for: group, artifact, version, and a classifier where it is not the artifact itself.
_TOOLS: Final = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION, ""),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION, ""),
    ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION, ""),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION, ""),
)
_STREAMS: Final = (
    ("org.apache.kafka", "kafka-streams", KAFKA_VERSION, ""),
    ("org.apache.kafka", "kafka-streams", KAFKA_VERSION, "test"),
    ("org.apache.kafka", "kafka-clients", KAFKA_VERSION, "test"),
)
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamcore.tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
{}  </dependencies>
</project>
"""


def missing(what: str) -> NoReturn:
    """A tool is not here: in CI that is a failure, on somebody's own machine a reason to skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def kafka_classpath() -> str:
    """Kafka's jars and what they need, downloaded if they are not in the cache yet."""
    return _classpath(f"kafka-{KAFKA_VERSION}", _TOOLS)


def streams_classpath() -> str:
    """As `kafka_classpath`, of Kafka Streams with its tests."""
    return _classpath(f"kafka-streams-{KAFKA_VERSION}", _STREAMS)


def _classpath(name: str, dependencies: Sequence[tuple[str, str, str, str]]) -> str:
    if shutil.which("java") is None:
        missing("java is not installed (Debian: apt install default-jre-headless)")
    home = CACHE / name
    complete = home / "complete"
    if not complete.exists():
        if shutil.which("mvn") is None:
            missing("mvn is not installed (Debian: apt install maven)")
        home.mkdir(parents=True, exist_ok=True)
        (home / "pom.xml").write_text(_POM.format("".join(map(_dependency, dependencies))))
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


def _dependency(dependency: tuple[str, str, str, str]) -> str:
    group, artifact, version, classifier = dependency
    fields = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
    if classifier:
        fields += f"<classifier>{classifier}</classifier>"
    return f"    <dependency>{fields}</dependency>\n"


def kafka_command(main_class: str, *arguments: str) -> list[str]:
    """The command line of one of Kafka's tools."""
    archive = ["-Xlog:disable", f"-XX:SharedArchiveFile={_class_archive()}"]
    return ["java", *_TOOL_JVM, *archive, "-cp", kafka_classpath(), main_class, *arguments]


def java_command(classes: str, main_class: str) -> list[str]:
    """How to start a program of our own that stands on Kafka's jars; its output has no log lines in it."""
    return ["java", *_TOOL_JVM, "-Xlog:disable", "-cp", f"{classes}:{kafka_classpath()}", main_class]


@functools.cache
def _class_archive() -> Path:
    """Kafka's commonest classes as this JVM has them once loaded: with it a tool starts in half the time.

    A JVM that cannot use the file (it is another version, the making failed) does without it and says nothing.
    """
    classpath = kafka_classpath()
    archive = CACHE / f"kafka-{KAFKA_VERSION}" / "tools.jsa"
    java = Path(shutil.which("java") or "java").resolve()
    if not archive.exists() or archive.stat().st_mtime < java.stat().st_mtime:
        archive.unlink(missing_ok=True)
        # Nobody listens on port 1, and there is nothing to send: it starts, loads its classes and ends.
        tool = ["org.apache.kafka.tools.VerifiableProducer", "--bootstrap-server", "127.0.0.1:1"]
        dump = ["java", *_TOOL_JVM, f"-XX:ArchiveClassesAtExit={archive}", "-cp", classpath, *tool]
        subprocess.run([*dump, "--topic", "none", "--max-messages", "0"], capture_output=True, timeout=120, check=False)
    return archive


def run_kafka(
    main_class: str, *arguments: str, standard_input: str = "", exit_code: int = 0, seconds_max: int = 120
) -> str:
    """Run one of Kafka's command-line tools to its end; what it printed, errors included."""
    done = subprocess.run(
        kafka_command(main_class, *arguments),
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == exit_code, f"exit code {done.returncode}:\n{output[-4000:]}"
    return output
