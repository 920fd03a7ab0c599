"""Long polls over the wire: fetches that wait for records, without waiting for each other.

A broker answers the requests of one connection in their order, so a fetch that waits holds up whatever is behind it.
Each has a connection of its own, up to a limit; beyond it they take turns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from streamcore.transport.base import Fetched
from streamcore.transport.cluster import Cluster
from streamcore.types import TP

# Connections per process on which a fetch may wait. A worker has a waiting fetch per idle partition.
POLLS_MAX: Final = 64
# A turn at a connection; whoever waits longer asks again. It also bounds how long a poll that nobody waits for any
# more keeps its connection.
TURN_MS: Final = 500

FetchFrom = Callable[[int, Mapping[TP, int], int, int, str], Awaitable[list[Fetched]]]


class Polls:
    """The connections on which fetches wait."""

    def __init__(self, cluster: Cluster, fetch_from: FetchFrom) -> None:
        self._cluster = cluster
        self._fetch_from = fetch_from
        self._free = list(range(POLLS_MAX))
        self._turns = asyncio.Semaphore(POLLS_MAX)
        self._is_closed = False
        self._running: set[asyncio.Task[list[Fetched]]] = set()

    async def wait(self, requests: Mapping[int, Mapping[TP, int]], max_bytes: int, max_wait_ms: int) -> list[Fetched]:
        """The answer of the first node that has one, or nothing when the time is up."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + max_wait_ms / 1000
        while True:
            left_ms = int((deadline_s - loop.time()) * 1000)
            turn_ms = min(TURN_MS, max(1, left_ms))
            if len(requests) == 1:
                ((node_id, positions),) = requests.items()
                done, _ = await asyncio.wait([self._poll(node_id, positions, max_bytes, turn_ms)])
            else:
                polls = [self._poll(node_id, share, max_bytes, turn_ms) for node_id, share in requests.items()]
                done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            # One that `close` has ended says nothing; whoever waits here has not been cancelled.
            found = [part for poll in done if not poll.cancelled() for part in poll.result()]
            if found or left_ms <= turn_ms or self._is_closed:
                return found

    def _poll(
        self, node_id: int, positions: Mapping[TP, int], max_bytes: int, turn_ms: int
    ) -> asyncio.Task[list[Fetched]]:
        """A task, since the answer comes on its connection whether somebody still wants it or not."""

        async def poll() -> list[Fetched]:
            async with self._turns:
                number = self._free.pop()
                try:
                    return await self._fetch_from(node_id, positions, max_bytes, turn_ms, f"poll {number}")
                finally:
                    self._free.append(number)

        task = asyncio.create_task(poll(), name=f"poll of node {node_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        self._is_closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
