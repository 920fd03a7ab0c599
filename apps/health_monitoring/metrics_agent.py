"""This machine's readings, from psutil.

In a container these are the host's CPU, load and memory, as the kernel tells them, and the container's own disks and
network.
"""

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import psutil
from prometheus_client import Counter

from apps.health_monitoring.models import Disk, Metrics, Process, short_host

logger = logging.getLogger(__name__)

T = TypeVar("T")
Send = Callable[[Metrics], Awaitable[Any]]

INTERVAL_S = 2.0
FIRST_INTERVAL_S = 0.5  # between the two looks that the first reading is made of: CPU and rates are differences
TOP = 5
SCAN_BUDGET = 0.02  # of one core, for looking at every process: with thousands of them we look less often

# Always full by their nature, so "90 % used" says nothing of them.
_READ_ONLY_FILESYSTEMS = {"squashfs", "iso9660", "udf", "cramfs", "erofs"}
# Traffic that a real interface counts too, or that never leaves the machine.
VIRTUAL_INTERFACE = re.compile(r"lo\d*$|veth|docker|br-|virbr|cni|flannel|cali|vnet|tap|dummy|ifb")
# Layers above real disks, whose bytes would count twice.
VIRTUAL_DISK = re.compile(r"loop|ram|zram|dm-|md\d|sr\d|fd\d")

FAILURES = Counter("metrics_agent_failures", "Probes that failed; their fields are left out of the reading.", ["probe"])


async def read_metrics(send: Send, *, interval_s: float = INTERVAL_S, host: str | None = None) -> None:
    """Send a reading every `interval_s` until cancelled; a probe that fails leaves its fields out."""
    probe = MachineProbe(host)
    # psutil reads files of /proc, thousands of them on a busy machine, so it never runs on the event loop.
    await asyncio.to_thread(probe.read)
    await asyncio.sleep(min(FIRST_INTERVAL_S, interval_s))
    due = time.monotonic()
    while True:
        reading = await asyncio.to_thread(probe.read)
        try:
            await send(reading)
        except Exception as error:  # a full log today is no reason to be silent tomorrow
            FAILURES.labels("send").inc()
            logger.error("metrics: a reading could not be sent on: %s", error)
        due = max(due + interval_s, time.monotonic())  # after a long stop: the next one now, none in arrears
        await asyncio.sleep(due - time.monotonic())


class _Times(NamedTuple):
    """Seconds since boot, over all cores."""

    busy: float
    total: float


class _Seen(NamedTuple):
    """What a process had used when we last looked."""

    cpu_s: float
    io_bytes: int | None


