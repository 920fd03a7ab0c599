"""How fast a long log opens: after an orderly stop, and after `kill -9`; with append and read throughput beside.

An orderly stop leaves nothing to verify, so opening costs the same for any length. After `kill -9` the segments from
the recovery point on are read and their checksums verified: here the closed ones are synced, as the node's background
flush does, so that is the last one.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from streamcore.clock import SYSTEM_CLOCK
from streamcore.log.directory import LogDirectory
from streamcore.log.partition_log import PartitionLog
from streamcore.records.batch import BatchHeader, seal, split
from streamcore.records.codec import encode

VALUE_BYTES = 100
BATCH_RECORDS = 150  # about 16 kB, a Kafka producer's default batch
SEGMENT_BYTES = 1 << 30  # Kafka's default; the last one is nearly full when the process dies
READ_BYTES = 1 << 20
SINGLE_APPENDS = 20_000
BASE_TIMESTAMP_POSITION = 27  # in a batch's header; the largest timestamp follows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the log (default 2)")
    parser.add_argument("--partitions", type=int, default=1, help="partitions to spread it over (default 1)")
    parser.add_argument("--directory", type=Path, help="where to make the temporary directory")
    parser.add_argument("--killed-at", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = int(options.gigabytes * (1 << 30))
    if options.killed_at:
        fill(str(options.killed_at), size, options.partitions)
        os.kill(os.getpid(), signal.SIGKILL)
    path = Path(tempfile.mkdtemp(prefix="log-open-", dir=options.directory))
    try:
        run(path, size, options.partitions)
    finally:
        shutil.rmtree(path)


def run(path: Path, size: int, partitions: int) -> None:
    command = [sys.executable, "-m", "benchmarks.log_open", "--killed-at", str(path)]
    command += ["--gigabytes", str(size / (1 << 30)), "--partitions", str(partitions)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.returncode
    before = memory_mb()
    directory = timed_open(path, "open after kill -9")
    logs = list(directory.logs.values())
    report("log size", sum(log.size_bytes for log in logs) / (1 << 30), "GB")
    report("segments", sum(len(log.segments) for log in logs), "")
    report("unsynced when killed", sum(log.segments[-1].size_bytes for log in logs) / (1 << 20), "MB")
    directory.close()
    directory = timed_open(path, "open after an orderly stop")
    report("memory for the open log", memory_mb() - before, "MB")
    log = next(iter(directory.logs.values()))
    read_all(log)
    find_times(log)
    directory.close()
    report("memory after reading it all", memory_mb() - before, "MB")


def fill(path: str, size: int, partitions: int) -> None:
    """Append until the log has `size` bytes, and sync its closed segments as they come."""
    directory = LogDirectory.open(path)
    settings = {"segment.bytes": str(SEGMENT_BYTES), "retention.ms": "-1"}
    directory.create_topic("log", partitions, settings)
    template = make_batch()
    logs = [directory.log("log", partition) for partition in range(partitions)]
    share = size // partitions
    count = partitions * (max(1, share // SEGMENT_BYTES) * min(share, SEGMENT_BYTES) // len(template) - 1)
    first_ms = SYSTEM_CLOCK.now_ms() - count
    spent = 0.0
    for number in range(count):
        log = logs[number % partitions]
        batch = bytearray(template)
        struct.pack_into(">qq", batch, BASE_TIMESTAMP_POSITION, first_ms + number, first_ms + number)
        seal(batch, 0, len(batch))
        started = time.perf_counter()
        log.append_as_leader(batch)
        spent += time.perf_counter() - started
        if log.has_unsynced_segments:
            log.flush()
            directory.checkpoint()
    report("append", count * len(template) / spent / 1e6, "MB/s")
    report("append", count * BATCH_RECORDS / spent / 1e6, "M records/s")
    report("append, per batch of 16 kB", spent / count * 1e6, "us")
    small = encode([(b"key", b"v" * VALUE_BYTES, SYSTEM_CLOCK.now_ms(), ())])
    started = time.perf_counter()
    for _ in range(SINGLE_APPENDS):
        logs[0].append_as_leader(small)
    report("append, per batch of one record", (time.perf_counter() - started) / SINGLE_APPENDS * 1e6, "us")
    report("memory of the writer", memory_mb(), "MB")


def make_batch() -> bytes:
    source = random.Random(1)
    return encode([(b"key-%03d" % (n % 500), source.randbytes(VALUE_BYTES), 0, ()) for n in range(BATCH_RECORDS)])


def timed_open(path: Path, what: str) -> LogDirectory:
    started = time.perf_counter()
    directory = LogDirectory.open(str(path))
    report(what, time.perf_counter() - started, "s")
    assert not directory.offline_partitions
    return directory


def read_all(log: PartitionLog) -> None:
    offset, size = log.log_start_offset, 0
    started = time.perf_counter()
    while offset < log.log_end_offset:
        data = log.read(offset, READ_BYTES)
        size += len(data)
        *_, last = split(data)
        offset = BatchHeader.parse(last).last_offset + 1
    report("read in order", size / (time.perf_counter() - started) / 1e6, "MB/s")
    source = random.Random(2)
    offsets = [source.randrange(log.log_end_offset) for _ in range(2_000)]
    started = time.perf_counter()
    for offset in offsets:
        log.read(offset, 1)
    report("read at random", (time.perf_counter() - started) / len(offsets) * 1e6, "us")


def find_times(log: PartitionLog) -> None:
    (_, last_ms), count = log.max_timestamp() or (0, 0), 500
    times = [last_ms - random.Random(3).randrange(100_000) for _ in range(count)]
    started = time.perf_counter()
    for timestamp in times:
        log.offset_for_timestamp(timestamp)
    report("offset for a time", (time.perf_counter() - started) / count * 1e6, "us")


def memory_mb() -> float:
    """The largest this process has been."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(name: str, value: float, unit: str) -> None:
    print(f"{name}: {value:.3g} {unit}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
