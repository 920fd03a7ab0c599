"""The events of W1 and W2: readings of 500 sensors, JSON of about 80 bytes, one per millisecond of event time."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from streamcore.types import OutRecord

TOPIC = "readings"
SENSORS = 500
START_MS = 1_735_689_600_000  # 2025-01-01


class Reading(NamedTuple):
    """What an event says, for offline computations."""

    id: int
    key: str
    time_ms: int
    value: float


def readings(count: int, seed: int) -> Iterator[Reading]:
    """The same readings for the same seed, on every machine."""
    random = Random(seed)
    keys = [f"sensor-{number:04}" for number in range(SENSORS)]
    for number in range(count):
        yield Reading(number, keys[random.randrange(SENSORS)], START_MS + number, round(random.random() * 100, 3))


def events(count: int, seed: int) -> Iterator[OutRecord]:
    """The readings as records."""
    for id_, key, time_ms, value in readings(count, seed):
        event = f'{{"id":{id_},"key":"{key}","time":{time_ms},"value":{value:.3f},"unit":"C"}}'
        yield key.encode(), event.encode(), time_ms, ()
