"""Recovery: a table of 1 M keys is rebuilt from its changelog by a fresh process after its RocksDB is gone."""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import streamcore as sc
from benchmarks.measure import KEEP, PARTITIONS, arguments, figure, run, store, until_committed
from streamcore.transport import connect
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import OutRecord

BAR_KEYS_PER_S = 300_000
TOPIC = "prices"
SAMPLE = 10_000  # rows that are compared one by one


def declare(directory: Path) -> sc.App:
    app = sc.App("recovery", broker=f"embedded:{directory / 'log'}", datadir=str(directory / "app"), web_enabled=False)
    source = app.topic(TOPIC, key_type=str, partitions=PARTITIONS, config=KEEP)
    prices = app.Table("prices")

    @app.agent(source)
    async def remember(stream: sc.Stream) -> None:
        async for key, price in stream.items():
            prices[key] = price

    return app


def price(number: int, seed: int) -> dict[str, object]:
    cents = Random(seed * 1_000_003 + number).randrange(100, 100_000)
    return {"cents": cents, "currency": "EUR", "from": "2025-01-01"}


def records(count: int, seed: int) -> Iterator[OutRecord]:
    now_ms = int(time.time() * 1000)
    for number in range(count):
        row = price(number, seed)
        value = f'{{"cents":{row["cents"]},"currency":"EUR","from":"2025-01-01"}}'
        yield f"article-{number:07}".encode(), value.encode(), now_ms, ()


async def fill(directory: Path, count: int, seed: int) -> None:
    """Let the app's agent write the table, and its changelog with it."""
    log = connect(f"embedded:{directory / 'log'}")
    assert isinstance(log, EmbeddedTransport)
    await log.start()
    try:
        await store(log, TOPIC, records(count, seed))
        async with declare(directory).running() as worker:
            await until_committed(log, worker, [TOPIC])
    finally:
        await log.stop()


async def recover(directory: Path, count: int, seed: int) -> None:
    """Start the worker on a log without a table store; print how long it took; compare the rows."""
    app = declare(directory)
    worker = app.worker()
    started_s = time.perf_counter()
    await worker.start()
    took_s = time.perf_counter() - started_s
    try:
        async with asyncio.timeout(10):
            # Agents open their tables when they start.
            while not all(run.phase in ("idle", "running") for run in worker.runs):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        table = app.tables["prices"]
        rows = dict(table.items())
        assert len(rows) == count, f"{len(rows)} rows came back, not {count}"
        for number in Random(seed).sample(range(count), min(SAMPLE, count)):
            key = f"article-{number:07}"
            assert rows[key] == price(number, seed), (key, rows[key])
    finally:
        await worker.stop()
    print(f"seconds {took_s}")


def main(options: argparse.Namespace) -> None:
    rates: list[float] = []
    directory = Path(tempfile.mkdtemp(prefix="streamcore-benchmark-"))
    try:
        run(fill(directory, options.records, options.seed))
        for number in range(1, options.rounds + 1):
            shutil.rmtree(directory / "app")
            # A process of its own: nothing is warm, and no row is left in memory.
            command = [sys.executable, "-m", "benchmarks.table_recovery", "--recover", str(directory)]
            command += ["--records", str(options.records), "--seed", str(options.seed)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            took_s = float(output.split()[-1])
            rates.append(options.records / took_s)
            print(f"round {number}: {options.records} keys in {took_s:.2f} s, {rates[-1]:,.0f} keys/s", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"verified: {options.records} keys and {min(SAMPLE, options.records)} rows of every round")
    figure("table recovery", sorted(rates)[len(rates) // 2], "keys/s", at_least=BAR_KEYS_PER_S)


if __name__ == "__main__":
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--recover", type=Path, metavar="DIRECTORY", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.recover:
        run(recover(given.recover, given.records, given.seed))
    else:
        main(given)
