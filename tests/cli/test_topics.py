"""Topics from the command line."""


def test_a_created_topic_is_listed_and_described(run):
    made = run("topics", "create", "clicks", "--partitions", "3", "--retention", "7d", "-c", "segment.bytes=1048576")
    assert (made.code, made.out) == (0, "Topic 'clicks' has 3 partitions.\n")
    listed = run("topics", "list", "--json").json
    assert [(topic["name"], len(topic["partitions"])) for topic in listed] == [("clicks", 3)]
    assert listed[0]["config"] == {"retention.ms": "604800000", "segment.bytes": "1048576"}
    described = run("topics", "describe", "clicks")
    assert described.lines[0] == "clicks: 3 partitions"
    assert "  retention.ms=604800000" in described.lines
    assert len([line for line in described.lines if line.endswith("online")]) == 3


def test_a_list_counts_the_records(greetings):
    lines = greetings("topics", "list").lines
    assert lines[0].split() == ["TOPIC", "PARTITIONS", "RECORDS", "SIZE", "CONFIG"]
    assert lines[1].split()[:3] == ["greetings", "2", "3"]


def test_internal_topics_are_listed_on_demand(greetings):
    greetings("consume", "greetings", "--group", "g")
    assert "__consumer_offsets" not in greetings("topics", "list").out
    assert "__consumer_offsets" in greetings("topics", "list", "--internal").out


def test_an_empty_log_says_how_to_go_on(run):
    run("topics", "create", "clicks")
    run("topics", "delete", "clicks", "--yes")
    outcome = run("topics", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "topics create" in outcome.err
    assert run("topics", "list", "--json").json == []


def test_a_topic_cannot_be_created_twice_unless_that_is_fine(greetings):
    again = greetings("topics", "create", "greetings")
    assert again.code == 1
    assert "--if-not-exists" in again.err
    assert greetings("topics", "create", "greetings", "--if-not-exists").out == "Topic 'greetings' has 2 partitions.\n"


def test_a_mistyped_topic_is_answered_with_the_one_that_was_meant(greetings):
    for command in (["topics", "describe"], ["topics", "delete", "--yes"], ["consume"], ["produce"]):
        outcome = greetings(*command, "greetins")
        assert outcome.code == 4
        assert outcome.err == "Error: No such topic 'greetins'. Did you mean 'greetings'?\n"


def test_an_unlike_topic_is_answered_with_what_to_do(greetings):
    assert "topics create xyzzy" in greetings("consume", "xyzzy").err


def test_a_mistyped_setting_is_answered_with_the_one_that_was_meant(greetings):
    for command in (["topics", "create", "new"], ["topics", "alter", "greetings"]):
        outcome = greetings(*command, "--config", "retention.mss=1000")
        assert outcome.code == 1
        assert "retention.ms" in outcome.err.replace("retention.mss", "")


def test_a_setting_without_a_value_is_refused(run):
    outcome = run("topics", "create", "clicks", "--config", "retention.ms")
    assert outcome.code == 2
    assert "NAME=VALUE" in outcome.err


def test_a_bad_topic_name_is_refused(run):
    outcome = run("topics", "create", "no/slashes")
    assert outcome.code == 1
    assert "no/slashes" in outcome.err


def test_alter_sets_and_removes_settings_and_adds_partitions(greetings):
    altered = greetings("topics", "alter", "greetings", "-c", "retention.ms=1000", "-p", "4")
    assert altered.out == "Topic 'greetings' has 4 partitions and retention.ms=1000.\n"
    back = greetings("topics", "alter", "greetings", "--delete-config", "retention.ms", "--json").json
    assert back == {"name": "greetings", "partitions": 4, "config": {}}


def test_a_topic_cannot_shrink(greetings):
    outcome = greetings("topics", "alter", "greetings", "-p", "1")
    assert outcome.code == 1
    assert "cannot shrink" in outcome.err


def test_alter_without_a_change_is_refused(greetings):
    assert greetings("topics", "alter", "greetings").code == 2


def test_delete_asks_somebody_or_needs_yes(greetings):
    outcome = greetings("topics", "delete", "greetings")
    assert outcome.code == 2
    assert "--yes" in outcome.err
    assert greetings("topics", "delete", "greetings", "--yes").out == "Deleted greetings.\n"
    assert greetings("topics", "describe", "greetings").code == 4
