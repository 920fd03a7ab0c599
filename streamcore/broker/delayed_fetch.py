"""Fetches that wait for a partition to get records; an append wakes them, nobody polls."""

import asyncio
from collections.abc import Iterable

from streamcore.types import TP


class DelayedFetches:
    """Who waits for which partition, in one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[TP, set[asyncio.Future[bool]]] = {}

    def wake(self, tp: TP) -> None:
        """Something about the partition has changed: whoever waits for it looks again."""
        for arrival in self._waiting.pop(tp, ()):
            if not arrival.done():
                arrival.set_result(True)

    def wake_topic(self, topic: str) -> None:
        for tp in [tp for tp in self._waiting if tp.topic == topic]:
            self.wake(tp)

    def wake_all(self) -> None:
        for tp in list(self._waiting):
            self.wake(tp)

    async def wait(self, tps: Iterable[TP], max_wait_ms: float) -> bool:
        """Until one of the partitions is woken, or the time is up.

        Returns:
            Whether it was woken.
        """
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[bool] = loop.create_future()
        registered = list(tps)
        for tp in registered:
            self._waiting.setdefault(tp, set()).add(arrival)
        # A timer instead of asyncio.timeout: a long poll that runs out is the usual case, not an exception.
        timer = loop.call_later(max_wait_ms / 1000, _give_up, arrival)
        try:
            return await arrival
        finally:
            timer.cancel()
            for tp in registered:
                waiting = self._waiting.get(tp)
                if waiting is not None:
                    waiting.discard(arrival)
                    if not waiting:
                        del self._waiting[tp]


def _give_up(arrival: asyncio.Future[bool]) -> None:
    if not arrival.done():
        arrival.set_result(False)
