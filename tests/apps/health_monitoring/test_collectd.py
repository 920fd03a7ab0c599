"""collectd's values become readings; also through the real app, up to an alarm."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health_monitoring import app as health_app
from apps.health_monitoring.collectd import SERIES_MAX, Collected, ValueList
from apps.health_monitoring.models import Disk, Metrics
from streamcore.testing import AppTest

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def values(plugin: str, kind: str, *numbers: float | None, time: float = 0, **fields: Any) -> ValueList:
    sources = {
        "load": ["shortterm", "midterm", "longterm"],
        "disk_octets": ["read", "write"],
        "if_octets": ["rx", "tx"],
    }
    return ValueList(
        host=fields.pop("host", "web-01.example.com"),
        plugin=plugin,
        type=kind,
        time=START + time,
        values=list(numbers),
        dsnames=sources.get(kind, ["value"]),
        dstypes=fields.pop("dstypes", ["gauge"] * len(numbers)),
        **fields,
    )


def reading_of(*told: ValueList) -> Metrics:
    collected = Collected()
    for one in told:
        collected = collected.with_values(one)
    reading = collected.reading("web-01", told[-1].time)
    assert reading is not None
    return reading


def test_every_plugin_finds_its_field() -> None:
    reading = reading_of(
        values("cpu", "percent", 70.0, type_instance="idle"),
        values("cpu", "percent", 5.0, type_instance="wait"),
        values("cpu", "percent", 25.0, type_instance="user"),
        values("cpu", "count", 8.0),
        values("load", "load", 1.5, 1.25, 1.0),
        values("memory", "memory", 6e9, type_instance="used"),
        values("memory", "memory", 2e9, type_instance="free"),
        values("swap", "swap", 1e9, type_instance="used"),
        values("swap", "swap", 3e9, type_instance="free"),
        values("df", "df_complex", 900.0, plugin_instance="root", type_instance="used"),
        values("df", "df_complex", 100.0, plugin_instance="root", type_instance="free"),
        values("df", "df_complex", 50.0, plugin_instance="root", type_instance="reserved"),
        values("df", "percent_bytes", 30.0, plugin_instance="var-log", type_instance="used"),
        values("disk", "disk_octets", 100.0, 200.0, plugin_instance="sda"),
        values("disk", "disk_octets", 1.0, 2.0, plugin_instance="sdb"),
        values("disk", "disk_octets", 7.0, 7.0, plugin_instance="dm-0"),
        values("interface", "if_octets", 1000.0, 2000.0, plugin_instance="eth0"),
        values("interface", "if_octets", 9.0, 9.0, plugin_instance="lo"),
        values("uptime", "uptime", 4711.0),
    )
    assert (reading.host, reading.time) == ("web-01", datetime.fromtimestamp(START, UTC))
    assert reading.cpu == pytest.approx(25.0)
    assert reading.cores == 8
    assert (reading.load1, reading.load5, reading.load15) == (1.5, 1.25, 1.0)
    assert (reading.memory_percent, reading.memory_used, reading.memory_total) == (75.0, 6e9, 8e9)
    assert reading.swap_percent == 25.0
    assert reading.disks == {"/": Disk(90.0, 900, 1050), "/var/log": Disk(30.0, 0, 0)}
    assert (reading.disk_read, reading.disk_write) == (101.0, 202.0)
    assert (reading.network_rx, reading.network_tx) == (1000.0, 2000.0)


def test_jiffies_of_each_core_become_percent_of_all_of_them() -> None:
    def jiffies(core: int, state: str, count: float, time: float) -> ValueList:
        parts = {"plugin_instance": str(core), "type_instance": state, "dstypes": ["derive"]}
        return values("cpu", "cpu", count, time=time, **parts)

    first = [jiffies(core, state, 5000.0, 0) for core in range(2) for state in ("idle", "user")]
    second = [jiffies(0, "idle", 5900.0, 10), jiffies(0, "user", 5100.0, 10)]
    second += [jiffies(1, "idle", 5300.0, 10), jiffies(1, "user", 5700.0, 10)]
    reading = reading_of(*first, *second)
    assert (reading.cpu, reading.cores) == (pytest.approx(40.0), 2)


def test_a_counter_has_no_rate_at_its_first_look_nor_when_it_begins_anew() -> None:
    def octets(count: float, time: float) -> ValueList:
        return values(
            "interface", "if_octets", count, count, time=time, plugin_instance="eth0", dstypes=["derive", "derive"]
        )

    collected = Collected().with_values(octets(1e6, 0))
    assert collected.reading("web-01", START) is None
    collected = collected.with_values(octets(2e6, 10))
    first = collected.reading("web-01", START)
    assert first is not None
    assert first.network_rx == 1e5
    assert collected.with_values(octets(500, 20)).reading("web-01", START) is None


def test_active_and_idle_alone_are_enough() -> None:
    assert reading_of(values("cpu", "percent", 12.5, type_instance="active")).cpu == 12.5
    assert reading_of(values("memory", "percent", 40.0, type_instance="used")).memory_percent == 40.0


def test_a_value_that_is_no_number_or_was_sent_before_changes_nothing() -> None:
    collected = Collected().with_values(values("load", "load", 1.0, None, math.nan, time=10))
    again = collected.with_values(values("load", "load", 9.0, time=10))
    reading = again.reading("web-01", START)
    assert reading is not None
    assert (reading.load1, reading.load5, reading.load15) == (1.0, None, None)


def test_a_filesystem_that_is_gone_is_forgotten_and_the_number_of_series_is_bounded() -> None:
    gone = values("df", "percent_bytes", 99.0, plugin_instance="mnt", type_instance="used")
    collected = Collected().with_values(gone)
    later = values("df", "percent_bytes", 1.0, plugin_instance="root", type_instance="used", time=40)
    collected = collected.with_values(later, told=later.time)
    reading = collected.reading("web-01", later.time)
    assert reading is not None
    assert list(reading.disks) == ["/"]
    for number in range(SERIES_MAX + 10):
        name = {"plugin_instance": str(number), "type_instance": "used"}
        collected = collected.with_values(values("df", "percent_bytes", 1.0, time=41, **name))
    assert len(collected.samples) == SERIES_MAX


@given(
    st.lists(
        st.builds(
            ValueList,
            host=st.just("h"),
            plugin=st.sampled_from(["cpu", "load", "memory", "swap", "df", "disk", "interface", "x"]),
            type=st.sampled_from(["percent", "cpu", "count", "memory", "df_complex", "percent_bytes", "if_octets"]),
            time=st.floats(0, 4e9),
            values=st.lists(st.none() | st.floats(), max_size=3),
            dsnames=st.lists(st.sampled_from(["value", "rx", "tx", "read", ""]), max_size=3),
            dstypes=st.lists(st.sampled_from(["gauge", "derive", "counter", "absolute"]), max_size=3),
            interval=st.floats(0, 1e6),
            plugin_instance=st.sampled_from(["", "root", "-", "0"]),
            type_instance=st.sampled_from(["", "used", "free", "idle", "active"]),
        ),
        max_size=8,
    )
)
def test_whatever_is_told_a_reading_can_be_made_of_it(told: list[ValueList]) -> None:
    collected = Collected()
    for one in told:
        collected.reading("h", one.time)
        collected = collected.with_values(one, told=one.time if collected.is_due(one) else None)


def rounds(count: int, interval: float = 10.0) -> Iterable[list[ValueList]]:
    for number in range(count):
        at = number * interval
        yield [values("load", "load", float(number), 0.0, 0.0, time=at)]
        yield [values("memory", "memory", 95.0, time=at + 0.01, type_instance="used")]
        yield [values("memory", "memory", 5.0, time=at + 0.02, type_instance="free")]


class Silent:
    """Tells nobody."""

    async def notify(self, alarm: Any) -> None: ...
    async def run(self) -> None: ...


@pytest.fixture
def app_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterable[AppTest]:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: MemoryLow, expr: memory_percent > 92, for: 15s}\n")
    monkeypatch.setattr(health_app, "_notifiers", [Silent()])
    monkeypatch.setattr(health_app.options, "live", False)
    monkeypatch.setattr(health_app.options, "rules", rules)
    with AppTest(health_app.app, start=START) as test:
        yield test


def test_rounds_of_values_become_readings_and_an_alarm(app_test: AppTest) -> None:
    began = 0.0
    for number, told in enumerate(rounds(6)):
        if number % 3 == 0:
            app_test.advance(10 if number else 0)
            began = told[0].time
        app_test.send(health_app.collectd, value=told)
    app_test.advance(30)
    readings = [event.value for event in app_test.all_events(health_app.metrics)]
    assert [reading.load1 for reading in readings] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert {reading.memory_percent for reading in readings} == {95.0}
    assert readings[-1].time.timestamp() == began
    assert [event.value.state for event in app_test.all_events(health_app.alarms)] == ["pending", "firing"]


def test_what_is_no_list_of_values_is_a_dead_letter(app_test: AppTest) -> None:
    for bad in (b"{", b'[{"host": 1}]', json.dumps([{"host": "h"}]).encode(), b"[]"):
        app_test.send(health_app.collectd, value=bad)
    app_test.advance(30)
    assert len(app_test.dead_letters()) == 3
    assert app_test.all_events(health_app.metrics) == []
