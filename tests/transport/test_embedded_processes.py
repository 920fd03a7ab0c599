"""Real processes on a real directory: killed ones, and ones that come second."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamcore.errors import DirectoryHeldError
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP
from tests.transport.support import A0, opened, read_all

# Produces numbered records to two partitions and commits, telling on stdout what was acknowledged.
WRITER = """
import asyncio, sys
from streamcore.transport import connect
from streamcore.transport.base import Acks, Committed
from streamcore.types import TP

async def main():
    transport = connect("embedded:" + sys.argv[1], flush=sys.argv[2])
    await transport.start()
    if "a" not in await transport.topics():
        await transport.create_topic("a", partitions=2, config={"segment.bytes": "20000"})
    print("ready", flush=True)
    number = 0
    while True:
        batch = [(b"key", b"%d-%d" % (number, part) * 5, 1_700_000_000_000, ()) for part in range(number % 7 + 1)]
        acks = Acks.ALL if number % 2 else Acks.LEADER
        results = await transport.produce({TP("a", 0): batch, TP("a", 1): batch}, acks=acks)
        # A kill between the two appends leaves one partition shorter than the other.
        end = min(results.values()) + len(batch)
        await transport.commit("g", {TP("a", 0): Committed(end), TP("a", 1): Committed(end)})
        sys.stdout.write(f"{end}\\n")
        sys.stdout.flush()
        number += 1

asyncio.run(main())
"""


def start_writer(directory: Path, flush: str = "interval") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(directory), flush]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def kill_after_lines(writer: subprocess.Popen[str], lines: int) -> int:
    """Kill -9 once so many commits are acknowledged; the last acknowledged log end."""
    assert writer.stdout is not None
    for _ in range(lines):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    acknowledged = [line for line in writer.stdout.read().splitlines(keepends=False) if line]
    writer.wait()
    writer.stdout.close()
    return int(acknowledged[-1]) if acknowledged else 0


@pytest.mark.parametrize("flush", ["interval", "always"])
def test_work_resumes_after_kill_9_with_nothing_acknowledged_lost(tmp_path: Path, flush: str) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    ends = [0]
    for _ in range(3):
        writer = start_writer(tmp_path, flush)
        ends.append(max(ends[-1], kill_after_lines(writer, chance.randrange(5, 120))))

        async def check() -> None:
            async with opened(EmbeddedTransport(str(tmp_path))) as transport:
                for tp in (A0, TP("a", 1)):
                    log = await read_all(transport, tp)
                    assert [offset for offset, _ in log] == list(range(len(log)))
                    assert len(log) >= ends[-1]
                committed = await transport.committed("g")
                assert committed[A0].offset >= ends[-1]
                # All or nothing: the two partitions were always committed together.
                assert committed[A0].offset == committed[TP("a", 1)].offset

        asyncio.run(check())


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    try:
        with pytest.raises(DirectoryHeldError) as caught:
            asyncio.run(EmbeddedTransport(str(tmp_path)).start())
        assert f"process {writer.pid} (-c {tmp_path} interval)" in str(caught.value)
        assert "stop that process, or use another directory" in str(caught.value)
    finally:
        kill_after_lines(writer, 0)

    async def after() -> None:
        async with opened(EmbeddedTransport(str(tmp_path))) as transport:
            assert "a" in await transport.topics()

    asyncio.run(after())
