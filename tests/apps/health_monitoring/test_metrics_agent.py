"""Readings of the machine the tests run on, and of machines that refuse."""

import asyncio
from collections import namedtuple
from typing import Any

import psutil
import pytest

from apps.health_monitoring import metrics_agent
from apps.health_monitoring.metrics_agent import MachineProbe, read_metrics
from apps.health_monitoring.models import Metrics

CpuTimes = namedtuple("CpuTimes", "user system idle iowait guest")
Io = namedtuple("Io", "read_bytes write_bytes")
Nic = namedtuple("Nic", "bytes_recv bytes_sent")
Partition = namedtuple("Partition", "device mountpoint fstype")
Usage = namedtuple("Usage", "total used free percent")


class Ticker:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_reading_of_this_machine_is_complete_and_plausible() -> None:
    probe = MachineProbe()
    probe.read()
    sum(range(3_000_000))  # something for the CPU to have done
    reading = probe.read()
    assert reading.time.utcoffset() is not None
    assert reading.cpu is not None
    assert 0 <= reading.cpu <= 100
    assert reading.memory_percent is not None
    assert 0 < reading.memory_percent <= 100
    assert reading.memory_total == psutil.virtual_memory().total
    assert "/" in reading.disks
    assert reading.load_per_core is not None
    assert len(reading.top) <= 5
    assert Metrics.loads(reading.dumps()) == reading


def test_the_first_reading_claims_no_cpu_and_no_rates() -> None:
    reading = MachineProbe().read()
    assert (reading.cpu, reading.disk_read, reading.network_rx, reading.top) == (None, None, None, [])


def test_cpu_is_the_busy_share_of_the_time_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([CpuTimes(100, 50, 800, 50, 20), CpuTimes(130, 60, 850, 60, 40), CpuTimes(120, 60, 850, 60, 40)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(looks))
    probe = MachineProbe()
    assert [probe.read().cpu for _ in range(3)] == [None, 40.0, None]  # the third: a clock that went back


def test_rates_come_from_differences_and_a_counter_that_went_back_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ticker = Ticker()
    nics = iter([{"eth0": Nic(1000, 500), "lo": Nic(9, 9)}, {"eth0": Nic(3000, 600), "lo": Nic(900, 900)}, {}])
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: next(nics))
    probe = MachineProbe(clock=ticker)
    probe.read()
    ticker.now += 2
    reading = probe.read()
    assert (reading.network_rx, reading.network_tx) == (1000.0, 50.0)
    ticker.now += 2
    assert probe.read().network_rx is None


@pytest.mark.parametrize("io_counters", [lambda perdisk: None, lambda perdisk: {}])
def test_a_container_without_disk_counters_has_rates_of_zero(monkeypatch: pytest.MonkeyPatch, io_counters: Any) -> None:
    monkeypatch.setattr(psutil, "disk_io_counters", io_counters)
    probe = MachineProbe()
    probe.read()
    assert probe.read().disk_read == 0.0


def test_mounted_files_read_only_images_and_second_mounts_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    file = tmp_path / "hosts"
    file.write_text("")
    deep = tmp_path / "deeper" / "still"
    deep.mkdir(parents=True)
    partitions = [
        Partition("/dev/sda1", str(file), "ext4"),
        Partition("/dev/sdb1", str(deep), "xfs"),
        Partition("/dev/sdb1", str(tmp_path), "xfs"),
        Partition("/dev/loop1", str(deep), "squashfs"),
        Partition("/dev/sdc1", str(tmp_path / "gone"), "ext4"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: partitions)
    assert metrics_agent._mounts() == ["/", str(tmp_path)]


def test_a_disk_that_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(mount: str) -> Usage:
        if mount == "/bad":
            raise OSError(5, "Input/output error")
        return Usage(100, 40, 60, 40.0)

    monkeypatch.setattr(metrics_agent, "_mounts", lambda: ["/", "/bad"])
    monkeypatch.setattr(psutil, "disk_usage", usage)
    assert set(MachineProbe().read().disks) == {"/"}


@pytest.mark.parametrize(
    "probe",
    ["cpu_times", "getloadavg", "virtual_memory", "swap_memory", "disk_partitions", "disk_io_counters",
     "net_io_counters", "process_iter"],
)  # fmt: skip
def test_no_failing_call_ends_the_agent(monkeypatch: pytest.MonkeyPatch, probe: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not here")

    monkeypatch.setattr(psutil, probe, fail)
    machine = MachineProbe()
    machine.read()
    reading = machine.read()
    assert Metrics.loads(reading.dumps()) == reading


def test_the_scan_of_all_processes_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    ticker = Ticker()
    scans = []

    def slow_scan() -> Any:
        scans.append(ticker.now)
        ticker.now += 0.2  # 10 s later at the earliest, at 2 %
        return iter(())

    monkeypatch.setattr(psutil, "process_iter", slow_scan)
    probe = MachineProbe(clock=ticker)
    for _ in range(15):
        probe.read()
        ticker.now += 2
    assert len(scans) == 3


def test_the_agent_sends_on_after_a_log_that_refused() -> None:
    sent: list[Metrics] = []

    async def scenario() -> None:
        done = asyncio.Event()

        async def send(reading: Metrics) -> None:
            sent.append(reading)
            if len(sent) == 1:
                raise RuntimeError("full")
            done.set()

        task = asyncio.create_task(read_metrics(send, interval_s=0.01, host="here.example.com"))
        async with asyncio.timeout(10):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert [reading.host for reading in sent] == ["here", "here"]
    assert sent[0].cpu is not None or sent[1].cpu is not None
