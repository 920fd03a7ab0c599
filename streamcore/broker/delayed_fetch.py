"""Fetches that wait for a partition to get records; an append wakes them, nobody polls."""

import asyncio
from collections.abc import Hashable, Iterable
from typing import Any

from streamcore.types import TP


class Watch:
    """What has changed among the partitions that one reader watches, since it looked last."""

    def __init__(self) -> None:
        self._changed: dict[Any, None] = {}
        self._arrival: asyncio.Future[bool] | None = None

    def take(self) -> list[Any]:
        """The keys of what has changed, in order."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        return list(changed)

    async def wait(self, max_wait_ms: float) -> bool:
        """Until something changes, or the time is up; whether something did. One waits at a time."""
        if self._changed:
            return True
        loop = asyncio.get_running_loop()
        self._arrival = loop.create_future()
        return await _until(self._arrival, max_wait_ms)

    def wake(self, *changed: Hashable) -> None:
        self._changed.update(dict.fromkeys(changed))
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(True)


class DelayedFetches:
    """Who waits for which partition, in one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[TP, set[asyncio.Future[bool]]] = {}
        self._watches: dict[TP, dict[Watch, Hashable]] = {}

    def wake(self, tp: TP) -> None:
        """Something about the partition has changed: whoever waits for it looks again."""
        for arrival in self._waiting.pop(tp, ()):
            if not arrival.done():
                arrival.set_result(True)
        watches = self._watches.get(tp)
        if watches is not None:
            for watch, key in watches.items():
                watch.wake(key)

    def wake_topic(self, topic: str) -> None:
        for tp in {tp for tp in (*self._waiting, *self._watches) if tp.topic == topic}:
            self.wake(tp)

    def wake_all(self) -> None:
        for tp in {*self._waiting, *self._watches}:
            self.wake(tp)

    def watch(self, tp: TP, watch: Watch, key: Hashable) -> None:
        """From now on until `unwatch`, the watch is told of the partition's changes, under a name of its own."""
        self._watches.setdefault(tp, {})[watch] = key

    def unwatch(self, watch: Watch, tp: TP) -> None:
        watches = self._watches.get(tp)
        if watches is not None and watches.pop(watch, None) is not None and not watches:
            del self._watches[tp]

    async def wait(self, tps: Iterable[TP], max_wait_ms: float) -> bool:
        """Until one of the partitions is woken, or the time is up.

        Returns:
            Whether it was woken.
        """
        arrival: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        registered = list(tps)
        for tp in registered:
            self._waiting.setdefault(tp, set()).add(arrival)
        try:
            return await _until(arrival, max_wait_ms)
        finally:
            for tp in registered:
                waiting = self._waiting.get(tp)
                if waiting is not None:
                    waiting.discard(arrival)
                    if not waiting:
                        del self._waiting[tp]


async def _until(arrival: asyncio.Future[bool], max_wait_ms: float) -> bool:
    # A timer instead of asyncio.timeout: a long poll that runs out is the usual case, not an exception.
    timer = asyncio.get_running_loop().call_later(max_wait_ms / 1000, _give_up, arrival)
    try:
        return await arrival
    finally:
        timer.cancel()


def _give_up(arrival: asyncio.Future[bool]) -> None:
    if not arrival.done():
        arrival.set_result(False)
