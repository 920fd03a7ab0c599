"""Apache Kafka's own tool reads our files and has nothing to complain about."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamcore.log.directory import LogDirectory
from streamcore.records.codec import encode
from streamcore.records.compression import COMPRESSIONS
from streamcore.types import InRecord, OutRecord
from tests.broker.coordinator.consumer_groups.support import DrivenRegistry
from tests.interop.kafka_jars import run_kafka
from tests.log.support import clean, read_records, sent

pytestmark = pytest.mark.interop

DUMP = "kafka.tools.DumpLogSegments"
START_MS = 1_700_000_000_000
BATCHES, RECORDS_PER_BATCH = 60, 50
NO_OFFSET = "OptionalLong.empty"
COMPLAINT = re.compile(
    r"mismatch|out of order|not found|corrupt|invalid|non-consecutive|isvalid: false|exception|error", re.IGNORECASE
)


@pytest.fixture(scope="module", params=["clean", "killed"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A topic per compression, each with closed segments and an active one; stopped in order, or not at all."""
    path = tmp_path_factory.mktemp("data")
    log_directory = LogDirectory.open(str(path))
    settings = {
        "segment.bytes": "60000",
        "index.interval.bytes": "2000",
        "message.timestamp.after.max.ms": str(1 << 60),
    }
    for compression in COMPRESSIONS:
        # Compressed batches are small, so their segments are too.
        bytes_max = "60000" if compression == "none" else "9000"
        log_directory.create_topic(compression, 1, settings | {"segment.bytes": bytes_max})
        log = log_directory.log(compression, 0)
        for number in range(BATCHES):
            time_ms = START_MS + number * 100
            records = [
                # Times go back now and then, as they do in the wild.
                (
                    b"key-%d" % index,
                    (b"%d:%d;" % (number, index)) * 20,
                    time_ms + index * 7 % 61,
                    [("h", b"1")],
                )
                for index in range(RECORDS_PER_BATCH)
            ]
            log.append_as_leader(encode(records, compression=compression))
        assert len(log.segments) > 3, log.segments
    if request.param == "clean":
        log_directory.close()
    else:
        log_directory.flush_all()
    return path


def files(directory: Path, suffix: str) -> list[str]:
    return sorted(str(path) for path in directory.glob(f"*-0/*{suffix}"))


def closed(directory: Path, suffix: str) -> list[str]:
    """Without the last of each partition."""
    names = files(directory, suffix)
    return [name for name, later in itertools.pairwise(names) if Path(name).parent == Path(later).parent]


def test_kafka_reads_every_record_of_closed_and_active_segments(directory: Path) -> None:
    output = run_kafka(DUMP, "--deep-iteration", "--files", ",".join(files(directory, ".log")))
    complaints = [line for line in output.splitlines() if COMPLAINT.search(line)]
    assert not complaints, complaints[:5]
    records = re.findall(r"^\| offset: (\d+)", output, re.MULTILINE)
    assert len(records) == BATCHES * RECORDS_PER_BATCH * len(COMPRESSIONS)
    headers = re.findall(r"^baseOffset: (\d+) lastOffset: (\d+).*isvalid: true", output, re.MULTILINE)
    assert len(headers) == BATCHES * len(COMPRESSIONS)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_kafkas_sanity_check_passes_the_indexes(directory: Path, suffix: str) -> None:
    names = files(directory, suffix)
    output = run_kafka(DUMP, "--index-sanity-check", "--files", ",".join(names))
    assert output.count("passed sanity check") == len(names)
    assert not [line for line in output.splitlines() if COMPLAINT.search(line)]


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_kafka_finds_every_index_entry_right(directory: Path, suffix: str) -> None:
    names = closed(directory, suffix)
    assert len(names) > 10
    assert sum(Path(name).stat().st_size for name in names) > 0
    output = run_kafka(DUMP, "--verify-index-only", "--files", ",".join(names))
    assert not [line for line in output.splitlines() if COMPLAINT.search(line)], output[-2000:]
    # And the active ones, which Kafka would not even have trimmed.
    output = run_kafka(DUMP, "--verify-index-only", "--files", ",".join(files(directory, suffix)))
    assert not [line for line in output.splitlines() if COMPLAINT.search(line)], output[-2000:]


