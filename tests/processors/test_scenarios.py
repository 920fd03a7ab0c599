"""Lives of alarms as text: `tests/scenarios/*.txt` hold rules, readings and the alarms that must come of them.

A file begins with rules in YAML, then a line of dashes, then one line for each reading or idle time:

    10s  web-1  cpu=95        a reading of web-1: values separated by blanks; also null, nan and text
    2m   idle                 nothing comes, and event time moves on
    restart                   everything in memory is gone, the state is there

and below each of them, indented, the changes it brings. Every file also has to come out the same with a restart after
every line. To write the changes anew after a deliberate change of behaviour: STREAMCORE_WRITE_SCENARIOS=1.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from processors.alerts import Alarm, alerts, load_rules
from processors.durations import format_duration, parse_duration_ms
from processors.rules import Rule
from streamcore.events import Event
from tests.processors.fake_stream import FakeStream, Idle, Kept, event

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


def parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return float("nan") if text == "nan" else text


def parse_reading(line: str, offset: int) -> Event | Idle:
    at, host, *values = line.split()
    at_ms = parse_duration_ms(at)
    if host == "idle":
        return Idle(at_ms)
    value: dict[str, Any] = {"host": host}
    for pair in values:
        path, _, text = pair.partition("=")
        *parents, last = path.split(".")
        node = value
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = parse_value(text)
    return event(host, at_ms, value, offset)


def show(alarm: Alarm) -> str:
    value = "" if alarm.value is None else f" value {alarm.value:g}"
    peak = "" if alarm.peak is None else f" peak {alarm.peak:g}"
    summary = "".join(f" “{text}”" for text in alarm.annotations.values())
    return (
        f"    {alarm.state}{'!' if alarm.notify else ''} {alarm.key} at {format_duration(alarm.at_ms)}"
        f" since {format_duration(alarm.since_ms)}{value}{peak} ({alarm.reason}) #{alarm.sequence}"
        f" records {','.join(str(record.offset) for record in alarm.records)}{summary}"
    )


async def changes_of(rules: tuple[Rule, ...], items: list[Event | Idle], kept: Kept) -> list[Alarm]:
    return [alarm async for alarm in alerts(FakeStream(items, kept), rules, labels="host")]


def run(text: str, *, restart_always: bool = False) -> str:
    head, _, life = text.partition("\n----\n")
    rules = load_rules(head + "\n")
    kept = Kept()
    shown: list[str] = []
    items: list[Event | Idle] = []  # since the last restart
    offset = 0
    told = 0  # of the alarms that these items bring
    start = Kept()
    for line in life.splitlines():
        if line.startswith("    "):
            continue
        shown.append(line)
        if line == "restart":
            items, told, start = [], 0, kept.copy()
        if not line.strip() or line == "restart" or line.startswith("#"):
            continue
        items.append(parse_reading(line, offset))
        offset += 1
        # The whole run so far, from the last restart: simple, and it is a replay each time.
        kept = start.copy()
        alarms = asyncio.run(changes_of(rules, items, kept))
        shown += [show(alarm) for alarm in alarms[told:]]
        told = len(alarms)
        if restart_always:
            items, told, start = [], 0, kept.copy()
    return head + "\n----\n" + "\n".join(shown) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_alarms_are_those_of_the_scenario(path: Path) -> None:
    text = path.read_text()
    if os.environ.get("STREAMCORE_WRITE_SCENARIOS"):
        path.write_text(run(text))
    assert run(text) == text


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_restart_after_every_line_changes_nothing(path: Path) -> None:
    text = path.read_text()
    assert run(text, restart_always=True) == text
