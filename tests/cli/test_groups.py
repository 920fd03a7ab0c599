"""Groups from the command line."""

import pytest


@pytest.fixture
def read(greetings):
    """The group `mine` has read all three greetings."""
    assert greetings("consume", "greetings", "--group", "mine").code == 0
    return greetings


def places(outcome):
    assert outcome.code == 0, outcome.err
    return [(p["partition"], p["old_offset"], p["new_offset"]) for p in outcome.json["partitions"]]


def committed(run, group="mine"):
    partitions = run("groups", "describe", group, "--json").json["partitions"]
    return {p["partition"]: p["committed_offset"] for p in partitions}


def test_a_group_is_listed_with_its_lag(read):
    read("produce", "greetings", "ciao", "-p", "0")
    (group,) = read("groups", "list", "--json").json
    assert (group["group"], group["topics"], group["lag"]) == ("mine", ["greetings"], 1)
    assert read("groups", "list").lines[1].split()[:4] == ["mine", "greetings", "2", "1"]


def test_a_group_is_described_by_partition(read):
    lines = read("groups", "describe", "mine").lines
    assert lines[0].split() == ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "LATE", "AT"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["greetings", "0", "1", "1", "0"],
        ["greetings", "1", "2", "2", "0"],
    ]


def test_a_group_is_as_late_as_its_oldest_unread_record(read):
    assert [p["lag_ms"] for p in read("groups", "describe", "mine", "--json").json["partitions"]] == [0, 0]
    assert read("produce", "greetings", "ciao", "-p", "0", "-t", "2h").code == 0
    late_ms = read("groups", "describe", "mine", "--json").json["partitions"][0]["lag_ms"]
    assert 7_200_000 <= late_ms < 7_300_000
    assert read("groups", "describe", "mine").lines[1].split()[4:7] == ["1", "2", "h"]


def test_no_groups_are_no_error(greetings):
    assert greetings("groups", "list").code == 0
    assert greetings("groups", "list", "--json").json == []


def test_a_mistyped_group_is_answered_with_the_one_that_was_meant(read):
    for command in (["describe"], ["reset", "--to", "end"], ["delete", "--yes"]):
        outcome = read("groups", *command, "mien")
        assert outcome.code == 4
        assert "Did you mean 'mine'?" in outcome.err


def test_reset_shows_first_and_changes_only_with_yes(read):
    shown = read("groups", "reset", "mine", "--to", "beginning")
    assert "Nothing is changed yet: add --yes" in shown.out
    assert committed(read) == {0: 1, 1: 2}
    assert "is reset in 2 partitions" in read("groups", "reset", "mine", "--to", "beginning", "--yes").out
    assert committed(read) == {0: 0, 1: 0}


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", [(0, 1, 0), (1, 2, 0)]),
        ("latest", [(0, 1, 1), (1, 2, 2)]),
        ("offset:1", [(0, 1, 1), (1, 2, 1)]),
        ("offset:9", [(0, 1, 1), (1, 2, 2)]),
        ("-1", [(0, 1, 0), (1, 2, 1)]),
        ("@1700000000500", [(0, 1, 1), (1, 2, 0)]),
    ],
)
def test_reset_goes_to_any_place(read, to, expected):
    assert places(read("groups", "reset", "mine", "--to", to, "--json")) == expected


def test_reset_keeps_to_the_partitions_it_is_told(read):
    assert places(read("groups", "reset", "mine", "--to", "0", "-t", "greetings:1", "--yes", "--json")) == [(1, 2, 0)]
    assert committed(read) == {0: 1, 1: 0}


def test_a_new_group_can_be_placed(read):
    outcome = read("groups", "reset", "fresh", "--to", "end", "--topic", "greetings", "--new", "--yes")
    assert outcome.code == 0
    assert committed(read, "fresh") == {0: 1, 1: 2}


def test_a_deleted_group_is_gone(read):
    assert read("groups", "delete", "mine").code == 2
    assert read("groups", "delete", "mine", "--yes").code == 0
    assert read("groups", "describe", "mine").code == 4
