"""franz-go against both brokers: the checks are Go, in `go/`."""

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

SOURCES: Final = Path(__file__).with_name("go")
_BUILD_SECONDS_MAX: Final = 300

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
    "offset-metadata",
    "times",
    "list-offsets",
    "unknown-topic",
    "past-the-end",
    "topics",
    "impossible-topics",
    "partitions",
    "configs",
    "groups",
    "delete-records",
    "cluster",
]


@functools.cache
def client() -> Path:
    """The program of these sources, built if it is not there yet."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        missing("go is not installed (Debian 13: apt install golang-go; 1.24 or later)")
    sources = sorted(source for source in SOURCES.iterdir() if source.is_file())
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    program = CACHE / f"franz-go-client-{digest}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    build = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS_MAX,
        check=False,
    )
    if build.returncode:
        missing(f"the Go client could not be built:\n{(build.stdout + build.stderr)[-2000:]}")
    return program


def run(*arguments: str) -> str:
    done = subprocess.run(
        [str(client()), *arguments], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_every_check_of_the_program_is_run_here() -> None:
    assert sorted(run("subjects").split()) == sorted([*SUBJECTS, "keys"])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_franz_go_is_content_with(cluster: Cluster, subject: str) -> None:
    run("check", subject, cluster.bootstrap, fresh(f"go-{subject}"))


def test_the_same_key_goes_to_the_partition_that_java_would_choose(cluster: Cluster) -> None:
    lines = run("check", "keys", cluster.bootstrap, fresh("go-keys")).splitlines()
    assert len(lines) == 100
    places = {(key, int(partition)) for key, partition in map(str.split, lines)}
    assert places == {(key, partition_for(key.encode(), 7)) for key in (f"key-{number}" for number in range(50))}


def test_members_join_leave_and_die_and_no_record_is_missed(cluster: Cluster) -> None:
    settings = [str(SESSION_TIMEOUT_MS), str(HEARTBEAT_INTERVAL_MS)]
    check_members_joining_leaving_and_dying(
        cluster, lambda topic, group: Member([client(), "member", cluster.bootstrap, topic, group, *settings])
    )
