"""Why nothing comes out, in sentences."""

from typing import Any

import pytest

from streamcore.web.explain import duration, explain, summarise


def partition(**changes: Any) -> dict[str, Any]:
    source = {
        "topic": "orders",
        "position": 9,
        "done_offset": 9,
        "log_end_offset": 9,
        "lag": 0,
        "max_timestamp_ms": 7_000,
        "idle": False,
    }
    source |= {name: changes.pop(name) for name in list(changes) if name in source}
    return {
        "partition": 0,
        "state": "running",
        "inputs": [source],
        "watermark_ms": 6_000,
        "held_back_by": "",
        "in_flight": 0,
    } | changes


def status(*parts: dict[str, Any], **agent: Any) -> dict[str, Any]:
    return {
        "now_ms": 10_000,
        "state": "running",
        "healthy": True,
        "unhealthy_reason": None,
        "groups": [],
        "tables": [],
        "topics": [
            {
                "name": name,
                "partitions": [{"partition": 0, "log_start_offset": 0, "log_end_offset": end, "offline": None}],
            }
            for name, end in (("orders", 9), ("totals", 0))
        ],
        "agents": [
            {
                "name": "sum",
                "topics": ["orders"],
                "sinks": ["totals"],
                "events_total": 9,
                "errors_total": 0,
                "dead_letters_total": 0,
                "late_total": 0,
                "partitions": list(parts),
            }
            | agent
        ],
    }


def only(found: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(found) == 1
    return found[0]


def test_an_agent_that_read_everything_is_up_to_date() -> None:
    found = only(explain(status(partition())))
    assert found["level"] == "ok"
    assert found["headline"] == "Up to date: everything in orders has been read."
    assert found["partitions"][0]["sentence"] == "Everything has been read. The newest record is 3.0 s old."


def test_an_agent_that_reads_and_sends_nothing_is_told_so() -> None:
    assert "nothing has reached totals" in only(explain(status(partition())))["notes"][0]


def test_a_sink_that_is_a_function_is_no_topic_to_wait_for() -> None:
    assert only(explain(status(partition(), sinks=["print"])))["notes"] == []


def test_an_empty_topic_is_named_with_a_command_that_fills_it() -> None:
    found = only(explain(status(partition(log_end_offset=0, done_offset=0, max_timestamp_ms=None), events_total=0)))
    assert found["level"] == "empty"
    assert found["headline"] == "Nothing has come in: orders is empty."
    assert found["notes"][0].startswith("Try one: streamcore produce orders")


def test_an_agent_whose_topic_another_agent_fills_points_at_that_one() -> None:
    two = status(partition())
    two["agents"].append(
        two["agents"][0]
        | {"name": "print", "topics": ["totals"], "sinks": [], "partitions": [partition(log_end_offset=0)]}
    )
    found = next(finding for finding in explain(two) if finding["agent"] == "print")
    assert found["notes"][0] == "It waits for what sum sends: look there first."


def test_empty_partitions_of_a_busy_topic_are_no_finding() -> None:
    quiet = partition(log_end_offset=0, done_offset=0) | {"partition": 1}
    assert only(explain(status(partition(), quiet)))["level"] == "ok"


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"state": "stopped"}, "bad", "Stopped at orders-0 @ 9."),
        (
            {"state": "retrying", "held_back_by": "an event fails (ValueError: x)"},
            "bad",
            "An event fails (ValueError: x).",
        ),
        ({"state": "recovering"}, "wait", "Its tables are being read back from their changelog."),
        ({"lag": 1}, "wait", "1 record waits."),
        ({"lag": 1200, "in_flight": 3}, "wait", "1\u202f200 records wait, 3 events in flight."),
        ({"held_back_by": "nothing: it has done all there is"}, "ok", "It has done all there is."),
        ({"held_back_by": "orders-0 is slow"}, "ok", "orders-0 is slow."),
    ],
)
def test_a_partition_says_what_holds_it_back(changes: dict[str, Any], level: str, words: str) -> None:
    found = only(explain(status(partition(**changes))))["partitions"][0]
    assert (found["level"], found["sentence"].startswith(words)) == (level, True), found


def test_an_offline_partition_comes_before_everything_else() -> None:
    broken = status(partition())
    broken["topics"][0]["partitions"][0]["offline"] = "input/output error"
    found = only(explain(broken))["partitions"][0]
    assert found["level"] == "bad"
    assert found["sentence"] == "The partition is offline: input/output error."


def test_the_most_urgent_agent_comes_first() -> None:
    two = status(partition())
    two["agents"].append(two["agents"][0] | {"name": "stuck", "partitions": [partition(state="stopped")]})
    assert [found["agent"] for found in explain(two)] == ["stuck", "sum"]


def test_errors_late_events_and_dead_letters_are_counted_in_words() -> None:
    notes = " ".join(only(explain(status(partition(), errors_total=2, late_total=1, dead_letters_total=1)))["notes"])
    assert "2 errors raised" in notes
    assert "1 event came after their window had closed" in notes
    assert "1 event failed for good" in notes


def test_the_summary_tells_how_far_the_slowest_watermark_is_behind() -> None:
    now = status(partition(), partition(watermark_ms=4_000))
    summary = summarise(now, explain(now))
    assert (summary["level"], summary["behind_ms"]) == ("ok", 6_000)
    assert summary["text"] == "all 2 partitions current · watermark 6.0 s behind"


def test_an_idle_partition_delays_nobody() -> None:
    now = status(partition(), partition(watermark_ms=1_000, idle=True))
    assert summarise(now, explain(now))["behind_ms"] == 4_000


def test_the_summary_is_red_when_the_worker_is_not_healthy() -> None:
    now = status(partition()) | {"healthy": False, "unhealthy_reason": "lag without progress for 60 s"}
    summary = summarise(now, explain(now))
    assert (summary["level"], summary["text"]) == ("bad", "Lag without progress for 60 s.")


def test_the_summary_names_the_group_with_the_worst_lag() -> None:
    now = status(partition())
    now["groups"] = [{"group": "a", "lag": 3, "lag_ms": 10}, {"group": "b", "lag": 1, "lag_ms": 900}]
    summary = summarise(now, [])
    assert (summary["lag"], summary["lag_ms"], summary["lag_group"]) == (4, 900, "b")


def test_durations_have_one_unit() -> None:
    assert [duration(ms) for ms in (300, 48_000, 200_000, 18_000_000, 900_000_000)] == [
        "0.3 s",
        "48 s",
        "3 min",
        "5 h",
        "10 d",
    ]
