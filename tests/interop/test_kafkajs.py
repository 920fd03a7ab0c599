"""KafkaJS against both brokers: the checks are JavaScript, in `js/`."""

import functools
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from streamcore.records.partitioner import partition_for
from tests.interop.cluster import PATIENCE_S, Cluster, fresh
from tests.interop.kafka_jars import CACHE, missing
from tests.interop.members import (
    HEARTBEAT_INTERVAL_MS,
    SESSION_TIMEOUT_MS,
    Member,
    check_members_joining_leaving_and_dying,
)

pytestmark = pytest.mark.interop

SOURCES: Final = Path(__file__).with_name("js")
_INSTALL_SECONDS_MAX: Final = 300

SUBJECTS: Final = [
    "compression-none",
    "compression-gzip",
    "compression-snappy",
    "compression-lz4",
    "compression-zstd",
    "acks-0",
    "acks-1",
    "acks-all",
    "fields",
    "large-batches",
    "oversized",
    "idempotent",
    "resume",
    "times",
    "seek",
    "unknown-topic",
    "topics",
    "impossible-topics",
    "partitions",
    "configs",
    "groups",
    "delete-records",
    "cluster",
]


@functools.cache
def client() -> list[str]:
    """How to start the program; it runs in the cache, beside the packages it needs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node or npm is not installed (Debian: apt install nodejs npm)")
    lock = SOURCES / "package-lock.json"
    home = CACHE / f"kafkajs-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    complete = home / "complete"
    home.mkdir(parents=True, exist_ok=True)
    for source in SOURCES.iterdir():
        if source.is_file():
            shutil.copy(source, home)
    if not complete.exists():
        install = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS_MAX,
            check=False,
        )
        if install.returncode:
            missing(f"KafkaJS could not be installed:\n{(install.stdout + install.stderr)[-2000:]}")
        complete.touch()
    return [node, str(home / "client.js")]


def run(*arguments: str) -> str:
    done = subprocess.run([*client(), *arguments], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_every_check_of_the_program_is_run_here() -> None:
    assert sorted(run("subjects").split()) == sorted([*SUBJECTS, "keys"])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_kafkajs_is_content_with(cluster: Cluster, subject: str) -> None:
    run("check", subject, cluster.bootstrap, fresh(f"js-{subject}"))


def test_the_same_key_goes_to_the_partition_that_java_would_choose(cluster: Cluster) -> None:
    lines = run("check", "keys", cluster.bootstrap, fresh("js-keys")).splitlines()
    assert len(lines) == 100
    places = {(key, int(partition)) for key, partition in map(str.split, lines)}
    assert places == {(key, partition_for(key.encode(), 7)) for key in (f"key-{number}" for number in range(50))}


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster) -> None:
    settings = [str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member([*client(), "member", cluster.bootstrap, topic, group, *settings])
    )
