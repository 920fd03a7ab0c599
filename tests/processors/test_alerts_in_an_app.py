"""Alarms in a real app: through the engine, its log and its stores."""

import random
from typing import Any

import pytest

import streamcore as sc
from processors.alerts import Alarm, Rule, alerts, expect
from streamcore.testing import AppTest

RULES = (
    Rule("HighCpu", "cpu > 90", clear=80, for_="20s", keep_firing_for="10s"),
    Rule("HostSilent", expect=expect(every="10s", grace="5s")),
)
START = 1_767_225_600.0  # 2026-01-01, where AppTest begins


class Reading(sc.Record):
    host: str
    cpu: float


def declare() -> tuple[sc.App, Any, Any]:
    app = sc.App("watching")
    readings = app.topic("readings", key_type=str, value_type=Reading, partitions=1)
    alarms = app.topic("alarms", key_type=str, value_type=Alarm, partitions=1, key=lambda alarm: alarm.key)

    @app.agent(readings, sink=[alarms])
    async def watch(stream: sc.Stream) -> Any:
        async for alarm in alerts(stream, RULES, labels="host", context=lambda event: {"cpu": event.value.cpu}):
            yield alarm

    return app, readings, alarms


def send(test: AppTest, readings: Any, host: str, at_s: float, cpu: float, *, settle: bool = True) -> None:
    test.send(readings, key=host, value=Reading(host, cpu), timestamp=START + at_s, settle=settle)


def test_an_alarm_is_pending_fires_recovers_and_resolves() -> None:
    app, readings, alarms = declare()
    with AppTest(app) as test:
        for number, cpu in enumerate([50, 95, 96, 97, 70, 60, 50]):
            send(test, readings, "web-1", number * 10, cpu)
        found = test.events(alarms)
        told = [(event.value.state, event.value.at_ms / 1000 - START, event.value.context["cpu"]) for event in found]
        assert told == [("pending", 10, 95), ("firing", 30, 97), ("recovering", 40, 70), ("resolved", 50, 60)]
        assert {event.key for event in found} == {'HighCpu{host="web-1"}'}
        assert [record.offset for record in found[-1].value.records] == [1, 2, 3, 4, 5]


def test_a_host_that_falls_silent_alarms_by_the_clock_and_comes_back() -> None:
    app, readings, alarms = declare()
    with AppTest(app) as test:
        send(test, readings, "web-1", 0, 50)
        test.advance(60)
        silent = test.values(alarms)
        assert [(alarm.rule, alarm.state, alarm.at_ms / 1000 - START) for alarm in silent] == [
            ("HostSilent", "no_data", 15)
        ]
        test.crash()
        test.restart()
        send(test, readings, "web-1", 60, 50)
        assert [(alarm.state, alarm.id, alarm.value) for alarm in test.values(alarms)] == [
            ("resolved", silent[0].id, 60)
        ]
        assert test.dead_letters() == []


def run(seed: int, *, crashes: bool) -> list[Alarm]:
    """The distinct alarms of seeded readings of three hosts, in one go or with crashes in between."""
    fate = random.Random(seed)
    accidents = random.Random(seed + 1)
    app, readings, alarms = declare()
    with AppTest(app) as test:
        for at_s in range(0, 400, 4):
            host = fate.choice("abc")
            cpu = fate.choice([50, 85, 95, 99])
            send(test, readings, host, at_s, cpu, settle=accidents.random() < 0.3)
            while not test.worker.producer.is_empty:  # on the log, though not yet committed
                test.pass_time(0.001)
            if crashes and accidents.random() < 0.1:
                test.crash()
                if accidents.random() < 0.3:
                    test.lose_tables()
                test.restart()
        seen: dict[tuple[str, int], Alarm] = {}
        for alarm in test.values(alarms):
            known = seen.setdefault((alarm.id, alarm.sequence), alarm)
            assert known == alarm, "an alarm that comes again after a crash is the same to the letter"
        return list(seen.values())


@pytest.mark.parametrize("seed", range(6))
def test_crashes_at_any_moment_change_no_alarm(seed: int) -> None:
    print(f"seed {seed}")
    assert run(seed, crashes=True) == run(seed, crashes=False) != []
