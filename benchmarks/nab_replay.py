"""The real recordings of data/nab through the real health app at full speed: every round gives the same alarms.

Every round has a log of its own on disk and other settings; from the second one on, restarts in between.
"""

import argparse
import itertools
import random
import statistics
from datetime import UTC, datetime
from typing import Any

from apps.health_monitoring import app as health
from apps.health_monitoring.models import Metrics
from apps.health_monitoring.replay import NAB_SERIES, ReplayReport, labelled_windows, recorded, score
from benchmarks.measure import SEED, Stopwatch, figure, run, temporary_log
from processors.alerts import Alarm

COMMIT_INTERVALS_S = (0.1, 0.005, 1.0)  # the default, and far from it


class Silent:
    """Tells nobody: what a terminal can take is not what is measured."""

    async def notify(self, alarm: Alarm) -> None: ...
    async def run(self) -> None: ...


async def replay_once(readings: list[Metrics], restarts: list[int], **settings: Any) -> tuple[list[Alarm], float]:
    """Send everything, and wait until every alarm is on the log.

    Args:
        restarts: after so many readings the worker stops in order and another one goes on.
    Returns:
        The alarms, each change once; and seconds from the first reading to the last commit.
    """
    bounds = [0, *restarts, len(readings)]
    watch: Stopwatch | None = None
    async with temporary_log() as log:
        for first, end in itertools.pairwise(bounds):
            async with health.app.running(broker=log.url, web_enabled=False, **settings):
                watch = watch or Stopwatch()
                for reading in readings[first:end]:
                    await health.send_metrics(reading)
                if end == len(readings):
                    await health.app.drained()
                    seconds = watch.stop().wall_s
                    changes = [event.value async for event in health.alarms.history()]
    unique = {(alarm.id, alarm.sequence): alarm for alarm in changes}
    return sorted(unique.values(), key=lambda alarm: (alarm.at_ms, alarm.id, alarm.sequence)), seconds


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often (default 3)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the places where the worker is restarted")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    health.options.live, health.options.rules = False, health.HERE / "nab.yaml"
    health._notifiers[:] = [Silent()]
    readings = [event for event in recorded(NAB_SERIES, None, ReplayReport()) if isinstance(event, Metrics)]
    rates: list[float] = []
    expected: list[Alarm] = []
    for number in range(options.rounds):
        restarts = sorted(rng.sample(range(len(readings)), min(number, 4)))
        commit_interval = COMMIT_INTERVALS_S[number % len(COMMIT_INTERVALS_S)]
        alarms, seconds = await replay_once(readings, restarts, commit_interval=commit_interval)
        if number == 0:
            expected = alarms
        assert alarms == expected, f"round {number + 1} gave other alarms than round 1"
        rates.append(len(readings) / seconds)
        print(
            f"round {number + 1}: {len(readings)} readings in {seconds:.2f} s, {rates[-1]:,.0f} readings/s "
            f"(commits every {commit_interval:g} s, restarts: {len(restarts)}); {len(alarms)} changes of alarms",
            flush=True,
        )
    fired = [alarm for alarm in expected if alarm.state == "firing" and alarm.notify]
    began = [(alarm.labels["host"], datetime.fromtimestamp(alarm.at_ms / 1000, UTC)) for alarm in fired]
    result = score(began, labelled_windows())
    print(f"verified: the same {len(expected)} changes of alarms in every round; {len(fired)} alarms fired; {result}")
    # The last readings come out when the clock says that nothing follows, a second later: that second is in the rate.
    figure("NAB replay, rate", statistics.median(rates), "readings/s")
    figure("NAB replay, labelled incidents caught", result.caught, f"of {result.windows}")
    figure("NAB replay, alarms outside of them", result.outside, "alarms")


if __name__ == "__main__":
    run(main())