def test_kafka_reads_producer_state(tmp_path: Path) -> None:
    """One snapshot from a roll and one from an orderly close, with wrapped sequences and a later epoch."""
    log_directory = LogDirectory.open(str(tmp_path))
    log_directory.create_topic("topic", 1, {"segment.bytes": "400", "message.timestamp.after.max.ms": str(1 << 60)})
    log = log_directory.log("topic", 0)
    log.append_as_leader(sent(5, (1 << 31) - 2, b"a", b"b", b"c", timestamp_ms=START_MS))
    log.append_as_leader(sent(1 << 40, 7, b"d", epoch=3, timestamp_ms=START_MS + 1))
    log.append_as_leader(sent(5, 1, b"e", timestamp_ms=START_MS + 2))
    log.roll()
    log.append_as_leader(sent(5, 0, b"f", b"g", epoch=1, timestamp_ms=START_MS + 3))
    log_directory.close()
    names = files(tmp_path, ".snapshot")
    assert [Path(name).stem for name in names] == [f"{5:020d}", f"{7:020d}"]
    first, second = (producers_in(run_kafka(DUMP, "--files", name)) for name in names)
    other = (1 << 40, 3, -1, NO_OFFSET, START_MS + 1, 7, 7, 3, 0, START_MS + 1)
    assert first == {other, (5, 0, -1, NO_OFFSET, START_MS + 2, 1, 1, 4, 0, START_MS + 2)}
    assert second == {other, (5, 1, -1, NO_OFFSET, START_MS + 3, 0, 1, 6, 1, START_MS + 3)}


