"""collectd's values, as its write_kafka plugin sends them (`Format JSON`), put together to readings.

A message holds one list of values, a few numbers of one plugin; a reading takes those of several plugins. A host's
reading goes out when its next round of values begins, with what the round before said. So it is at most an interval
old, and has the time of the value that sent it off: a join with what happens now finds it there.

Used are the plugins cpu (any of its ways to report), load, memory, swap, df, disk and interface; of others nothing is
kept.
"""

import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

from apps.health_monitoring.metrics_agent import VIRTUAL_DISK, VIRTUAL_INTERFACE
from apps.health_monitoring.models import Disk, Metrics, short_host
from streamcore.models import Record

# Of one host: a machine with some hundred cores and mounts has fewer; whoever makes up names must not fill the memory.
SERIES_MAX = 5000
# In intervals: a filesystem that is unmounted, an interface that is gone.
FORGOTTEN_AFTER = 3.0
# A round's values come within a fraction of the interval; the next round begins after most of it.
ROUND_LENGTH = 0.5
INTERVAL_S = 10.0  # collectd's default

_PLUGINS = {"cpu", "load", "memory", "swap", "df", "disk", "interface"}
_IDLE = {"idle", "wait"}  # as psutil counts: waiting for a disk is not work
# collectd writes a mount point's slashes as dashes, and the root as a word.
_ROOT = "root"


class ValueList(Record):
    """One entry of collectd's JSON: the values of one type, at one time."""

    host: str
    plugin: str
    type: str
    time: float  # Unix seconds
    values: list[float | None]  # None where collectd has no number
    dstypes: list[str] = []  # noqa: RUF012
    dsnames: list[str] = []  # noqa: RUF012
    interval: float = INTERVAL_S  # seconds
    plugin_instance: str = ""
    type_instance: str = ""


def machine(values: ValueList) -> str:
    """The host they are of, as readings name it."""
    return short_host(values.host)


class Sample(Record, frozen=True):
    """The newest value of one series: a gauge, or a counter's rate per second."""

    plugin: str
    instance: str
    type: str
    name: str  # the type's instance, or the source's name where the type has several
    time: float
    value: float | None  # None: a counter's first look, which has no rate yet
    counter: float | None = None


class Collected(Record, frozen=True):
    """What collectd has told of one host. A value, never changed in place."""

    samples: dict[str, Sample] = {}  # noqa: RUF012
    told: float | None = None  # the time at which the last reading went out, Unix seconds

    def is_due(self, values: ValueList) -> bool:
        """Whether these values begin a new round, so that a reading of the last one can go out."""
        return self.told is not None and values.time - self.told >= ROUND_LENGTH * values.interval

    def with_values(self, values: ValueList, *, told: float | None = None) -> "Collected":
        """The same with newer values in it.

        Args:
            told: the time of a reading that goes out now; what is too old then is forgotten.
        """
        if told is None:
            told = self.told if self.told is not None else values.time
            samples = dict(self.samples)
        else:
            oldest = told - FORGOTTEN_AFTER * values.interval
            samples = {key: sample for key, sample in self.samples.items() if sample.time >= oldest}
        if values.plugin in _PLUGINS:
            for key, sample in _samples(values, samples):
                if key in samples or len(samples) < SERIES_MAX:
                    samples[key] = sample
        return Collected(samples, told)

    def reading(self, host: str, time: float) -> Metrics | None:
        """What is known of the host, or None where nothing is."""
        found = [sample for sample in self.samples.values() if sample.value is not None]
        if not found:
            return None
        reading = Metrics(host=host, time=datetime.fromtimestamp(time, UTC))
        _read_cpu(reading, [sample for sample in found if sample.plugin == "cpu"])
        _read_load(reading, [sample for sample in found if sample.plugin == "load"])
        _read_memory(reading, _Amounts.of(found, "memory"), _Amounts.of(found, "swap"))
        _read_filesystems(reading, [sample for sample in found if sample.plugin == "df"])
        disks = [s for s in found if s.type == "disk_octets" and not VIRTUAL_DISK.match(s.instance)]
        reading.disk_read, reading.disk_write = _total(disks, "read"), _total(disks, "write")
        links = [s for s in found if s.type == "if_octets" and not VIRTUAL_INTERFACE.match(s.instance)]
        reading.network_rx, reading.network_tx = _total(links, "rx"), _total(links, "tx")
        return reading


