"""Alarms from a stream: the same whatever happens to the process, bounded state, nothing bad comes of bad input."""

import asyncio
import itertools
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.alerts import Alarm, Rejected, Rule, RulesError, alerts, expect
from streamcore.events import Event
from streamcore.models import Record
from tests.processors.fake_stream import FakeStream, Idle, Kept, event

RULES = (
    Rule("HighCpu", "cpu > 90", clear=80, for_=20, keep_firing_for=10),
    Rule("DiskFull", "disks.{mount}.percent > 95", labels={"severity": "critical"}),
    Rule("HostSilent", expect=expect(every=15, grace=5)),
    Rule("NoTemperature", metric="temperature", expect=expect(every=30)),
)


def collect(
    items: list[Event | Idle], kept: Kept | None = None, rules: tuple[Rule, ...] = RULES, **options: Any
) -> list[Alarm]:
    async def run() -> list[Alarm]:
        return [alarm async for alarm in alerts(FakeStream(items, kept), rules, **options)]

    return asyncio.run(run())


def values() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.sampled_from([10.0, 85, 95.0, float("nan"), None, "x"]),
            "disks": st.dictionaries(
                st.sampled_from(["/", "/var"]), st.fixed_dictionaries({"percent": st.sampled_from([50, 96])})
            ),
            "temperature": st.sampled_from([20, None]),
        },
    )


@st.composite
def readings(draw: st.DrawFn, ordered: bool = False) -> list[Event | Idle]:
    """Readings of three hosts within five minutes, mostly in order of time."""
    times = st.integers(0, 300)
    rows = draw(st.lists(st.tuples(times, st.sampled_from("abc"), values()), max_size=40))
    if ordered:
        rows.sort(key=lambda row: row[0])
    else:
        jitter = draw(st.lists(st.integers(-30, 30), min_size=len(rows), max_size=len(rows)))
        rows = [row for _, row in sorted(zip(jitter, rows, strict=True), key=lambda pair: pair[0] + pair[1][0])]
    items: list[Event | Idle] = [event(host, at * 1000, value, n) for n, (at, host, value) in enumerate(rows)]
    for place in draw(st.lists(st.integers(0, len(items)), max_size=3)):
        newest_ms = max((item.timestamp for item in items[:place] if isinstance(item, Event)), default=0)
        items.insert(place, Idle(newest_ms + draw(st.integers(0, 60)) * 1000))
    return items


@given(items=readings(), data=st.data())
def test_restarts_anywhere_change_no_alarm(items: list[Event | Idle], data: st.DataObject) -> None:
    kept = Kept()
    alarms: list[Alarm] = []
    cuts = sorted(data.draw(st.sets(st.integers(0, len(items)), max_size=5)) | {0, len(items)})
    for start, end in itertools.pairwise(cuts):
        alarms += collect(items[start:end], kept)
    whole = Kept()
    assert alarms == collect(items, whole)
    assert kept == whole


@given(items=readings(ordered=True))
def test_the_alarms_of_a_source_do_not_depend_on_other_sources(items: list[Event | Idle]) -> None:
    items = [item for item in items if isinstance(item, Event)] + [Idle(10_000_000)]
    together = collect(items)
    for host in "abc":
        own = [item for item in items if isinstance(item, Idle) or item.key == host]
        assert [alarm for alarm in together if alarm.labels["key"] == host] == collect(own)


@given(items=readings(), data=st.data())
def test_readings_that_come_twice_make_no_alarm_twice(items: list[Event | Idle], data: st.DataObject) -> None:
    repeated: list[Event | Idle] = []
    for place, item in enumerate(items):
        repeated.append(item)
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, place))
            repeated += [item for item in items[start : place + 1] if isinstance(item, Event)]
    assert collect(repeated) == collect(items)


@given(items=readings())
@settings(max_examples=30)
def test_a_day_of_silence_ends_every_alarm_and_leaves_no_state(items: list[Event | Idle]) -> None:
    kept = Kept()
    alarms = collect([*items, Idle(200_000_000)], kept)
    assert kept.rows == {}
    last = {alarm.key: alarm.state for alarm in alarms}
    assert set(last.values()) <= {"resolved", "inactive"}


