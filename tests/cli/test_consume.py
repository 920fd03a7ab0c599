"""Reading from anywhere to anywhere."""

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = [sys.executable, "-c", "from streamcore.cli import main; main()"]


def values(outcome):
    assert outcome.code == 0, outcome.err
    return [line.split("\t")[3] for line in outcome.lines]


def test_everything_is_read_with_place_time_key_value_and_headers(greetings):
    lines = sorted(greetings("consume", "greetings").lines)
    assert [line.split("\t")[0] for line in lines] == ["0:0", "1:0", "1:1"]
    assert lines[0].split("\t")[2:] == ["a", "hello", "lang=en"]
    assert lines[1].split("\t")[2:] == ["(null)", "bonjour"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--from", "beginning"], ["bonjour", "hello", "hola"]),
        (["--from", "end"], []),
        (["--from", "-1"], ["hello", "hola"]),
        (["--from", "offset:1"], ["hola"]),
        (["--from", "1"], ["hola"]),
        (["--from", "@1700000000500"], ["bonjour", "hola"]),
        (["--from", "2023-11-14T22:13:20.500Z"], ["bonjour", "hola"]),
        (["--from", "1m ago"], []),
        (["--until", "offset:1"], ["bonjour", "hello"]),
        (["--until", "@1700000000500"], ["hello"]),
        (["--from", "offset:1", "--until", "offset:1"], []),
        (["--partition", "1"], ["bonjour", "hola"]),
        (["--partition", "1", "--max", "1"], ["bonjour"]),
        (["--max", "0"], []),
        (["--from", "offset:99"], []),
    ],
)
def test_a_range_is_what_was_asked_for(greetings, options, expected):
    assert sorted(values(greetings("consume", "greetings", *options))) == expected


def test_a_place_that_is_none_is_explained(greetings):
    outcome = greetings("consume", "greetings", "--from", "begining")
    assert outcome.code == 2
    assert "beginning, end, offset:42" in outcome.err


def test_raw_and_templates_write_what_they_say(greetings):
    assert greetings("consume", "greetings", "--format", "raw", "-p", "1").out == "bonjour\nhola\n"
    assert greetings("consume", "greetings", "--format", "{offset}={value}", "-p", "1").out == "0=bonjour\n1=hola\n"


def test_a_group_goes_on_where_it_stopped(greetings):
    assert len(values(greetings("consume", "greetings", "--group", "g", "--max", "2"))) == 2
    assert len(values(greetings("consume", "greetings", "--group", "g"))) == 1
    assert values(greetings("consume", "greetings", "--group", "g")) == []
    assert len(values(greetings("consume", "greetings", "--group", "other"))) == 3


def test_a_group_commits_no_more_than_what_was_written(greetings):
    greetings("consume", "greetings", "--group", "g", "--max", "1", "-p", "1")
    partitions = greetings("groups", "describe", "g", "--json").json["partitions"]
    assert [(p["partition"], p["committed_offset"], p["lag"]) for p in partitions] == [(1, 1, 1)]


def test_a_partition_that_is_not_there_is_refused(greetings):
    outcome = greetings("consume", "greetings", "-p", "7")
    assert outcome.code == 1
    assert "numbered 0 to 1" in outcome.err


def test_a_reader_that_goes_away_ends_it_quietly(greetings, tmp_path):
    greetings("produce", "greetings", input="word\n" * 200_000)
    with subprocess.Popen(
        [*SCRIPT, "consume", "greetings"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_ends_following_quietly_and_in_order(greetings, tmp_path):
    with subprocess.Popen(
        [*SCRIPT, "consume", "greetings", "--from", "beginning", "--follow", "--group", "g"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        os.kill(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert all(lines)
    assert (rest, errors, process.returncode) == (b"", b"", 0)
    assert values(greetings("consume", "greetings", "--group", "g")) == []


def test_a_directory_that_somebody_holds_is_exit_code_three(greetings, tmp_path):
    with subprocess.Popen(
        [*SCRIPT, "consume", "greetings", "--from", "beginning", "--follow"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline()
        outcome = subprocess.run([*SCRIPT, "topics", "list"], cwd=tmp_path, capture_output=True, text=True, check=False)
        process.terminate()
        process.wait(timeout=20)
    assert outcome.returncode == 3
    assert str(process.pid) in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert process.returncode == 143
