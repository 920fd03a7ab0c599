"""One sync for everybody who waits for one: the price of flush=always is paid per round, not per request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from streamcore.errors import LogOfflineError
from streamcore.types import TP

Sync = Callable[[Iterable[TP]], Awaitable[Mapping[TP, LogOfflineError]]]


class GroupCommit:
    """Rounds of syncs, one at a time.

    A request joins the next round, which syncs every partition that a request of it wrote to. What a round covers was
    appended before it began, so replies leave in the order of the appends.
    """

    def __init__(self, sync: Sync) -> None:
        """`sync` makes everything appended so far to the given partitions durable, and returns those that failed."""
        self._sync = sync
        self._joined: dict[TP, None] = {}
        self._next_round: asyncio.Future[Mapping[TP, LogOfflineError]] | None = None
        self._running: asyncio.Task[None] | None = None

    async def durable(self, tps: Iterable[TP]) -> dict[TP, LogOfflineError]:
        """Until what has been appended to the partitions is on disk.

        Returns:
            The partitions for which that failed, and why.
        """
        wanted = list(tps)
        if not wanted:
            return {}
        loop = asyncio.get_running_loop()
        if self._next_round is None:
            self._next_round = loop.create_future()
        self._joined.update(dict.fromkeys(wanted))
        round_ = self._next_round
        if self._running is None:
            self._running = loop.create_task(self._run(), name="streamcore-group-commit")
        # The round belongs to all who joined: one of them being cancelled must not take it from the others.
        failed = await asyncio.shield(round_)
        return {tp: failed[tp] for tp in wanted if tp in failed}

    async def close(self) -> None:
        """Finish the rounds under way."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        try:
            while self._next_round is not None:
                round_, joined = self._next_round, self._joined
                self._next_round, self._joined = None, {}
                try:
                    round_.set_result(await self._sync(joined))
                except Exception as error:  # whoever waits is told, and the next round is another matter
                    round_.set_exception(error)
                except asyncio.CancelledError:
                    round_.cancel()
                    raise
        finally:
            self._running = None
            if self._next_round is not None:
                self._next_round.cancel()
                self._next_round, self._joined = None, {}
