"""kill -9 at random moments while the health app works, and what is there afterwards.

A seed may be given in CHAOS_SEED: it repeats the input and the kinds of kills, though not the very instructions.
"""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.chaos.driver import Driver
from tests.chaos.verification import Verification


def crash_and_verify(kills: int, idle_s: tuple[float, ...]) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 30))
    # Not tmp_path: what went wrong must be there to be looked at, and what went right must not fill the disk.
    directory = Path(tempfile.mkdtemp(prefix="streamcore-chaos-"))
    started_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started_s:6.0f} s  {text}", flush=True)

    print()
    say(f"CHAOS_SEED={seed}, {kills} kills, in {directory}")
    driver = Driver(directory, seed, kills, say, idle_s=idle_s)
    driver.run()
    found = Verification(driver)
    problems = found.run()
    say("all input is done; now with every table rebuilt from its changelog")
    driver.lose_tables(all_of_them=True)
    driver.drain()
    problems += [f"after the rebuild: {problem}" for problem in Verification(driver).run()]
    tally = driver.tally
    say(
        f"{tally.kills.total()} kills ({', '.join(f'{what} {count}' for what, count in tally.kills.most_common())}), "
        f"{tally.starts} starts, {tally.orderly_stops} orderly stops, {tally.deleted_stores} table stores deleted, "
        f"{tally.recoveries} starts with tables rebuilt"
    )
    say(
        f"{tally.acknowledged} records acknowledged, {tally.unacknowledged} more on the log that nobody was told of; "
        f"each at its offset, none twice"
        if not problems
        else f"{len(problems)} problems"
    )
    outputs = ", ".join(
        f"{topic} {count} (repeats {found.repeats[topic]})" for topic, count in found.outputs.most_common()
    )
    say(f"results compared with the recomputation: {outputs}; {found.fired} alarms fired")
    assert not problems, f"seed {seed}, see {directory}:\n" + "\n".join(problems)
    shutil.rmtree(directory)


def test_a_few_kills_lose_nothing_and_double_nothing() -> None:
    crash_and_verify(5, idle_s=(0.5, 2))


@pytest.mark.chaos
def test_a_hundred_kills_lose_nothing_and_double_nothing() -> None:
    crash_and_verify(100, idle_s=(0.5, 2, 2, 20))
