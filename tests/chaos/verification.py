"""Looks at what is on disk once every child is dead, and compares it with what must be there."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson

from apps.health_monitoring import app as health_app
from apps.health_monitoring.models import Health
from processors.alerts import Alarm, load_rules
from processors.evaluation import SourceState, source_key
from streamcore.engine.commit import metadata_content
from streamcore.records.partitioner import partition_for
from streamcore.state.partitions import KeyLayout, decode_key
from streamcore.state.rocksdb import RocksStore
from streamcore.transport.base import EARLIEST, Committed
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP, InRecord
from tests.chaos import known_input, recomputation, windows_app
from tests.chaos.driver import APPS, Driver
from tests.chaos.known_input import METRICS, SYSLOG
from tests.chaos.notes import crc_of
from tests.chaos.recomputation import Input, close_to

MINUTE_CLOSE_MS = 70_000  # after a minute's start: its length and its grace


class Found:
    """Everything that a run has left behind."""

    def __init__(self, directory: Path) -> None:
        self.log: dict[TP, list[InRecord]] = {}
        self.starts: dict[TP, int] = {}
        self.offsets: dict[str, dict[TP, Committed]] = {}
        asyncio.run(self._read_log(directory))
        # (app, table) -> partition -> rows as bytes
        self.tables: dict[tuple[str, str], dict[int, dict[bytes, bytes]]] = defaultdict(dict)
        for app in APPS:
            for path in (directory / "log" / "apps" / app / "tables").iterdir():
                store = RocksStore(str(path))
                for table in store.tables():
                    self.tables[app, table][int(path.name)] = dict(store.scan(table))
                store.close()

    async def _read_log(self, directory: Path) -> None:
        transport = EmbeddedTransport(str(directory / "log"))
        await transport.start()
        for info in (await transport.topics()).values():
            if info.internal:
                continue
            for tp in (TP(info.name, partition) for partition in range(info.partitions)):
                position = self.starts[tp] = (await transport.list_offsets([tp], EARLIEST))[tp]
                records = self.log[tp] = []
                while fetched := await transport.fetch({tp: position}, max_wait_ms=0):
                    if fetched[0].error is not None:
                        raise fetched[0].error
                    records += fetched[0].records
                    position = fetched[0].next_offset
        for app in APPS:
            self.offsets[app] = await transport.committed(app)
        await transport.stop()

    def topic(self, name: str) -> dict[TP, list[InRecord]]:
        return {tp: records for tp, records in sorted(self.log.items()) if tp.topic == name}

    def watermark_ms(self, app: str, agent: str, tp: TP) -> int:
        """How far event time has come for an agent."""
        place = self.offsets[app].get(tp)
        state = metadata_content(place.metadata)["runs"][agent] if place is not None else {}
        return int(state.get("out_watermark", -1))


class Verification:
    """Every check appends what is wrong in words; `repeats` counts outputs that came more than once, by topic."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.found = Found(driver.directory)
        self.input = Input.of(self.found.log)
        self.problems: list[str] = []
        self.repeats: Counter[str] = Counter()
        self.outputs: Counter[str] = Counter()
        self.fired = 0

    def run(self) -> list[str]:
        for check in (
            self._output, self._acknowledged_records, self._committed_offsets, self._input, self._dead_letters,
            self._health, self._alarms, self._closed_windows, self._numbers, self._pairs, self._changelogs, self._rows,
        ):  # fmt: skip
            check()
        return self.problems

    def _problem(self, text: str) -> None:
        if len(self.problems) < 30:
            self.problems.append(text)

    def _equal(self, what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
        """The same keys, with the same values but for rounding."""
        for key in expected.keys() - found.keys():
            self._problem(f"{what}: {key} is missing")
        for key in found.keys() - expected.keys():
            self._problem(f"{what}: {key} should not be there")
        for key in expected.keys() & found.keys():
            if not close_to(expected[key], found[key]):
                self._problem(f"{what}: {key} is {found[key]}, not {expected[key]}")

    # -- the log -------------------------------------------------------------------------------------------------------

    def _output(self) -> None:
        """No child had anything to say but that garbage is garbage."""
        for line in (self.driver.directory / "output").read_text(errors="replace").splitlines():
            is_bad = " ERROR " in line or " CRITICAL " in line or line.startswith("Traceback")
            if is_bad and "is dead after 1 attempts" not in line:
                self._problem(f"a child wrote: {line}")

    def _acknowledged_records(self) -> None:
        """No record that was acknowledged, or read by anybody, is missing, elsewhere, or another one."""
        for tp, records in self.found.log.items():
            if [record.offset for record in records] != list(range(len(records))):
                self._problem(f"{tp}: the offsets have holes")
        for tp, known in self.driver.records.items():
            there = {
                record.offset: crc_of(record.key, record.value, record.timestamp, record.headers)
                for record in self.found.log.get(tp, ())
            }
            for offset, crc in known.items():
                if there.get(offset) != crc:
                    state = "missing" if offset not in there else "another record"
                    self._problem(f"{tp}@{offset} was acknowledged and is {state}")

    def _committed_offsets(self) -> None:
        for (group, tp), offset in self.driver.committed.items():
            place = self.found.offsets[group].get(tp)
            if place is None or place.offset < offset:
                self._problem(f"group {group}, {tp}: offset {offset} was acknowledged, and {place} is there")

    def _input(self) -> None:
        """Every record of the input once, in its order."""
        sent: dict[TP, list[tuple[int, bytes]]] = defaultdict(list)
        partitions = {name: len(self.found.topic(name)) for name in (METRICS, SYSLOG)}
        for step in known_input.read(self.driver.directory / "input"):
            for record in (*step.lines, *step.readings):
                tp = TP(record.topic, partition_for(record.host.encode(), partitions[record.topic]))
                sent[tp].append((record.time_ms, record.value))
        for tp in {**self.found.topic(METRICS), **self.found.topic(SYSLOG)}:
            if [(record.timestamp, record.value) for record in self.found.log[tp]] != sent.get(tp, []):
                self._problem(f"{tp} does not hold the input")

    def _unique(self, topic: str, identity: Callable[[InRecord, Any], Any]) -> dict[Any, tuple[TP, InRecord, Any]]:
        """The records of a topic by what they are about; a repeat is the same to the letter, and in its order."""
        unique: dict[Any, tuple[TP, InRecord, Any]] = {}
        for tp, records in self.found.topic(topic).items():
            for record in records:
                value = None if record.value is None else orjson.loads(record.value)
                about = identity(record, value)
                known = unique.setdefault(about, (tp, record, value))
                if known[1] is not record:
                    self.repeats[topic] += 1
                    before = known[1]
                    same = (before.key, before.value, before.timestamp) == (record.key, record.value, record.timestamp)
                    if known[0] != tp or not same:
                        self._problem(f"{topic}: {about} came again and was different: {value}, not {known[2]}")
        self.outputs[topic] += len(unique)
        return unique

    def _dead_letters(self) -> None:
        """Garbage, as often as agents read it, and nothing else."""
        readers = {
            ("health-monitoring", METRICS): {"describe"}, ("health-monitoring", SYSLOG): {"describe"},
            ("chaos-windows", METRICS): {"tally", "number", "pair"}, ("chaos-windows", SYSLOG): {"pair"},
        }  # fmt: skip
        for app in APPS:
            found = set()
            for record in self.found.log[TP(f"{app}-dead-letters", 0)]:
                headers = dict(record.headers)
                place = [headers[f"streamcore.{name}"].decode() for name in ("agent", "topic", "partition", "offset")]
                found.add((place[0], place[1], int(place[2]), int(place[3])))
            expected = {(agent, *place) for place in self.input.garbage for agent in readers[app, place[0]]}
            if found != expected:
                self._problem(f"{app}: dead letters {sorted(found ^ expected)[:5]} are missing or too many")

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _health(self) -> None:
        found = self._unique("health", lambda record, value: (value["host"], record.timestamp))
        values = {about: value for about, (_, _, value) in found.items()}
        self._equal("health", values, recomputation.health(self.input))

    def _alarms(self) -> None:
        rules = load_rules(health_app.options.rules, model=Health)
        expected: dict[str, list[Alarm]] = defaultdict(list)
        self.sources: dict[str, SourceState] = {}
        for tp, records in self.found.topic("health").items():
            seen: set[tuple[bytes | None, int]] = set()
            first: list[InRecord] = []
            for record in records:
                if (record.key, record.timestamp) not in seen:
                    seen.add((record.key, record.timestamp))
                    first.append(record)
            watermark_ms = self.found.watermark_ms("health-monitoring", "watch", tp)
            changes, sources = recomputation.alarms(first, tp, rules, watermark_ms)
            for change in changes:
                expected[change.key].append(change)
            self.sources |= sources
        lives: dict[str, list[Any]] = defaultdict(list)
        for _, record, value in self._unique("alarms", lambda _, value: (value["id"], value["sequence"])).values():
            lives[value["key"]].append((record.value, value))
        for key in expected.keys() | lives.keys():
            if [data for data, _ in lives[key]] != [alarm.dumps() for alarm in expected[key]]:
                states = [(value["at_ms"], value["state"]) for _, value in lives[key]]
                wanted = [(alarm.at_ms, alarm.state) for alarm in expected[key]]
                self._problem(f"alarm {key}: its life is {states}, not {wanted}")
            previous = ("", 0)
            for _, value in lives[key]:
                if value["sequence"] != (previous[1] + 1 if value["id"] == previous[0] else 1):
                    self._problem(f"alarm {key}: change {value['sequence']} follows change {previous[1]}")
                previous = value["id"], value["sequence"]
                self.fired += value["state"] == "firing" and value.get("notify", False)

    def _windows(self) -> Iterable[tuple[str, int, dict[tuple[str, int], dict[str, Any]]]]:
        """Each windowed table of the second app: its name, how long after its start a window closes, all windows."""
        tumbling_s, grace_s = windows_app.TUMBLING_S, windows_app.TUMBLING_GRACE_S
        yield "tumbling", (tumbling_s + grace_s) * 1000, recomputation.tallies(self.input, tumbling_s, tumbling_s)
        hopping_s, step_s = windows_app.HOPPING_S, windows_app.HOPPING_STEP_S
        yield "hopping", hopping_s * 1000, recomputation.tallies(self.input, hopping_s, step_s)

    def _is_closed(self, app: str, agent: str, host: str, closes_ms: int) -> bool:
        return closes_ms <= self.found.watermark_ms(app, agent, TP(METRICS, self.input.partitions[host]))

    def _closed_windows(self) -> None:
        found = self._unique("closed-windows", lambda _, value: (value["window"], value["host"], value["start"] * 1000))
        values = {about: value for about, (_, _, value) in found.items()}
        expected = {
            (name, host, start_ms): {"window": name, "host": host, "start": start_ms / 1000, **tally}
            for name, close_ms, windows in self._windows()
            for (host, start_ms), tally in windows.items()
            if self._is_closed("chaos-windows", "tally", host, start_ms + close_ms)
        }
        self._equal("closed-windows", values, expected)

    def _numbers(self) -> None:
        found = self._unique("counted", lambda _, value: (value["host"], value["time"]))
        values = {about: value["number"] for about, (_, _, value) in found.items()}
        self._equal("counted", values, recomputation.numbers(self.input))

    def _pairs(self) -> None:
        found = self._unique("pairs", lambda record, _: (record.key, record.value))
        expected = recomputation.pairs(self.input)
        difference = {value for _, value in found} ^ expected
        for value in sorted(difference, key=repr)[:5]:
            self._problem(f"pairs: {value} is {'missing' if value in expected else 'too many'}")

    # -- tables --------------------------------------------------------------------------------------------------------

    def _changelogs(self) -> None:
        """Every table is what a full replay of its changelog gives."""
        windowed = {
            **{("chaos-windows", name): table.window for name, table in windows_app.app.tables.items()},
            **{("health-monitoring", name): table.window for name, table in health_app.app.tables.items()},
        }
        for (app, table), partitions in self.found.tables.items():
            layout = KeyLayout(windowed.get((app, table)))
            for partition, rows in partitions.items():
                replayed: dict[bytes, bytes] = {}
                for record in self.found.log.get(TP(f"{app}-{table}-changelog", partition), ()):
                    assert record.key is not None, "rows have keys"
                    key = layout.store_key(record.key)
                    if record.value is None:
                        replayed.pop(key, None)
                    else:
                        replayed[key] = record.value
                if replayed != rows:
                    self._problem(f"table {table}, partition {partition}: {len(rows)} rows are not the changelog's")

    def _rows(self) -> None:
        """The rows that are left at the end, and only those."""
        open_minutes = {
            (host, start_ms): statistics
            for (host, start_ms), statistics in recomputation.minutes(self.input).items()
            if not self._is_closed("health-monitoring", "describe", host, start_ms + MINUTE_CLOSE_MS)
        }
        self._equal("table minutes", self._window_rows("health-monitoring", "minutes"), open_minutes)
        for name, close_ms, windows in self._windows():
            still_open = {
                (host, start_ms): tally
                for (host, start_ms), tally in windows.items()
                if not self._is_closed("chaos-windows", "tally", host, start_ms + close_ms)
            }
            self._equal(f"table {name}", self._window_rows("chaos-windows", name), still_open)
        self._equal("table usual", self._plain_rows("health-monitoring", "usual"), recomputation.usual(self.input))
        counts = {host: len(readings) for host, readings in self.input.readings.items()}
        self._equal("state numbers", self._plain_rows("chaos-windows", "number-numbers"), counts)
        sources = {
            source_key({"host": host}): orjson.loads(msgspec.json.encode(source))
            for host, source in self.sources.items()
        }
        self._equal("state alerts", self._plain_rows("health-monitoring", "watch-alerts"), sources)

    def _plain_rows(self, app: str, table: str) -> dict[Any, Any]:
        partitions = self.found.tables[app, table].values()
        return {decode_key(key): orjson.loads(value) for rows in partitions for key, value in rows.items()}

    def _window_rows(self, app: str, table: str) -> dict[tuple[str, int], Any]:
        partitions = self.found.tables[app, table].values()
        return {
            (decode_key(key[8:]), int.from_bytes(key[:8], "big") - (1 << 63)): orjson.loads(value)
            for rows in partitions
            for key, value in rows.items()
        }
