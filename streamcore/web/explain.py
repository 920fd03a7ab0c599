""" "Why is nothing coming out?", answered per agent and partition in plain sentences. Pure: status in, findings out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

Level = Literal["bad", "wait", "empty", "ok"]  # most urgent first
LEVELS: Sequence[Level] = ("bad", "wait", "empty", "ok")


def explain(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What holds each agent back, most urgent first.

    Returns:
        `{"agent", "level", "headline", "notes": [sentence], "partitions": […]}` per agent, a partition being
        `{"partition", "level", "sentence", "todo"}`. Sentences are plain text and may hold names from
        outside: escape them.
    """
    ends = {topic["name"]: sum(p["log_end_offset"] or 0 for p in topic["partitions"]) for topic in status["topics"]}
    offline = {
        (topic["name"], part["partition"]): str(part["offline"])
        for topic in status["topics"]
        for part in topic["partitions"]
        if part.get("offline")
    }
    writers = {sink: agent["name"] for agent in status["agents"] for sink in agent["sinks"]}
    findings = [_agent(agent, ends, offline, writers, status["now_ms"]) for agent in status["agents"]]
    return sorted(findings, key=lambda finding: LEVELS.index(finding["level"]))


def _agent(
    agent: Mapping[str, Any],
    ends: Mapping[str, int],
    offline: Mapping[tuple[str, int], str],
    writers: Mapping[str, str],
    now_ms: int,
) -> dict[str, Any]:
    partitions = [
        {"partition": part["partition"]} | _partition(part, agent, offline, now_ms) for part in agent["partitions"]
    ]
    levels = [part["level"] for part in partitions]
    level: Level = next((level for level in LEVELS if level in levels), "empty")
    if level == "empty" and "ok" in levels:
        level = "ok"  # keys decide where records go: some partitions of a busy topic are often empty
    return {
        "agent": agent["name"],
        "level": level,
        "headline": _headline(agent, level, levels),
        "notes": list(_notes(agent, level, ends, writers)),
        "partitions": partitions,
    }


def _headline(agent: Mapping[str, Any], level: Level, levels: Sequence[Level]) -> str:
    topics = _names(agent["topics"])
    if not levels:
        return f"No partition of {topics} is assigned to this worker."
    count = sum(each == level for each in levels)
    if level == "bad":
        return f"{count} of {_count(len(levels), 'partition')} cannot go on."
    if level == "wait":
        return f"{count} of {_count(len(levels), 'partition')} behind or busy."
    if level == "empty":
        return f"Nothing has come in: {topics} {'is' if len(agent['topics']) == 1 else 'are'} empty."
    return f"Up to date: everything in {topics} has been read."


def _notes(
    agent: Mapping[str, Any], level: Level, ends: Mapping[str, int], writers: Mapping[str, str]
) -> Iterable[str]:
    topics = agent["topics"]
    sinks = [sink for sink in agent["sinks"] if sink in ends]  # a sink may be a function too
    events = agent.get("events_total") or 0
    before = next((writers[topic] for topic in topics if topic in writers and writers[topic] != agent["name"]), None)
    if level == "empty" and before:
        yield f"It waits for what {before} sends: look there first."
    elif level == "empty" and topics:
        yield f"Try one: streamcore produce {topics[0]} --key test --value '{{}}'"
    if events and sinks and level == "ok" and not any(ends[sink] for sink in sinks):
        yield (
            f"It has taken {_count(events, 'event')} and nothing has reached {_names(sinks)}: its code yielded nothing "
            "for them. Look at its conditions, or at a window that has not closed yet."
        )
    if agent.get("dead_letters_total"):
        yield (
            f"{_count(agent['dead_letters_total'], 'event')} failed for good and went to the dead-letter topic, with "
            "the error in their headers."
        )
    if agent.get("errors_total"):
        yield f"{_count(agent['errors_total'], 'error')} raised by its code since the start."
    if agent.get("late_total"):
        yield (
            f"{_count(agent['late_total'], 'event')} came after their window had closed and were not counted; a larger "
            "grace would keep them."
        )


