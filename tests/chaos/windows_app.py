"""A second app on the same input: every kind of state that the health app does not use."""

from collections.abc import AsyncIterator
from typing import Any

import streamcore as sc
from apps.health_monitoring.models import LogLine, Metrics
from tests.chaos.known_input import METRICS, SYSLOG

TUMBLING_S, TUMBLING_GRACE_S = 10, 4
HOPPING_S, HOPPING_STEP_S = 30, 10
PAIRS_S, PAIRS_GRACE_S = 5, 2  # the lines of one step come in any order


class Tally(sc.Record, frozen=True):
    """CPU readings of a window."""

    count: int = 0
    total: float = 0.0
    highest: float = 0.0

    def __add__(self, reading: Metrics) -> "Tally":
        cpu = reading.cpu or 0.0
        return Tally(self.count + 1, self.total + cpu, max(self.highest, cpu))


app = sc.App("chaos-windows", web_enabled=False)
metrics = app.topic(METRICS, key_type=str, value_type=Metrics, partitions=8)
syslog = app.topic(SYSLOG, key_type=str, value_type=LogLine, partitions=8)
closed = app.topic("closed-windows", key_type=str, partitions=8)
pairs = app.topic("pairs", key_type=str, partitions=8)
counted = app.topic("counted", key_type=str, partitions=8)


async def close_tumbling(key: Any, tally: Tally) -> None:
    await _close("tumbling", key, tally)


async def close_hopping(key: Any, tally: Tally) -> None:
    await _close("hopping", key, tally)


async def _close(window: str, key: Any, tally: Tally) -> None:
    host, (start_s, _) = key
    await closed.send(key=host, value={"window": window, "host": host, "start": start_s, **tally.asdict()})


tumbling = app.Table("tumbling", default=Tally, on_window_close=close_tumbling).tumbling(
    TUMBLING_S, grace=TUMBLING_GRACE_S
)
hopping = app.Table("hopping", default=Tally, on_window_close=close_hopping).hopping(HOPPING_S, HOPPING_STEP_S)


@app.agent(metrics)
async def tally(stream: sc.Stream) -> None:
    async for reading in stream:
        tumbling[reading.host] += reading
        hopping[reading.host] += reading


@app.agent(metrics, sink=[counted])
async def number(stream: sc.Stream) -> AsyncIterator[dict[str, Any]]:
    """A number for every reading: one that is done twice, or not at all, leaves a wrong one."""
    numbers = stream.state("numbers")
    async for reading in stream:
        numbers[reading.host] = numbers.get(reading.host, 0) + 1
        yield {"host": reading.host, "time": reading.time, "number": numbers[reading.host]}


@app.agent(metrics, sink=[pairs])
async def pair(stream: sc.Stream) -> AsyncIterator[dict[str, Any]]:
    """Every reading with every line near it; and those that are near nothing, once their window has closed."""
    async for reading, line in stream.join(syslog, before=PAIRS_S, after=PAIRS_S, how="outer", grace=PAIRS_GRACE_S):
        yield {"reading": reading and reading.time, "line": line and [line.time, line.message]}