def _samples(values: ValueList, known: dict[str, Sample]) -> list[tuple[str, Sample]]:
    samples: list[tuple[str, Sample]] = []
    for index, value in enumerate(values.values):
        if value is None or not math.isfinite(value):
            continue
        source = values.dsnames[index] if index < len(values.dsnames) else "value"
        name = values.type_instance if source == "value" else source
        key = "\0".join((values.plugin, values.plugin_instance, values.type, name))
        parts = (values.plugin, values.plugin_instance, values.type, name, values.time)
        kind = values.dstypes[index] if index < len(values.dstypes) else "gauge"
        before = known.get(key)
        if before is not None and before.time >= values.time:
            continue  # sent again, or late
        if kind == "gauge":
            samples.append((key, Sample(*parts, value)))
        elif kind == "absolute":
            samples.append((key, Sample(*parts, value / max(values.interval, 0.001))))
        else:
            samples.append((key, Sample(*parts, _rate(before, values.time, value), value)))
    return samples


def _rate(before: Sample | None, time: float, counter: float) -> float | None:
    """Per second; None where there is nothing before, or the counter began anew."""
    if before is None or before.counter is None or counter < before.counter:
        return None
    return (counter - before.counter) / (time - before.time)


def _total(samples: list[Sample], name: str) -> float | None:
    values = [sample.value for sample in samples if sample.name == name and sample.value is not None]
    return sum(values) if values else None


def _read_cpu(reading: Metrics, samples: list[Sample]) -> None:
    """From percentages or from jiffies, of each core or of all, by state or as idle and active."""
    reading.cores = max(1, len({sample.instance for sample in samples if sample.instance}))
    count = _total([sample for sample in samples if sample.type == "count"], "")
    if count:
        reading.cores = int(count)
    states = [sample for sample in samples if sample.type in ("percent", "cpu")]
    active = [sample.value for sample in states if sample.name == "active" and sample.value is not None]
    if active:
        reading.cpu = sum(active) / len(active)
        return
    total = sum(sample.value or 0.0 for sample in states)
    if total > 0:
        idle = sum(sample.value or 0.0 for sample in states if sample.name in _IDLE)
        reading.cpu = 100 * (1 - idle / total)


def _read_load(reading: Metrics, samples: list[Sample]) -> None:
    found = {sample.name: sample.value for sample in samples if sample.type == "load"}
    reading.load1 = found.get("shortterm")
    reading.load5 = found.get("midterm")
    reading.load15 = found.get("longterm")


class _Amounts(NamedTuple):
    """Of memory or swap, by what it is used for: bytes, or percent where only that is reported."""

    amounts: dict[str, float]
    are_percent: bool

    @classmethod
    def of(cls, samples: list[Sample], plugin: str) -> "_Amounts":
        found: dict[str, dict[str, float]] = {}
        for sample in samples:
            if sample.plugin == plugin and sample.value is not None and sample.type in (plugin, "percent"):
                amounts = found.setdefault(sample.type, {})
                amounts[sample.name] = amounts.get(sample.name, 0.0) + sample.value  # swap: of several devices
        return cls(found[plugin], False) if plugin in found else cls(found.get("percent", {}), True)

    @property
    def percent(self) -> float | None:
        used, total = self.amounts.get("used"), sum(self.amounts.values())
        if used is None or total <= 0:
            return None
        return used if self.are_percent else 100 * used / total


def _read_memory(reading: Metrics, memory: _Amounts, swap: _Amounts) -> None:
    reading.memory_percent, reading.swap_percent = memory.percent, swap.percent
    if not memory.are_percent and "used" in memory.amounts:
        reading.memory_used = int(memory.amounts["used"])
        reading.memory_total = int(sum(memory.amounts.values()))


def _read_filesystems(reading: Metrics, samples: list[Sample]) -> None:
    mounts: dict[str, dict[tuple[str, str], float]] = {}
    for sample in samples:
        mounts.setdefault(sample.instance, {})[sample.type, sample.name] = sample.value or 0.0
    for instance, found in mounts.items():
        used, free = found.get(("df_complex", "used")), found.get(("df_complex", "free"))
        mount = "/" if instance == _ROOT else "/" + re.sub("-", "/", instance)
        if used is not None and free is not None and used + free > 0:
            total = int(used + free + found.get(("df_complex", "reserved"), 0.0))
            reading.disks[mount] = Disk(100 * used / (used + free), int(used), total)
        elif ("percent_bytes", "used") in found:
            # Bytes are not reported, and 0 of 0 says so.
            reading.disks[mount] = Disk(found["percent_bytes", "used"], 0, 0)
