"""The app's own rules: on a simulated fleet, and on the real recordings."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import apps.health_monitoring
from apps.health_monitoring.fleet import Fleet
from apps.health_monitoring.models import Health, LogLine, Metrics, Stats, Usual
from apps.health_monitoring.replay import NAB_SERIES, ReplayReport, labelled_windows, recorded, score
from processors.alerts import Alarm, Origin, Rule, load_rules
from processors.evaluation import Evaluation, SourceState

HERE = Path(apps.health_monitoring.__file__).parent
START = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class Watch:
    """The app without streams: readings in, alarms out."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.evaluation = Evaluation(rules)
        self.alarms: list[Alarm] = []
        self.stream_ms = 0
        self._sources: dict[str, SourceState] = {}
        self._minutes: dict[tuple[str, int], Stats] = {}
        self._usual: dict[str, Usual] = {}

    def see(self, reading: Metrics) -> None:
        at_ms = round(reading.time.timestamp() * 1000)
        self.stream_ms = max(self.stream_ms, at_ms)
        minute = (reading.host, at_ms // 60_000)
        self._minutes[minute] = self._minutes.get(minute, Stats()) + reading
        usual = self._usual.get(reading.host, Usual())
        health = Health.of(reading, self._minutes[minute], [], usual)
        self._usual[reading.host] = usual + reading
        labels, source = {"host": reading.host}, self._sources.get(reading.host)
        outcome = self.evaluation.take(labels, source, health, at_ms, self.stream_ms, Origin("health", 0, 0))
        assert outcome.source is not None
        self._sources[reading.host] = outcome.source
        self.alarms += outcome.alarms

    def pass_time(self, until_ms: int) -> None:
        for host, source in self._sources.items():
            outcome = self.evaluation.pass_time({"host": host}, source, until_ms)
            if outcome.source is not None:
                self._sources[host] = outcome.source
            self.alarms += outcome.alarms


def watched_fleet(fleet: Fleet, seconds: int) -> list[Alarm]:
    watch = Watch(load_rules(HERE / "rules.yaml", model=Health))
    for at_s in range(0, seconds, 2):
        now = START + timedelta(seconds=at_s)
        for report in fleet.step(now):
            if not isinstance(report, LogLine):
                watch.see(report)
        watch.pass_time(round(now.timestamp() * 1000) - 2000)
    return watch.alarms


@pytest.mark.parametrize("name", ["rules.yaml", "nab.yaml"])
def test_the_rules_can_be_read_and_name_real_fields(name: str) -> None:
    assert load_rules(HERE / name, model=Health)


@pytest.mark.parametrize("seed", range(8))
def test_the_early_incident_fires_within_30_s_and_resolves_within_90_s(seed: int) -> None:
    alarms = watched_fleet(Fleet(3, seed, start=START, early_incident=True), 90)
    story = [alarm for alarm in alarms if alarm.rule == "CpuSaturated" and alarm.labels["host"] == "web-01"]
    assert [alarm.state for alarm in story] == ["pending", "firing", "recovering", "resolved"]
    seconds = {alarm.state: alarm.at_ms / 1000 - START.timestamp() for alarm in story}
    assert seconds["firing"] <= 20  # the join and the log still have ten seconds
    assert seconds["resolved"] <= 60
    assert story[1].annotations["summary"].startswith("web-01 is out of CPU: 9")


def test_every_kind_of_incident_raises_its_alarm_and_ends() -> None:
    alarms = watched_fleet(Fleet(4, 6, start=START, early_incident=True), 6000)
    fired = {alarm.rule for alarm in alarms if alarm.state in ("firing", "no_data")}
    assert fired >= {"CpuSaturated", "DiskFull", "DiskFilling", "MemoryLow", "HostSilent"}
    for rule in fired:
        assert any(alarm.state == "resolved" for alarm in alarms if alarm.rule == rule)
    disks = [alarm for alarm in alarms if alarm.rule == "DiskFull"]
    assert all(alarm.labels["mount"] != "/" for alarm in disks)


def test_an_ordinary_fleet_raises_nothing() -> None:
    assert watched_fleet(Fleet(4, 2, start=START), 110) == []


def test_the_recordings_give_the_alarms_that_they_gave_before() -> None:
    watch = Watch(load_rules(HERE / "nab.yaml", model=Health))
    for reading in recorded(NAB_SERIES, None, ReplayReport()):
        assert isinstance(reading, Metrics)
        watch.see(reading)
    fired = [alarm for alarm in watch.alarms if alarm.state == "firing" and alarm.notify]
    result = score(
        ((alarm.labels["host"], datetime.fromtimestamp(alarm.at_ms / 1000, UTC)) for alarm in fired), labelled_windows()
    )
    assert str(result) == "4 of 6 labelled incidents caught, 3 alarms outside of them"