def _partition(
    part: Mapping[str, Any], agent: Mapping[str, Any], offline: Mapping[tuple[str, int], str], now_ms: int
) -> dict[str, Any]:
    inputs = part["inputs"]
    held_back_by = _sentence((part.get("held_back_by") or "").removeprefix("nothing: "))
    lag = sum(each.get("lag") or 0 for each in inputs)
    state = part["state"]
    broken = [offline[key] for each in inputs if (key := (each["topic"], part["partition"])) in offline]
    if broken:
        return _finding("bad", f"The partition is offline: {_sentence(broken[0])}", "Repair the disk, then restart.")
    if state == "stopped":
        where = ", ".join(f"{each['topic']}-{part['partition']} @ {each['done_offset']}" for each in inputs)
        return _finding(
            "bad",
            held_back_by or f"Stopped at {where}.",
            "The worker's log has the error. After a restart it goes on at the same place.",
        )
    if state == "retrying":
        return _finding("bad", held_back_by or "An event fails and is tried again.", "The worker's log has the error.")
    if state == "recovering":
        return _finding("wait", held_back_by or "Its tables are being read back from their changelog.", None)
    if all((each.get("log_end_offset") or 0) == 0 for each in inputs):
        return _finding("empty", "Nothing has ever been written here.", None)
    if lag:
        return _finding("wait", held_back_by or _waiting(lag, part.get("in_flight") or 0), None)
    newest = max((each["max_timestamp_ms"] for each in inputs if each.get("max_timestamp_ms")), default=None)
    age = f" The newest record is {duration(now_ms - newest)} old." if newest and now_ms > newest else ""
    return _finding("ok", (held_back_by or "Everything has been read.") + age, None)


def _finding(level: Level, sentence: str, todo: str | None) -> dict[str, Any]:
    return {"level": level, "sentence": sentence, "todo": todo}


def _waiting(lag: int, in_flight: int) -> str:
    busy = f", {_count(in_flight, 'event')} in flight" if in_flight else ""
    return f"{_count(lag, 'record')} {'waits' if lag == 1 else 'wait'}{busy}."


def summarise(status: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The one line in the corner of every page: `{"level", "text", "lag", "lag_ms", "lag_group", "behind_ms", …}`.

    `lag_ms` is the worst partition's of all groups; `behind_ms` is how far the slowest watermark of a partition that
    has input is behind the clock. Both are None where nothing is known.
    """
    now_ms = status["now_ms"]
    parts = [part for agent in status["agents"] for part in agent["partitions"]]
    # An idle partition's watermark stands still because nothing comes, which is nobody's delay.
    watermarks = [
        part["watermark_ms"]
        for part in parts
        if part.get("watermark_ms") is not None and not all(each.get("idle") for each in part["inputs"])
    ]
    behind_ms = max(0, now_ms - min(watermarks)) if watermarks else None
    groups = status["groups"]
    lag_ms = max((group["lag_ms"] for group in groups if group.get("lag_ms") is not None), default=None)
    worst = max(groups, key=lambda group: (group.get("lag_ms") or 0, group["lag"] or 0), default=None)
    level: Level = next((level for level in LEVELS if any(each["level"] == level for each in findings)), "ok")
    if level == "empty":
        level = "ok"
    if not status["healthy"]:
        level, text = "bad", _sentence(status.get("unhealthy_reason")) or "Not healthy."
    elif status["state"] != "running":
        level, text = "wait", str(status["state"])
    elif level == "bad":
        stuck = [each["agent"] for each in findings if each["level"] == "bad"]
        text = f"{_names(stuck)} cannot go on"
    else:
        current = sum(not sum(each.get("lag") or 0 for each in part["inputs"]) for part in parts)
        count = len(parts)
        text = f"all {_count(count, 'partition')} current" if current == count else f"{current} of {count} current"
        if not count:
            text = "running"
        if behind_ms is not None and behind_ms < 86_400_000:
            text += f" · watermark {duration(behind_ms)} behind"
    return {
        "level": level,
        "text": text,
        "lag": sum(group["lag"] or 0 for group in groups),
        "lag_ms": lag_ms,
        "lag_group": worst["group"] if worst is not None and worst["lag"] else None,
        "behind_ms": behind_ms,
        "partitions": len(parts),
    }


def duration(milliseconds: float) -> str:
    """Two significant parts at most: "0.3 s", "48 s", "3 min", "5 h", "12 d"."""
    seconds = milliseconds / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _sentence(text: Any) -> str:
    """With a capital and a full stop; empty for nothing."""
    if not text:
        return ""
    words = str(text).strip()
    if words.split(" ", 1)[0].isalpha():  # the name of a topic or partition stays as it is
        words = words[:1].upper() + words[1:]
    return words + ("" if words.endswith((".", "!", "?")) else ".")


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\u202f")