def test_an_alarm_is_a_record_that_json_holds() -> None:
    alarm = collect([event("a", 0, {"disks": {"/var": {"percent": 99}}}, offset=7)])[0]
    assert Alarm.loads(alarm.dumps()) == alarm
    assert json.loads(alarm.dumps())["records"] == [["readings", 0, 7]]
    assert alarm.key == 'DiskFull{key="a",mount="/var"}'
    assert alarm.labels == {"key": "a", "mount": "/var", "severity": "critical"}
    assert (alarm.severity, alarm.value, alarm.threshold, alarm.comparison) == ("critical", 99, 95, ">")


def test_the_id_of_an_alarm_is_the_same_in_every_replay_and_new_in_every_episode() -> None:
    rules = (Rule("HighCpu", "cpu > 90"),)
    items: list[Event | Idle] = [event("a", at, {"cpu": cpu}) for at, cpu in enumerate([95, 1, 95, 1])]
    alarms = collect(items, rules=rules)
    assert [alarm.id for alarm in alarms] == [alarm.id for alarm in collect(items, rules=rules)]
    assert alarms[0].id == alarms[1].id != alarms[2].id == alarms[3].id


def test_the_context_is_asked_for_when_an_alarm_changes_and_is_kept_until_the_clock_fires_it() -> None:
    asked: list[int] = []

    def context(event: Event) -> dict[str, int]:
        asked.append(event.offset)
        return {"offset": event.offset}

    rules = (Rule("HighCpu", "cpu > 90", for_=20), Rule("HighLoad", "load > 4"))
    quiet: list[Event | Idle] = [event("a", n * 1000, {"cpu": 1, "load": 1}, n) for n in range(5)]
    loud = [event("a", 5000, {"cpu": 99, "load": 9}, 5), event("a", 10_000, {"cpu": 99, "load": 9}, 6)]
    alarms = collect([*quiet, *loud, Idle(60_000)], rules=rules, context=context)
    assert asked == [5, 6]
    assert [(alarm.rule, alarm.state, alarm.context) for alarm in alarms] == [
        ("HighCpu", "pending", {"offset": 5}),
        ("HighLoad", "firing", {"offset": 5}),
        ("HighCpu", "firing", {"offset": 6}),
    ]


def test_annotations_tell_the_numbers_labels_and_context() -> None:
    rule = Rule(
        "DiskFull",
        "disks.{mount}.percent > 95",
        annotations={
            "summary": "{{ labels.mount }} of {{ $labels.key }} at {{ value:.1f }} %, above {{ threshold }} % "
            "since {{ since }}; {{ context.top.name }}{{ context.nothing }}{{ labels.nothing }}"
        },
    )
    alarm = collect(
        [event("web-1", 1_700_000_000_000, {"disks": {"/var": {"percent": 96.44}}})],
        rules=(rule,),
        context=lambda event: {"top": {"name": "postgres"}},
    )[0]
    assert alarm.annotations["summary"] == ("/var of web-1 at 96.4 %, above 95 % since 2023-11-14 22:13:20Z; postgres")


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, {"key": "k"}),
        ({"labels": "host"}, {"host": "h"}),
        ({"labels": ["host", "place.rack"]}, {"host": "h", "rack": "3"}),
        ({"labels": lambda event: {"name": event.value["host"].upper()}}, {"name": "H"}),
        ({"key": "host"}, {"key": "h"}),
        ({"key": lambda event: event.key * 2}, {"key": "kk"}),
    ],
)
def test_labels_say_which_source_a_reading_is_of(options: dict[str, Any], labels: dict[str, str]) -> None:
    item = event("k", 0, {"cpu": 99, "host": "h", "place": {"rack": 3}})
    assert collect([item], rules=(Rule("HighCpu", "cpu > 90"),), **options)[0].labels == labels


@pytest.mark.parametrize("options", [{"labels": "host", "key": "host"}, {"labels": []}, {"labels": "a.*"}])
def test_labels_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RulesError):
        collect([], **options)


