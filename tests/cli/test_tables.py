"""Tables, read from their changelogs."""

import pytest


@pytest.fixture
def minutes(run):
    """The table `minutes` of the app `shop-floor`, and another app's table of the same name."""
    run("topics", "create", "shop-floor-minutes-changelog", "-p", "2")
    run("topics", "create", "other-minutes-changelog", "-p", "1")
    run("topics", "create", "orders", "-p", "1")
    changes = [
        '{"key": "\\"web-1\\"", "value": {"count": 1}}',
        '{"key": "\\"web-1\\"", "value": {"count": 2}}',
        '{"key": "\\"web-2\\"", "value": {"count": 5}}',
        '{"key": "\\"gone\\"", "value": {"count": 9}}',
        '{"key": "\\"gone\\"", "value": null}',
    ]
    run("produce", "shop-floor-minutes-changelog", "--format", "json", input="\n".join(changes))
    run("groups", "reset", "shop-floor", "--to", "end", "-t", "orders", "--new", "--yes")
    return run


def test_tables_are_listed_with_their_app(minutes):
    tables = {(table["app"], table["table"], table["changes"]) for table in minutes("tables", "list", "--json").json}
    assert tables == {("shop-floor", "minutes", 5), ("", "other-minutes", 0)}
    assert [table["table"] for table in minutes("tables", "list", "--app", "other", "--json").json] == ["minutes"]


def test_the_newest_value_of_each_key_is_shown(minutes):
    rows = minutes("tables", "get", "minutes", "--app", "shop-floor", "--json").json
    assert [(row["key"], row["value"]) for row in rows] == [("web-1", {"count": 2}), ("web-2", {"count": 5})]


def test_a_key_is_found_as_text_or_as_json(minutes):
    for key in ("web-2", '"web-2"'):
        (row,) = minutes("tables", "get", "minutes", key, "--app", "shop-floor", "--json").json
        assert row["value"] == {"count": 5}


def test_keys_are_found_by_their_beginning(minutes):
    lines = minutes("tables", "get", "minutes", "web-", "--prefix", "--app", "shop-floor").lines
    assert [line.split()[0] for line in lines[1:]] == ["web-1", "web-2"]


def test_a_key_that_is_not_there_is_told(minutes):
    outcome = minutes("tables", "get", "minutes", "gone", "--app", "shop-floor")
    assert outcome.code == 4
    assert "no key 'gone'" in outcome.err


def test_a_mistyped_table_is_answered_with_the_one_that_was_meant(minutes):
    outcome = minutes("tables", "get", "minuts")
    assert outcome.code == 4
    assert "Did you mean 'minutes'?" in outcome.err


def test_a_windowed_row_shows_its_key_and_its_window(run):
    run("topics", "create", "shop-clicks-changelog", "-p", "1")
    rows = ['{"key": ["web-1",[1700000000.0,1700000060.0]], "value": 3}']
    run("produce", "shop-clicks-changelog", "--format", "json", input="\n".join(rows))
    (row,) = run("tables", "get", "shop-clicks", "web-1", "--json").json
    assert row["key"] == "web-1"
    assert row["window"] == {"start": "2023-11-14T22:13:20.000Z", "end": "2023-11-14T22:14:20.000Z"}
    header, line = run("tables", "get", "clicks").lines
    assert header.split()[:3] == ["KEY", "WINDOW", "VALUE"]
    assert line.split()[0] == "web-1"
