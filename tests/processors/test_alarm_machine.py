"""The life of an alarm against two oracles: Prometheus's own loop, and a walk through time second by second."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from processors.alarm_machine import TABLE, AlarmState, Moment, Origin, next_moment, pass_time, take_reading
from processors.alarm_machine import Reading as MachineReading
from processors.alarms import Alarm
from processors.evaluation import Evaluation, SourceState
from processors.levels import Verdict
from processors.rules import Rule, expect


class Seen(NamedTuple):
    state: str
    at: int  # seconds
    notify: bool


def watch(rule: Rule, readings: list[tuple[int, float]], until: int | None = None) -> list[Alarm]:
    """What the machine makes of a single source, in seconds."""
    evaluation = Evaluation([rule])
    source: SourceState | None = None
    alarms: list[Alarm] = []
    for offset, (at, value) in enumerate(readings):
        outcome = evaluation.take(
            {"host": "a"}, source, {"cpu": value}, at * 1000, at * 1000, Origin("readings", 0, offset)
        )
        source = outcome.source
        alarms += outcome.alarms
    if until is not None and source is not None:
        alarms += evaluation.pass_time({"host": "a"}, source, until * 1000 + 1).alarms
    return alarms


def seen(alarms: list[Alarm]) -> list[Seen]:
    return [Seen(alarm.state, alarm.at_ms // 1000, alarm.notify) for alarm in alarms]


def prometheus(values: list[float], every: int, above: float, for_: int, keep_firing_for: int) -> list[Seen]:
    """`(*AlertingRule).Eval` of rules/alerting.go, one series, an evaluation at each value; inactive in our words."""
    changes: list[Seen] = []
    state = "inactive"
    active_at = keep_firing_since = None
    for number, value in enumerate(values):
        ts = number * every
        before = state
        if value > above:
            if state == "inactive":
                state, active_at = "pending", ts
            keep_firing_since = None
        elif state != "inactive":
            keep_firing = False
            if state == "firing" and keep_firing_for > 0:
                if keep_firing_since is None:
                    keep_firing_since = ts
                keep_firing = ts - keep_firing_since < keep_firing_for
            if not keep_firing:
                changes.append(Seen("resolved" if state == "firing" else "inactive", ts, state == "firing"))
                state, keep_firing_since = "inactive", None
                continue
        if state == "pending" and active_at is not None and ts - active_at >= for_:
            state = "firing"
        if state != before:
            changes.append(Seen(state, ts, state == "firing"))
    return changes


@given(
    values=st.lists(st.sampled_from([10.0, 90.0, 91.0, 99.0]), max_size=60),
    for_=st.integers(0, 6),
    keep_firing_for=st.integers(0, 6),
)
def test_with_regular_readings_an_alarm_lives_as_in_prometheus(
    values: list[float], for_: int, keep_firing_for: int
) -> None:
    rule = Rule("HighCpu", "cpu > 90", for_=for_ * 7, keep_firing_for=keep_firing_for * 7)
    alarms = watch(rule, [(number * 10, value) for number, value in enumerate(values)])
    # Prometheus calls a recovering alarm firing, and so does not speak of it.
    shown = [
        one
        for alarm, one in zip(alarms, seen(alarms), strict=True)
        if alarm.state == "resolved" or "recovering" not in (alarm.state, alarm.previous)
    ]
    assert shown == prometheus(values, 10, 90, for_ * 7, keep_firing_for * 7)


def second_by_second(
    readings: dict[int, float], until: int, for_: int, keep: int, silent_after: int | None, forget_after: int
) -> list[tuple[str, int]]:
    """Above 90, clear below 80: what is so at each second, told in the plainest way."""
    changes: list[tuple[str, int]] = []
    state, told, has_fired = "inactive", False, False
    last: int | None = None
    rhythm = since = clear_since = 0

    def enter(new: str, at: int) -> None:
        nonlocal state, told, has_fired
        told = told or new in ("firing", "no_data")
        has_fired = has_fired or new == "firing"
        if new == "over":
            changes.append(("resolved" if told else "inactive", at))
            state, told, has_fired = "inactive", False, False
        else:
            changes.append((new, at))
            state = new

    def elapse(now_ms: int, now: int) -> None:
        """What time alone brings about; `now` is what the second is called."""
        nonlocal last, rhythm
        if last is None:
            return
        missed_turn = now_ms - last * 1000 >= 2 * (rhythm or 30_000)
        if state == "pending" and now_ms - since * 1000 >= for_ * 1000 and missed_turn:
            enter("firing", now)
        elif state == "recovering" and now_ms - clear_since * 1000 >= keep * 1000 and missed_turn:
            enter("over", now)
        if silent_after is not None and state != "no_data" and now_ms - last * 1000 >= silent_after * 1000:
            enter("no_data", now)
        if now_ms - last * 1000 >= forget_after * 1000:
            last, rhythm = None, 0
            if state != "inactive":
                enter("over", now)

    for now in range(until + 1):
        if now not in readings:
            elapse(now * 1000, now)
        else:
            # Deadlines are whole seconds and come after a reading; a turn may have been missed between two seconds.
            elapse(now * 1000 - 1, now)
            value = readings[now]
            if last is not None:
                gap = (now - last) * 1000
                rhythm = max(rhythm * 3 // 4, min(gap, rhythm * 2)) if rhythm else gap
            last = now
            if value > 90:
                if state == "recovering" or (state == "no_data" and has_fired):
                    enter("firing", now)
                elif state in ("inactive", "no_data"):
                    since = now
                    enter("pending", now) if for_ else enter("firing", now)
                elif state == "pending" and now - since >= for_:
                    enter("firing", now)
            elif state == "pending" or (state == "no_data" and not has_fired):
                enter("over", now)
            elif value < 80 and (state == "firing" or state == "no_data"):
                clear_since = now
                enter("recovering", now) if keep else enter("over", now)
            elif state == "no_data":
                enter("firing", now)
            elif state == "recovering" and now - clear_since >= keep:
                enter("over", now)
    return changes


@given(
    readings=st.dictionaries(st.integers(0, 200), st.sampled_from([10.0, 79.0, 85.0, 91.0, 99.0]), max_size=50),
    for_=st.integers(0, 30),
    keep=st.integers(0, 30),
    silent_after=st.none() | st.integers(1, 40),
)
def test_with_any_readings_and_silences_an_alarm_lives_as_told_second_by_second(
    readings: dict[int, float], for_: int, keep: int, silent_after: int | None
) -> None:
    rule = Rule(
        "HighCpu",
        "cpu > 90",
        clear=80,
        for_=for_,
        keep_firing_for=keep,
        expect=None if silent_after is None else expect(silent_after),
        forget_after=100,
    )
    alarms = watch(rule, sorted(readings.items()), until=400)
    told = [(alarm.state, -(-alarm.at_ms // 1000)) for alarm in alarms]
    assert told == second_by_second(readings, 400, for_, keep, silent_after, 100)


@given(
    readings=st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([10.0, 85.0, 95.0, 99.0])), max_size=80
    ),  # in any order, with repeats
    for_=st.integers(0, 30),
    keep=st.integers(0, 30),
    silent_after=st.none() | st.integers(1, 40),
)
def test_whatever_comes_the_changes_of_an_alarm_follow_each_other(
    readings: list[tuple[int, float]], for_: int, keep: int, silent_after: int | None
) -> None:
    rule = Rule(
        "HighCpu",
        "cpu > 90",
        clear=80,
        for_=for_,
        keep_firing_for=keep,
        expect=None if silent_after is None else expect(silent_after),
    )
    state, sequence, last_id, at_ms, told = "inactive", 0, "", 0, None
    for alarm in watch(rule, readings, until=10_000):
        if state in ("inactive", "resolved"):
            assert alarm.id != last_id, "a new episode has a new id"
            assert alarm.previous == "inactive"
            assert alarm.state in ("pending", "firing", "no_data")
            sequence = 0
        else:
            assert alarm.id == last_id
            assert alarm.previous == state
        assert alarm.state != state
        assert alarm.sequence == sequence + 1
        assert alarm.at_ms >= at_ms
        assert alarm.started_ms <= alarm.at_ms
        if alarm.notify:
            assert alarm.state in ("firing", "no_data", "resolved")
            assert alarm.state != told, "nobody is told the same twice"
            told = None if alarm.state == "resolved" else alarm.state
        assert alarm.state != "resolved" or alarm.notify
        assert 1 <= len(alarm.records) <= 8
        state, sequence, last_id, at_ms = alarm.state, alarm.sequence, alarm.id, alarm.at_ms


def reading(at_ms: int, value: float | None, offset: int = 0) -> MachineReading:
    return MachineReading(at_ms, value, Origin("readings", 0, offset))


def test_the_records_are_the_first_that_opened_it_and_the_latest() -> None:
    rule = Rule("HighCpu", "cpu > 90", for_=20)
    alarm: AlarmState | None = AlarmState(rule="HighCpu", last_ms=0)
    for number in range(20):
        assert alarm is not None
        alarm, change = take_reading(rule, alarm, reading(number * 1000, 95.0, number))
        assert (change is not None) == (number == 0)
    assert alarm is not None
    alarm, change = take_reading(rule, alarm, reading(20_000, 95.0, 20))
    assert change is not None
    assert [origin.offset for origin in change.alarm.first] == [0, 1, 2, 3]
    assert [origin.offset for origin in change.alarm.latest] == [17, 18, 19, 20]


def test_the_peak_is_the_worst_in_the_direction_of_the_threshold() -> None:
    rule = Rule("FewFree", "free < 10", clear=20)
    alarm: AlarmState | None = AlarmState(rule="FewFree", last_ms=0)
    for number, value in enumerate([5.0, 2.0, 15.0]):
        assert alarm is not None
        alarm, _ = take_reading(rule, alarm, reading(number, value))
    assert alarm is not None
    assert (alarm.first_value, alarm.peak, alarm.value) == (5.0, 2.0, 15.0)


def test_an_alarm_without_expectation_that_is_over_needs_no_memory() -> None:
    rule = Rule("HighCpu", "cpu > 90")
    alarm, _ = take_reading(rule, AlarmState(rule="HighCpu", last_ms=0), reading(0, 95.0))
    assert alarm is not None
    alarm, change = take_reading(rule, alarm, reading(1, 5.0))
    assert alarm is None
    assert change is not None
    assert change.alarm.state == "resolved"


def test_a_rule_that_asks_for_longer_keeps_a_pending_alarm_waiting() -> None:
    alarm, _ = take_reading(
        Rule("HighCpu", "cpu > 90", for_="1m"), AlarmState(rule="HighCpu", last_ms=0), reading(0, 95.0)
    )
    assert alarm is not None
    assert next_moment(Rule("HighCpu", "cpu > 90", for_="5m"), alarm, 0) == (300_000, Moment.HELD)


def test_a_clock_that_fires_an_alarm_before_an_older_reading_comes_does_not_run_backwards() -> None:
    rule = Rule("HighCpu", "cpu > 90", for_="10s")
    alarm, _ = take_reading(rule, AlarmState(rule="HighCpu", last_ms=0), reading(0, 95.0))
    assert alarm is not None
    alarm, changes = pass_time(rule, alarm, 60_000, 0)
    assert [change.alarm.changed_ms for change in changes] == [10_000]
    assert alarm is not None
    _, change = take_reading(rule, alarm, reading(5_000, 1.0))
    assert change is not None
    assert (change.alarm.state, change.alarm.changed_ms) == ("resolved", 10_000)


def test_the_table_leads_only_to_states_that_it_has() -> None:
    rows = {row for row, _ in TABLE}
    targets = set(TABLE.values())
    assert targets <= rows | {"ended"}
    assert rows - {"inactive", "no_data_after_firing"} == targets - {"ended"}
    assert {said for _, said in TABLE} == set(Verdict) | set(Moment)


def test_an_alarm_that_resolves_and_falls_silent_at_one_moment_does_so_in_this_order() -> None:
    rule = Rule("HighCpu", "cpu > 90", keep_firing_for=1, expect=expect(40))
    alarms = watch(rule, [(0, 91.0), (20, 10.0)], until=60)
    assert [(alarm.state, alarm.at_ms) for alarm in alarms[2:]] == [("resolved", 60_000), ("no_data", 60_000)]


def test_episodes_never_share_their_start_even_where_the_clock_was_ahead_of_the_readings() -> None:
    rule = Rule("HighCpu", "cpu > 90", expect=expect(10))
    evaluation = Evaluation([rule])
    source = evaluation.take({}, None, {"cpu": 1.0}, 0, 0, Origin("readings", 0, 0)).source
    assert source is not None
    outcome = evaluation.pass_time({}, source, 60_000)
    alarms, source = outcome.alarms, outcome.source
    for offset, value in enumerate([1.0, 91.0, 1.0, 91.0, 1.0], 1):
        outcome = evaluation.take({}, source, {"cpu": value}, offset * 100, 60_000, Origin("readings", 0, offset))
        alarms, source = alarms + outcome.alarms, outcome.source
    assert [alarm.state for alarm in alarms] == ["no_data", *["resolved", "firing"] * 2, "resolved"]
    assert len({alarm.id for alarm in alarms}) == 3
