"""Records from arguments, lines, files and JSON."""

import orjson
import pytest


def records(run, topic="greetings"):
    return [orjson.loads(line) for line in run("consume", topic, "--format", "json").lines]


def test_a_value_is_written_with_key_headers_and_time(greetings):
    outcome = greetings(
        "produce", "greetings", "hej", "-k", "b", "-H", "lang=sv", "-H", "x=", "-p", "0", "-t", "2023-11-14T22:13:20Z"
    )
    assert outcome.out == "Wrote 1 record to greetings: partition 0 at 1.\n"
    last = [record for record in records(greetings) if record["partition"] == 0][-1]
    assert (last["key"], last["value"], last["timestamp"]) == ("b", "hej", 1_700_000_000_000)
    assert last["headers"] == {"lang": "sv", "x": ""}


def test_each_line_of_stdin_is_a_record(greetings):
    outcome = greetings("produce", "greetings", "-p", "0", input="one\r\ntwo\n\nfour")
    assert outcome.out == "Wrote 4 records to greetings: partition 0 at 1 to 4.\n"
    values = [record["value"] for record in records(greetings) if record["partition"] == 0]
    assert values == ["hello", "one", "two", "", "four"]


def test_lines_carry_their_keys(greetings, tmp_path):
    (tmp_path / "users.txt").write_text("ann: 1\nbob: 2: 3\n")
    assert greetings("produce", "greetings", "--file", "users.txt", "--key-separator", ": ").code == 0
    pairs = {(record["key"], record["value"]) for record in records(greetings)}
    assert {("ann", "1"), ("bob", "2: 3")} <= pairs


def test_a_line_without_its_separator_is_named(greetings):
    outcome = greetings("produce", "greetings", "-K", ":", input="ann:1\nbob\n")
    assert outcome.code == 1
    assert "Line 2 has no ':'" in outcome.err
    assert "'bob'" in outcome.err


def test_the_same_key_goes_to_the_same_partition(greetings):
    for value in ("x", "y", "z"):
        greetings("produce", "greetings", value, "--key", "always")
    assert len({record["partition"] for record in records(greetings) if record["key"] == "always"}) == 1


def test_a_tombstone_has_no_value(greetings):
    assert greetings("produce", "greetings", "--key", "a", "--tombstone").code == 0
    assert [record["value"] for record in records(greetings) if record["key"] == "a"] == ["hello", None]


def test_what_consume_writes_as_json_comes_back_the_same(greetings, run):
    greetings("produce", "greetings", '{"base64": "not bytes"}', "-k", "odd")
    greetings("produce", "greetings", '[1,{"a":null}]', "-k", "list")
    greetings("produce", "greetings", "17", "-k", "number")
    greetings("produce", "greetings", input=b"\xff\x00\n")
    run("topics", "create", "copy", "-p", "2")
    told = run("consume", "greetings", "--format", "json").out
    assert run("produce", "copy", "--format", "json", input=told).code == 0
    kept = ("key", "value", "headers", "timestamp", "partition")

    def by_place(topic):
        found = sorted(records(run, topic), key=lambda record: (record["partition"], record["offset"]))
        return [{name: record[name] for name in kept} for record in found]

    assert len(by_place("greetings")) == 7
    assert by_place("copy") == by_place("greetings")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"key": "a"}', 'is not an object with "value"'),
        ('{"value": 1, "partition": "x"}', '"partition"'),
        ('{"value": 1, "timestamp": 1.5}', '"timestamp"'),
        ('{"value": 1, "headers": 3}', '"headers"'),
        ('{"value": {"base64": "?"}}', '"base64"'),
    ],
)
def test_a_bad_json_line_is_named(greetings, line, part):
    outcome = greetings("produce", "greetings", "--format", "json", input=f'{{"value": "good"}}\n{line}\n')
    assert outcome.code == 1
    assert "Line 2 " in outcome.err
    assert part in outcome.err


def test_the_report_is_json_for_machines(greetings):
    report = greetings("produce", "greetings", "x", "-p", "1", "--json").json
    assert report == {
        "topic": "greetings",
        "records": 1,
        "partitions": [{"partition": 1, "first_offset": 2, "last_offset": 2}],
    }


def test_no_input_writes_nothing(greetings):
    assert (
        greetings("produce", "greetings", input="").out
        == "Nothing was written to greetings: there was no record to read.\n"
    )


def test_a_partition_that_is_not_there_is_refused(greetings):
    outcome = greetings("produce", "greetings", "x", "--partition", "2")
    assert outcome.code == 1
    assert "numbered 0 to 1" in outcome.err


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_are_read_back(greetings, compression):
    assert greetings("produce", "greetings", "x" * 1000, "-k", compression, "-z", compression).code == 0
    assert ("x" * 1000) in [record["value"] for record in records(greetings)]


def test_an_oversized_record_is_refused_and_says_so(greetings):
    greetings("topics", "alter", "greetings", "-c", "max.message.bytes=1000")
    outcome = greetings("produce", "greetings", "x" * 5000)
    assert outcome.code == 1
    assert "max.message.bytes" in outcome.err


@pytest.mark.parametrize(
    "options",
    [
        ["x", "--file", "f"],
        ["-k", "a", "-K", ":"],
        ["x", "--tombstone", "-k", "a"],
        ["--tombstone"],
        ["x", "-H", "novalue"],
    ],
)
def test_contradictions_are_refused(greetings, tmp_path, options):
    (tmp_path / "f").write_text("")
    outcome = greetings("produce", "greetings", *options)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
