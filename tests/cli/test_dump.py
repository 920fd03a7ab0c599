"""Segment files, readable, the damaged ones too."""

from pathlib import Path

import orjson
import pytest

FIRST = "00000000000000000000"


@pytest.fixture
def segment(run, tmp_path) -> Path:
    """A segment of six batches: five of one record each, then one of a hundred compressed ones."""
    run("topics", "create", "words", "-p", "2")
    for number in range(5):
        run("produce", "words", f"word {number}", "-p", "1")
    run("produce", "words", "-p", "1", "-z", "zstd", input="many\n" * 100)
    return tmp_path / "streamcore-data" / "words-1" / f"{FIRST}.log"


def batches(outcome):
    return [orjson.loads(line)["batch"] for line in outcome.lines if line.startswith('{"batch"')]


def test_a_directory_is_summed_up_by_segment(run, segment):
    outcome = run("dump", "streamcore-data")
    assert outcome.code == 0
    (line,) = [line for line in outcome.lines if line.startswith("words-1 ")]
    assert line.split()[1] == "0"
    assert line.split()[4:] == ["0", "to", "104", "105", "6", "intact"]


def test_a_segment_is_shown_batch_by_batch(run, segment):
    outcome = run("dump", str(segment))
    assert outcome.code == 0
    assert outcome.lines[1].startswith("byte 0:  offsets 0 to 0  1 record")
    assert "100 records" in outcome.lines[-1]
    assert "zstd" in outcome.lines[-1]


def test_deep_shows_the_records(run, segment):
    outcome = run("dump", str(segment), "--deep")
    assert sum(line.endswith("  many") for line in outcome.lines) == 100
    told = [orjson.loads(line) for line in run("dump", str(segment), "--deep", "--json").lines]
    records = [line["record"] for line in told if "record" in line]
    assert [record["offset"] for record in records] == list(range(105))
    assert records[0]["value"] == "word 0"
    assert records[0]["topic"] == "words"


def test_indexes_are_shown(run, segment):
    for suffix in (".index", ".timeindex"):
        outcome = run("dump", str(segment.with_suffix(suffix)), "--deep")
        assert outcome.code == 0, outcome.out


def test_a_changed_byte_is_found_and_the_rest_is_read(run, segment):
    third = batches(run("dump", str(segment), "--json"))[2]
    data = bytearray(segment.read_bytes())
    data[third["position"] + 70] ^= 0x40
    segment.write_bytes(data)
    outcome = run("dump", str(segment), "--json")
    assert outcome.code == 1
    told = batches(outcome)
    assert len(told) == 6
    assert [batch["problem"] for batch in told if batch["problem"]] == ["the checksum does not match"]
    assert told[2]["problem"]
    assert "1 damaged" in run("dump", "streamcore-data").out


def test_a_torn_end_is_told_with_what_is_missing(run, segment):
    data = segment.read_bytes()
    segment.write_bytes(data[:-7])
    last = batches(run("dump", str(segment), "--json"))[-1]
    assert last["problem"] == "cut off: 7 bytes are missing at the end"


def test_garbage_in_the_middle_is_skipped(run, segment):
    data = segment.read_bytes()
    second = batches(run("dump", str(segment), "--json"))[1]["position"]
    segment.write_bytes(data[:second] + b"\x02garbage" * 20 + data[second:])
    told = batches(run("dump", str(segment), "--json"))
    assert [batch["problem"] for batch in told] == [None, "no record batch", None, None, None, None, None]
    assert (told[1]["position"], told[1]["size_bytes"]) == (second, 160)


def test_zeros_at_the_end_are_told(run, segment):
    segment.write_bytes(segment.read_bytes() + bytes(500))
    assert batches(run("dump", str(segment), "--json"))[-1]["problem"] == "only zero bytes"


def test_an_index_that_points_nowhere_is_told(run, segment):
    import struct

    index = segment.with_suffix(".index")
    index.write_bytes(struct.pack(">ii", 3, 17) + b"odd")
    outcome = run("dump", str(index), "--deep")
    assert outcome.code == 1
    assert "points at no batch" in outcome.out


def test_dump_needs_no_lock_and_changes_nothing(run, segment):
    before = {file: file.read_bytes() for file in segment.parent.iterdir()}
    run("dump", "streamcore-data", "--deep")
    assert {file: file.read_bytes() for file in segment.parent.iterdir()} == before


def test_other_files_are_refused(run, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    assert "no segment file" in run("dump", "notes.txt").err
    assert run("dump", "missing.log").code == 2
    (tmp_path / "empty").mkdir()
    assert "There are no segment files" in run("dump", "empty").err


def test_an_empty_segment_is_no_problem(run, tmp_path):
    (tmp_path / "t-0").mkdir()
    (tmp_path / "t-0" / f"{FIRST}.log").touch()
    assert run("dump", "t-0").code == 0
