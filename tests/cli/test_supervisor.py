"""Several workers from one command: they share the partitions, one keeps the log, and any of them may be killed."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from streamcore.transport import connect
from streamcore.transport.base import EARLIEST, LATEST
from streamcore.types import TP

PARTITIONS = 6
APP = """
import streamcore as sc

app = sc.App("shop", web_enabled=False, listen_port=0, session_timeout=6)
words = app.topic("words", key_type=str, value_type=int, partitions=6)
totals = app.topic("totals", key_type=str, value_type=int, partitions=6)
counts = app.Table("counts", default=int)


@app.agent(words)
async def count(stream):
    async for event in stream.events():
        counts[event.key] += event.value
        await totals.send(key=event.key, value=counts[event.key])


if __name__ == "__main__":
    app.main()
"""


class Workers:
    """A supervisor and its workers, and what they have said."""

    def __init__(self, directory, count, *options):
        (directory / "shop.py").write_text(APP)
        self.process = subprocess.Popen(
            [sys.executable, "shop.py", "worker", "--workers", str(count), *options],
            cwd=directory, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.lines.extend(iter(lines.readline, ""))

    def wait_for(self, text, count=1, seconds=30.0):
        deadline = time.monotonic() + seconds
        while sum(bool(re.search(text, line)) for line in self.lines) < count:
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, f"{text!r} not {count} times:\n{''.join(self.lines)}"
            time.sleep(0.02)

    def children(self):
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join()
        return code


@contextlib.contextmanager
def workers(directory, count, *options):
    running = Workers(directory, count, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running._reader.join()


async def _send(directory, sent):
    log = connect(f"embedded:{directory}/streamcore-data")
    await log.start()
    try:
        batches = {}
        for _ in range(300):
            key = f"k{random.randrange(40)}"
            sent[key] += 1
            tp = TP("words", int(key[1:]) % PARTITIONS)
            batches.setdefault(tp, []).append((key.encode(), b"1", int(time.time() * 1000), ()))
        while batches:
            results = await log.produce(batches)
            batches = {tp: records for tp, records in batches.items() if not isinstance(results[tp], int)}
    finally:
        await log.stop()


async def _totals(directory):
    """The newest total of every key."""
    log = connect(f"embedded:{directory}/streamcore-data")
    await log.start()
    totals: Counter[str] = Counter()
    try:
        tps = [TP("totals", partition) for partition in range(PARTITIONS)]
        starts, ends = await log.list_offsets(tps, EARLIEST), await log.list_offsets(tps, LATEST)
        for tp in tps:
            position = starts[tp]
            while position < ends[tp]:
                (part,) = await log.fetch({tp: position}, max_wait_ms=0)
                assert part.error is None, part.error
                totals.update({record.key.decode(): 0 for record in part.records})
                for record in part.records:
                    totals[record.key.decode()] = int(record.value)
                position = part.next_offset
    finally:
        await log.stop()
    return totals


def run(work):
    import asyncio

    return asyncio.run(work)


def wait_for_totals(directory, sent, running):
    deadline = time.monotonic() + 40
    while (found := run(_totals(directory))) != sent:
        assert time.monotonic() < deadline, f"{found}\nand not\n{sent}\n{''.join(running.lines)}"
        time.sleep(0.1)


def test_they_share_the_partitions_and_stop_in_order(tmp_path):
    sent: Counter[str] = Counter()
    with workers(tmp_path, 3) as running:
        running.wait_for("3 workers share the 6 partitions")
        running.wait_for("joined the log", count=2)
        run(_send(tmp_path, sent))
        wait_for_totals(tmp_path, sent, running)
        assert running.stop() == 0, "".join(running.lines)
    assert not [line for line in running.lines if "Traceback" in line]


@pytest.mark.parametrize("kills", [4, pytest.param(15, marks=pytest.mark.chaos)])
def test_whoever_is_killed_every_record_counts_once(tmp_path, kills):
    """The worker that keeps the log is among them: another one takes it over."""
    sent: Counter[str] = Counter()
    with workers(tmp_path, 3) as running:
        running.wait_for("3 workers share the 6 partitions")
        for kill in range(kills):
            run(_send(tmp_path, sent))
            keeper = json.loads((tmp_path / "streamcore-data" / "listener.json").read_bytes())["pid"]
            os.kill(random.choice([keeper, *running.children()]), signal.SIGKILL)
            running.wait_for("was killed by SIGKILL; it starts again", count=kill + 1)
            time.sleep(random.random())
            while len(running.children()) < 3:
                time.sleep(0.02)
        run(_send(tmp_path, sent))
        wait_for_totals(tmp_path, sent, running)
        assert running.stop() == 0, "".join(running.lines)


def test_when_the_supervisor_is_killed_its_workers_stop_too(tmp_path):
    with workers(tmp_path, 2) as running:
        running.wait_for("2 workers share the 6 partitions")
        children = running.children()
        running.process.kill()
        running.process.wait()
        deadline = time.monotonic() + 15
        while any(_is_alive(pid) for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_cannot_start_ends_all_of_them_with_its_reason(tmp_path):
    with workers(tmp_path, 2, "--broker", "kafka://127.0.0.1:1") as running:
        running.process.wait(30)
        running._reader.join()
    assert running.process.returncode == 1, "".join(running.lines)
    assert any("No broker at 127.0.0.1:1" in line for line in running.lines)
    assert not any("starts again" in line for line in running.lines)