def test_what_no_rule_can_look_at_is_reported_with_its_reason() -> None:
    reported: list[tuple[int, str, str]] = []

    def on_rejected(event: Event, rejected: Rejected) -> None:
        reported.append((event.offset, rejected.reason, rejected.rule))

    rules = (Rule("HighCpu", "cpu > 90"), Rule("DiskFull", "disks.{mount}.percent > 95"))
    some = {"disks": {"/": {"percent": 1}}}
    items: list[Event | Idle] = [
        event("a", 10_000, {"cpu": 1, **some}, 0),
        event("a", 10_000, {"cpu": 99, **some}, 1),
        event("a", 5_000, {"cpu": 99, **some}, 2),
        event("a", 11_000, {"cpu": float("nan"), **some}, 3),
        event("a", 12_000, {"cpu": float("inf"), **some}, 4),
        event("a", 13_000, {"cpu": 10**400, **some}, 5),
        event("a", 14_000, {"cpu": "99", **some}, 6),
        event("a", 15_000, {"cpu": None, **some}, 7),
        event("a", 16_000, {"cpu": 1, "disks": [1, 2]}, 8),
        event("a", 17_000, None, 9),
        event(None, 18_000, {"cpu": 99, **some}, 10),
        event("a", 10**14, {"cpu": 99, **some}, 11, written_ms=19_000),
    ]
    assert collect(items, rules=rules, on_rejected=on_rejected) == []
    assert reported == [
        (1, "duplicate", ""),
        (2, "late", ""),
        (3, "not_finite", "HighCpu"),
        (4, "not_finite", "HighCpu"),
        (5, "not_finite", "HighCpu"),
        (6, "wrong_type", "HighCpu"),
        (7, "missing", "HighCpu"),
        (8, "missing", "DiskFull"),
        (9, "missing", "HighCpu"),
        (9, "missing", "DiskFull"),
        (10, "no_labels", ""),
        (11, "ahead", ""),
    ]


def test_a_reading_may_come_in_several_records_of_one_time() -> None:
    rules = (Rule("HighCpu", "cpu > 90"), Rule("HighLoad", "load > 4"))
    items: list[Event | Idle] = [event("a", 1000, {"cpu": 99}, 0), event("a", 1000, {"load": 9}, 1)]
    items += [event("a", 1000, {"cpu": 1}, 2), event("a", 1000, {"load": 1}, 3)]
    assert [(alarm.rule, alarm.state) for alarm in collect(items, rules=rules)] == [
        ("HighCpu", "firing"),
        ("HighLoad", "firing"),
    ]


def test_the_log_names_a_field_that_the_values_do_not_have(caplog: pytest.LogCaptureFixture) -> None:
    class Metrics(Record):
        cpu: float

    rules = (Rule("HighCpu", "cpus > 90"),)
    with caplog.at_level(logging.WARNING):
        collect([event("a", n, Metrics(99.0), n) for n in range(50)], rules=rules)
    assert [record.getMessage().split(": ", 1)[0] for record in caplog.records] == [
        "alarms"
    ] * 2  # the 1st and the 10th
    assert "Metrics has no field 'cpus': did you mean 'cpu'?" in caplog.text


def test_names_from_outside_cannot_fill_the_store() -> None:
    kept = Kept()
    reported: list[str] = []
    items: list[Event | Idle] = [
        event("a", n, {"disks": {str(n * 100 + m): {"percent": 99} for m in range(100)}}) for n in range(15)
    ]
    rules = (Rule("DiskFull", "disks.{mount}.percent > 95"),)
    alarms = collect(items, kept, rules=rules, on_rejected=lambda event, rejected: reported.append(rejected.reason))
    assert len(alarms) == 1000
    assert reported == ["too_many"] * 500


def test_an_alarm_whose_rule_is_gone_resolves() -> None:
    kept = Kept()
    fired = collect([event("a", 1000, {"disks": {"/": {"percent": 99}}})], kept)[0]
    gone = collect([Idle(60_000)], kept, rules=(Rule("HighCpu", "cpu > 90"),))
    assert [(alarm.key, alarm.id, alarm.state, alarm.reason) for alarm in gone] == [
        (fired.key, fired.id, "resolved", "rule removed")
    ]


def test_two_sets_of_rules_watch_one_stream_under_their_own_names() -> None:
    names: list[str] = []

    class Named(FakeStream):
        def state(self, name: str, *, value_type: Any = None) -> Any:
            names.append(name)
            return super().state(name, value_type=value_type)

    async def run() -> None:
        async for _ in alerts(Named([]), RULES, name="night"):
            pass

    asyncio.run(run())
    assert names == ["night"]


def test_the_stream_is_asked_for_no_moment_while_nothing_is_due() -> None:
    stream = FakeStream([event("a", 1000, {"cpu": 1})])

    async def run() -> None:
        async for _ in alerts(stream, ()):
            pass

    asyncio.run(run())
    assert stream.wake_ms == 1000 + 86_400_000 + 1  # only to forget the source