class MachineProbe:
    """Two looks make a reading: the first `read` has no CPU, rates or processes. Blocking; one thread at a time."""

    def __init__(self, host: str | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = short_host(host or socket.gethostname())
        self._clock = clock
        self._cores = psutil.cpu_count() or 1
        self._read_at: float | None = None
        self._times: _Times | None = None
        self._disk_bytes: tuple[int, int] | None = None
        self._network_bytes: tuple[int, int] | None = None
        self._seen: dict[int, _Seen] = {}
        self._scanned_at: float | None = None
        self._scan_due = 0.0
        self._top: list[Process] = []
        self._complained: set[str] = set()

    def read(self) -> Metrics:
        now = self._clock()
        elapsed = now - self._read_at if self._read_at is not None else 0.0
        self._read_at = now
        reading = Metrics(host=self._host, time=datetime.now(UTC), cores=self._cores)
        reading.cpu = self._try("cpu", self._cpu)
        if (load := self._try("load", psutil.getloadavg)) is not None:
            reading.load1, reading.load5, reading.load15 = load
        if (memory := self._try("memory", psutil.virtual_memory)) is not None:
            reading.memory_percent, reading.memory_total = memory.percent, memory.total
            reading.memory_used = memory.total - memory.available
        if (swap := self._try("swap", psutil.swap_memory)) is not None:
            reading.swap_percent = swap.percent
        reading.disks = self._try("disks", self._disks) or {}
        disk_bytes = self._try("disk io", _disk_bytes)
        reading.disk_read, reading.disk_write = _rates(self._disk_bytes, disk_bytes, elapsed)
        self._disk_bytes = disk_bytes
        network_bytes = self._try("network", _network_bytes)
        reading.network_rx, reading.network_tx = _rates(self._network_bytes, network_bytes, elapsed)
        self._network_bytes = network_bytes
        if now >= self._scan_due:
            self._top = self._try("processes", self._busiest) or []
            self._scan_due = now + (self._clock() - now) / SCAN_BUDGET
        reading.top = self._top
        return reading

    def _try(self, probe: str, read: Callable[[], T]) -> T | None:
        """The probe's value, or None: whatever goes wrong in one must not cost the others."""
        try:
            return read()
        except Exception as error:
            FAILURES.labels(probe).inc()
            if probe not in self._complained:  # once, not every two seconds
                self._complained.add(probe)
                logger.warning("metrics: no %s on this machine: %s: %s", probe, type(error).__name__, error)
            return None

    def _cpu(self) -> float | None:
        times, before = _cpu_times(), self._times
        self._times = times
        if before is None or times.total <= before.total:
            return None
        return round(min(max(100 * (times.busy - before.busy) / (times.total - before.total), 0.0), 100.0), 2)

    def _disks(self) -> dict[str, Disk]:
        disks: dict[str, Disk] = {}
        for mount in _mounts():
            usage = self._try(f"disk {mount}", lambda mount=mount: psutil.disk_usage(mount))  # type: ignore[misc]
            if usage is not None and usage.total:
                disks[mount] = Disk(usage.percent, usage.used, usage.total)
        return disks

    def _busiest(self) -> list[Process]:
        now = self._clock()
        elapsed = now - self._scanned_at if self._scanned_at is not None else 0.0
        self._scanned_at = now
        before, self._seen = self._seen, {}
        used: list[tuple[float, psutil.Process]] = []
        for process in psutil.process_iter():
            try:
                times = process.cpu_times()
            except (psutil.Error, OSError):
                continue  # it ended, or is none of our business
            cpu_s = times.user + times.system
            seen = before.get(process.pid)
            self._seen[process.pid] = _Seen(cpu_s, seen.io_bytes if seen else None)
            # Less than before: another process under an old number. Unseen and young: all it used was since then.
            used.append((cpu_s - seen.cpu_s if seen and cpu_s >= seen.cpu_s else min(cpu_s, elapsed), process))
        if elapsed <= 0:
            return []
        used.sort(key=lambda item: item[0], reverse=True)
        top = (self._described(process, cpu_s, elapsed) for cpu_s, process in used[: TOP * 2] if cpu_s > 0)
        return [process for process in top if process is not None][:TOP]

    def _described(self, process: psutil.Process, cpu_s: float, elapsed: float) -> Process | None:
        try:
            with process.oneshot():
                name, memory = process.name(), process.memory_info().rss
        except (psutil.Error, OSError):
            return None
        io_bytes: int | None = None
        try:
            counters = process.io_counters()  # absent on macOS
            io_bytes = counters.read_bytes + counters.write_bytes
        except (psutil.Error, OSError, AttributeError):
            pass  # other users' processes; the rest of the line is worth having
        seen = self._seen[process.pid]
        self._seen[process.pid] = _Seen(seen.cpu_s, io_bytes)
        io = (io_bytes - seen.io_bytes) / elapsed if io_bytes is not None and seen.io_bytes is not None else 0.0
        share = min(100 * cpu_s / elapsed / self._cores, 100.0)
        return Process(name, process.pid, round(share, 2), memory, round(max(io, 0.0), 1))


def _cpu_times() -> _Times:
    times = psutil.cpu_times()
    total = (
        sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    )  # counted within user and nice
    return _Times(total - times.idle - getattr(times, "iowait", 0.0), total)


def _mounts() -> list[str]:
    """One mount point per real filesystem, and the root whatever it is (an overlay, mostly)."""
    chosen = {"": "/"} if os.path.isdir("/") else {}
    # all=False leaves network filesystems out: a dead server would hang the probe for ever.
    for partition in psutil.disk_partitions(all=False):
        mount = partition.mountpoint
        # Containers have single files mounted (/etc/hosts), which tell of the host's disk under a misleading name.
        if partition.fstype in _READ_ONLY_FILESYSTEMS or not os.path.isdir(mount):
            continue
        known = chosen.get(partition.device)
        if known is None or len(mount) < len(known):
            chosen[partition.device] = mount
    return sorted(set(chosen.values()))


def _disk_bytes() -> tuple[int, int]:
    counters = psutil.disk_io_counters(perdisk=True) or {}
    real = [name for name in counters if not VIRTUAL_DISK.match(name) and os.path.exists(f"/sys/block/{name}")]
    names = real or [name for name in counters if not VIRTUAL_DISK.match(name)]
    return sum(counters[name].read_bytes for name in names), sum(counters[name].write_bytes for name in names)


def _network_bytes() -> tuple[int, int]:
    counters = psutil.net_io_counters(pernic=True)
    names = [name for name in counters if not VIRTUAL_INTERFACE.match(name)]
    return sum(counters[name].bytes_recv for name in names), sum(counters[name].bytes_sent for name in names)


def _rates(
    before: tuple[int, int] | None, now: tuple[int, int] | None, elapsed: float
) -> tuple[float | None, float | None]:
    """Per second; None where there is nothing to compare with, or a counter went back (an interface that left)."""
    if before is None or now is None or elapsed <= 0 or now[0] < before[0] or now[1] < before[1]:
        return None, None
    return round((now[0] - before[0]) / elapsed, 1), round((now[1] - before[1]) / elapsed, 1)