def producers_in(output: str) -> set[tuple[int | str, ...]]:
    """What the tool prints of each producer, in its own order."""
    assert not COMPLAINT.search(output), output
    fields = ["producerId", "producerEpoch", "coordinatorEpoch", "currentTxnFirstOffset", "lastTimestamp"]
    fields += ["firstSequence", "lastSequence", "lastOffset", "offsetDelta", "timestamp"]
    line = " ".join(rf"{field}: (\S+)" for field in fields)
    found = re.findall(line, output)
    assert len(found) == output.count("producerId:"), output
    return {tuple(word if word == NO_OFFSET else int(word) for word in words) for words in found}


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compacted log: batches with fewer records, one without any, delete horizons, segments that became one."""
    path = tmp_path_factory.mktemp("compacted")
    log_directory = LogDirectory.open(str(path))
    settings = {"segment.bytes": "9000", "index.interval.bytes": "500", "cleanup.policy": "compact"}
    for compression in COMPRESSIONS:
        log_directory.create_topic(
            compression,
            1,
            {**settings, "min.cleanable.dirty.ratio": "0", "message.timestamp.after.max.ms": str(1 << 60)},
        )
        log = log_directory.log(compression, 0)
        log.append_as_leader(sent(5, 0, b"a", b"b", timestamp_ms=START_MS, compression=compression))
        for number in range(BATCHES):
            records: list[OutRecord] = [
                (
                    b"key-%d" % (number * 7 + index * index),
                    None if index % 9 == 0 else b"%d:%d;" % (number, index) * 20,
                    START_MS + number * 100 + index * 7 % 61,
                    [("h", b"1")],
                )
                for index in range(RECORDS_PER_BATCH)
            ]
            log.append_as_leader(encode([(b"key", b"newest", START_MS, ()), *records], compression=compression))
        log.roll()
        log.flush()
        # Twice, so that the horizons of the first pass are over in the second.
        for now_ms in (START_MS, START_MS + 100_000_000):
            clean(log_directory.disk, log, now_ms)
            log.append_as_leader(encode([(b"key", b"last", START_MS, ())]))
            log.roll()
            log.flush()
    log_directory.close()
    return path


def test_kafka_reads_compacted_segments(compacted: Path) -> None:
    output = run_kafka(DUMP, "--deep-iteration", "--files", ",".join(files(compacted, ".log")))
    # Gaps between offsets are what compaction is for, and the tool lists them at its end.
    gaps = re.compile(r"^Non-consecutive offsets in |^  \d+ is followed by \d+$", re.MULTILINE)
    complaints = [line for line in output.splitlines() if COMPLAINT.search(line) and not gaps.match(line)]
    assert not complaints, complaints[:5]
    assert output.count("count: 0 ") >= len(COMPRESSIONS)
    assert "deleteHorizonMs: OptionalLong[" in output
    ours = {
        (record.offset, record.timestamp)
        for compression in COMPRESSIONS
        for record in read_records_of(compacted, compression)
    }
    lines = re.findall(r"^\| offset: (\d+) CreateTime: (\d+)", output, re.MULTILINE)
    assert {(int(offset), int(timestamp)) for offset, timestamp in lines} == ours
    for suffix in (".index", ".timeindex"):
        names = ",".join(files(compacted, suffix))
        for check in ("--index-sanity-check", "--verify-index-only"):
            output = run_kafka(DUMP, check, "--files", names)
            assert not [line for line in output.splitlines() if COMPLAINT.search(line)], output[-2000:]


def read_records_of(directory: Path, topic: str) -> list[InRecord]:
    log_directory = LogDirectory.open(str(directory))
    try:
        return read_records(log_directory.log(topic, 0))
    finally:
        log_directory.close()


def test_kafka_reads_what_is_stored_of_consumer_groups(tmp_path: Path) -> None:
    """Every kind of record of both protocols' groups, and their tombstones, with Kafka's own decoder."""
    driven = DrivenRegistry()
    driven.set_topic("t", 4)
    driven.join("new", ["t"], regex="t.*", instance="i", rack="r", assignor="range")
    driven.classic_join("old")
    driven.heartbeat("new", 1)
    driven.join("gone")
    driven.heartbeat("gone", -1)
    log_directory = LogDirectory.open(str(tmp_path))
    log_directory.create_topic("__consumer_offsets", 1, {"message.timestamp.after.max.ms": str(1 << 60)})
    records: list[OutRecord] = [(key, value, START_MS, ()) for key, value in driven.log]
    log_directory.log("__consumer_offsets", 0).append_as_leader(encode(records))
    log_directory.close()
    output = run_kafka(DUMP, "--offsets-decoder", "--files", ",".join(files(tmp_path, ".log")))
    assert not [line for line in output.splitlines() if COMPLAINT.search(line)], output[-3000:]
    found = [
        (json.loads(key), None if value == "<DELETE>" else json.loads(value))
        for key, value in re.findall(r"key: (\{.*?\}\}) payload: (<DELETE>|\{.*\})$", output, re.MULTILINE)
    ]
    assert len(found) == len(driven.log), output[-3000:]
    by_type: dict[int, list[tuple[Any, Any]]] = {}
    for key, value in found:
        by_type.setdefault(int(key["type"]), []).append((key["data"], value and value["data"]))
    assert set(by_type) == {3, 5, 6, 7, 8, 16}
    assert by_type[3][-1][0] == {"groupId": "g"}
    assert by_type[3][-1][1]["epoch"] == driven.group().epoch
    assert by_type[3][-1][1]["metadataHash"] not in (0, None)
    members = {key["memberId"]: value for key, value in by_type[5]}
    assert members["gone"] is None
    assert {name: members["new"][name] for name in ("instanceId", "rackId", "clientId", "serverAssignor")} == {
        "instanceId": "i",
        "rackId": "r",
        "clientId": "client",
        "serverAssignor": "range",
    }
    assert (members["new"]["subscribedTopicNames"], members["new"]["subscribedTopicRegex"]) == (["t"], "t.*")
    assert members["old"]["classicMemberMetadata"]["sessionTimeoutMs"] == 10_000
    assert [name["name"] for name in members["old"]["classicMemberMetadata"]["supportedProtocols"]] == ["range"]
    assert by_type[6][-1][1] == {"assignmentEpoch": driven.group().target_epoch}
    (topic,) = {key["memberId"]: value for key, value in by_type[7]}["old"]["topicPartitions"]
    assert {("t", partition) for partition in topic["partitions"]} == driven.target("old")
    current = {key["memberId"]: value for key, value in by_type[8]}["new"]
    assert (current["memberEpoch"], current["previousMemberEpoch"], current["state"]) == (1, 1, 1)
    assert current["partitionsPendingRevocation"][0]["partitions"] == [2, 3]
    ((key, value),) = by_type[16]
    assert (key, value["topics"]) == ({"groupId": "g", "regularExpression": "t.*"}, ["t"])
